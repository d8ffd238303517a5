"""The figures of a comparison: per task and method over seeds, and per method over tasks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from metahp_report.comparison.records import ComparisonPlan, Evaluation, MethodStanding, SearchResult, Spread, TaskInfo, TaskMethodSummary
from metamodel.kinds import DEFAULT as OURS
from store.hyperparameters import GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE
from store.names import canonical_name

FloatArray = npt.NDArray[np.float64]

AS_GOOD_TOLERANCE = 0.01
"""A value within 1 % of another, measured by that one's size, is as good."""
BASELINES = ("grid", "random")
NOT_MEASURED = "not measured"
HOUR_S = 3600.0


def summaries_of(plan: ComparisonPlan, tasks: Mapping[str, TaskInfo], searches: Sequence[SearchResult]) -> list[TaskMethodSummary]:
    """Return a line for each task and method that has an evaluation."""
    found = []
    for task in plan.tasks:
        of_task = [search for search in searches if search.task == task]
        for method in plan.methods:
            mine = [search for search in of_task if search.method == method]
            if mine:
                found.append(_summary(plan, tasks[task], mine, of_task))
    return found


def _summary(plan: ComparisonPlan, info: TaskInfo, mine: Sequence[SearchResult], of_task: Sequence[SearchResult]) -> TaskMethodSummary:
    direction, method = info.direction, mine[0].method

    def over(figure: Callable[[SearchResult], float | None]) -> Spread:
        return Spread.of([figure(search) for search in mine])

    def others(search: SearchResult) -> list[SearchResult]:
        return [other for other in of_task if other.seed == search.seed]

    def converged(search: SearchResult) -> Evaluation | None:
        best = best_evaluation(others(search), direction)
        return None if best is None or best.value is None else first_as_good(search, best.value, direction)

    baselines = [name for name in BASELINES if name in plan.methods and name != method]
    return TaskMethodSummary(
        task=info.name,
        method=method,
        best=over(lambda search: _best_of_any_epoch(search, direction)),
        final=over(lambda search: None if search.best is None else search.best.value),
        test={name: over(lambda search, name=name: search.test.get(name)) for name in info.metrics},  # type: ignore[misc]
        evaluations=over(lambda search: float(len(search.evaluations))),
        failed=over(lambda search: float(sum(item.value is None for item in search.evaluations))),
        seconds=over(lambda search: search.seconds),
        decision_s=over(lambda search: sum(item.decision_s for item in search.evaluations)),
        convergence_evaluations=over(lambda search: _then(converged(search), lambda item: item.index + 1.0)),
        convergence_s=over(lambda search: _then(converged(search), lambda item: item.elapsed_s)),
        n_converged=sum(converged(search) is not None for search in mine),
        best_at_common_seconds=over(lambda search: _best_after(search, common_seconds(others(search)), direction)),
        cpu_hours=over(lambda search: _total(item.cpu_s for item in search.evaluations)),
        gpu_hours=over(lambda search: _total(item.gpu_s for item in search.evaluations)),
        gpu_percent=over(lambda search: _mean(item.gpu_percent for item in search.evaluations)),
        energy_j=over(_joules),
        energy_source=_energy_source(mine, plan.jobs),
        reduction={name: over(lambda search, name=name: _reduction(search, others(search), name, direction)) for name in baselines},  # type: ignore[misc]
        first_error=_errors(mine, others, direction, lambda search: search.evaluations[0].config),
        chosen_error=_errors(mine, others, direction, lambda search: None if search.best is None else search.best.config),
    )


def standings_of(plan: ComparisonPlan, tasks: Mapping[str, TaskInfo], searches: Sequence[SearchResult]) -> list[MethodStanding]:
    """Return how the methods that have finished everything stand over all tasks and seeds."""
    from metahp_report.statistics import bootstrap_intervals, mean_ranks, paired_difference

    done = {(search.task, search.method, search.seed): search for search in searches if search.is_complete}
    cells = [(task, seed) for task in plan.tasks for seed in range(plan.seeds)]
    methods = [method for method in plan.methods if all((task, method, seed) in done for task, seed in cells)]
    if not methods:
        return []
    table = {method: np.zeros((len(plan.tasks), plan.seeds, plan.budget)) for method in methods}
    for task, seed in cells:
        everyone = [search for search in searches if search.task == task and search.seed == seed]
        for method in methods:
            curve = regret_curve(done[task, method, seed], everyone, tasks[task].direction, plan.budget)
            table[method][plan.tasks.index(task), seed] = curve
    over_seeds = {name: values.mean(axis=1) for name, values in table.items()}
    intervals, ranks = bootstrap_intervals(over_seeds), mean_ranks(table)
    found = []
    for name in methods:
        difference = paired_difference(over_seeds[OURS], over_seeds[name]) if OURS in over_seeds and name != OURS else None
        found.append(
            MethodStanding(
                name,
                _floats(over_seeds[name].mean(axis=0)),
                _pairs(intervals[name]),
                _floats(ranks[name]),
                None if difference is None else _floats(difference[0]),
                None if difference is None else _pairs(difference[1]),
            )
        )
    return found


