"""How wide an interval must be, and how far a history is trusted: measured on held-out tasks, and stored with the model.

The moments of a mixture of source tasks are wider than the spread of a task like them. So each source task is predicted from the others,
after none, 4 and 16 of its runs, and the intervals are scaled until they hold what they claim (split conformal prediction; Vovk, Gammerman
& Shafer, "Algorithmic learning in a random world", 2005, with the standardised residual as score).

Where the others do not predict which runs of a held-out task are its better ones, they will not predict those of a new task either: such a
history gets little weight before the first run, and not only after some runs that it led astray.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import norm, t

from metamodel.data.run_groups import RunGroups
from metamodel.gp.mixture import posterior_with_single_task_component
from metamodel.gp.prediction import TargetTaskData
from metamodel.gp.prior import HistoryPrior, task_weightings
from metamodel.gp.relatedness import Relatedness
from metamodel.gp.task_gps import TaskGPs
from metamodel.space.arrays import FloatArray

LEVELS = (0.5, 0.8, 0.95)
N_TARGET_RUNS = (0, 4, 16)
"""Numbers of runs of the target task after which intervals are measured."""
MAX_HELD_OUT_TASKS = 24
"""Tasks that are held out, one after the other."""
MIN_HELD_OUT_TASKS = 4
"""Fewer tasks do not show how wide an interval must be; then it is that of ``uncalibrated_half_width``."""
MIN_TEST_RUNS = 4
"""Runs of a held-out task that must remain to test an interval with."""
T_DOF_FACTOR = 0.75
"""From the residuals of recorded runs of three kinds of model. With 8 to 64 runs of a task intervals this wide mostly hold what they claim;
with 4 they are still too narrow."""
MIN_TASKS_FOR_TRUST = 8
"""Tasks from which a history can be distrusted; of fewer, each is predicted from too little."""
FULL_TRUST_CORRELATION = 0.3
"""Correlation of predicted and true scores, less its standard error over tasks, from which a history has its full weight. Of recorded tasks
it is .4 to .9; where outcomes are shuffled, -.2 to .2, since each task is predicted from nearly the same others."""
MIN_TRUST = 0.05
"""Least trust in a history whose tasks do not predict each other: the next task may be like one of them after all."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Width of intervals.

    Attributes:
        half_widths: For a number of target runs, the half width of the central 50, 80 and 95 % interval in predicted standard deviations.
        coverage: For the same, how much the uncalibrated intervals held.
        n_tasks: Tasks it was measured on.
        trust: Share of its usual weight that the history has before the target task's runs, in [0, 1]; 1 where that was not measured.
    """

    half_widths: Mapping[int, tuple[float, ...]]
    coverage: Mapping[int, tuple[float, ...]]
    n_tasks: int = 0
    trust: float = 1.0

    def half_width(self, n_runs: int, level: float = 0.8) -> float:
        """Return the half width of a central interval in predicted standard deviations.

        Args:
            n_runs: Runs of the target task; between those of ``N_TARGET_RUNS`` it is interpolated on a log scale.
            level: One of ``LEVELS``.
        """
        if not self.half_widths:
            return uncalibrated_half_width(n_runs, level)
        # Few source tasks with few runs may be too short to test the interval after 4 or 16 of them; then it stays as predicted.
        as_predicted = float(norm.ppf(0.5 + level / 2))
        column = [self.half_widths[n][LEVELS.index(level)] if n in self.half_widths else as_predicted for n in N_TARGET_RUNS]
        return float(np.interp(np.log1p(n_runs), np.log1p(N_TARGET_RUNS), column))

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


def uncalibrated_half_width(n_runs: int, level: float) -> float:
    """Return the half width, in predicted standard deviations, of an interval that no source task has calibrated.

    Length scales and noise that were fitted to few runs fit these better than the next one, so the tails are those of Student's t, with
    ``T_DOF_FACTOR sqrt(n)`` degrees of freedom.

    Args:
        n_runs: Runs of the target task; without any, nothing was fitted to them.
        level: Share that the interval is to hold.
    """
    quantile = 0.5 + level / 2
    return float(t.ppf(quantile, T_DOF_FACTOR * math.sqrt(n_runs)) if n_runs else norm.ppf(quantile))


def interval_widths(residuals: Sequence[FloatArray]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the half widths of intervals at each of ``LEVELS``, and which share of the residuals lies in those of a standard normal.

    Args:
        residuals: Absolute standardised residuals of each held-out task; each task counts the same, however many runs it has.
    """
    weights = np.concatenate([np.full(len(z), 1 / len(z)) for z in residuals])
    values = np.concatenate(residuals)
    order = np.argsort(values, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    widths = [float(values[order][min(int(np.searchsorted(share, level)), len(values) - 1)]) for level in LEVELS]
    coverage = [float(weights[values <= norm.ppf(0.5 + level / 2)].sum() / weights.sum()) for level in LEVELS]
    return tuple(widths), tuple(coverage)


def calibrate(tasks: TaskGPs, relatedness: Relatedness, features: Sequence[Mapping[str, float]], seed: int = 0) -> Calibration:
    """Measure how wide intervals must be, and how far the history is trusted.

    Args:
        tasks: The source tasks, ``T`` of them.
        relatedness: Their weights for each other.
        features: Their descriptors, ``T`` mappings.
        seed: Which tasks and runs are drawn.
    """
    if tasks.n_tasks < 2:
        return Calibration({}, {})  # nothing remains to predict a held-out task from
    rng = np.random.default_rng(seed)
    held_out = np.sort(rng.permutation(tasks.n_tasks)[:MAX_HELD_OUT_TASKS])

    def predicted(n_runs: int, trust: float) -> list[_HeldOut]:
        each = (_predict_held_out(tasks, relatedness, features, int(i), n_runs, trust, rng) for i in held_out)
        return [found for found in each if found is not None]

    before_any_run = predicted(0, 1.0)
    trust = trust_in([found.correlation for found in before_any_run])
    widths, coverage = {}, {}
    for n_runs in N_TARGET_RUNS:
        tested = before_any_run if n_runs == 0 and trust == 1.0 else predicted(n_runs, trust)
        if len(tested) >= MIN_HELD_OUT_TASKS:
            widths[n_runs], coverage[n_runs] = interval_widths([np.abs(found.scores - found.mean) / found.spread for found in tested])
    return Calibration(widths, coverage, len(held_out) if widths else 0, trust)


def trust_in(correlations: Sequence[float]) -> float:
    """Return how far a history is trusted whose tasks predict each other so well.

    Args:
        correlations: Of predicted and true scores, one a held-out task; fewer than ``MIN_TASKS_FOR_TRUST`` show nothing.

    Returns:
        A share of the usual trust, between ``MIN_TRUST`` and 1.
    """
    if len(correlations) < MIN_TASKS_FOR_TRUST:
        return 1.0
    least = float(np.mean(correlations) - np.std(correlations, ddof=1) / math.sqrt(len(correlations)))
    return float(np.clip(least / FULL_TRUST_CORRELATION, MIN_TRUST, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class _HeldOut:
    """Scores of a held-out task's runs, their predicted means and standard deviations, each of shape ``(n,)``."""

    scores: FloatArray
    mean: FloatArray
    spread: FloatArray

    @property
    def correlation(self) -> float:
        """Correlation of predicted and true scores, 0 where either has no spread."""
        if min(np.ptp(self.scores), np.ptp(self.mean)) < 1e-9:
            return 0.0
        return float(np.corrcoef(self.scores, self.mean)[0, 1])


def _predict_held_out(
    tasks: TaskGPs,
    relatedness: Relatedness,
    features: Sequence[Mapping[str, float]],
    i: int,
    n_runs: int,
    trust: float,
    rng: np.random.Generator,
) -> _HeldOut | None:
    """Predict a held-out task's other runs after some of its own, or None if it has too few."""
    mask = tasks.mask[i].numpy()
    inputs, scores = tasks.inputs[i].double().numpy()[mask], tasks.scores[i].double().numpy()[mask]
    if len(scores) < n_runs + MIN_TEST_RUNS:
        return None
    others = np.delete(np.arange(tasks.n_tasks), i)
    prior = HistoryPrior(tasks.without(i), task_weightings(relatedness, features[i], others), trust=trust)
    order = rng.permutation(len(scores))
    known, rest = order[:n_runs], order[n_runs:]
    data = TargetTaskData(inputs[known], scores[known], RunGroups.asked(n_runs))
    posterior = posterior_with_single_task_component(prior, data, trust)
    mean, variance = posterior.predict(inputs[rest]).mixture()
    return _HeldOut(scores[rest], mean, np.sqrt(variance + posterior.noise_variance))
