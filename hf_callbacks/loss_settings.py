"""What of a training changes the meaning of its loss, so that two runs' losses are comparable only in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn
from transformers import Trainer

from hf_callbacks.trainer_kind import is_users_class
from metahp_tuning.objective_definition import described_loss
from store.names import is_loss_name
from store.values import encode_value, plain_value, same_value

LOSS = "loss"
"""Under which a loss that the arguments do not tell of is kept: a function, a method of a subclass, a module."""

_NEUTRAL = {"label_smoothing_factor": 0.0}
_FIELDS = (
    *("beta", "loss_type", "loss_weights", "label_smoothing", "ld_alpha", "f_divergence_type", "f_alpha_divergence_coef", "use_weighting"),
    *("discopop_tau", "rpo_alpha", "reference_free", "center_rewards_coefficient", "completion_only_loss", "assistant_only_loss"),
    *("router_aux_loss_coef", "desirable_weight", "undesirable_weight", "simpo_gamma", "cpo_alpha"),
)
"""Fields of TRL's arguments that shape a loss; each counts where it is not the default of its class."""


def loss_settings(args: Any, trainer: Trainer | None, objective: str | None) -> dict[str, Any]:
    """Return what changes the meaning of an objective that is a loss, without what is as usual.

    Args:
        args: The training arguments.
        trainer: The Trainer, None before there is one.
        objective: Name of the objective, None where it is not known yet; of an accuracy nothing changes the meaning.
    """
    if objective is not None and not is_loss_name(objective):
        return {}
    found = {}
    for name, neutral in {**_NEUTRAL, **_defaults(type(args))}.items():
        value = getattr(args, name, neutral)
        if not same_value(value, neutral) and not (value in (None, False) and neutral in (None, False)):
            found[name] = plain_value(value)
    loss = None if trainer is None else loss_of(trainer)
    return found if loss is None else {**found, LOSS: loss}


def loss_of(trainer: Trainer) -> str | None:
    """Return the loss that a Trainer has beside its model's own, with the settings it was made with; None where it has none.

    That is a ``compute_loss_func``, a ``compute_loss`` of the user's own subclass, or the module, function or dictionary of
    sentence-transformers.
    """
    given = getattr(trainer, "compute_loss_func", None)
    if callable(given):
        return _described(given)
    owner = next((cls for cls in type(trainer).__mro__ if "compute_loss" in vars(cls)), Trainer)
    if is_users_class(owner):
        return f"{owner.__qualname__}.compute_loss"
    loss = getattr(trainer, "loss", None)
    if isinstance(loss, Mapping):
        return ", ".join(f"{name}: {_described(loss[name])}" for name in sorted(loss))
    return None if loss is None else _described(loss)


def _defaults(cls: type) -> dict[str, Any]:
    fields = getattr(cls, "__dataclass_fields__", {})
    found = {}
    for name in _FIELDS:
        item = fields.get(name)
        if item is not None:
            found[name] = item.default if item.default_factory is dataclasses.MISSING else item.default_factory()
    return found


def _described(loss: Any) -> str:
    if isinstance(loss, nn.Module):
        return described_loss(loss)
    stored = plain_value(loss)
    return stored if isinstance(stored, str) else str(getattr(stored, "text", encode_value(stored)))
