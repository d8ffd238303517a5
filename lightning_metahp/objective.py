"""Which metric a run is judged by, from the surest source to the least.

1. The argument. 2. What ``ModelCheckpoint`` or ``EarlyStopping`` monitors. 3. A torchmetrics object among what was logged, if
exactly one says which direction is better. 4. The names that were logged: the one metric that is no loss, else the loss. The last
two are known only after the first validation. Else there is none, with one warning.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import Trainer

from lightning_metahp.trainer_internals import is_kind
from store.errors import ObjectiveError
from store.metric_hints import as_arguments, listed, no_outcome_unless_later, usable_metrics
from store.names import Direction, base_metric_name, infer_direction, resolve_direction

_CLOCKS = frozenset({"step", "epoch", "global_step"})
"""Monitored to keep the newest checkpoint; no measure of quality."""


PER_LOADER = "/dataloader_idx_"
"""What Lightning puts between a metric's name and the number of its loader where there are several."""


@dataclass(frozen=True, slots=True)
class Objective:
    """A metric and which way is better.

    Attributes:
        name: Its base name: ``val_loss`` of ``val_loss_epoch`` and ``val_loss/dataloader_idx_0``.
        direction: Which way is better.
        doubt: What the user should look at.
        spelling: The name that was asked for or logged.
        monitor: Class of the callback that monitors it, None where it was found otherwise.
    """

    name: str
    direction: Direction
    doubt: str | None = None
    spelling: str | None = None
    monitor: str | None = None

    @property
    def further_loader(self) -> str | None:
        """Which validation loader measures it, where another than the first was asked for."""
        _, found, number = (self.spelling or "").partition(PER_LOADER)
        return f"dataloader_idx_{number}" if found and number != "0" else None

    def among(self, names: Iterable[str]) -> str | None:
        """Return the name whose value is this objective's, None where none is.

        The fork or loader that was asked for comes first, then the mean of an epoch, the name itself, the first loader, a single step.
        """
        loader = self.further_loader
        found = [name for name in names if base_metric_name(name) == self.name and (loader is None or name.endswith(f"/{loader}"))]
        return min(found, key=self._rank, default=None)

    def _rank(self, name: str) -> tuple[bool, bool, bool, bool, int, str]:
        stem, _, number = name.partition(PER_LOADER)
        is_asked = self.spelling != self.name and name == self.spelling
        return not is_asked, stem.endswith("_step"), not stem.endswith("_epoch"), stem != self.name, int(number or 0), name


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
        return found if direction is None else replace(found, direction=resolve_direction(found.name, direction), doubt=None)
    return named_objective(objective, direction)


def named_objective(name: str, direction: str | None) -> Objective:
    """Return the objective that somebody named.

    Raises:
        ObjectiveError: If the direction is not a direction, or cannot be known.
    """
    return Objective(base_metric_name(name), resolve_direction(name, direction), spelling=name)


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
        base_metric_name(name): _direction(metric.higher_is_better)
        for name, metric in logged.items()
        if isinstance(getattr(metric, "higher_is_better", None), bool)
    }
    known = {base: found for base in map(base_metric_name, logged) if (found := infer_direction(base)) is not None}
    name = _only(measured) or _best_known(known)
    if name is None:
        return None
    return Objective(name, resolve_direction(name, direction) if direction else measured.get(name) or known[name])


def no_objective_message(logged: Mapping[str, Any], *, is_over: bool = False) -> str:
    """Say that a run has no objective, with what could be one, or how one is logged.

    Args:
        logged: Names logged so far, with their values.
        is_over: Whether the training is over.
    """
    names = usable_metrics(logged)
    lost = "the run is kept, but nothing can be learned from it" if is_over else no_outcome_unless_later("one is logged")
    if not names:
        return f"metahp: nothing was logged that a run can be judged by; {lost}. {_HOW_TO_LOG}"
    return (
        f"metahp: an objective could not be found among what was logged ({listed(names)}); {lost}. "
        f"Name the one that decides: {as_arguments(names[0])}."
    )


def missing_objective_message(objective: Objective, logged: Mapping[str, Any], when: str) -> str:
    """Say that the objective was not logged so far, with the metrics that were.

    Args:
        objective: The objective.
        logged: Names logged so far, with their values.
        when: Until when it was not, e.g. ``by the first validation``.
    """
    asked = objective.spelling or objective.name
    names = usable_metrics(logged, objective.name)
    if objective.further_loader is not None and any(base_metric_name(name) == objective.name for name in logged):
        names.insert(0, objective.name)
    start = f"metahp: the objective {asked!r} was not logged {when}; {no_outcome_unless_later('it is logged')}. "
    if not names:
        return f"{start}Nothing else was that a run can be judged by. {_HOW_TO_LOG}"
    way = as_arguments(names[0])
    if objective.monitor is not None:
        way = f"monitor={names[0]!r} for {objective.monitor}, or {way}"
    return f"{start}Logged so far: {listed(names)}. Log it, or choose another: {way}."


_HOW_TO_LOG = "Call self.log('val_loss', loss) in validation_step, or self.log('train_loss', loss, on_epoch=True) in training_step."


def _best_known(known: Mapping[str, Direction]) -> str | None:
    """A metric logged beside the loss is what its user looks at; several of them leave only the loss in common."""
    quality = {name for name in known if "loss" not in name.lower()}
    losses = {name for name in known if name not in quality}
    return _only(quality) or _only(losses)


def _only(names: Collection[str]) -> str | None:
    return next(iter(names)) if len(names) == 1 else None


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
        kind = type(callback).__name__
        found.append(Objective(base_metric_name(callback.monitor), direction, doubt, spelling=callback.monitor, monitor=kind))
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
