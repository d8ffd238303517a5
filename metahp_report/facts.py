"""What a report needs from a history, read once: runs by task with their rank, advice with its outcome, cost, the meta-model."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from metahp_report.comparison.records import KEY
from metamodel.recommendation import Decision
from store.names import base_metric_name
from store.records import RunRecord, RunStatus, Source
from store.repeats import definition_of_run
from store.usage import ResourceTotals, resource_totals

if TYPE_CHECKING:
    from store import History

FloatArray = npt.NDArray[np.float64]

OPEN = frozenset({RunStatus.RUNNING, RunStatus.STALE})
BROKEN = frozenset({RunStatus.DIVERGED, RunStatus.OOM, RunStatus.FAILED})
MIN_SHARE = 0.5
"""Share of a task's runs that must know a hyperparameter for it to be one of the task's."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskFacts:
    """The runs of one task that can be compared by one objective.

    Attributes:
        name: Name of the task, with what changes the meaning of the objective where something does.
        task_id: Id of the task, which several groups may share.
        objective: Base name of the metric; empty where no run declared one.
        direction: ``min`` or ``max``.
        runs: All of them, oldest first, ``n``.
        values: Best objective of each, shape ``(n,)``; NaN where it has none or diverged.
        rank: Share of the task's other judged runs that did worse, shape ``(n,)``, ties count half; 0 to 1, larger is better.
            Diverged runs share the last place; NaN for runs that allow no judgement of their configuration.
        is_recommended: Runs that followed a recommendation, shape ``(n,)``.
        names: Hyperparameters that varied, those with most values first.
    """

    name: str
    task_id: str
    objective: str
    direction: str
    runs: tuple[RunRecord, ...]
    values: FloatArray
    rank: FloatArray
    is_recommended: npt.NDArray[np.bool_]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of runs ``n``."""
        return len(self.runs)

    @property
    def sign(self) -> float:
        """What turns values so that larger is better."""
        return -1.0 if self.direction == "min" else 1.0

    @property
    def best(self) -> int | None:
        """Index of the best run, None if none has a value."""
        if not np.isfinite(self.values).any():
            return None
        return int(np.nanargmax(np.where(np.isfinite(self.values), self.sign * self.values, np.nan)))


@dataclass(frozen=True, slots=True)
class AdviceOutcome:
    """A recommendation that a run met, and what came of it.

    Attributes:
        id: Its id.
        run_id: The run.
        decision: ``apply`` or ``abstain``.
        unit: ``rank`` or ``objective``.
        prediction: What was expected.
        interval: Central 80 % interval of it.
        outcome: Best objective of the run; None without one.
        rank: Its rank among the runs of its task.
        changes: Raw name -> value before and after, of what was rewritten.
    """

    id: str
    run_id: str
    decision: str
    unit: str
    prediction: float
    interval: tuple[float, float]
    outcome: float | None
    rank: float
    changes: tuple[tuple[str, Any, Any], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Everything a report of a history is made from.

    Attributes:
        file: Name of the history's file.
        tasks: Those with most runs first.
        n_runs: Training runs in all.
        n_by_status: Status -> runs.
        advice: Recommendations that runs met, oldest first.
        totals: Run id -> what it used; runs that used nothing measurable are absent.
        model: What is noted of the newest meta-model; empty without one.
        n_comparisons: Live comparisons in the history.
    """

    file: str
    tasks: tuple[TaskFacts, ...]
    n_runs: int
    n_by_status: Mapping[RunStatus, int]
    advice: tuple[AdviceOutcome, ...]
    totals: Mapping[str, ResourceTotals]
    model: Mapping[str, Any] = field(default_factory=dict)
    n_comparisons: int = 0

    def runs(self) -> Iterable[RunRecord]:
        """Return every run, task by task."""
        return (run for task in self.tasks for run in task.runs)


def read_facts(history: History) -> Facts:
    """Read a history for a report."""
    runs = history.runs()
    # The plan of a live comparison is a row of its own, and no training run.
    plans = [run for run in runs if run.framework == KEY]
    runs = [run for run in runs if run.framework != KEY]
    stored = {run.id: _stored_advice(history, run) for run in runs if run.recommendation_id is not None}
    applied = {run_id for run_id, entry in stored.items() if entry and entry["recommendation"].get("decision") == Decision.APPLY}
    groups: dict[tuple[str, str, str, str], list[RunRecord]] = {}
    for run in runs:
        key = (run.task_id, base_metric_name(run.objective or ""), run.direction or "max", definition_of_run(run))
        groups.setdefault(key, []).append(run)
    tasks = tuple(task_facts(members, applied) for members in sorted(groups.values(), key=len, reverse=True))
    ranks = {run.id: float(place) for task in tasks for run, place in zip(task.runs, task.rank, strict=True)}
    advice = tuple(found for run in runs if (found := _advice(run, stored.get(run.id), ranks[run.id])) is not None)
    totals = {run.id: resource_totals(history, run.id) for run in runs}
    models = history.models()
    return Facts(
        file=history.path.name,
        tasks=tasks,
        n_runs=len(runs),
        n_by_status=Counter(run.status for run in runs),
        advice=advice,
        totals={run_id: used for run_id, used in totals.items() if _is_measured(used)},
        model=([row["info"] for row in models if row["info"].get("is_chosen", True)] or [{}])[-1],
        n_comparisons=len(plans),
    )