def regret_curve(search: SearchResult, everyone: Sequence[SearchResult], direction: str, budget: int) -> FloatArray:
    """Return the normalised regret after each evaluation, shape ``(budget,)``; a search that ended early keeps what it has.

    Args:
        search: The search.
        everyone: Every search on the same task with the same seed; they set the scale.
        direction: ``min`` or ``max``.
        budget: Length of the curve.
    """
    sign = 1.0 if direction == "min" else -1.0
    losses = np.array([sign * item.value for other in everyone for item in other.evaluations if item.value is not None])
    if not len(losses):
        return np.ones(budget)
    low, middle = float(losses.min()), float(np.median(losses))
    # Where most evaluations are as good as the best, the worst sets the scale.
    span = middle - low if middle > low else float(losses.max()) - low
    curve = [
        1.0 if value is None else min(1.0, (sign * value - low) / span) if span > 0 else 0.0 for value in search.best_so_far(direction)
    ]
    return np.array((curve + curve[-1:] * budget)[:budget], dtype=np.float64)


def best_evaluation(searches: Iterable[SearchResult], direction: str) -> Evaluation | None:
    """Return the evaluation with the best validation value."""
    found = [item for search in searches for item in search.evaluations if item.value is not None]
    sign = 1.0 if direction == "min" else -1.0
    return min(found, key=lambda item: sign * (item.value or 0.0)) if found else None


def is_as_good(value: float, target: float, direction: str) -> bool:
    """Say whether a value is better than a target, or within 1 % of it."""
    slack = AS_GOOD_TOLERANCE * abs(target)
    return value <= target + slack if direction == "min" else value >= target - slack


def first_as_good(search: SearchResult, target: float, direction: str) -> Evaluation | None:
    """Return the first evaluation that is as good as a target."""
    return next((item for item in search.evaluations if item.value is not None and is_as_good(item.value, target, direction)), None)


def common_seconds(searches: Sequence[SearchResult]) -> float | None:
    """Return the seconds that every search of more than one evaluation had; None if there is none."""
    return min((search.seconds for search in searches if len(search.evaluations) > 1), default=None)


def distance(name: str, left: Any, right: Any) -> float | None:
    """Return how far two values of a hyperparameter are apart: log10 of a learning rate, log2 of a batch size, else absolute."""
    if left is None or right is None:
        return None
    if isinstance(left, str) or isinstance(right, str):
        return float(left != right)
    if name == "learning_rate":
        return abs(math.log10(left / right))
    if canonical_name(name) in (PER_DEVICE_BATCH_SIZE, GLOBAL_BATCH_SIZE):
        return abs(math.log2(left / right))
    return float(abs(left - right))


def _errors(
    mine: Sequence[SearchResult],
    others: Callable[[SearchResult], list[SearchResult]],
    direction: str,
    recommended: Callable[[SearchResult], Mapping[str, Any] | None],
) -> dict[str, Spread]:
    """Return the distance of recommended configurations from the best one found with the same seed, by hyperparameter."""
    found: dict[str, list[float | None]] = {}
    for search in mine:
        best, config = best_evaluation(others(search), direction), recommended(search)
        for name in () if best is None or config is None else config:
            assert best is not None
            assert config is not None
            found.setdefault(name, []).append(distance(name, config[name], best.config.get(name)))
    return {name: Spread.of(values) for name, values in found.items()}


def _reduction(search: SearchResult, others: Sequence[SearchResult], baseline: str, direction: str) -> float | None:
    """Return the share of time saved until as good as the best of a baseline, None where it never was."""
    other = next((item for item in others if item.method == baseline), None)
    if other is None or other.best is None or other.best.value is None:
        return None
    reached = first_as_good(search, other.best.value, direction)
    needed = first_as_good(other, other.best.value, direction)
    return None if reached is None or needed is None or needed.elapsed_s <= 0 else 1.0 - reached.elapsed_s / needed.elapsed_s


def _best_of_any_epoch(search: SearchResult, direction: str) -> float | None:
    known = [item.best_value for item in search.evaluations if item.best_value is not None]
    return (min if direction == "min" else max)(known) if known else None


def _best_after(search: SearchResult, seconds: float | None, direction: str) -> float | None:
    if seconds is None:
        return None
    known = [item.value for item in search.evaluations if item.value is not None and item.elapsed_s <= seconds]
    return (min if direction == "min" else max)(known) if known else None


def _then(found: Evaluation | None, figure: Callable[[Evaluation], float]) -> float | None:
    return None if found is None else figure(found)


def _total(seconds: Iterable[float | None]) -> float | None:
    """Return hours, None where any part was not measured."""
    found = list(seconds)
    known = [value for value in found if value is not None]
    return sum(known) / HOUR_S if found and len(known) == len(found) else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _joules(search: SearchResult) -> float | None:
    """Return the joules of a search, None unless every evaluation was measured: a sum of some would pass for the whole."""
    if not all(item.energy for item in search.evaluations):
        return None
    return sum(part.joules for item in search.evaluations for part in item.energy)


def _energy_source(searches: Sequence[SearchResult], jobs: int) -> str:
    parts = {f"{part.source} ({part.device})" for search in searches for item in search.evaluations for part in item.energy}
    if not parts or any(_joules(search) is None for search in searches):
        return NOT_MEASURED
    # A counter belongs to the device: what other processes use counts as well.
    return ", ".join(sorted(parts)) + (f"; shared by {jobs} processes" if jobs > 1 else "")


def _floats(values: FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def _pairs(values: FloatArray) -> tuple[tuple[float, float], ...]:
    return tuple((float(low), float(high)) for low, high in values)
