"""Where the runs are that a user misses: a new task beside one that it may have been meant to be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from metamodel.data.nouns import count
from metamodel.data.task import TaskDescription
from store.names import nearest

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
        found = [(task, "") for task in tasks if task.name in names]
    else:
        found = [(task, ", ".join(signs)) for task in tasks if (signs := _signs(task, description)) is not None]
        found.sort(key=lambda item: (item[1].count(" there, "), -item[0].n_finished))
    if not found:
        return ""
    task, sign = found[0]
    runs = f"{count(task.n_finished, 'finished run')} of the task {task.name!r} {'is' if task.n_finished == 1 else 'are'} another task's"
    where = f"{runs}: {sign}" if sign else runs
    return f"{where}. Pass task={task.name!r} if it is the same; metahp tasks --why shows what sets tasks apart."


def _signs(task: TaskRecord, description: TaskDescription) -> list[str] | None:
    """Return in words what sets a task apart, None where it is too much for the two to be confused."""
    there = replace(TaskDescription.from_dict(task.description), name=None)
    if there.model_class is None or (there.model_class, there.dataset_class) != (description.model_class, description.dataset_class):
        return None
    old, new = there.identity(), description.identity()
    differing = [key for key in new if old.get(key) != new[key]]
    if len(differing) > MAX_DIFFERENCES:
        return None
    signs = ["it was named, and this run was not"] if task.is_named else []
    return signs + [f"{key} is {_shown(old.get(key))} there, {_shown(new[key])} here" for key in differing]


def _shown(value: Any) -> str:
    text = "unknown" if value in (None, {}) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
