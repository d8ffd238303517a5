"""Where the runs are that a user misses: a new task beside one that it may have been meant to be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from metamodel.data.nouns import count
from metamodel.data.task import TaskDescription
from store.learning_columns import learning_runs
from store.names import nearest
from store.repeats import outcome_of

if TYPE_CHECKING:
    from store import History, TaskRecord

MAX_DIFFERENCES = 2
"""Signs of identity that may differ for a task to be one that could have been meant."""


def runs_of_near_task(history: History, description: TaskDescription) -> str:
    """Say which other task has finished runs, and what sets it apart; empty where no task is near.

    Args:
        history: Open history.
        description: A task without finished runs.
    """
    tasks = [task for task in history.tasks() if task.n_finished]
    if description.name is not None:
        names = nearest(description.name, [task.name for task in tasks], n=1)
        found = [(task, list[str]()) for task in tasks if task.name in names]
    else:
        found = [(task, signs) for task in tasks if (signs := _signs(task, description)) is not None]
        found.sort(key=lambda item: (len(item[1]), -item[0].n_finished))
    if not found:
        return ""
    task, signs = found[0]
    n_judged = sum(outcome_of(run) is not None for run in learning_runs(history, [task.id]))
    runs = f"{count(task.n_finished, 'finished run')}, {n_judged or 'none'} with an outcome"
    known = f"Another task, {task.name!r}, has {runs}" + (f": {', '.join(signs)}" if signs else "")
    return f"{known}. Pass task={task.name!r} if it is the same; metahp tasks --why shows what sets tasks apart."


def _signs(task: TaskRecord, description: TaskDescription) -> list[str] | None:
    """Return in words what sets a task apart, None where it is too much for the two to be confused."""
    there = replace(TaskDescription.from_dict(task.description), name=None)
    if there.model_class is None or (there.model_class, there.dataset_class) != (description.model_class, description.dataset_class):
        return None
    old, new = there.identity(), description.identity()
    unknown = ("objective", "direction") if description.objective is None else ()
    differing = [key for key in new if old.get(key) != new[key] and key not in unknown]
    if len(differing) > MAX_DIFFERENCES:
        return None
    signs = ["it was named, and this run was not"] if task.is_named else []
    return signs + [_sign(key, old.get(key), new[key]) for key in differing]


def _sign(key: str, there: Any, here: Any) -> str:
    if key == "content":  # digests tell nobody anything
        return "its data hold other values"
    return f"{key} is {_shown(there)} there, {_shown(here)} here"


def _shown(value: Any) -> str:
    text = "unknown" if value in (None, {}) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
