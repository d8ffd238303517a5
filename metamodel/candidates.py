"""Where to look: the conservative space a history supports, and candidate configurations inside a space."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from metamodel.encoding import fit_encoder
from metamodel.observations import TaskRuns
from metamodel.precedence import CONSERVATIVE_NAMES
from metamodel.space import Dimension, Space, is_number, sample_space

N_RANDOM = 2048
"""Uniform candidates; with the local ones they find the posterior's maximum to well within its own noise."""
N_LOCAL = 64
LOCAL_SCALES = (0.2, 0.07, 0.02, 0.006)
"""Widths of the local rounds, in units of a dimension's range."""
MAX_GRID = 2048
"""A space with no more configurations than this is listed in full."""
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
    for name in sorted({*(CONSERVATIVE_NAMES if allowed is None else allowed)} - {"global_batch_size"}):
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
        here = [
            config[name] for config, failed in zip(task.configs, task.is_failed, strict=True) if not failed and is_number(config.get(name))
        ]
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


def grid(space: Space) -> list[dict[str, Any]] | None:
    """List a whole finite space, or None where it is infinite or too large."""
    size = 1.0
    for dimension in space.values():
        size *= dimension.n_values
    if size > MAX_GRID:
        return None
    configs: list[dict[str, Any]] = [{}]
    for name, dimension in space.items():
        n = int(dimension.n_values)
        values = dimension.choices or [dimension.snap(dimension.low + i * (dimension.step or 0.0)) for i in range(n)]
        configs = [{**config, name: value} for config in configs for value in values]
    return configs


def starting_candidates(space: Space, elites: Sequence[Mapping[str, Any]], rng: np.random.Generator) -> list[dict[str, Any]]:
    """Random configurations and those that were best before, snapped into the space.

    Args:
        space: The space.
        elites: Configurations worth trying, by canonical name.
        rng: Source of randomness.
    """
    listed = grid(space)
    if listed is not None:
        return listed
    snapped = [{name: dim.snap(elite[name]) for name, dim in space.items()} for elite in elites if all(name in elite for name in space)]
    return sample_space(space, N_RANDOM, rng) + snapped


def neighbours(space: Space, centres: Sequence[Mapping[str, Any]], scale: float, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Configurations near some centres: each dimension moves with probability one half.

    Args:
        space: The space.
        centres: Configurations of the space.
        scale: Standard deviation in units of a dimension's range.
        rng: Source of randomness.
    """
    found = []
    for centre in centres:
        moves = rng.random((N_LOCAL, len(space))) < 0.5
        noise = rng.normal(0.0, scale, (N_LOCAL, len(space)))
        labels = rng.random((N_LOCAL, len(space)))
        for i in range(N_LOCAL):
            config = dict(centre)
            for j, (name, dimension) in enumerate(space.items()):
                if moves[i, j]:
                    config[name] = _moved(dimension, centre[name], noise[i, j], labels[i, j])
            found.append(config)
    return found


def _moved(dimension: Dimension, value: Any, step: float, label: float) -> Any:
    if not dimension.is_numeric:
        return dimension.from_unit(float(label))
    unit = dimension.scaled(value) + step
    if dimension.is_log:
        return dimension.snap(dimension.low * (dimension.high / dimension.low) ** float(np.clip(unit, 0, 1)))
    return dimension.snap(dimension.low + float(np.clip(unit, 0, 1)) * (dimension.high - dimension.low))
