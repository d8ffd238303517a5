"""From what training steps queued to rows of ``metrics``: many log calls at once, column by column.

A training logs the same names again and again, so consecutive calls with the same names are read and written together. What is
done per value in Python is what logging costs: even on a machine with cores to spare, it keeps the interpreter from the training.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeGuard

from store.outcome import value_kind
from store.recording import tensors
from store.recording.run_state import RunState
from store.sqlite.operations import Operation, metrics_operation, series_operation
from store.values import storable_text

Event = tuple[RunState, tuple[Any, ...], bool, Sequence[Any], int, float | None, float, Any]
"""Run, names, whether partial, one value per name, step, epoch, seconds since the start, the CUDA stream the values come from."""

_KIND = itemgetter(0, 1, 2)
_STEP, _EPOCH, _ELAPSED = map(itemgetter, (4, 5, 6))


def batch_events(events: Sequence[Event]) -> list[Operation]:
    """Turn queued values into operations on ``metrics``, and add them to each run's summaries.

    Args:
        events: In the order they were logged.

    Returns:
        The operations that write them.
    """
    operations: list[Operation] = []
    numbers = _read_values(events)
    start = 0
    for (state, names, is_partial), group in groupby(events, key=_KIND):
        alike = list(group)
        end = start + len(names) * len(alike)
        operations += _batch_alike(state, names, is_partial, alike, numbers[start:end])
        start = end
    return operations


def _batch_alike(
    state: RunState, names: tuple[Any, ...], is_partial: bool, events: Sequence[Event], numbers: Sequence[float | None]
) -> Iterator[Operation]:
    """Yield the operations of log calls with the same names.

    Args:
        state: Run.
        names: Names, ``k`` of them.
        is_partial: Whether the values are no outcome.
        events: The calls, ``n`` of them.
        numbers: ``n * k`` values, those of one call together.
    """
    steps, epochs, elapsed_s = list(map(_STEP, events)), list(map(_EPOCH, events)), list(map(_ELAPSED, events))
    columns: dict[str, Sequence[float]] = {}
    for index, given in enumerate(names):
        name = given if type(given) is str and given.isascii() else storable_text(given)
        column = numbers[index :: len(names)]
        if not is_partial:
            state.add_series(name, column, steps)
        if name in columns:  # stored under the same text as a name before it, whose values these replace
            yield series_operation(state.id, state.attempt, columns, steps, epochs, elapsed_s)
            columns = {}
        if _are_finite(column):
            columns[name] = column
            continue
        rows = [
            (state.id, name, state.attempt, step, epoch, value if math.isfinite(value) else None, value_kind(value), seconds)
            for value, step, epoch, seconds in zip(column, steps, epochs, elapsed_s, strict=True)
            if value is not None
        ]
        if rows:
            yield metrics_operation(state.id, rows)
    if columns:
        yield series_operation(state.id, state.attempt, columns, steps, epochs, elapsed_s)
    if is_partial:
        state.metrics.note_partial(storable_text(name) for name in names)
    state.add_progress(max(steps), max((epoch for epoch in epochs if epoch is not None), default=None))


def _read_values(events: Sequence[Event]) -> list[float | None]:
    """Return the numbers that were logged, all calls in a row; None where there is none, or it can no longer be read."""
    for stream in {event[7] for event in events if event[7] is not None}:
        tensors.wait_for(stream)
    numbers, problems = tensors.to_numbers([value for event in events for value in event[3]])
    if problems:
        owners = [(event[0], name) for event in events for name in event[1]]
        for index, error in problems.items():
            state, name = owners[index]
            state.metrics.skip(name, error)
    return numbers


def _are_finite(column: Sequence[float | None]) -> TypeGuard[Sequence[float]]:
    """Return whether all of a column are finite numbers."""
    try:
        # a sum is not finite where one of its terms is not: far cheaper than a call for each
        return math.isfinite(sum(column)) or all(map(math.isfinite, column))  # type: ignore[arg-type]
    except TypeError:  # None among them
        return False
