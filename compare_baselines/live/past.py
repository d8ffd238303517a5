"""The history that a meta-model is given for a search: runs of other tasks, and of the task under test those of its own search only."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compare_baselines.live.tasks import LIVE_TASKS, find_task, is_live_task
from compare_baselines.live.tasks.base import LiveTask
from compare_baselines.methods.registry import RANDOM, uses_past
from metahp_report.comparison.reader import PLANS
from metahp_report.comparison.records import KEY
from metamodel.evidence_floor import MIN_OTHER_RUNS, MIN_OTHER_TASKS
from metamodel.kinds import DEFAULT as OURS
from store import Curve, FinishedRun, History
from store.errors import InvalidArgumentError
from store.records import RunRecord, TaskRecord

SOURCES = ("auto", "history", "starter", "tasks")
EIGHT_OF = "eight-of:"
"""Before the id of a comparison: eight of its other tasks with other data, drawn by the seed, and their random runs of that seed."""
N_EIGHT = 8
MAX_PAST_RUNS = 5000
"""PastSource runs that are copied for a search, the newest of each task first; more would cost minutes and teach little."""


@dataclass(frozen=True, slots=True)
class PastSource:
    """Where the meta-models' history comes from.

    Attributes:
        kind: ``history``, ``starter``, ``tasks``, or ``EIGHT_OF`` with an id.
        path: The history; for ``starter`` that of the comparison, which is not read.
        comparison: Id of the comparison whose other tasks are the past; for ``tasks``.
        before_utc: Only runs started before this moment; for ``history``, so that a continued comparison sees the same past.
        sources: Methods whose runs count; for ``tasks``.
    """

    kind: str
    path: Path
    comparison: str | None = None
    before_utc: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def is_eight(self) -> bool:
        """Whether it is eight tasks of another comparison."""
        return self.kind.startswith(EIGHT_OF)

    @property
    def is_live(self) -> bool:
        """Whether it is runs of a live comparison."""
        return self.kind == "tasks" or self.is_eight


def choose_past(wanted: str, history: History, own: bool, comparison: str, created_utc: str, methods: Sequence[str] = ()) -> PastSource:
    """Return where the past comes from.

    Args:
        wanted: ``auto``, ``history``, ``starter`` or ``tasks``.
        history: The history of the comparison.
        own: Whether the user named it: an own history goes before the starter history.
        comparison: The comparison's id.
        created_utc: When it was created.
        methods: What is compared: the starter history is known to one meta-model only, and all must know the same.

    Raises:
        InvalidArgumentError: If what is wanted is not there.
    """
    if wanted.startswith(EIGHT_OF):
        return PastSource(wanted, history.path, wanted.removeprefix(EIGHT_OF), None, (RANDOM,))
    if wanted not in SOURCES:
        raise InvalidArgumentError(f"The past must be one of {', '.join(SOURCES)}, but got {wanted!r}. Pass one of these.")
    n_tasks = sum(1 for _ in _source_tasks(history)) if wanted in ("auto", "history") else 0
    if wanted == "history" and n_tasks < MIN_OTHER_TASKS:
        raise InvalidArgumentError(
            f"A past of one's own takes {MIN_OTHER_TASKS} tasks with {MIN_OTHER_RUNS} finished runs each, but {history.path} has "
            f"{n_tasks}. Leave --past out to learn from the other tasks of the comparison."
        )
    if n_tasks >= MIN_OTHER_TASKS and (own or wanted == "history"):
        return PastSource("history", history.path, None, created_utc)
    learners = {name for name in methods if uses_past(name)}
    if wanted == "starter" and starter_tasks() is None:
        raise InvalidArgumentError(
            "The starter history must be there and allowed, but it is not. Unset METAHP_STARTER, or leave --past out."
        )
    if wanted == "starter" or (wanted == "auto" and learners == {OURS} and starter_tasks() is not None):
        return PastSource("starter", history.path)
    sources = tuple(name for name in methods if not uses_past(name))
    return PastSource("tasks", history.path, comparison, None, sources)


def starter_tasks() -> str | None:
    """Return the list of what the starter history knows as text; None where it is not there or ``METAHP_STARTER`` forbids it."""
    from metamodel.starter import starter_prior
    from metamodel.starter.scope import is_off

    path = Path(starter_prior.__file__).parent / starter_prior.DATA_FOLDER / starter_prior.TASKS_FILE
    return None if is_off() or not path.is_file() else path.read_text(encoding="utf-8").lower()


def may_use_starter(past: PastSource, task: LiveTask) -> bool:
    """Say whether the starter history may be used in a search: it is the past, and does not know the task's data."""
    known = starter_tasks() if (past.kind == "starter" or past.is_eight) else None
    return known is not None and not any(word in known for word in task.same_data)


