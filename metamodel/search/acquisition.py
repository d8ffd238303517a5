"""What a search for the next configuration maximises. Arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metamodel.gp.meta_model import TaskPosterior
from metamodel.gp.single_task import AlonePosterior
from metamodel.search.feasibility import Feasibility

FloatArray = npt.NDArray[np.float64]

FAILED_SCORE = -2.5
"""What a failed run is worth in normal scores: worse than 99 of 100."""

CAUTION = 1.0
"""Standard deviations that a first choice is judged below its expected outcome: what was good on most past tasks and bad on some is a
worse start than what was good on all."""


@dataclass(frozen=True, eq=False)
class Acquisition:
    """What a search maximises, times the probability of finishing.

    Attributes:
        posterior: What is believed of the task.
        feasibility: Where runs finish.
        mode: ``best``: the expected outcome; ``explore``: the expected improvement, its logarithm. A task without a run of its own gets a
            cautious choice in both: an outcome that is likely to be surpassed.
        seen_bounds: From a name to the range outside of which nothing is proposed; None proposes everywhere.
    """

    posterior: TaskPosterior
    feasibility: Feasibility
    mode: str
    seen_bounds: Callable[[str], tuple[float, float, bool]] | None = None

    @property
    def is_smooth(self) -> bool:
        """Whether it knows its gradient."""
        return isinstance(self.posterior, AlonePosterior)

    def values(self, inputs: FloatArray) -> FloatArray:
        """Return the value of encoded configurations, shape ``(n,)``."""
        finish = self.feasibility.finish_probability(inputs)
        if self._is_informed and self.mode == "best":
            worth = self.posterior.mean(inputs)
        else:
            predicted = self.posterior.predict(inputs)
            if self._is_informed:
                assert predicted.incumbent is not None
                return predicted.log_improvement(predicted.incumbent) + np.log(finish)
            mean, variance = predicted.mixture()
            worth = mean - CAUTION * np.sqrt(variance)
        return finish * worth + (1 - finish) * FAILED_SCORE

    @property
    def _is_informed(self) -> bool:
        """Whether the task has runs of its own."""
        scores = self.posterior.own_scores
        return scores is not None and len(scores) > 0

    def slope(self, row: FloatArray) -> tuple[float, FloatArray]:
        """Return the value of one encoded configuration, shape ``(d,)``, and its gradient."""
        assert isinstance(self.posterior, AlonePosterior)
        finish, finish_slope = self.feasibility.slope(row)
        if self.mode == "explore" and self.posterior.incumbent is not None:
            value, slope = self.posterior.log_improvement(row)
            return value + math.log(finish), slope + finish_slope / finish
        mean, _, mean_slope, _ = self.posterior.slope(row)
        return finish * mean + (1 - finish) * FAILED_SCORE, finish * mean_slope + (mean - FAILED_SCORE) * finish_slope

    def is_supported(self, points: Mapping[str, FloatArray]) -> npt.NDArray[np.bool_]:
        """Say which candidates do not lie far outside what any run had, given the numbers of each name, shape ``(n,)``."""
        n = len(next(iter(points.values())))
        if self.seen_bounds is None:
            return np.ones(n, dtype=bool)
        within: npt.NDArray[np.bool_] = np.all([lies_within(numbers, self.seen_bounds(name)) for name, numbers in points.items()], axis=0)
        return within


def lies_within(numbers: FloatArray, bounds: tuple[float, float, bool]) -> npt.NDArray[np.bool_]:
    """Say which numbers lie between two bounds, which are logarithms where the third says so."""
    low, high, is_log = bounds
    if not is_log:
        return (low <= numbers) & (numbers <= high)
    logs = np.log(np.maximum(numbers, 1e-300))
    return (numbers > 0) & (low <= logs) & (logs <= high)
