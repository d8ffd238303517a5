"""From the runs of a history to the records of ``results``: plans, searches, evaluations."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metahp_report.comparison.records import (
    CONTROLS,
    GRID_LEVELS,
    KEY,
    ComparisonPlan,
    ComparisonResult,
    Energy,
    Evaluation,
    RecordedPrediction,
    SearchResult,
    TaskInfo,
)
from metahp_report.comparison.summary import standings_of, summaries_of
from metamodel.data.opened_history import opened_history
from store import History, UnknownTaskError
from store.errors import InvalidArgumentError
from store.records import RunRecord, RunStatus
from store.usage import resource_totals

PLANS = "live comparisons"
"""Name of the task whose runs are the plans."""
OUTCOMES = frozenset({RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DIVERGED, RunStatus.OOM, RunStatus.FAILED})
"""Statuses that end an evaluation; an interrupted one is done again."""
_GOOD = frozenset({RunStatus.COMPLETED, RunStatus.STOPPED})


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """A comparison's plan as it stands last, and what is known of its tasks."""

    id: str
    created_utc: str
    plan: ComparisonPlan
    tasks: Mapping[str, TaskInfo]
    names: Mapping[str, str]
    """Task -> its name in the history."""


def list_comparisons(history: History | str | os.PathLike[str] | None) -> list[StoredPlan]:
    """Return the comparisons of a history, oldest first."""
    with opened_history(history) as opened:
        return read_plans(opened)


def load_comparison(history: History | str | os.PathLike[str] | None, comparison_id: str | None = None) -> ComparisonResult:
    """Read a comparison back from a history.

    Args:
        history: A history, its path, or None for the default one.
        comparison_id: Its id, or a beginning that only this one has; None for the newest.

    Raises:
        InvalidArgumentError: If there is no such comparison, or more than one begins so; the message lists what there is.
    """
    with opened_history(history) as opened:
        return read_comparison(opened, comparison_id)


def read_plans(history: History) -> list[StoredPlan]:
    """Return every comparison of a history, oldest first."""
    found: dict[str, StoredPlan] = {}
    for run in _runs_of(history, PLANS):
        note = run.description.get(KEY)
        if not isinstance(note, Mapping) or "plan" not in note:
            continue
        known = found.get(note["id"])
        tasks = {name: _task_info(values) for name, values in note["tasks"].items()}
        created = run.started_utc if known is None else known.created_utc
        found[note["id"]] = StoredPlan(note["id"], created, ComparisonPlan.from_dict(note["plan"]), tasks, dict(note["names"]))
    return list(found.values())


def find_plan(history: History, comparison_id: str | None) -> StoredPlan:
    """Return one comparison.

    Raises:
        InvalidArgumentError: If there is none, or more than one begins so.
    """
    plans = read_plans(history)
    if not plans:
        raise InvalidArgumentError(
            f"A live comparison must have been made, but {history.path} has none. "
            f"Call: metahp compare-baselines live --history {history.path}"
        )
    if comparison_id is None:
        return plans[-1]
    matching = [item for item in plans if item.id == comparison_id] or [item for item in plans if item.id.startswith(comparison_id)]
    if len(matching) != 1:
        known = ", ".join(item.id for item in plans)
        raise InvalidArgumentError(f"A comparison must be named by its id, but {comparison_id!r} fits {len(matching)}; there are: {known}.")
    return matching[0]


def read_comparison(history: History, comparison_id: str | None) -> ComparisonResult:
    """Read everything of a comparison.

    Raises:
        InvalidArgumentError: As ``find_plan``.
    """
    stored = find_plan(history, comparison_id)
    plan = stored.plan
    searches = []
    n_missing = 0
    for task in plan.tasks:
        runs = evaluations_by_search(_runs_of(history, stored.names[task]), stored.id)
        for method in plan.methods:
            for seed in range(plan.seeds):
                search = _search(history, stored, task, method, seed, runs.get((method, seed), []))
                n_missing += not search.is_complete
                if search.evaluations:
                    searches.append(search)
    return ComparisonResult(
        stored.id,
        stored.created_utc,
        plan,
        stored.tasks,
        tuple(searches),
        tuple(summaries_of(plan, stored.tasks, searches)),
        tuple(standings_of(plan, stored.tasks, searches)),
        n_missing,
    )