def describe_past(past: PastSource, tasks: Sequence[LiveTask], methods: Sequence[str]) -> str:
    """Return where the past comes from in a sentence."""
    if past.is_eight:
        return f"the random runs of {N_EIGHT} other tasks of comparison {past.comparison}, and the starter history as the product uses it"
    if past.kind == "tasks":
        sources = ", ".join(name for name in methods if not uses_past(name))
        return f"the other tasks of this comparison: the runs of {sources} on tasks with other data"
    if past.kind == "starter":
        known = [task.name for task in tasks if not may_use_starter(past, task)]
        return "the starter history" + (f"; not for {', '.join(known)}, whose data it knows" if known else "")
    with History(past.path, create=False) as history:
        counts = {task.name: [item for item in _source_tasks(history) if not is_same_data(item, task)] for task in tasks}
        n_runs = max((sum(item.n_finished for item in items) for items in counts.values()), default=0)
        n_tasks = max((len(items) for items in counts.values()), default=0)
        hidden = sorted({item.name for task in tasks for item in _source_tasks(history) if item not in counts[task.name]})
    left_out = f"; {', '.join(hidden)} never where the same data is under test" if hidden else ""
    return f"your own history, up to {n_tasks} tasks with {n_runs} runs{left_out}"


def check_past(past: PastSource, tasks: Sequence[LiveTask], methods: Sequence[str]) -> None:
    """Say before anything is trained where a meta-model would have nothing to learn from.

    Raises:
        InvalidArgumentError: If no other task of the comparison, or no method without a past, could serve as one.
    """
    learners = [name for name in methods if uses_past(name)]
    if past.kind != "tasks" or not learners:
        return
    if not any(name != "default" and not uses_past(name) for name in methods):
        raise InvalidArgumentError(
            f"{', '.join(learners)} must have a past, and the other tasks can only be one where other methods search them, but --methods "
            f"is {','.join(methods)}. Add random, or pass --history with runs of your own."
        )
    for task in tasks:
        others = [other.name for other in tasks if not _shares_data(other, task)]
        if len(others) < MIN_OTHER_TASKS:
            raise InvalidArgumentError(
                f"{', '.join(learners)} must have a past, but --tasks leaves only {len(others)} with other data than {task.name}, and it "
                f"takes {MIN_OTHER_TASKS}. Name more of {', '.join(LIVE_TASKS)}, or pass --history with runs of your own."
            )


