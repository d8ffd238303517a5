"""The probability that a configuration finishes: diverged and out-of-memory runs as evidence, not as noise.

A trend over all runs shows where failures lie; runs near by are counted, weighted by a kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from metamodel.search.failure_trend import PRIOR_RATE, FailureTrend
from metamodel.space.arrays import FloatArray

BANDWIDTH = 0.15
"""Width of the kernel in units of a column's range: failures have edges (a learning rate, a batch size), and this blurs them little."""
PRIOR_WEIGHT = 1.0
"""The trend counts like one run that failed with the probability it gives."""
TARGET_WEIGHT = 4.0
"""A run of the target task counts as much as four runs of others."""


@dataclass(frozen=True, eq=False)
class Feasibility:
    """A trend of failures, and the failure rate of the runs near by.

    Attributes:
        inputs: Encoded runs, shape ``(n, d)``.
        is_failed: Shape ``(n,)``.
        weight: Weight of each run, shape ``(n,)``.
    """

    inputs: FloatArray
    is_failed: npt.NDArray[np.bool_]
    weight: FloatArray

    def finish_probability(self, inputs: FloatArray) -> FloatArray:
        """Return the probability of finishing of ``n`` configurations.

        Args:
            inputs: Shape ``(n, d)``, encoded as the runs.

        Returns:
            Shape ``(n,)``, in (0, 1).
        """
        if not self.is_failed.any():
            return np.full(len(inputs), 1.0 - PRIOR_RATE)
        if self.inputs.shape[1] == 0:
            failed = float((self.weight * self.is_failed).sum())
            return np.full(len(inputs), 1.0 - (failed + PRIOR_WEIGHT * PRIOR_RATE) / (float(self.weight.sum()) + PRIOR_WEIGHT))
        squared = (inputs**2).sum(1)[:, None] + (self.inputs**2).sum(1)[None, :] - 2 * inputs @ self.inputs.T
        kernel = np.exp(-0.5 * np.maximum(squared, 0.0) / BANDWIDTH**2) * self.weight
        failed = kernel @ self.is_failed + PRIOR_WEIGHT * self._trend.rate(inputs)
        found: FloatArray = 1.0 - failed / (kernel.sum(1) + PRIOR_WEIGHT)
        return found

    def gradient(self, row: FloatArray) -> tuple[float, FloatArray]:
        """Return the probability of finishing of one configuration, shape ``(d,)``, and its gradient, shape ``(d,)``."""
        probability = float(self.finish_probability(row[None])[0])
        if not self.is_failed.any() or not len(row):
            return probability, np.zeros(len(row))
        gap = row - self.inputs
        kernel = np.exp(-0.5 * np.square(gap).sum(1) / BANDWIDTH**2) * self.weight
        total = float(kernel.sum()) + PRIOR_WEIGHT
        # The rate is a weighted mean of failures, so how its weights shift counts, and how the trend rises.
        shift = kernel * (self.is_failed - (1.0 - probability))
        return probability, shift @ gap / (BANDWIDTH**2 * total) - PRIOR_WEIGHT * self._trend.gradient(row) / total

    @cached_property
    def _trend(self) -> FailureTrend:
        return FailureTrend.fit(self.inputs, self.is_failed, self.weight)
