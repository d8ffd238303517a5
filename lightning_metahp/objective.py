"""Which metric a run is judged by, from the surest source to the least.

1. The argument. 2. What ``ModelCheckpoint`` or ``EarlyStopping`` monitors. 3. A torchmetrics object among what was logged, if
exactly one says which direction is better. 4. The names that were logged: the one metric that is no loss, else the loss. The last
two are known only after the first validation. Else there is none, with one warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer

from lightning_metahp.trainer_internals import is_kind
from store.errors import ObjectiveError
from store.names import Direction, infer_direction, resolve_direction

_CLOCKS = frozenset({"step", "epoch", "global_step"})
"""Monitored to keep the newest checkpoint; no measure of quality."""


PER_LOADER = "/dataloader_idx_"
"""What Lightning puts between a metric's name and the number of its loader where there are several."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and which way is better; ``doubt`` says what the user should look at."""

    name: str
    direction: Direction
    doubt: str | None = None


def objective_before_training(trainer: Trainer, objective: str | None, direction: str | None) -> Objective | None:
    """Find the objective from what is known before anything is logged.

    Args:
        trainer: The trainer with its callbacks.
        objective: The user's choice, None to look for one.
        direction: ``min`` or ``max``, None to find it.

    Raises:
        ObjectiveError: If the direction is not a direction, or cannot be known for the objective given.
    """
    monitored = _monitored(trainer)
    if objective is None:
        if not monitored:
            return None
        found = monitored[0]
        return found if direction is None else Objective(found.name, resolve_direction(found.name, direction))
    return Objective(objective, resolve_direction(objective, direction))


def objective_from_logged(logged: Mapping[str, Any], direction: str | None = None) -> Objective | None:
    """Find the objective among the names that one validation logged.

    Args:
        logged: Name -> metric object behind it, None where a plain number was logged.
        direction: The user's choice, None to find it.

    Returns:
        The objective, or None where no name is well known or several compete.
    """
    logged = {name: metric for name, metric in logged.items() if PER_LOADER not in name or name.endswith(f"{PER_LOADER}0")}
    measured = {
        name: _direction(metric.higher_is_better)
        for name, metric in logged.items()
        if isinstance(getattr(metric, "higher_is_better", None), bool)
    }
    known = {name: found for name in logged if (found := infer_direction(name)) is not None}
    name = _only(measured) or _best_known(known)
    if name is None:
        return None
    return Objective(name, resolve_direction(name, direction) if direction else measured.get(name) or known[name])


def no_objective_message(logged: Mapping[str, Any]) -> str:
    """Say that a run has no objective, with what could be one."""
    names = ", ".join(sorted(logged)) or "nothing"
    return (
        f"metahp: an objective could not be found among what was logged ({names}); the run is kept, but nothing can be learned "
        "from it. Pass one of these names: MetaHPCallback('val_loss') or MetaHPCallback('my_metric', 'max')."
    )


def _best_known(known: Mapping[str, Direction]) -> str | None:
    """A metric logged beside the loss is what its user looks at; several of them leave only the loss in common."""
    quality = {name for name in known if "loss" not in name.lower()}
    losses = {name for name in known if name not in quality}
    return _only(quality) or _only(losses)


def _only(names: Any) -> str | None:
    """Return the single name; a metric logged under two forks (``acc`` and ``acc_epoch``) is one."""
    roots = sorted({name for name in names if not (name.endswith("_epoch") and name.removesuffix("_epoch") in names)})
    return roots[0] if len(roots) == 1 else None


def _monitored(trainer: Trainer) -> list[Objective]:
    """Checkpoints first: which weights are kept is the stronger statement."""
    callbacks = sorted(
        (callback for callback in trainer.callbacks if is_kind(callback, "ModelCheckpoint", "EarlyStopping")),  # type: ignore[attr-defined]
        key=lambda callback: is_kind(callback, "EarlyStopping"),
    )
    found = []
    for callback in callbacks:
        if callback.monitor is None or callback.monitor in _CLOCKS:
            continue
        direction = resolve_direction(callback.monitor, callback.mode)
        inferred = infer_direction(callback.monitor)
        doubt = None
        if inferred is not None and inferred is not direction:
            doubt = (
                f"metahp: {type(callback).__name__}(monitor={callback.monitor!r}, mode={callback.mode!r}) contradicts its name, for "
                f"which {inferred.value!r} would be right; {callback.mode!r} is used. Set mode={inferred.value!r}, or pass direction "
                "to metahp."
            )
        found.append(Objective(callback.monitor, direction, doubt))
    return found


def _direction(is_higher_better: bool) -> Direction:
    return Direction.MAX if is_higher_better else Direction.MIN


def check_objective(objective: str | None, direction: str | None) -> str | None:
    """Return a user's direction checked, so that a mistake shows where it was written and not after an hour.

    Raises:
        ObjectiveError: If it is neither ``min`` nor ``max``, or is left out for an objective whose name does not say it.
    """
    if direction is not None:
        try:
            return resolve_direction("objective", direction).value
        except ObjectiveError:
            raise ObjectiveError(f"A direction must be 'min' or 'max', but got {direction!r}. Pass one of the two.") from None
    if objective is not None:
        resolve_direction(objective, None)
    return None
