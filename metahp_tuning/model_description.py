"""What transformers and PEFT leave on a model: the weights it starts from, its adapters, how much of it is trained.

Everything is recognised by attributes, so that neither package is needed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from enum import Enum
from typing import Any

from torch import nn

from metahp_tuning.class_source import model_variant
from metahp_tuning.task_description import parameter_count, pretrained_name
from store.values import same_value

_NOT_SETTINGS = frozenset({"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "runtime_config"})


def describe_model(model: nn.Module | None) -> dict[str, Any]:
    """Return further facts about a model for its run's row: architecture, weights it starts from, what of it is trained."""
    if model is None:
        return {}
    config = getattr(model, "config", None)
    facts = {
        "architecture": getattr(config, "model_type", None),
        "pretrained_name": pretrained_name(model) or None,
        "n_labels": label_count(model),
        "n_trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "peft_type": next((str(_plain(item.peft_type)) for item in _adapters(model).values()), None),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def trainable_share(model: nn.Module) -> float:
    """Return the share of a model's parameters that are trained, in [0, 1]."""
    total = parameter_count(model)
    return sum(p.numel() for p in model.parameters() if p.requires_grad) / total if total else 1.0


def describe_variant(model: nn.Module) -> str:
    """Return a fingerprint of the model's source and of the weights it starts from.

    Two checkpoints of one class start from different places: related evidence, not exact observations. Only the last part of a
    local path enters, since the rest differs between machines.
    """
    source = model_variant(model)
    # Adapters learn at other rates than whole models do.
    source += "".join(f" {name}:{_plain(item.peft_type)}" for name, item in sorted(_adapters(model).items()))
    name = pretrained_name(model)
    if not name:
        return source if " " not in source else hashlib.sha256(source.encode()).hexdigest()[:16]
    if os.path.isabs(name) or os.path.isdir(name):
        name = os.path.basename(os.path.normpath(name))
    return hashlib.sha256(f"{source} {name}".encode()).hexdigest()[:16]


def adapter_settings(model: object) -> Iterator[tuple[str, Any, bool]]:
    """Yield the settings of PEFT adapters as name, value, and whether it is the default.

    Names are ``peft.r``, ``peft.lora_alpha``; of several adapters ``peft.<adapter>.r``.
    """
    configs = _adapters(model)
    for adapter, config in configs.items():
        prefix = "peft." if len(configs) == 1 else f"peft.{adapter}."
        fields = getattr(type(config), "__dataclass_fields__", {})
        for name, value in vars(config).items():
            plain = sorted(map(str, value)) if isinstance(value, set | frozenset) else _plain(value)
            if name.startswith("_") or name in _NOT_SETTINGS or not isinstance(plain, bool | int | float | str | list | tuple):
                continue
            yield prefix + name, plain, same_value(_plain(getattr(fields.get(name), "default", None)), plain)


def label_count(model: nn.Module) -> int | None:
    """Return the number of classes by the model's head, where it is a classifier; one output is a regression."""
    number = getattr(getattr(model, "config", None), "num_labels", None)
    is_classifier = "Classification" in type(model).__name__
    return number if is_classifier and isinstance(number, int) and number > 1 else None


def _adapters(model: object) -> dict[str, Any]:
    """Return the adapters PEFT put into a model, recognised by their attributes: the package itself is not needed."""
    configs = getattr(model, "peft_config", None)
    return {str(name): item for name, item in configs.items() if hasattr(item, "peft_type")} if isinstance(configs, dict) else {}


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value
