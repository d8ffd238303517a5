"""How wide an interval must be: measured by leaving each past task out, and stored with the model.

The moments of a mixture of past tasks are wider than what a task like them turns out to be. So each past task is predicted from the others,
after none, 4 and 16 of its runs, and the intervals are scaled until they hold what they claim (split conformal prediction; Vovk, Gammerman
& Shafer, "Algorithmic learning in a random world", 2005, with the standardised residual as score).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, t

from metamodel.posterior import OwnRuns
from metamodel.prior import HistoryPrior, views_of
from metamodel.relatedness import Relatedness
from metamodel.rivals import against_alone
from metamodel.task_gps import FloatArray, TaskGPs

LEVELS = (0.5, 0.8, 0.95)
N_OWN = (0, 4, 16)
MAX_LEFT_OUT = 24
"""Tasks that are left out, one after the other."""
MIN_LEFT_OUT = 4
"""Fewer tasks cannot say how wide an interval must be; then it is that of ``own_half_width``."""
FREEDOM = 0.75
"""From the residuals of recorded runs of three kinds of model. With 8 to 64 runs of a task intervals this wide mostly hold what they claim;
with 4 they are still too narrow."""
MIN_TESTED = 4
"""Runs of a task that must be left to test an interval with."""


@dataclass(frozen=True)
class Calibration:
    """Width of intervals.

    Attributes:
        half_widths: For a number of own runs, the half width of the central 50, 80 and 95 % interval in predicted standard deviations.
        coverage: For the same, how much the uncalibrated intervals held.
        n_tasks: Tasks it was measured on.
    """

    half_widths: Mapping[int, tuple[float, ...]]
    coverage: Mapping[int, tuple[float, ...]]
    n_tasks: int = 0

    def half_width(self, n_own: int, level: float = 0.8) -> float:
        """Return the half width of a central interval in predicted standard deviations.

        Args:
            n_own: Own runs of the task; between those of ``N_OWN`` it is interpolated on a log scale.
            level: One of ``LEVELS``.
        """
        if not self.half_widths:
            return own_half_width(n_own, level)
        # Of few past tasks with few runs, some are too short to test what 4 or 16 own runs say; then the prediction is taken at its word.
        as_predicted = float(norm.ppf(0.5 + level / 2))
        column = [self.half_widths[n][LEVELS.index(level)] if n in self.half_widths else as_predicted for n in N_OWN]
        return float(np.interp(np.log1p(n_own), np.log1p(N_OWN), column))

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "levels": list(LEVELS),
            "half_widths": {str(n): list(values) for n, values in self.half_widths.items()},
            "coverage_before": {str(n): list(values) for n, values in self.coverage.items()},
            "n_tasks": self.n_tasks,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Rebuild from ``to_json``; absent content is an uncalibrated model."""
        widths, coverage = (
            {int(n): tuple(values) for n, values in content.get(key, {}).items()} for key in ("half_widths", "coverage_before")
        )
        return cls(widths, coverage, int(content.get("n_tasks", 0)))


def own_half_width(n_own: int, level: float) -> float:
    """Return the half width, in predicted standard deviations, of an interval that no past task has calibrated.

    Length scales and noise that were fitted to few runs fit these better than the next one, so the tails are those of Student's t, with
    ``FREEDOM sqrt(n)`` degrees of freedom.

    Args:
        n_own: Own runs; without any, nothing was fitted to them.
        level: Share that the interval is to hold.
    """
    quantile = 0.5 + level / 2
    return float(t.ppf(quantile, FREEDOM * math.sqrt(n_own)) if n_own else norm.ppf(quantile))


def calibrate(tasks: TaskGPs, relatedness: Relatedness, features: Sequence[Mapping[str, float]], seed: int = 0) -> Calibration:
    """Measure how wide intervals must be.

    Args:
        tasks: The past tasks.
        relatedness: Their weights for each other.
        features: Their descriptors, ``T`` mappings.
        seed: Which tasks and runs are drawn.
    """
    rng = np.random.default_rng(seed)
    left_out = np.sort(rng.permutation(tasks.n_tasks)[:MAX_LEFT_OUT])
    widths, coverage = {}, {}
    for n_own in N_OWN:
        found = [z for i in left_out if (z := _standardised(tasks, relatedness, features, int(i), n_own, rng)) is not None]
        if len(found) < MIN_LEFT_OUT:
            continue
        # Each task counts the same, however many runs it has.
        weights = np.concatenate([np.full(len(z), 1 / len(z)) for z in found])
        values = np.concatenate(found)
        widths[n_own] = tuple(_weighted_quantile(values, weights, level) for level in LEVELS)
        coverage[n_own] = tuple(float(weights[values <= norm.ppf(0.5 + level / 2)].sum() / weights.sum()) for level in LEVELS)
    return Calibration(widths, coverage, len(left_out) if widths else 0)


def _standardised(
    tasks: TaskGPs, relatedness: Relatedness, features: Sequence[Mapping[str, float]], i: int, n_own: int, rng: np.random.Generator
) -> FloatArray | None:
    """Return the absolute standardised residuals of a left-out task's other runs, or None if it has too few."""
    mask = tasks.mask[i].numpy()
    inputs, scores = tasks.inputs[i].double().numpy()[mask], tasks.scores[i].double().numpy()[mask]
    if len(scores) < n_own + MIN_TESTED:
        return None
    others = np.delete(np.arange(tasks.n_tasks), i)
    prior = HistoryPrior(tasks.without(i), views_of(relatedness, features[i], others))
    order = rng.permutation(len(scores))
    own, rest = order[:n_own], order[n_own:]
    posterior = against_alone(prior, OwnRuns(inputs[own], scores[own], np.ones(n_own, dtype=bool)))
    mean, variance = posterior.predict(inputs[rest]).mixture()
    result: FloatArray = np.abs(scores[rest] - mean) / np.sqrt(variance + posterior.noise_variance)
    return result


def _weighted_quantile(values: FloatArray, weights: FloatArray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(share, level)), len(values) - 1)])
