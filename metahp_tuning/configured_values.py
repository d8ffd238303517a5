"""Dropout and number of layers of a transformers model: its configuration holds them, and its modules have copies.

Which modules a name of the configuration drives is found by building the model twice without memory (on torch's ``meta`` device), once
with another value: the modules that differ are the ones. So ``hidden_dropout_prob`` and ``attention_probs_dropout_prob`` are
distinguished even where both are 0.1, and dropout that a module applies as a function is found as well.
"""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from metahp_tuning.precedence import Setting
from metahp_tuning.random_states import preserved_rng
from store.names import canonical_name, canonical_names
from store.statuses import Source
from store.values import same_value

logger = logging.getLogger(__name__)

_MARKER_RATE = 0.12345678901
"""An unlikely dropout: the modules in which it shows up are driven by the name it was given under."""

ModuleAttribute = tuple[str, str]
"""Path of a module, name of its attribute."""


def is_dropout(name: str, value: object) -> bool:
    """Say whether an entry of a configuration is a probability of dropout."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and "drop" in name.lower() and 0 <= float(value) < 1  # type: ignore[arg-type]


def is_depth(name: str, value: object) -> bool:
    """Say whether an entry of a configuration is a number of layers."""
    is_count = isinstance(value, int) and not isinstance(value, bool) and value > 0
    return is_count and (canonical_name(name) == "num_layers" or name in {"num_decoder_layers", "encoder_layers", "decoder_layers"})


def model_settings(model: object) -> dict[str, Setting]:
    """Return what of a transformers model's configuration can be tuned: canonical name -> value and who chose it."""
    base = base_model(model)
    if base is None:
        return {}
    values = {name: value for name, value in config_values(base.config).items() if is_dropout(name, value) or is_depth(name, value)}
    names, defaults = canonical_names(list(values)), default_config(base.config)
    return {
        names[raw]: Setting(raw, value, Source.DEFAULT if raw in defaults and same_value(defaults[raw], value) else Source.USER)
        for raw, value in values.items()
    }


def base_model(model: Any) -> Any:
    """Return the transformers model behind a model, unwrapped from PEFT; None where there is none."""
    if hasattr(model, "peft_config") and hasattr(model, "get_base_model"):
        model = model.get_base_model()
    transformers = sys.modules.get("transformers")  # whoever has one of its models has imported it
    return model if transformers is not None and isinstance(model, transformers.PreTrainedModel) else None


def config_values(config: Any) -> dict[str, Any]:
    """Return the values of a configuration, empty where it has none or cannot be read."""
    try:
        return dict(config.to_dict())
    except Exception:  # a user's own configuration may be anything
        return {}


def default_config(config: Any) -> dict[str, Any]:
    """Return the defaults of a configuration: those of its class, and over them what the checkpoint holds that it was loaded from.

    A class that cannot be made without arguments has none, nor has a checkpoint that does not lie on this machine.
    """
    found: dict[str, Any] = {}
    with suppress(Exception):  # a user's own configuration may need arguments; then no value is known to be a default
        found = dict(type(config)().to_dict())
    name = getattr(config, "_name_or_path", "")
    with suppress(Exception):  # a checkpoint may be gone
        found |= type(config).get_config_dict(name, local_files_only=True)[0] if name else {}
    return found


def with_values(model: Any, values: Mapping[str, Any]) -> Any:
    """Return a model with other values: dropout in place, another number of layers as a new model.

    Raises:
        ValueError: If the model cannot be built with these values.
    """
    base = base_model(model)
    if base is None:
        raise ValueError(f"{type(model).__name__} is no transformers model")
    if any(is_depth(name, value) and getattr(base.config, name) != value for name, value in values.items()):
        return type(base)(_changed_config(base.config, values))
    for name, value in values.items():
        for path, attribute in attributes_of(base, name):
            setattr(base.get_submodule(path), attribute, value)
        for module in base.modules():
            config = getattr(module, "config", None)
            if config is not None and hasattr(config, name):
                setattr(config, name, value)
    return model


def read_model_value(model: object, name: str) -> Any:
    """Read back the dropout or number of layers in force under a name of the configuration; None where the modules disagree with it."""
    base = base_model(model)
    value = getattr(base.config, name, None) if base is not None else None
    if base is None or value is None:
        return None
    if is_depth(name, value):
        skeleton = skeleton_of(base, {})
        is_same = skeleton is not None and {n for n, _ in skeleton.named_parameters()} == {n for n, _ in base.named_parameters()}
        return value if is_same or base is not model else None
    found = [getattr(base.get_submodule(path), attribute) for path, attribute in attributes_of(base, name)]
    return found[0] if found and all(same_value(item, found[0]) for item in found) else (None if found else value)


def attributes_of(model: Any, name: str) -> list[ModuleAttribute]:
    """Return where in a model's modules a dropout of its configuration ended up."""
    plain, marked = skeleton_of(model, {}), skeleton_of(model, {name: _MARKER_RATE})
    if plain is None or marked is None:
        return []
    before = dict(plain.named_modules())
    return [
        (path, attribute)
        for path, module in marked.named_modules()
        if path in before
        for attribute, value in vars(module).items()
        if isinstance(value, float) and value == _MARKER_RATE and vars(before[path]).get(attribute) != _MARKER_RATE
    ]


def skeleton_of(model: Any, values: Mapping[str, Any]) -> nn.Module | None:
    """Build a model of the same class and configuration, but for some values, without weights; None where that is not possible."""
    try:
        with preserved_rng(), torch.device("meta"):
            built = type(model)(_changed_config(model.config, values))
    except Exception as error:  # a user's own class may need more than a configuration
        logger.debug("%s cannot be built from its configuration: %s", type(model).__name__, error)
        return None
    return built if isinstance(built, nn.Module) else None


def _changed_config(config: Any, values: Mapping[str, Any]) -> Any:
    changed = copy.deepcopy(config)
    for name, value in values.items():
        setattr(changed, name, value)
    return changed
