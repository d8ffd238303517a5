"""Residuals of non-probabilistic meta-models on held-out tasks; used to build intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from metamodel.gp.calibration import MIN_HELD_OUT_TASKS, MIN_TEST_RUNS, N_OWN, Calibration, interval_widths
from metamodel.gp.posterior import expected_order_statistics
from metamodel.space.arrays import FloatArray

UNKNOWN = 1.0
"""Residual where nothing was measured: the standard deviation of scores, so that a prediction has hardly any content."""


@dataclass(frozen=True, slots=True)
class Residuals:
    """How far predictions of scores are off.

    Attributes:
        spread: For a number of target runs, the root mean square of the residuals, every task counting the same.
        calibration: Half widths of intervals in units of that.
        n_tasks: Tasks it was measured on; 0 where there were too few.
    """

    spread: Mapping[int, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=lambda: Calibration({}, {}))
    n_tasks: int = 0

    def at(self, n_own: int) -> float:
        """Return the residual after so many target runs; between the measured numbers it is interpolated on a log scale."""
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


def measure_residuals(residuals: Callable[[int], list[FloatArray]]) -> Residuals:
    """Measure residuals after none, 4 and 16 runs of the target task.

    Args:
        residuals: Number of target runs -> residuals of the other runs of each held-out task.
    """
    spread, widths, coverage = {}, {}, {}
    n_tasks = 0
    for n_own in N_OWN:
        rows = [row for row in residuals(n_own) if len(row) >= MIN_TEST_RUNS]
        if len(rows) < MIN_HELD_OUT_TASKS:
            continue
        n_tasks = max(n_tasks, len(rows))
        spread[n_own] = max(float(np.sqrt(np.mean([np.square(row).mean() for row in rows]))), 1e-3)
        widths[n_own], coverage[n_own] = interval_widths([np.abs(row) / spread[n_own] for row in rows])
    return Residuals(spread, Calibration(widths, coverage, n_tasks), n_tasks)


def ranks(outcomes: FloatArray) -> FloatArray:
    """Return the position of each outcome among the distinct ones, shape ``(n,)``: single precision would make close losses equal."""
    return np.unique(outcomes, return_inverse=True)[1].astype(np.float64)


def expected_scores(mean: FloatArray, spread: float, outcomes: FloatArray) -> FloatArray:
    """Score each run by the expected value of its rank among exactly these configurations.

    Args:
        mean: Predicted scores, shape ``(n,)``.
        spread: Standard deviation of the residuals.
        outcomes: Oriented outcomes, shape ``(n,)``.

    Returns:
        Shape ``(n,)``, increasing in the outcome.
    """
    factor = spread * torch.eye(len(mean), dtype=torch.double)
    found: FloatArray = expected_order_statistics(torch.as_tensor(mean)[None], factor[None], outcomes)[0].numpy()
    return found
