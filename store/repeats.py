"""Repeated runs: those whose hyperparameters are equal but for a seed are draws of one configuration.

The best of many runs is a lucky draw as often as a good configuration, so whoever names a best one asks here.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from store.hyperparameters import is_output_place, is_seed_name
from store.names import Direction
from store.statuses import FINISHED, RunStatus

_PLAIN = frozenset({int, float, bool, str, type(None)})


class RepeatableRun(Protocol):
    """What is asked of a run; ``RunRecord`` and ``LearningRun`` are such."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def task_id(self) -> str:
        """Its task."""

    @property
    def status(self) -> RunStatus:
        """How it stands."""

    @property
    def objective(self) -> str | None:
        """The metric."""

    @property
    def direction(self) -> str | None:
        """``min`` or ``max``."""

    @property
    def objective_best(self) -> float | None:
        """Its outcome."""

    @property
    def variant(self) -> str | None:
        """Version of the model's source."""

    @property
    def hparams(self) -> Mapping[str, Any]:
        """Canonical name -> value."""


_Run = TypeVar("_Run", bound=RepeatableRun)


@dataclass(frozen=True, slots=True, eq=False)
class Draws(Generic[_Run]):
    """The finished runs of one configuration.

    Attributes:
        runs: All of them, in the order given, at least one.
        values: Outcome of each that has one; a diverged run or one out of memory has none.
    """

    runs: tuple[_Run, ...]
    values: tuple[float, ...]

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.runs)

    @property
    def n_failed(self) -> int:
        """Draws that diverged or ran out of memory."""
        return len(self.runs) - len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean outcome, None without any."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the outcomes; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    def best_run(self) -> _Run:
        """Return the run with the best outcome; the first where none has one."""
        sign = -1.0 if self.runs[0].direction == Direction.MIN else 1.0
        judged = [run for run in self.runs if outcome_of(run) is not None]
        return max(judged, key=lambda run: sign * (outcome_of(run) or 0.0), default=self.runs[0])


def configuration_key(hparams: Mapping[str, Any]) -> Hashable | None:
    """Return what two configurations that differ in seeds, places and names only share; None where nothing else is known of one."""
    named = [
        (name, value if type(value) in _PLAIN else repr(value))
        for name, value in hparams.items()
        if not is_seed_name(name) and not is_output_place(name)
    ]
    return frozenset(named) if named else None


def pooled(runs: Iterable[_Run]) -> list[Draws[_Run]]:
    """Pool finished runs into configurations, in the order of their first runs.

    Runs of other tasks, objectives or versions of the model's source are never draws of one configuration, nor are those of which no
    hyperparameter is known.
    """
    groups: dict[Hashable, list[_Run]] = {}
    for run in runs:
        if run.status in FINISHED:
            key = configuration_key(run.hparams)
            place = run.id if key is None else (run.task_id, run.objective, run.direction, run.variant, key)
            groups.setdefault(place, []).append(run)
    return [Draws(tuple(members), tuple(value for run in members if (value := outcome_of(run)) is not None)) for members in groups.values()]


def best_configuration(draws: Sequence[Draws[_Run]]) -> Draws[_Run] | None:
    """Return the configuration of one task with the best mean outcome, None where none has an outcome."""
    judged = [item for item in draws if item.mean is not None]
    if not judged:
        return None
    sign = -1.0 if judged[0].runs[0].direction == Direction.MIN else 1.0
    return max(judged, key=lambda item: sign * (item.mean or 0.0))


def describe_draws(draws: Draws[_Run]) -> str:
    """Write what a configuration came to: mean, standard deviation and number of draws."""
    if draws.mean is None:
        return ""
    spread = "" if draws.spread is None else f" ± {draws.spread:.2g}"
    failed = f", {draws.n_failed} failed" if draws.n_failed else ""
    return f"{draws.mean:.4g}{spread} ({len(draws)} {'draw' if len(draws) == 1 else 'draws'}{failed})"


def outcome_of(run: RepeatableRun) -> float | None:
    """Return the outcome of a run that ended as it should, None for any other."""
    value = run.objective_best
    is_broken = run.status in (RunStatus.DIVERGED, RunStatus.OOM)
    return None if is_broken or value is None or not math.isfinite(value) else value
