"""What the metrics of one run came to under full validation: of each the last value, and the best one in either direction."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from store.names import Direction
from store.outcome import is_divergence, value_kind, value_of_kind
from store.statuses import RunStatus

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Extreme:
    """The best value in one direction; ``before`` is the best one without the last step, which may be logged again."""

    value: float | None = None
    step: int | None = None
    value_before: float | None = None
    step_before: int | None = None


@dataclass(slots=True)
class Summary:
    """Last value, smallest and largest finite one, each with its step."""

    last: float = math.nan
    last_step: int | None = None
    low: Extreme = field(default_factory=Extreme)
    high: Extreme = field(default_factory=Extreme)

    def add(self, value: float, step: int) -> None:
        """Take in one value; the same step again replaces the one before."""
        for extreme, is_max in ((self.low, False), (self.high, True)):
            if step != self.last_step:
                extreme.value_before, extreme.step_before = extreme.value, extreme.step
            best = extreme.value_before
            is_best = math.isfinite(value) and (best is None or (value > best if is_max else value < best))
            extreme.value, extreme.step = (value, step) if is_best else (best, extreme.step_before)
        self.last, self.last_step = value, step

    def add_series(self, values: Sequence[float | None], steps: Sequence[int]) -> None:
        """Take in values in the order they were logged; None stands for one that could not be read.

        The same as ``add`` for each, but most of it at the speed of ``min`` and ``max``.
        """
        is_plain = None not in values and len(set(steps)) == len(steps) and steps[0] != self.last_step and len(steps) > 2
        if not is_plain or not all(map(math.isfinite, values)):  # type: ignore[arg-type]
            for value, step in zip(values, steps, strict=True):
                if value is not None:
                    self.add(value, step)
            return
        # No step comes twice, so of all but the last one only the best counts.
        earlier: list[float] = list(values[:-1])  # type: ignore[arg-type]
        for extreme, best in ((self.low, min(earlier)), (self.high, max(earlier))):
            is_better = extreme.value is None or (best > extreme.value if extreme is self.high else best < extreme.value)
            if is_better:
                extreme.value, extreme.step = best, steps[earlier.index(best)]
        self.last_step = steps[-2]
        self.add(values[-1], steps[-1])  # type: ignore[arg-type]


class Summaries:
    """The summaries of all metrics of one run, and what of them goes into its row.

    Args:
        run_id: Id of the run, for messages.
        lock: That of the run's state.
    """

    def __init__(self, run_id: str, lock: threading.RLock) -> None:
        self._run_id, self._lock = run_id, lock
        self._of: dict[str, Summary] = {}
        self._partial: set[str] = set()
        self._skipped: set[Any] = set()

    def names(self) -> list[str]:
        """Return the names logged so far, sorted."""
        with self._lock:
            return sorted(self._of.keys() | self._partial)

    def last_values(self) -> dict[str, float | None]:
        """Return the names logged so far with their last value, None where none of them was an outcome."""
        with self._lock:
            return {**dict.fromkeys(self._partial), **{name: summary.last for name, summary in self._of.items()}}

    def note_partial(self, names: Iterable[str]) -> None:
        """Note names whose values are no outcome."""
        with self._lock:
            self._partial.update(names)

    def add_series(self, name: str, values: Sequence[float | None], steps: Sequence[int]) -> None:
        """Take in values of a metric, in the order they were logged."""
        with self._lock:
            self._of.setdefault(name, Summary()).add_series(values, steps)

    def skip(self, name: Any, error: BaseException) -> None:
        """Log once that something logged is no number and is left out."""
        if name not in self._skipped:
            self._skipped.add(name)
            logger.warning("%r of run %s is no number and is left out: %s", name, self._run_id, error or type(error).__name__)

    def ending(self, objective: str | None) -> RunStatus:
        """Return the status of a run that ended without an exception."""
        with self._lock:
            last = {name: summary.last for name, summary in self._of.items()}
        return RunStatus.DIVERGED if is_divergence(last, objective) else RunStatus.COMPLETED

    def resume(self, objective: str, row: Mapping[str, Any]) -> None:
        """Go on from what an earlier attempt left in the run's row."""
        last = value_of_kind(row["objective_last"], row["objective_last_kind"])
        summary = Summary(math.nan if last is None else last, row["objective_last_step"])
        for extreme in (summary.low, summary.high):
            extreme.value = extreme.value_before = row["objective_best"]
            extreme.step = extreme.step_before = row["objective_best_step"]
        with self._lock:
            self._of[objective] = summary

    def outcome(self, objective: str | None, direction: Direction | None) -> dict[str, Any]:
        """Return the columns of the run's row with its result; none before the objective was logged."""
        with self._lock:
            summary = self._of.get(objective or "")
            if summary is None or direction is None:
                return {}
            best = summary.high if direction is Direction.MAX else summary.low
            last_kind = value_kind(summary.last)
            return {
                "objective_best": best.value,
                "objective_best_kind": None if best.value is None else "finite",
                "objective_best_step": best.step,
                "objective_last": summary.last if last_kind == "finite" else None,
                "objective_last_kind": last_kind,
                "objective_last_step": summary.last_step,
            }