def evaluations_by_search(runs: Iterable[RunRecord], comparison_id: str) -> dict[tuple[str, int], list[RunRecord]]:
    """Return the runs of a comparison's task by method and seed, the attempts at one evaluation in the order they were made."""
    found: dict[tuple[str, int], list[RunRecord]] = defaultdict(list)
    for run in runs:
        note = run.description.get(KEY)
        if isinstance(note, Mapping) and note.get("id") == comparison_id and "index" in note:
            found[note["method"], note["seed"]].append(run)
    return dict(found)


def outcomes(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the run of each evaluation of one search, as far as they follow each other from the first; the last attempt counts."""
    by_index = {run.description[KEY]["index"]: run for run in runs if run.status in OUTCOMES}
    found: list[RunRecord] = []
    while len(found) in by_index:
        found.append(by_index[len(found)])
    return found


def value_of(run: RunRecord) -> float | None:
    """Return what an evaluation is judged by: the objective at the end of training, None where it failed."""
    value = run.objective_last
    return value if run.status in _GOOD and value is not None and math.isfinite(value) else None


def n_expected(plan: ComparisonPlan, info: TaskInfo, method: str) -> int:
    """Return how many evaluations a method makes at most: controls are one configuration, and a grid has an end."""
    if method in CONTROLS:
        return 1
    if method != "grid":
        return plan.budget
    return min(plan.budget, math.prod(len(values) if isinstance(values, list) else GRID_LEVELS for values in info.space.values()))


def is_complete(plan: ComparisonPlan, info: TaskInfo, method: str, n_done: int, elapsed_s: float) -> bool:
    """Say whether a search is at its end."""
    is_out_of_time = plan.max_seconds is not None and n_done > 0 and elapsed_s >= plan.max_seconds
    return is_out_of_time or n_done >= n_expected(plan, info, method)


def seconds_of(run: RunRecord) -> float:
    """Return what an evaluation costs its method: the decision and the training with its validations."""
    return float(run.description[KEY].get("decision_s") or 0.0) + (run.wall_s or 0.0)


def _runs_of(history: History, task: str) -> list[RunRecord]:
    try:
        return history.runs(task, with_hparams=False)
    except UnknownTaskError:
        return []


def _task_info(values: Mapping[str, Any]) -> TaskInfo:
    return TaskInfo(**{**values, "metrics": tuple(values["metrics"])})


def _search(history: History, stored: StoredPlan, task: str, method: str, seed: int, runs: Sequence[RunRecord]) -> SearchResult:
    info = stored.tasks[task]
    found: list[Evaluation] = []
    elapsed_s = 0.0
    tests: list[dict[str, float]] = []
    for run in outcomes(runs):
        elapsed_s += seconds_of(run)
        evaluation, test = _evaluation(history, info, run)
        found.append(replace(evaluation, elapsed_s=elapsed_s))
        tests.append(test)
    values = [(item.value, item.index) for item in found if item.value is not None]
    chosen = None
    if values:
        sign = 1.0 if info.direction == "min" else -1.0
        chosen = min(values, key=lambda item: (sign * item[0], item[1]))[1]
    complete = is_complete(stored.plan, info, method, len(found), elapsed_s)
    return SearchResult(task, method, seed, tuple(found), chosen, {} if chosen is None else tests[chosen], complete)


def _evaluation(history: History, info: TaskInfo, run: RunRecord) -> tuple[Evaluation, dict[str, float]]:
    """Return an evaluation without its time in the search, and its metrics on the test split."""
    note = run.description[KEY]
    last = {record.name: record.value for record in history.metrics(run.id)}
    prefix = (run.objective or "").removesuffix(info.objective)
    used = resource_totals(history, run.id)
    busy = [item.mean for item in used.usage if item.name == "gpu_percent"]
    value = value_of(run)
    evaluation = Evaluation(
        run_id=run.id,
        index=note["index"],
        config=dict(note["config"]),
        status=run.status,
        value=value,
        best_value=None if value is None else run.objective_best,
        metrics={name: last[prefix + name] for name in info.metrics if prefix + name in last},
        decision_s=float(note.get("decision_s") or 0.0),
        train_s=run.wall_s or 0.0,
        cpu_s=None if used.cpu_s is None else used.cpu_s + float(note.get("decision_cpu_s") or 0.0),
        gpu_s=used.gpu_s,
        gpu_percent=sum(busy) / len(busy) if busy and used.gpu_s else None,
        energy=tuple(Energy(device, joules, used.energy_sources[device]) for device, joules in used.energy_j.items()),
        prediction=RecordedPrediction(**note["prediction"]) if note.get("prediction") else None,
        note=note.get("note") or "",
        error=run.error,
    )
    return evaluation, {name: last[f"test_{name}"] for name in info.metrics if f"test_{name}" in last}
