"""What a ``transformers.Trainer`` trains: one description for ``autoconfig`` before the Trainer exists and the callback after.

Both must call these functions with what they have, and get the same identity: otherwise a run would never belong to the task its
recommendation was made for.
"""

from __future__ import annotations

import hashlib
import inspect
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import TrainingArguments

from hf_callbacks.arguments import Hyperparameters, plain_value
from hf_callbacks.model_values import default_config
from hf_callbacks.objective import Objective
from metahp_tuning.task_description import (
    data_sets,
    describe_dataset,
    describe_module,
    model_variant,
    parameter_count,
    preserved_generators,
    preserved_rng,
    pretrained_name,
    sample_count,
)
from metamodel.data.task import TaskDescription
from store.statuses import Source

_LABEL_COLUMNS = frozenset({"label", "label_ids"})
_PEFT_NOISE = frozenset({"base_model_name_or_path", "revision", "inference_mode", "peft_version", "auto_mapping", "runtime_config"})
_N_SAMPLES = 8
"""Samples whose sequence length is looked at."""
_CONFIG_NOISE = frozenset({"transformers_version", "name_or_path", "torch_dtype"})


def describe_task(
    args: TrainingArguments,
    *,
    model: nn.Module | None,
    train_dataset: object,
    eval_dataset: object = None,
    task: str | TaskDescription | None = None,
    objective: Objective,
) -> TaskDescription:
    """Describe what is trained.

    Args:
        args: The training arguments; by them columns the model does not take are dropped or not.
        model: The model, None if it does not exist yet.
        train_dataset: The training data, as given to the Trainer or as its loader holds them.
        eval_dataset: The validation data; describe, do not identify.
        task: Explicit name or description; its identity wins.
        objective: The objective found.

    Returns:
        The description; what could not be read is absent.
    """
    if isinstance(task, TaskDescription):
        if task.objective is not None or objective.name is None:
            return task
        return task.with_objective(objective.name, objective.direction)
    used = None if train_dataset is None else _used(args, train_dataset, model)
    known = describe_dataset(used) if used is not None else {}
    features = {} if used is None or known.get("input_shape") != (-1,) else _sequence_length(data_sets(used)[0])
    known["n_val"] = None if eval_dataset is None else sample_count(eval_dataset)
    if model is not None:
        n_classes = known.get("n_classes") or _labels_of(model)
        known |= {**describe_module(model), "n_classes": n_classes}
        features |= {"trainable_share": trainable_share(model)}
    known["features"] = features
    return replace(TaskDescription(**known), name=task, objective=objective.name, direction=objective.direction)


def describe_model(model: nn.Module | None) -> dict[str, Any]:
    """Return further facts about a model for its run's row: architecture, weights it starts from, what of it is trained."""
    if model is None:
        return {}
    config = getattr(model, "config", None)
    facts = {
        "architecture": getattr(config, "model_type", None),
        "pretrained_name": pretrained_name(model) or None,
        "n_labels": _labels_of(model),
        "n_trainable_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
        "peft_type": next((str(plain_value(item.peft_type)) for item in _peft_configs(model).values()), None),
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
    source += "".join(f" {name}:{plain_value(item.peft_type)}" for name, item in sorted(_peft_configs(model).items()))
    name = pretrained_name(model)
    if not name:
        return source if " " not in source else hashlib.sha256(source.encode()).hexdigest()[:16]
    if os.path.isabs(name) or os.path.isdir(name):
        name = os.path.basename(os.path.normpath(name))
    return hashlib.sha256(f"{source} {name}".encode()).hexdigest()[:16]


def read_model_config(model: nn.Module | None, into: Hyperparameters) -> Hyperparameters:
    """Add the scalars of a model's configuration (layers, width, dropout) to the hyperparameters.

    A name that a training argument has as well is stored as ``config.<name>``.
    """
    _read_peft(model, into)
    config = getattr(model, "config", None)
    if config is None or not hasattr(config, "to_dict"):
        return into
    defaults = default_config(config)
    for name, value in config.to_dict().items():
        if name.startswith("_") or name in _CONFIG_NOISE or not isinstance(value, bool | int | float | str):
            continue
        source = Source.DEFAULT if name in defaults and defaults[name] == value else Source.USER
        into.put(f"config.{name}" if name in into.values else name, value, source)
    return into


def _peft_configs(model: object) -> dict[str, Any]:
    """Return the adapters PEFT put into a model, recognised by their attributes: the package itself is not needed."""
    configs = getattr(model, "peft_config", None)
    return {str(name): item for name, item in configs.items() if hasattr(item, "peft_type")} if isinstance(configs, dict) else {}


def _read_peft(model: object, into: Hyperparameters) -> None:
    """Add the settings of PEFT adapters as ``peft.r``, ``peft.lora_alpha``; of several as ``peft.<adapter>.r``."""
    configs = _peft_configs(model)
    for adapter, config in configs.items():
        prefix = "peft." if len(configs) == 1 else f"peft.{adapter}."
        defaults = getattr(type(config), "__dataclass_fields__", {})
        for name, value in vars(config).items():
            plain = sorted(map(str, value)) if isinstance(value, set | frozenset) else plain_value(value)
            if name.startswith("_") or name in _PEFT_NOISE or not isinstance(plain, bool | int | float | str | list | tuple):
                continue
            default = getattr(defaults.get(name), "default", None)
            into.put(prefix + name, plain, Source.DEFAULT if plain_value(default) == plain else Source.USER)


def _sequence_length(dataset: Any) -> dict[str, float]:
    """Return the longest of a few samples' token sequences, spread over a map-style data set; nothing where they cannot be read."""
    lengths = []
    try:
        n = len(dataset)
        with preserved_rng(), preserved_generators(dataset):
            for index in sorted({n * i // _N_SAMPLES for i in range(_N_SAMPLES)}):
                sample = dataset[index]
                lengths.append(len(sample["input_ids"] if isinstance(sample, Mapping) else sample[0]))
    except Exception:  # a user's data set may be anything
        return {}
    return {"sequence_length": float(max(lengths))} if lengths else {}


def _labels_of(model: nn.Module) -> int | None:
    """Number of classes by the model's head, where it is a classifier; one output is a regression."""
    number = getattr(getattr(model, "config", None), "num_labels", None)
    is_classifier = "Classification" in type(model).__name__
    return number if is_classifier and isinstance(number, int) and number > 1 else None


def _used(args: TrainingArguments, dataset: Any, model: nn.Module | None) -> Any:
    """Drop unused columns, in each data set of a dictionary."""
    if isinstance(dataset, Mapping) and data_sets(dataset)[0] is not dataset:
        return {name: _used_columns(args, part, model) for name, part in dataset.items()}
    return _used_columns(args, dataset, model)


def _used_columns(args: TrainingArguments, dataset: Any, model: nn.Module | None) -> Any:
    """Drop the columns the Trainer will drop, from data sets that have columns: what remains is what its loader shows later."""
    columns = getattr(dataset, "column_names", None)
    if model is None or not args.remove_unused_columns or not isinstance(columns, list) or not hasattr(dataset, "remove_columns"):
        return dataset
    inner: Any = model.get_base_model() if hasattr(model, "peft_config") and hasattr(model, "get_base_model") else model  # type: ignore[operator]
    used = set(inspect.signature(inner.forward).parameters) | _LABEL_COLUMNS | set(args.label_names or ())
    unused = [name for name in columns if name not in used]
    with suppress(Exception):  # a user's data set may only look as if it could do this
        return dataset.remove_columns(unused) if unused else dataset
    return dataset
