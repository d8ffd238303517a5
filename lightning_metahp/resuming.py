"""A run that resumes another follows what that one followed: its recommendation is applied again, and nothing is predicted."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lightning_metahp import dropout
from lightning_metahp.applying import SAFE_NAMES
from lightning_metahp.asking import typed
from lightning_metahp.deciding import Plan, Request
from lightning_metahp.host import Resume
from lightning_metahp.settings import TRAINER_FIELDS
from metahp_tuning.messages import describe_change
from metahp_tuning.precedence import Change, Setting
from metamodel.explanation import format_value
from store.names import canonical_name
from store.statuses import Source
from store.switches import pinned_recommendation
from store.values import same_value

_log = logging.getLogger(__name__)

_OPTIMIZED = frozenset({"learning_rate", "weight_decay", "momentum"})
"""Names whose value is part of the optimizer's state, which a resumed run loads."""

_LENGTH = frozenset({"num_epochs", "max_steps"})
"""How long to train is no state of a checkpoint: to train longer is what many resume for."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """What a checkpoint says of the run it comes from.

    Attributes:
        path: The checkpoint.
        state: What our callback saved: run, recommendation, and what was rewritten from what to what.
        hparams: Hyperparameters of the module, by raw name.
        is_complete: Whether the checkpoint could be read; else only its path is known.
    """

    path: str
    state: Mapping[str, Any] = field(default_factory=dict)
    hparams: Mapping[str, Any] = field(default_factory=dict)
    is_complete: bool = True


def our_state(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a callback of ours saved in a checkpoint, empty if none did."""
    states = checkpoint.get("callbacks") or {}
    for key, state in states.items():
        if str(key).startswith("MetaHP") and isinstance(state, Mapping) and state.get("run_id"):
            return dict(state)
    return {}


def from_checkpoint(path: str, checkpoint: Mapping[str, Any]) -> Earlier:
    """Return what a loaded checkpoint says."""
    return Earlier(path, our_state(checkpoint), dict(checkpoint.get("hyper_parameters") or {}))


def read_checkpoint(resume: Resume) -> Earlier:
    """Read what is needed of a checkpoint before the Trainer loads it; weights are mapped, not read.

    Objects other than plain values are loaded only where the running call loads them itself.
    """
    path = Path(str(resume.path))
    if not path.is_file():  # a remote or sharded checkpoint: the Trainer hands it to us once it has loaded it
        return Earlier(str(resume.path), is_complete=False)
    for weights_only in (True, False) if resume.weights_only is False else (True,):
        try:
            return from_checkpoint(str(path), torch.load(path, map_location="cpu", mmap=True, weights_only=weights_only))
        except Exception as error:  # whatever is wrong with it, the Trainer will say so when it loads it
            _log.debug("the checkpoint %s could not be read before the start: %s", path, error)
    return Earlier(str(path), is_complete=False)


def plan_resumed(request: Request, earlier: Earlier) -> Plan:
    """Plan what has to be written so that a resumed run goes on with what it had.

    Args:
        request: The request of the running call.
        earlier: What the checkpoint says.
    """
    values: Mapping[str, Any] = earlier.state.get("values") or {}
    requested: Mapping[str, Any] = earlier.state.get("requested") or {}
    settings = _all_settings(request)
    changes: list[Change] = []
    notes: list[str] = []
    for raw, new in values.items():
        name = canonical_name(raw)
        setting = settings.get(name)
        if setting is None:
            notes.append(f"{raw} was {format_value(new)} and no longer exists")
            continue
        if same_value(setting.value, new):
            continue
        is_users = setting.source is Source.USER and not same_value(setting.value, requested.get(raw))
        if is_users and name in _LENGTH:
            notes.append(f"{raw} is {format_value(setting.value)}, as you ask now; the recommendation had {format_value(new)}")
            continue
        if not earlier.is_complete and name not in SAFE_NAMES and not dropout.is_rate_name(raw):
            notes.append(f"{raw} stays {format_value(setting.value)}: it may change a shape, and the layers exist already")
            continue
        if is_users:
            notes.append(f"{raw}={format_value(setting.value)} of this call is not used: the run goes on with {format_value(new)}")
        changes.append(typed(Change(name, setting.raw_name, setting.value, new, Source.RESUME, "the run it resumes had it")))
    notes += _optimizer_conflicts(settings, earlier, {change.name for change in changes})
    followed = earlier.state.get("recommendation_id")
    if pinned_recommendation() not in (None, followed):
        notes.append("METAHP_PIN is not used on a resumed run")
    return Plan(followed, tuple(changes), _message(earlier.path, followed, changes, notes))


def _all_settings(request: Request) -> dict[str, Setting]:
    settings = {name: setting for name, setting in request.settings.items()}
    told = request.around.told
    for name, argument in TRAINER_FIELDS.items():
        settings.setdefault(name, told[argument])
    if "dropout" not in settings and dropout.rates(request.module):
        settings["dropout"] = Setting("dropout", dropout.rates(request.module)[0])
    return settings


def _optimizer_conflicts(settings: Mapping[str, Setting], earlier: Earlier, rewritten: set[str]) -> list[str]:
    notes = []
    for raw, value in earlier.hparams.items():
        name = canonical_name(str(raw))
        setting = settings.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if name in _OPTIMIZED and name not in rewritten and setting is not None and is_number and not same_value(setting.value, value):
            notes.append(
                f"{raw} is {format_value(setting.value)} in this call and {format_value(value)} in the checkpoint, whose optimizer state "
                "is loaded: training goes on with the latter"
            )
    return notes


def _message(path: str, followed: str | None, changes: list[Change], notes: list[str]) -> str:
    if changes:
        first = f"metahp: {', '.join(describe_change(change) for change in changes)}, as in the run that is resumed from {path}"
    else:
        first = f"metahp: nothing changed; the run resumes from {path}, and a resumed run keeps its values"
    lines = [first + (f" (it followed recommendation {followed})" if followed else "")]
    return "\n".join(lines + [f"  {note}" for note in notes])
