"""What a search for the next configuration maximises. Arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metamodel.gp.prediction import TaskPosterior
from metamodel.search.feasibility import Feasibility
from metamodel.space.arrays import FloatArray

FAILED_SCORE = -2.5
"""What a failed run is worth in normal scores: worse than 99 of 100."""

CAUTION = 1.0
"""Standard deviations that a first choice is judged below its expected outcome: what was good on most past tasks and bad on some is a
worse start than what was good on all."""


@dataclass(frozen=True, slots=True, eq=False)
class Acquisition:
    """What a search maximises, times the probability of finishing.

    Attributes:
        posterior: The task's posterior.
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
    def has_gradient(self) -> bool:
        """Whether ``gradient`` can be asked."""
        return self.posterior.has_gradient

    def values(self, inputs: FloatArray) -> FloatArray:
        """Return the value of encoded configurations, shape ``(n,)``."""
        finish = self.feasibility.finish_probability(inputs)
        if self.posterior.is_informed and self.mode == "best":
            worth = self.posterior.mean(inputs)
        else:
            predicted = self.posterior.predict(inputs)
            if self.posterior.is_informed:
                assert predicted.incumbent is not None
                return predicted.log_improvement(predicted.incumbent) + np.log(finish)
            mean, variance = predicted.mixture()
            worth = mean - CAUTION * np.sqrt(variance)
        return finish * worth + (1 - finish) * FAILED_SCORE

    def gradient(self, row: FloatArray) -> tuple[float, FloatArray]:
        """Return the value of one encoded configuration, shape ``(d,)``, and its gradient."""
        finish, finish_slope = self.feasibility.gradient(row)
        if self.mode == "explore" and self.posterior.is_informed:
            value, slope = self.posterior.log_improvement_gradient(row)
            return value + math.log(finish), slope + finish_slope / finish
        mean, mean_slope = self.posterior.mean_gradient(row)
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
