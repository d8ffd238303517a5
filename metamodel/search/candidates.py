"""The space where the user gives none: what a history supports."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from metamodel.data.observations import TaskRuns
from metamodel.space.batch import name_in_model
from metamodel.space.dimensions import MAX_LISTED_VALUES, Dimension, Space, is_number
from metamodel.space.encoding import MAX_CHOICES, column_order, fit_encoder, is_learnable
from metamodel.space.run_configs import column_of
from store.hyperparameters import GLOBAL_BATCH_SIZE, NEEDS_SPACE, Role, conservative_names, is_output_place, is_seed_name, names_with_role


def space_from_history(
    target: TaskRuns | None, others: Sequence[TaskRuns], current: Mapping[str, Any], allowed: Collection[str] | None
) -> tuple[Space, dict[str, str]]:
    """Derive what may change when the user gave no space.

    Who writes values into a training says what is safe there, and gets no more. Who only asks gets everything that the task's runs have
    tuned, architecture included, within the values that finished there; other tasks add what is safe and what this task's runs have too.

    Args:
        target: Runs of the task itself, None if it is new.
        others: Runs of the source tasks.
        current: The user's own configuration by canonical name, with the global batch.
        allowed: Canonical names that may be rewritten; None where nothing is rewritten.

    Returns:
        The space, and what the task's runs have tuned that is not in it: canonical name -> why not.
    """
    space = conservative_space(target, others, current, allowed)
    if target is None:
        return space, {}
    tuned, reasons = _tuned(target, current)
    if allowed is None:
        space = {name: dimension for name, dimension in {**space, **tuned}.items() if name not in reasons}
        return {name: space[name] for name in sorted(space, key=column_order)}, reasons
    return space, {**dict.fromkeys(tuned.keys() - {name_in_model(name) for name in allowed}, NEEDS_SPACE), **reasons}


def conservative_space(
    target: TaskRuns | None, others: Sequence[TaskRuns], current: Mapping[str, Any], allowed: Collection[str] | None
) -> Space:
    """Derive what is safe to change.

    Only names that are safe to change, that varied within a task, that the task's runs or this one have, and only values that were seen. A
    smaller batch means more steps and a larger one more memory, so without permission the batch never shrinks and only grows to a size
    that finished for this very task.

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
        if (current and name not in current) or (not current and target is not None and not any(name in row for row in target.configs)):
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


def _tuned(target: TaskRuns, current: Mapping[str, Any]) -> tuple[Space, dict[str, str]]:
    """Return what the task's runs have tuned, as dimensions of the values that finished, or with the reason why it cannot be advised."""
    space: Space = {}
    reasons: dict[str, str] = {}
    rows = list(target.configs)
    for name in sorted({name for row in rows for name in row}, key=column_order):
        if "." in name or name.startswith("_") or is_seed_name(name) or is_output_place(name) or (current and name not in current):
            continue
        tried = {repr(row[name]) for row in rows if name in row}
        if len(tried) < 2:
            continue
        values = [row[name] for row, failed in zip(rows, target.is_failed, strict=True) if name in row and not failed]
        found = _advisable(name, values)
        if isinstance(found, str):
            reasons[name] = found
        elif name != GLOBAL_BATCH_SIZE or not current:  # beside a configuration the batch keeps to the conservative rule
            space[name] = found
    return space, reasons


def _advisable(name: str, values: Sequence[Any]) -> Dimension | str:
    """Return the dimension of the values that a hyperparameter had, or why it cannot be advised."""
    if name in names_with_role(Role.LENGTH):
        return "how long to train is yours to decide, since longer costs more"
    if not is_learnable(name):
        return "its name says where or how a program runs, and nothing is learned from that"
    if not all(value is None or isinstance(value, str | bool) or is_number(value) for value in values):
        return "its values are neither numbers nor labels"
    distinct = list({repr(value): value for value in values}.values())
    numbers = [value for value in values if is_number(value)]
    if len(distinct) < 2:
        return "no two values of it finished"
    if len(numbers) == len(values) or (len(distinct) > MAX_CHOICES and len(set(numbers)) > MAX_CHOICES):
        return _dimension(name, numbers)
    if len(distinct) > MAX_CHOICES:
        return f"{len(distinct)} different labels are names, not choices"
    return Dimension(name, tuple(sorted(distinct, key=repr)))


def _seen(name: str, tasks: Sequence[TaskRuns]) -> list[float]:
    """Numbers under this name in runs that finished, of tasks in which it varied."""
    values: list[float] = []
    for task in tasks:
        column = zip(column_of(task.configs, name), task.is_failed, strict=True)
        here = [value for value, failed in column if not failed and is_number(value)]
        if len(set(here)) > 1:
            values += here
    return values


def _dimension(name: str, values: Sequence[float]) -> Dimension:
    distinct = tuple(sorted(set(values)))
    columns = fit_encoder([[{name: value} for value in distinct]]).columns
    is_log = bool(columns) and columns[0].is_log and distinct[0] > 0
    is_int = all(isinstance(value, int) for value in distinct)
    if name == GLOBAL_BATCH_SIZE or (is_int and len(distinct) <= MAX_LISTED_VALUES):
        return Dimension(name, distinct, float(distinct[0]), float(distinct[-1]), is_log, is_int)
    return Dimension(name, None, float(distinct[0]), float(distinct[-1]), is_log, is_int)