def task_facts(runs: Sequence[RunRecord], applied: set[str]) -> TaskFacts:
    """Judge the runs of one task under one objective.

    Args:
        runs: At least one, oldest first.
        applied: Ids of runs that followed a recommendation.
    """
    first = runs[0]
    values = np.array([_value(run) for run in runs], dtype=np.float64)
    sign = -1.0 if first.direction == "min" else 1.0
    is_diverged = np.array([run.status is RunStatus.DIVERGED for run in runs])
    return TaskFacts(
        name=first.task_name + (f", {definition}" if (definition := definition_of_run(first)) else ""),
        task_id=first.task_id,
        objective=base_metric_name(first.objective or ""),
        direction=first.direction or "max",
        runs=tuple(runs),
        values=values,
        rank=percentile_ranks(sign * values, is_diverged),
        is_recommended=np.array([_was_recommended(run, applied) for run in runs], dtype=np.bool_),
        names=varied_names([run.hparams for run in runs]),
    )


def percentile_ranks(oriented: FloatArray, is_diverged: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the share of other runs that did worse, ties counted half.

    Args:
        oriented: Outcomes, larger is better, shape ``(n,)``; NaN without one.
        is_diverged: Runs that share the last place, shape ``(n,)``.

    Returns:
        Shape ``(n,)``, in [0, 1]; NaN without an outcome, and for the only run.
    """
    filled = np.where(is_diverged, -np.inf, oriented)
    is_judged = ~np.isnan(filled)
    found = np.full(len(filled), np.nan)
    n = int(is_judged.sum())
    if n > 1:
        found[is_judged] = (rankdata(filled[is_judged]) - 1) / (n - 1)
        found[is_diverged] = 0.0  # they beat nobody, not even each other
    return found


def varied_names(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the hyperparameters with more than one value, known for at least half of the runs; most values first."""
    values: dict[str, set[Any]] = {}
    known: Counter[str] = Counter()
    for config in configs:
        for name, value in config.items():
            if value is None or isinstance(value, bool | int | float | str):
                known[name] += 1
                values.setdefault(name, set()).add(value)
    found = [name for name, n in known.items() if n >= MIN_SHARE * len(configs) and len(values[name]) > 1]
    return tuple(sorted(found, key=lambda name: (-len(values[name]), name)))


def _value(run: RunRecord) -> float:
    has_none = run.objective_best is None or not math.isfinite(run.objective_best) or run.status in BROKEN
    return math.nan if has_none or run.objective_best is None else run.objective_best


def _was_recommended(run: RunRecord, applied: set[str]) -> bool:
    return run.id in applied or any(param.source is Source.METAHP for param in run.provenance.values())


def _stored_advice(history: History, run: RunRecord) -> dict[str, Any] | None:
    from store import UnknownRecommendationError

    try:
        return history.recommendation(str(run.recommendation_id))
    except UnknownRecommendationError:  # a run merged from a history whose recommendations did not come along
        return None


def _advice(run: RunRecord, entry: Mapping[str, Any] | None, rank: float) -> AdviceOutcome | None:
    if entry is None:
        return None
    given = entry["recommendation"]
    low, high = given.get("interval") or (math.nan, math.nan)
    value = _value(run)
    changes = tuple(
        (str(change.get("raw_name", "")), change.get("old"), change.get("new"))
        for change in entry["changes"] or ()
        if isinstance(change, Mapping)
    )
    return AdviceOutcome(
        id=str(given.get("id", run.recommendation_id)),
        run_id=run.id,
        decision=str(given.get("decision", "")),
        unit=str(given.get("unit", "")),
        prediction=float(given.get("prediction", math.nan)),
        interval=(float(low), float(high)),
        outcome=None if math.isnan(value) else value,
        rank=rank,
        changes=changes,
    )


def _is_measured(used: ResourceTotals) -> bool:
    return used.cpu_s is not None or used.gpu_s is not None or bool(used.energy_j)
