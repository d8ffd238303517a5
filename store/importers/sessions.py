"""Several runs in one log: where the steps of a metric begin anew, another run begins.

A run that was resumed goes on at a later step than its first one, so it stays one run. Values that stand before the first step that goes
back, but repeat what their metric logged at its only step, belong to the run that begins there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Item = TypeVar("Item")
_MAX_WAITING = 1_000
"""Values that may stand between two runs before they are counted to the first one."""


@dataclass(slots=True)
class SessionSplitter(Generic[Item]):
    """Numbers the runs of one log, which gives its values in the order they were written.

    Attributes:
        number: The run that the log is at, counted from 0.
    """

    number: int = 0
    _first: dict[str, int] = field(default_factory=dict)
    _last: dict[str, int] = field(default_factory=dict)
    _waiting: list[tuple[str, int, Item]] = field(default_factory=list)

    def add(self, metric: str, step: int, item: Item) -> Iterator[tuple[int, Item]]:
        """Take the next value; yield the values, as they were given, whose run is certain now, with its number."""
        last = self._last.get(metric)
        if last is not None and step < last and step <= self._first[metric]:
            self.number += 1
            self._first, self._last = {}, {}
            yield from self.rest()
        elif self._waiting and ((last is not None and step > last) or len(self._waiting) >= _MAX_WAITING):
            yield from self.rest()
        elif self._waiting or (last is not None and step == last == self._first[metric]):
            self._waiting.append((metric, step, item))
            return
        yield self._taken(metric, step, item)

    def begin(self) -> Iterator[tuple[int, Item]]:
        """Begin another run, where the log itself marks it; yield the values that waited."""
        yield from self.rest()
        self.number += 1
        self._first, self._last = {}, {}

    def rest(self) -> Iterator[tuple[int, Item]]:
        """Yield the values that waited; at the end of the log these are the last ones."""
        waiting, self._waiting = self._waiting, []
        for value in waiting:
            yield self._taken(*value)

    def _taken(self, metric: str, step: int, item: Item) -> tuple[int, Item]:
        self._first.setdefault(metric, step)
        self._last[metric] = step
        return self.number, item
