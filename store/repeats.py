"""Repeated runs: those whose hyperparameters are equal but for a seed are draws of one configuration.

The best of many runs is a lucky draw as often as a good configuration, so whoever names a best one asks here. Runs that agree in the seed
and in what came of them as well are the same run again, and one draw.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from store.hyperparameters import is_output_place, is_seed_name
from store.names import Direction, base_metric_name
from store.statuses import FINISHED, RunStatus

DEFINITION_SEPARATOR = "; "
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
    def epochs_reached(self) -> float | None:
        """How long it was."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What is known of its task."""

    @property
    def hparams(self) -> Mapping[str, Any]:
        """Canonical name -> value."""


_Run = TypeVar("_Run", bound=RepeatableRun)


@dataclass(frozen=True, slots=True, eq=False)
class Draws(Generic[_Run]):
    """The finished runs of one configuration.

    Attributes:
        runs: All of them, in the order given, at least one.
        draws: Those of them that are no repetition of another one.
    """

    runs: tuple[_Run, ...]
    draws: tuple[_Run, ...]

    def __len__(self) -> int:
        """Return the number of draws."""
        return len(self.draws)

    @property
    def values(self) -> tuple[float, ...]:
        """Outcome of each draw that has one; a diverged run or one out of memory has none."""
        return tuple(value for run in self.draws if (value := outcome_of(run)) is not None)

    @property
    def n_failed(self) -> int:
        """Draws that diverged or ran out of memory."""
        return len(self.draws) - len(self.values)

    @property
    def mean(self) -> float | None:
        """Mean outcome, None without any."""
        return statistics.fmean(self.values) if self.values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of the outcomes.

        None for fewer than two, and where all are equal and no seed is known: these may be one run again and again.
        """
        is_known = len(set(map(_shown, self.values))) > 1 or all(map(_seeds, self.draws))
        return statistics.stdev(self.values) if len(self.values) > 1 and is_known else None

    def best_run(self) -> _Run:
        """Return the run with the best outcome; the first where none has one."""
        sign = -1.0 if self.runs[0].direction == Direction.MIN else 1.0
        judged = [run for run in self.runs if outcome_of(run) is not None]
        return max(judged, key=lambda run: sign * (outcome_of(run) or 0.0), default=self.runs[0])


def configuration_key(hparams: Mapping[str, Any]) -> Hashable | None:
    """Return what two configurations that differ in seeds, places and names only share; None where nothing else is known of one."""
    named = [(name, _comparable(value)) for name, value in hparams.items() if not is_seed_name(name) and not is_output_place(name)]
    return frozenset(named) if named else None


def definition_of(comparability: Mapping[str, Any]) -> str:
    """Return one text for what changes the meaning of an objective, empty where nothing does; other texts compare only in order."""
    return DEFINITION_SEPARATOR.join(f"{name}={comparability[name]}" for name in sorted(comparability))


def definition_of_run(run: RepeatableRun) -> str:
    """Return the same for the objective of a run."""
    return definition_of(run.description.get("comparability") or {})


def without_repetitions(runs: Iterable[_Run]) -> list[_Run]:
    """Leave out what repeats an earlier run: the same configuration, version and seed, with the same outcome after the same length.

    Where no seed is known, nothing shows that two runs are the same one, and both are kept.
    """
    runs = list(runs)
    results = [(run.status, _shown(outcome_of(run)), run.epochs_reached) for run in runs]
    counts = Counter(results)
    kept: dict[Hashable, _Run] = {}
    for run, result in zip(runs, results, strict=True):
        key: Hashable = run.id
        if counts[result] > 1 and (seeds := _seeds(run)) and (configuration := configuration_key(run.hparams)) is not None:
            key = (*_group(run), configuration, seeds, *result)
        kept.setdefault(key, run)
    return list(kept.values())


def pooled(runs: Iterable[_Run]) -> list[Draws[_Run]]:
    """Pool finished runs into configurations, in the order of their first runs.

    Runs of other tasks, objectives, definitions of the objective or versions of the model's source are never draws of one configuration,
    nor are those of which no hyperparameter is known.
    """
    groups: dict[Hashable, list[_Run]] = {}
    for run in runs:
        if run.status in FINISHED:
            key = configuration_key(run.hparams)
            groups.setdefault(run.id if key is None else (*_group(run), key), []).append(run)
    return [Draws(tuple(members), tuple(without_repetitions(members))) for members in groups.values()]


@dataclass(frozen=True, slots=True, eq=False)
class BestOfTask(Generic[_Run]):
    """What was best in a task, among runs that can be compared by their outcomes.

    Attributes:
        configuration: The best configuration.
        best_run: The best run, a lucky draw or not.
        definition: What changes the meaning of the objective in the group it is of; empty where nothing does.
        n_runs: Runs of that group with an outcome.
        n_others: Those of the task's other groups.
        has_repeats: Whether any configuration of the group was run more than once.
    """

    configuration: Draws[_Run]
    best_run: _Run
    definition: str
    n_runs: int
    n_others: int
    has_repeats: bool


def best_of_task(runs: Iterable[_Run], objective: str | None, direction: str | None) -> BestOfTask[_Run] | None:
    """Return the best configuration of the largest group of runs that mean one thing by the objective; of equal ones the newest.

    Args:
        runs: Of one task, oldest first.
        objective: The metric that counts.
        direction: Its direction.
    """
    wanted = (_base(objective), direction)
    groups: dict[str, list[Draws[_Run]]] = {}
    sizes: dict[str, int] = {}
    newest: dict[str, str] = {}
    for draws in pooled(run for run in runs if (_base(run.objective), run.direction) == wanted):
        definition = definition_of_run(draws.runs[0])
        groups.setdefault(definition, []).append(draws)
        sizes[definition] = sizes.get(definition, 0) + sum(outcome_of(run) is not None for run in draws.runs)
        newest[definition] = max(newest.get(definition, ""), *(run.id for run in draws.runs))
    if not any(sizes.values()):
        return None
    chosen = max(groups, key=lambda definition: (sizes[definition], newest[definition]))
    best = best_configuration(groups[chosen])
    if best is None:
        return None
    members = tuple(run for draws in groups[chosen] for run in draws.runs)
    has_repeats = len(members) > len(groups[chosen])
    return BestOfTask(best, Draws(members, members).best_run(), chosen, sizes[chosen], sum(sizes.values()) - sizes[chosen], has_repeats)


def best_configuration(draws: Sequence[Draws[_Run]]) -> Draws[_Run] | None:
    """Return the configuration of one task with the best mean outcome, None where none has an outcome."""
    judged = [item for item in draws if item.mean is not None]
    if not judged:
        return None
    sign = -1.0 if judged[0].runs[0].direction == Direction.MIN else 1.0
    return max(judged, key=lambda item: sign * (item.mean or 0.0))


def describe_draws(draws: Draws[_Run]) -> str:
    """Write what a configuration came to: mean, standard deviation and number of draws; ``0.81 (the same run twice)`` where it is one."""
    if draws.mean is None:
        return ""
    n, n_runs = len(draws), len(draws.runs)
    if n == 1:
        how = "1 draw" if n_runs == 1 else f"the same run {'twice' if n_runs == 2 else f'{n_runs} times'}"
    elif draws.spread is None and len(draws.values) > 1:
        how = f"{n} runs, all equal"
    else:
        how = f"{n} draws" + (f" in {n_runs} runs" if n_runs > n else "")
    spread = "" if draws.spread is None else f" ± {draws.spread:.2g}"
    failed = f", {draws.n_failed} failed" if draws.n_failed else ""
    return f"{draws.mean:.4g}{spread} ({how}{failed})"


def outcome_of(run: RepeatableRun) -> float | None:
    """Return the outcome of a run that ended as it should, None for any other."""
    value = run.objective_best
    is_broken = run.status in (RunStatus.DIVERGED, RunStatus.OOM)
    return None if is_broken or value is None or not math.isfinite(value) else value


def _seeds(run: RepeatableRun) -> frozenset[tuple[str, Hashable]]:
    seeds = ((name, value) for name, value in run.hparams.items() if is_seed_name(name) and value is not None)
    return frozenset((name, _comparable(value)) for name, value in seeds)


def _comparable(value: Any) -> Hashable:
    return value if type(value) in _PLAIN else repr(value)


def _shown(outcome: float | None) -> str:
    """Write an outcome to six digits: one training in single precision is repeated to no more."""
    return "" if outcome is None else f"{outcome:.6g}"


def _group(run: RepeatableRun) -> tuple[Hashable, ...]:
    return run.task_id, _base(run.objective), run.direction, run.variant, definition_of_run(run)


def _base(objective: str | None) -> str | None:
    return None if objective is None else base_metric_name(objective)
