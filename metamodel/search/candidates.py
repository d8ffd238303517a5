"""The conservative space: what a history supports where the user gives no space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from metamodel.data.observations import TaskRuns
from metamodel.space.batch import name_in_model
from metamodel.space.dimensions import MAX_LISTED_VALUES, Dimension, Space, is_number
from metamodel.space.encoding import column_order, fit_encoder
from metamodel.space.run_configs import column_of
from store.hyperparameters import GLOBAL_BATCH_SIZE, conservative_names


def conservative_space(
    target: TaskRuns | None, others: Sequence[TaskRuns], current: Mapping[str, Any], allowed: Collection[str] | None
) -> Space:
    """Derive what may change when the user gave no space.

    Only names that are safe to change, that varied within a task, and only values that were seen. A smaller batch means more steps and
    a larger one more memory, so without permission the batch never shrinks and only grows to a size that finished for this very task.

    Args:
        target: Runs of the task itself, None if it is new.
        others: Runs of the source tasks.
        current: The user's own configuration by canonical name, with the global batch.
        allowed: Canonical names that may be rewritten; None for those that are safe everywhere.
    """
    space: Space = {}
    # Leave to change the batch is given with the name that a host writes; the global batch follows from it.
    names = {*(conservative_names() if allowed is None else allowed)} - {GLOBAL_BATCH_SIZE}
    for name in sorted(map(name_in_model, names), key=column_order):
        if current and name not in current:
            continue
        values = _seen(name, [target]) if target is not None else []
        if len(set(values)) < 2 and name != GLOBAL_BATCH_SIZE:
            values = _seen(name, others)
        if name == GLOBAL_BATCH_SIZE:
            values = [value for value in values if value >= current.get(name, np.inf)]
        if len(set(values)) < 2:
            continue
        space[name] = _dimension(name, values)
    return space


def _seen(name: str, tasks: Sequence[TaskRuns]) -> list[float]:
    """Numbers under this name in runs that finished, of tasks in which it varied."""
    values: list[float] = []
    for task in tasks:
        column = zip(column_of(task.configs, name), task.is_failed, strict=True)
        here = [value for value, failed in column if not failed and is_number(value)]
        if len(set(here)) > 1:
            values += here
    return values


def _dimension(name: str, values: list[float]) -> Dimension:
    distinct = tuple(sorted(set(values)))
    columns = fit_encoder([[{name: value} for value in distinct]]).columns
    is_log = bool(columns) and columns[0].is_log and distinct[0] > 0
    is_int = all(isinstance(value, int) for value in distinct)
    if name == GLOBAL_BATCH_SIZE or (is_int and len(distinct) <= MAX_LISTED_VALUES):
        return Dimension(name, distinct, float(distinct[0]), float(distinct[-1]), is_log, is_int)
    return Dimension(name, None, float(distinct[0]), float(distinct[-1]), is_log, is_int)
