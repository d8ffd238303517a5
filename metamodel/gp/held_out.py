"""What a meta-model without a likelihood misses, measured on past tasks it has not seen: the source of its intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import norm, rankdata

from metamodel.gp.calibration import LEVELS, N_OWN, Calibration
from metamodel.gp.task_gps import FloatArray

MIN_LEFT_OUT = 4
"""Tasks from which some are left out; fewer cannot say what a model misses, and need every one to learn from."""
MIN_TESTED = 4
"""Runs of a task that must be left to test with."""
UNKNOWN = 1.0
"""Residual where nothing was measured: scores have this spread, so a prediction then says hardly more than nothing."""
N_ORDER_DRAWS = 256


@dataclass(frozen=True)
class Residuals:
    """How much predictions of scores miss.

    Attributes:
        spread: For a number of own runs, the root mean square of what was missed, every task counting the same.
        calibration: Half widths of intervals in units of that.
        n_tasks: Tasks it was measured on; 0 where there were too few.
    """

    spread: Mapping[int, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=lambda: Calibration({}, {}))
    n_tasks: int = 0

    def at(self, n_own: int) -> float:
        """Return the residual after so many own runs; between the measured numbers it is interpolated on a log scale."""
        if not self.spread:
            return UNKNOWN
        known = sorted(self.spread)
        return float(np.interp(np.log1p(n_own), np.log1p(known), [self.spread[n] for n in known]))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {**self.calibration.to_json(), "spread": {str(n): value for n, value in self.spread.items()}, "n_tasks": self.n_tasks}

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Residuals:
        """Rebuild from ``to_json``."""
        spread = {int(n): float(value) for n, value in content["spread"].items()}
        return cls(spread, Calibration.from_json(content), int(content["n_tasks"]))


def measure_residuals(missed: Callable[[int], list[FloatArray]]) -> Residuals:
    """Measure what is missed after none, 4 and 16 own runs.

    Args:
        missed: Number of own runs -> what was missed of the other runs of each task that was left out.
    """
    spread, widths, coverage = {}, {}, {}
    n_tasks = 0
    for n_own in N_OWN:
        rows = [row for row in missed(n_own) if len(row) >= MIN_TESTED]
        if len(rows) < MIN_LEFT_OUT:
            continue
        n_tasks = max(n_tasks, len(rows))
        root = max(float(np.sqrt(np.mean([np.square(row).mean() for row in rows]))), 1e-3)
        scaled = np.concatenate([np.abs(row) / root for row in rows])
        weight = np.concatenate([np.full(len(row), 1 / len(row)) for row in rows])
        order = np.argsort(scaled, kind="stable")
        share = np.cumsum(weight[order]) / weight.sum()
        spread[n_own] = root
        widths[n_own] = tuple(float(scaled[order][min(int(np.searchsorted(share, level)), len(scaled) - 1)]) for level in LEVELS)
        coverage[n_own] = tuple(float(weight[scaled <= norm.ppf(0.5 + level / 2)].sum() / weight.sum()) for level in LEVELS)
    return Residuals(spread, Calibration(widths, coverage, n_tasks), n_tasks)


def ranks(outcomes: FloatArray) -> FloatArray:
    """Return the position of each outcome among the distinct ones, shape ``(n,)``: single precision would make close losses equal."""
    return np.unique(outcomes, return_inverse=True)[1].astype(np.float64)


def expected_order(mean: FloatArray, spread: float, outcomes: FloatArray) -> FloatArray:
    """Score each own run by what is expected of its rank among exactly these configurations.

    Args:
        mean: Predicted scores, shape ``(n,)``.
        spread: Standard deviation of what predictions miss.
        outcomes: Oriented outcomes, shape ``(n,)``; ties share the mean of their ranks' scores.

    Returns:
        Shape ``(n,)``, increasing in the outcome.
    """
    noise = np.random.default_rng(0).normal(size=(N_ORDER_DRAWS, len(mean)))
    expected = np.sort(mean + spread * noise, axis=1).mean(0)
    position = rankdata(outcomes, method="average") - 1.0
    scores: FloatArray = np.interp(position, np.arange(len(mean)), expected)
    return scores