def write_past(past: PastSource, task: LiveTask, target: Path, seed: int = 0) -> int:
    """Write the history of a search without any run of its task, and return how many runs it holds.

    Args:
        past: Where it comes from.
        task: The task under test, whose data must not occur.
        target: The new history.
        seed: Seed of the search; draws the eight tasks where there are to be eight.
    """
    with History(past.path, create=False) as source, History(target) as history:
        if past.kind == "starter":
            return 0
        chosen = [item for item in _source_tasks(source, with_live=past.is_live) if not is_same_data(item, task)]
        if past.is_eight:
            return _write_eight(past, task, seed, source, history, chosen)
        share = max(MIN_OTHER_RUNS, MAX_PAST_RUNS // max(len(chosen), 1))
        runs = [run for item in chosen for run in _of_past(source, past, item)[-share:]]
        if past.kind == "tasks":
            runs = [run for run in runs if not is_same_note(run, task)]
        descriptions = {item.name: dict(item.description) for item in chosen}
        return history.add_finished_runs(as_finished(source, runs), descriptions)["runs"]


def _write_eight(past: PastSource, task: LiveTask, seed: int, source: History, target: History, others: Sequence[TaskRecord]) -> int:
    """Write the runs of eight tasks of the same part of the suite: what else a history holds, and in which order, must not matter."""
    found: list[tuple[TaskRecord, list[RunRecord]]] = []
    for item in sorted(others, key=lambda item: item.name):
        live = _live_task(item)
        if live is not None and live.part == task.part:
            runs = [run for run in _of_past(source, past, item) if run.description[KEY]["seed"] == seed]
            found += [(item, runs)] if len(runs) >= MIN_OTHER_RUNS else []
    order = np.random.default_rng([seed, zlib.crc32(task.name.encode())]).permutation(len(found))
    drawn = [found[i] for i in order[:N_EIGHT]]
    descriptions = {item.name: dict(item.description) for item, _ in drawn}
    return target.add_finished_runs(as_finished(source, [run for _, runs in drawn for run in runs]), descriptions)["runs"]


def add_own(source: History, runs: Sequence[RunRecord], target: Path) -> None:
    """Add the runs of the search itself; those already there stay as they are."""
    with History(target) as history:
        history.add_finished_runs(as_finished(source, [run for run in runs if run.is_finished and run.objective]))


def as_finished(source: History, runs: Iterable[RunRecord]) -> Iterator[FinishedRun]:
    """Return recorded runs as another history takes them: every hyperparameter, and the curve of the objective."""
    for run in runs:
        if run.objective is None or run.direction is None:
            continue
        records = {record.step: record for record in source.metrics(run.id, run.objective)}
        # A run that diverged before its first validation has no value at all.
        steps, values = list(records) or [0], [record.value for record in records.values()] or [math.nan]
        yield FinishedRun(
            run.id,
            run.task_name,
            {param.raw_name: param.value for param in run.provenance.values()},
            run.objective,
            run.direction,
            {run.objective: Curve(steps, values)},
            run.status,
            started_utc=run.started_utc,
            epochs_reached=run.epochs_reached,
            description={key: value for key, value in run.description.items() if key != KEY},
        )


def is_same_data(item: TaskRecord, task: LiveTask) -> bool:
    """Say whether a task of a history has, by its name or description, the data of a live task."""
    text = json.dumps([item.name, dict(item.identity), dict(item.description)], default=str).lower()
    live = _live_task(item)
    return any(word in text for word in task.same_data) or (live is not None and _shares_data(live, task))


def is_same_note(run: RunRecord, task: LiveTask) -> bool:
    """Say whether a run is noted as an evaluation of a live task with the same data."""
    note: Any = run.description.get(KEY)
    name = note.get("task") if isinstance(note, Mapping) else None
    return isinstance(name, str) and is_live_task(name) and _shares_data(find_task(name), task)


def _shares_data(left: LiveTask, right: LiveTask) -> bool:
    return bool(set(left.same_data) & set(right.same_data))


def _live_task(item: TaskRecord) -> LiveTask | None:
    """Return the live task that a task of a history is, None if it is something else."""
    words = item.name.split()
    return find_task(words[1]) if len(words) == 3 and words[0] == "live" and is_live_task(words[1]) else None


def _source_tasks(history: History, with_live: bool = False) -> Iterator[TaskRecord]:
    """Return the tasks with enough finished runs for a source task; those of comparisons only where they are asked for."""
    for item in history.tasks():
        if item.name != PLANS and item.n_finished >= MIN_OTHER_RUNS and (with_live or _live_task(item) is None):
            yield item


def _of_past(history: History, past: PastSource, item: TaskRecord) -> list[RunRecord]:
    """Return the finished runs of a task that belong to the past."""
    runs = [run for run in history.runs(item.id) if run.is_finished]
    if past.kind == "history":
        return [run for run in runs if KEY not in run.description and (past.before_utc is None or run.started_utc < past.before_utc)]
    if past.is_live:
        return [run for run in runs if _is_source(run.description.get(KEY), past)]
    return runs


def _is_source(note: Any, past: PastSource) -> bool:
    """Say whether a run was made in this comparison by a method that knows no past."""
    return isinstance(note, Mapping) and note.get("id") == past.comparison and note.get("method") in past.sources
