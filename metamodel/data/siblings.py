"""Siblings: tasks alike in all but size, fold, length or an uncertain sign of content. Their runs are evidence with a discount.

Found when a task is asked about; nothing of it is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from metamodel.data.observations import TaskRuns
from metamodel.data.task import TaskDescription, kind_of
from store.names import base_metric_name

MAX_CORRELATION_GAP = 0.12
"""Root mean square of the differences between the correlations of two draws of one data set, beyond what chance makes of them."""
MIN_CORRELATION = 0.15
"""Root mean square of correlations from which they tell one data set from another."""
MIN_ROWS = 40
MAX_SIZE_RATIO = 2.0
"""How many times as large one of two data sets may be where an earlier version described one: of its content nothing is known."""


def are_siblings(first: TaskDescription, second: TaskDescription) -> bool:
    """Say whether two descriptions are of sibling tasks; two of one task are none."""
    if first.name is not None or second.name is not None or not (first.is_identified and second.is_identified):
        return False
    return first.identity() != second.identity() and not _differences(first, second)


def siblings_of(task_id: str, description: TaskDescription, tasks: Sequence[TaskRuns]) -> tuple[TaskRuns, ...]:
    """Return the siblings of a task among the tasks of a history."""
    return tuple(
        task
        for task in tasks
        if task.task_id != task_id
        and task.description.model_class == description.model_class
        and are_siblings(description, task.description)
    )


def sibling_signs(first: TaskDescription, second: TaskDescription) -> list[str]:
    """Return in words what two sibling tasks differ in, what matters most first."""
    signs = [
        f"{key} {_shown(first.fold.get(key))} against {_shown(second.fold.get(key))}"
        for key in sorted({*first.fold, *second.fold})
        if first.fold.get(key) != second.fold.get(key)
    ]
    if _lengths_differ(first, second):
        signs.append(f"length {_shown(first.lengths)} against {_shown(second.lengths)}")
    elif first.input_shape != second.input_shape and _is_one_text(first, second):
        signs.append(f"input shape {_shown(first.input_shape)} against {_shown(second.input_shape)}")
    if first.n_train is not None and second.n_train is not None and first.n_train != second.n_train:
        signs.append(f"{first.n_train:,} rows against {second.n_train:,}")
    if first.sketch is not None and second.sketch is not None and first.sketch != second.sketch:
        shared = len({*first.sketch} & {*second.sketch})
        alike = "; its columns go together alike" if not shared and _go_together_alike(first, second) else ""
        alike = "; the text is the same" if not shared and _is_one_text(first, second) else alike
        signs.append(f"content: {shared} of {max(len(first.sketch), len(second.sketch))} sampled rows in common{alike}")
    if _is_old(first) or _is_old(second):
        signs.append("one was described by an earlier version, which knew less")
    elif (first.sketch is None) is not (second.sketch is None):
        signs.append("the content of one could not be read")
    return signs


def _differences(first: TaskDescription, second: TaskDescription) -> list[str]:
    """Return what sets two tasks apart, so that they are no siblings: empty where nothing does."""
    is_old = _is_old(first) or _is_old(second)
    is_known_overlap = first.sketch is not None and second.sketch is not None
    overlaps = is_known_overlap and not set(first.sketch or ()).isdisjoint(second.sketch or ())
    pairs: dict[str, tuple[Any, Any]] = {
        "model_class": (first.model_class, second.model_class),
        "dataset_class": (first.dataset_class, second.dataset_class),
        "objective": (_base(first.objective), _base(second.objective)),
        "direction": (first.direction, second.direction),
        "input_kind": (kind_of(first.input_dtype), kind_of(second.input_dtype)),
        "target_kind": (kind_of(first.target_dtype), kind_of(second.target_dtype)),
    }
    if not overlaps:  # a fold or a day may lack a class
        pairs["n_classes"] = (first.n_classes, second.n_classes)
    found = [name for name, (one, other) in pairs.items() if one != other and not (is_old and None in (one, other))]
    if (
        is_old
        and first.n_train
        and second.n_train
        and max(first.n_train, second.n_train) > MAX_SIZE_RATIO * min(first.n_train, second.n_train)
    ):
        found.append("n_train")
    for name in ("data_names", "schema"):
        if not _mappings_agree(getattr(first, name), getattr(second, name), is_old=is_old):
            found.append(name)
    is_one_text = _is_one_text(first, second)
    for name in () if overlaps or is_one_text else ("input_shape", "target_shape"):  # of the same rows only the length is another
        if not _shapes_agree(getattr(first, name), getattr(second, name), is_old=is_old):
            found.append(name)
    is_cut_otherwise = is_one_text or (_lengths_differ(first, second) and None in (first.pieces, second.pieces))
    is_excused = is_cut_otherwise or first.fold != second.fold or first.is_named_data
    if is_known_overlap and not overlaps and not is_excused and not _go_together_alike(first, second):
        found.append("content")
    return found


def _is_old(description: TaskDescription) -> bool:
    """Whether an earlier version described a task: every description of today has a schema."""
    return not description.schema and description.sketch is None


def _base(objective: str | None) -> str | None:
    return None if objective is None else base_metric_name(objective)


def _mappings_agree(first: Mapping[str, Any], second: Mapping[str, Any], *, is_old: bool) -> bool:
    if not is_old:
        return first == second
    return all(first[key] == second[key] for key in first.keys() & second.keys())


def _shapes_agree(first: Sequence[int] | None, second: Sequence[int] | None, *, is_old: bool) -> bool:
    if first == second or (is_old and (first is None or second is None)):
        return True
    if first is None or second is None or len(first) != len(second):
        return False
    return is_old and all(one == other or -1 in (one, other) for one, other in zip(first, second, strict=True))


def _lengths_differ(first: TaskDescription, second: TaskDescription) -> bool:
    return first.lengths is not None and second.lengths is not None and first.lengths != second.lengths


def _is_one_text(first: TaskDescription, second: TaskDescription) -> bool:
    """Say whether rows of two lengths have pieces in common: of one text, most are."""
    is_cut_otherwise = _lengths_differ(first, second) or first.input_shape != second.input_shape
    return is_cut_otherwise and not set(first.pieces or ()).isdisjoint(second.pieces or ())


def _go_together_alike(first: TaskDescription, second: TaskDescription) -> bool:
    """Say whether the numbers of two data sets are correlated alike: draws of one data set, each standardised by itself, share no row."""
    one, other = np.array(first.correlations or ()), np.array(second.correlations or ())
    if not len(one) or len(one) != len(other):
        return False
    n = min(first.n_train or MIN_ROWS, second.n_train or MIN_ROWS)
    sizes = math.sqrt(float(np.square(one).mean())), math.sqrt(float(np.square(other).mean()))
    gap = math.sqrt(float(np.square(one - other).mean()))
    return min(sizes) >= MIN_CORRELATION and gap <= min(MAX_CORRELATION_GAP, 2 / math.sqrt(n) + 0.02)


def _shown(value: Any) -> str:
    if isinstance(value, tuple | list):
        return " x ".join(str(item) for item in value)
    return "none" if value is None else str(value)
