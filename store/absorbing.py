"""From what training steps queued to rows of ``metrics``: many log calls at once, column by column.

A training logs the same names again and again, so consecutive calls with the same names are turned into rows together: what is
done per value in Python is what logging costs a program that has no core to spare.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby, repeat
from typing import Any

from store import tensors
from store.outcome import value_kind
from store.run_state import RunState
from store.values import storable_text

Event = tuple[RunState, tuple[Any, ...], bool, list[Any], int, float | None, float, Any]
"""Run, names, whether partial, one value per name, step, epoch, seconds since the start, the CUDA stream the values come from."""


def absorb(events: Sequence[Event]) -> dict[str, list[Any]]:
    """Turn queued values into rows of ``metrics`` by run, and tell each run its values.

    Args:
        events: In the order they were logged; their values are replaced by numbers.

    Returns:
        Run id -> rows in the order of ``METRIC_COLUMNS``.
    """
    _read_values(events)
    rows: dict[str, list[Any]] = {}
    for (state, names, is_partial), group in groupby(events, key=_kind_of_event):
        columns = zip(*((event[3], event[4], event[5], event[6]) for event in group), strict=True)
        values, steps, epochs, elapsed = columns
        target = rows.setdefault(state.id, [])
        for given, series in zip(names, zip(*values, strict=True), strict=True):
            name = given if type(given) is str and given.isascii() else storable_text(given)
            target += _rows_of(state, name, series, steps, epochs, elapsed)
            if not is_partial:
                state.add_series(name, series, steps)
        if not is_partial:
            state.add_progress(max(steps), max((epoch for epoch in epochs if epoch is not None), default=None))
    return rows


def _kind_of_event(event: Event) -> tuple[RunState, tuple[Any, ...], bool]:
    return event[:3]


def _read_values(events: Sequence[Event]) -> None:
    """Replace what was logged by its number, in place; by None where there is none, or it can no longer be read."""
    waiting: list[tuple[list[Any], int]] = []
    held: list[Any] = []
    for state, names, _, values, *_ in events:
        for index, value in enumerate(values):
            if type(value) is float:
                continue
            try:
                number = tensors.hold(value)
            except Exception as error:  # a value may be any foreign object
                state.skip(names[index], error)
                number = None
            values[index] = number
            if number is not None and type(number) is not float:
                waiting.append((values, index))
                held.append(number)
    for stream in {event[7] for event in events if event[7] is not None}:
        tensors.wait_for(stream)
    for (values, index), found in zip(waiting, tensors.to_floats(held), strict=True):
        values[index] = found


def _rows_of(
    state: RunState,
    name: str,
    series: Sequence[float | None],
    steps: Sequence[int],
    epochs: Sequence[float | None],
    elapsed: Sequence[float],
) -> list[tuple[Any, ...]]:
    if None in series or not all(map(math.isfinite, series)):  # type: ignore[arg-type]
        return [
            (state.id, name, state.attempt, step, epoch, value if math.isfinite(value) else None, value_kind(value), seconds)
            for value, step, epoch, seconds in zip(series, steps, epochs, elapsed, strict=True)
            if value is not None
        ]
    constant = repeat(state.id), repeat(name), repeat(state.attempt)
    return list(zip(*constant, steps, epochs, series, repeat("finite"), elapsed, strict=False))
