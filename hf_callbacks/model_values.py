"""A model's own values in a Trainer: which can still be changed, and how they get into a model that ``model_init`` builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from metahp_tuning.configured_values import attributes_of, base_model, is_depth, model_settings, skeleton_of, with_values
from metahp_tuning.precedence import Setting
from store.statuses import Source

NOT_REBUILT = "the model cannot be built from its configuration only, so it is unknown which modules use the value"


def trainer_model_settings(trainer: Any) -> dict[str, Setting]:
    """Return what of the configuration of a Trainer's model can be tuned, with the values that its next training builds it with."""
    built = trainer.model_init.values if isinstance(trainer.model_init, RebuiltModel) else {}
    return {
        name: Setting(setting.raw_name, built[setting.raw_name], Source.USER) if setting.raw_name in built else setting
        for name, setting in model_settings(trainer.model).items()
    }


def fixed_model_values(model: Any, model_init: object, pretrained: str) -> dict[str, str]:
    """Return which of these can no longer be changed: canonical name -> why; ``pretrained`` names the weights it starts from."""
    base = base_model(model)
    found: dict[str, str] = {}
    if base is None:
        return found
    for name, setting in model_settings(model).items():
        if is_depth(setting.raw_name, setting.value):
            if pretrained:
                found[name] = f"the weights come from {pretrained}, which fixes the layers"
            elif base is not model or any(not parameter.requires_grad for parameter in base.parameters()):
                found[name] = "parts of the model are frozen or wrapped, which a model built anew would not be"
            elif model_init is None:
                found[name] = "the model is built already; pass model_init= to the Trainer instead of a model"
            elif skeleton_of(base, {}) is None:
                found[name] = NOT_REBUILT
        elif not attributes_of(base, setting.raw_name):
            found[name] = NOT_REBUILT if skeleton_of(base, {}) is None else "no module of the model uses it"
    return found


def set_model_values(trainer: Any, values: Mapping[str, Any]) -> None:
    """Give a Trainer's model other values: now where it is built already, and each time ``model_init`` builds it.

    Raises:
        ValueError: If the model cannot be built with these values.
    """
    if not values:
        return
    if trainer.model_init is None:
        with_values(trainer.model, values)
        return
    original: Callable[..., Any] = trainer.model_init
    if isinstance(trainer.model_init, RebuiltModel):
        original, values = trainer.model_init.original, {**trainer.model_init.values, **values}
    base = base_model(trainer.model)
    if base is None or skeleton_of(base, values) is None:
        raise ValueError(f"{type(trainer.model).__name__} cannot be built with {dict(values)}")
    trainer.model_init = RebuiltModel(original, values)


class RebuiltModel:
    """A ``model_init`` that gives the user's model with other values; a trial of a search gets what the user's own function gives."""

    def __init__(self, original: Callable[..., Any], values: Mapping[str, Any]) -> None:
        self.original = original
        self.values = dict(values)

    def __call__(self, trial: Any) -> Any:
        """Build a model; ``trial`` is None outside of a search."""
        model = self.original(trial) if len(inspect.signature(self.original).parameters) > 0 else self.original()
        return model if trial is not None else with_values(model, self.values)
