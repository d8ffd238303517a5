"""What one metric of one run came to under full validation: the last value, and the best one in either direction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field


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
        # All but the last step are settled, since no step comes twice: their best is all that counts of them.
        settled: list[float] = list(values[:-1])  # type: ignore[arg-type]
        for extreme, best in ((self.low, min(settled)), (self.high, max(settled))):
            is_better = extreme.value is None or (best > extreme.value if extreme is self.high else best < extreme.value)
            if is_better:
                extreme.value, extreme.step = best, steps[settled.index(best)]
        self.last_step = steps[-2]
        self.add(values[-1], steps[-1])  # type: ignore[arg-type]
