"""How wide an interval must be, and whether the past tasks tell of each other: measured by leaving each out, and stored with the model.

The moments of a mixture of past tasks are wider than what a task like them turns out to be. So each past task is predicted from the others,
after none, 4 and 16 of its runs, and the intervals are scaled until they hold what they claim (split conformal prediction; Vovk, Gammerman
& Shafer, "Algorithmic learning in a random world", 2005, with the standardised residual as score).

Where the others do not foresee which runs of a left-out task are its better ones, they will not foresee those of a new task either: such a
history is trusted little before the first run, and not only after some runs that it led astray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import norm, t

from metamodel.gp.mixture import against_alone
from metamodel.gp.posterior import OwnRuns
from metamodel.gp.prior import HistoryPrior, views_of
from metamodel.gp.relatedness import Relatedness
from metamodel.gp.task_gps import FloatArray, TaskGPs

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
MIN_JUDGED = 8
"""Tasks from which a history can be distrusted; of fewer, each is foreseen from too little."""
TELLING = 0.3
"""Correlation of foreseen and true scores, less its standard error over tasks, from which a history is trusted as it is. Of recorded tasks
it is .4 to .9; where outcomes are shuffled, -.2 to .2, since each task is foreseen from nearly the same others."""
MIN_TRUST = 0.05
"""What is left of the trust in a history whose tasks do not tell of each other: the next task may be like one of them after all."""


@dataclass(frozen=True)
class Calibration:
    """Width of intervals.

    Attributes:
        half_widths: For a number of own runs, the half width of the central 50, 80 and 95 % interval in predicted standard deviations.
        coverage: For the same, how much the uncalibrated intervals held.
        n_tasks: Tasks it was measured on.
        trust: How much of its usual weight the history has before a task's own runs, in [0, 1]; 1 where that was not measured.
    """

    half_widths: Mapping[int, tuple[float, ...]]
    coverage: Mapping[int, tuple[float, ...]]
    n_tasks: int = 0
    trust: float = 1.0

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
            "trust": self.trust,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Calibration:
        """Rebuild from ``to_json``; absent content is an uncalibrated model."""
        widths, coverage = (
            {int(n): tuple(values) for n, values in content.get(key, {}).items()} for key in ("half_widths", "coverage_before")
        )
        return cls(widths, coverage, int(content.get("n_tasks", 0)), float(content.get("trust", 1.0)))


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
    if tasks.n_tasks < 2:
        return Calibration({}, {})  # one task left out leaves nothing to foresee it from
    rng = np.random.default_rng(seed)
    left_out = np.sort(rng.permutation(tasks.n_tasks)[:MAX_LEFT_OUT])

    def foreseen(n_own: int, trust: float) -> list[_Foreseen]:
        each = (_foreseen(tasks, relatedness, features, int(i), n_own, trust, rng) for i in left_out)
        return [found for found in each if found is not None]

    unasked = foreseen(0, 1.0)
    trust = trust_in([_correlation(found) for found in unasked])
    widths, coverage = {}, {}
    for n_own in N_OWN:
        tested = unasked if n_own == 0 and trust == 1.0 else foreseen(n_own, trust)
        found = [np.abs(scores - mean) / spread for scores, mean, spread in tested]
        if len(found) < MIN_LEFT_OUT:
            continue
        # Each task counts the same, however many runs it has.
        weights = np.concatenate([np.full(len(z), 1 / len(z)) for z in found])
        values = np.concatenate(found)
        widths[n_own] = tuple(_weighted_quantile(values, weights, level) for level in LEVELS)
        coverage[n_own] = tuple(float(weights[values <= norm.ppf(0.5 + level / 2)].sum() / weights.sum()) for level in LEVELS)
    return Calibration(widths, coverage, len(left_out) if widths else 0, trust)


def trust_in(correlations: Sequence[float]) -> float:
    """Return how much a history is trusted whose tasks were foreseen so well from each other.

    Args:
        correlations: Of the scores foreseen and those that came, one a task that was left out; fewer than eight say nothing.

    Returns:
        A share of the usual trust, between ``MIN_TRUST`` and 1.
    """
    if len(correlations) < MIN_JUDGED:
        return 1.0
    least = float(np.mean(correlations) - np.std(correlations, ddof=1) / math.sqrt(len(correlations)))
    return float(np.clip(least / TELLING, MIN_TRUST, 1.0))


class _Foreseen(NamedTuple):
    """Scores of a left-out task's runs, their predicted means and standard deviations, each of shape ``(n,)``."""

    scores: FloatArray
    mean: FloatArray
    spread: FloatArray


def _correlation(found: _Foreseen) -> float:
    """Return the correlation of foreseen and true scores, 0 where either has no spread."""
    if min(np.ptp(found.scores), np.ptp(found.mean)) < 1e-9:
        return 0.0
    return float(np.corrcoef(found.scores, found.mean)[0, 1])


def _foreseen(
    tasks: TaskGPs,
    relatedness: Relatedness,
    features: Sequence[Mapping[str, float]],
    i: int,
    n_own: int,
    trust: float,
    rng: np.random.Generator,
) -> _Foreseen | None:
    """Predict a left-out task's other runs after some of its own, or None if it has too few."""
    mask = tasks.mask[i].numpy()
    inputs, scores = tasks.inputs[i].double().numpy()[mask], tasks.scores[i].double().numpy()[mask]
    if len(scores) < n_own + MIN_TESTED:
        return None
    others = np.delete(np.arange(tasks.n_tasks), i)
    prior = HistoryPrior(tasks.without(i), views_of(relatedness, features[i], others), trust=trust)
    order = rng.permutation(len(scores))
    own, rest = order[:n_own], order[n_own:]
    posterior = against_alone(prior, OwnRuns(inputs[own], scores[own], np.ones(n_own, dtype=bool)), trust)
    mean, variance = posterior.predict(inputs[rest]).mixture()
    return _Foreseen(scores[rest], mean, np.sqrt(variance + posterior.noise_variance))


def _weighted_quantile(values: FloatArray, weights: FloatArray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    return float(values[order][min(int(np.searchsorted(share, level)), len(values) - 1)])
