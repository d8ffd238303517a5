"""Where to look if the user does not say: the conservative space a history supports."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from metamodel.data.observations import TaskRuns
from metamodel.space.dimensions import Dimension, Space, is_number
from metamodel.space.encoding import fit_encoder
from metamodel.space.run_configs import column_of
from store.hyperparameters import conservative_names

MAX_LISTED = 12
"""Numbers seen with at most this many distinct values are offered as these values, not as an interval."""


def conservative_space(
    own: TaskRuns | None, others: Sequence[TaskRuns], current: Mapping[str, Any], allowed: Collection[str] | None
) -> Space:
    """Derive what may change when the user gave no space.

    Only names that are safe to change, that varied within a task, and only values that were seen. A smaller batch means more steps and
    a larger one more memory, so without permission the batch never shrinks and only grows to a size that finished for this very task.

    Args:
        own: Runs of the task itself, None if it is new.
        others: Runs of the other tasks that may speak.
        current: The user's own configuration by canonical name.
        allowed: Canonical names that may be rewritten; None for those that are safe everywhere.
    """
    space: Space = {}
    for name in sorted({*(conservative_names() if allowed is None else allowed)} - {"global_batch_size"}):
        if current and name not in current:
            continue
        values = _seen(name, [own]) if own is not None else []
        if len(set(values)) < 2 and name != "batch_size":
            values = _seen(name, others)
        if name == "batch_size":
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
    if name == "batch_size" or (is_int and len(distinct) <= MAX_LISTED):
        return Dimension(name, distinct, float(distinct[0]), float(distinct[-1]), is_log, is_int)
    return Dimension(name, None, float(distinct[0]), float(distinct[-1]), is_log, is_int)
