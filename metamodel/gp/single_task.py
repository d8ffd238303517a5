"""The single-task GP: one task's runs and no history. Arrays in, arrays out.

A Matern-5/2 kernel with a length scale for every hyperparameter (the columns of a label share one), and an offset that is integrated out.
Length scales, amplitude and noise are the most probable ones under weak priors, found by L-BFGS in double precision. The noise may become
tiny: test functions and trainings with a fixed seed have none. Why this is not the kernel of ``kernels``: see there.

References:
    Rasmussen & Williams, "Gaussian processes for machine learning", 2006, ch. 5.
    Hvarfner, Hellsten & Nardi, "Vanilla Bayesian optimization performs great in high dimensions", ICML 2024 (length scales that grow
    with the root of the number of dimensions).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_solve, cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import log_ndtr

from metamodel.data.observations import single_task_scores
from metamodel.gp.prediction import (
    Prediction,
    TargetTaskData,
    TaskPosterior,
    log_expected_improvement,
)
from metamodel.space.arrays import FloatArray

MEDIAN_LENGTH = 0.4
"""Median of the prior of a length scale for one hyperparameter; it grows with the root of their number. Columns span about 1."""
LOG_LENGTH_SPREAD = 1.0
AMPLITUDE_SPREAD = 1.0
"""Spread of the logarithm of the variance around 1: scores are standardised."""
NOISE = (math.log(1e-3), 2.5)
"""Median and spread of the logarithm of the noise variance: from deterministic to one part in ten."""
LOG_NOISE_RANGE = (math.log(1e-7), math.log(2.0))
OFFSET_VARIANCE = 1.0
"""Variance of the constant offset: the mean of a few outcomes is not that of the task."""
MAX_FIT_RUNS = 150
"""Runs that decide on length scales: the best half and the newest half; all condition the process."""
MAX_ITERATIONS = 60
SMALLEST_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class SingleTaskKernel:
    """A fitted covariance.

    Attributes:
        length: Length scale of each column, shape ``(d,)``.
        amplitude: Variance of the process.
        noise: Variance of the noise.
    """

    length: FloatArray
    amplitude: float
    noise: float

    def covariance(self, left: FloatArray, right: FloatArray) -> FloatArray:
        """Return the covariance without noise, offset included, shape ``(n, k)``."""
        q = np.sqrt(5 * _squared_distances(left / self.length, right / self.length))
        found: FloatArray = self.amplitude * (1 + q + q * q / 3) * np.exp(-q) + OFFSET_VARIANCE
        return found


def _squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    squared = np.square(left).sum(1)[:, None] + np.square(right).sum(1)[None, :] - 2 * left @ right.T
    return np.asarray(np.maximum(squared, 0.0))


def negative_log_posterior(
    theta: FloatArray, inputs: FloatArray, scores: FloatArray, groups: npt.NDArray[np.intp], same: FloatArray
) -> tuple[float, FloatArray]:
    """Negative log marginal likelihood plus priors, and its gradient.

    Args:
        theta: Logarithms of the length scales of ``g`` groups, of the variance, and of the noise variance, shape ``(g + 2,)``.
        inputs: Shape ``(n, d)``.
        scores: Shape ``(n,)``.
        groups: Group of each column, shape ``(d,)``, from 0 to ``g - 1``.
        same: Correlation of the runs by their groups, shape ``(n, n)``.

    Returns:
        A number, and its gradient of shape ``(g + 2,)``.
    """
    n, n_groups = len(scores), len(theta) - 2
    amplitude, noise = math.exp(theta[-2]), math.exp(theta[-1])
    scaled = inputs / np.exp(theta[:-2])[groups]
    q = np.sqrt(5 * _squared_distances(scaled, scaled))
    decay = np.exp(-q)
    local = amplitude * (1 + q + q * q / 3) * decay * same
    covariance = local + OFFSET_VARIANCE * same
    covariance.flat[:: n + 1] += noise
    try:
        factor = cholesky(covariance, lower=True, check_finite=False)
    except LinAlgError:  # a length scale too long for so little noise; the line search turns back
        return 1e10, np.zeros_like(theta)
    weights = cho_solve((factor, True), scores, check_finite=False)
    value = 0.5 * float(scores @ weights) + float(np.log(np.diagonal(factor)).sum()) + 0.5 * n * math.log(2 * math.pi)
    slope = 0.5 * (cho_solve((factor, True), np.eye(n), check_finite=False) - np.outer(weights, weights))
    # d k / d log l_j = amplitude 5/3 (1 + q) exp(-q) (x_j - x'_j)^2 / l_j^2, summed over pairs by one product of matrices.
    pairs = slope * (5 / 3) * amplitude * (1 + q) * decay * same
    columns = 2 * (pairs.sum(1) @ np.square(scaled) - (scaled * (pairs @ scaled)).sum(0))
    gradient = np.empty_like(theta)
    gradient[:-2] = np.bincount(groups, columns, n_groups)
    gradient[-2] = float((slope * local).sum())
    gradient[-1] = noise * float(np.trace(slope))
    centre, spread = _prior(n_groups)
    gap = (theta - centre) / spread
    return value + 0.5 * float(gap @ gap), gradient + gap / spread


def _prior(n_groups: int) -> tuple[FloatArray, FloatArray]:
    """Return centre and spread of the normal priors of ``theta``, each of shape ``(g + 2,)``."""
    length = math.log(MEDIAN_LENGTH * math.sqrt(max(n_groups, 1)))
    return (
        np.array([*[length] * n_groups, 0.0, NOISE[0]]),
        np.array([*[LOG_LENGTH_SPREAD] * n_groups, AMPLITUDE_SPREAD, NOISE[1]]),
    )


def fit_kernel(inputs: FloatArray, scores: FloatArray, groups: npt.NDArray[np.intp], same: FloatArray) -> SingleTaskKernel:
    """Find the most probable covariance.

    Args:
        inputs: Shape ``(n, d)``.
        scores: Shape ``(n,)``; none or one gives the medians of the priors.
        groups: Group of each column, shape ``(d,)``.
        same: Correlation of the runs by their groups, shape ``(n, n)``.
    """
    n_groups = int(groups.max()) + 1 if len(groups) else 0
    centre, _ = _prior(n_groups)
    theta = centre
    if len(scores) > 1:
        bounds = [*[(math.log(1e-2), math.log(1e2))] * n_groups, (math.log(1e-3), math.log(1e3)), LOG_NOISE_RANGE]
        # From much noise downwards: a fit that starts with little explains noise by short length scales, and stays there.
        start = np.append(centre[:-1], math.log(1e-2))
        found = minimize(
            negative_log_posterior,
            start,
            args=(inputs, scores, groups, same),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": MAX_ITERATIONS},
        )
        theta = np.asarray(found.x if np.isfinite(found.fun) and found.fun < 1e10 else start)
    return SingleTaskKernel(np.exp(theta[:-2])[groups], math.exp(theta[-2]), math.exp(theta[-1]))


class SingleTaskPosterior(TaskPosterior):
    """A single-task GP, conditioned on the target task's runs.

    Args:
        data: The runs.
        groups: Which hyperparameter each column belongs to, shape ``(d,)``; None: each column its own.
        kernel: A covariance to use as it is; None fits one.
        scores: Of the runs, shape ``(n,)``; None makes them of their outcomes.
    """

    has_gradient = True

    def __init__(
        self,
        data: TargetTaskData,
        groups: Sequence[int] | None = None,
        kernel: SingleTaskKernel | None = None,
        scores: FloatArray | None = None,
    ) -> None:
        self._inputs = data.inputs
        scores = single_task_scores(data.outcomes) if scores is None else scores
        self.target_scores = scores
        self._same, same = data.groups.correlation, data.groups.between()
        if kernel is None:
            group = np.arange(data.inputs.shape[1]) if groups is None else np.asarray(groups, dtype=np.intp)
            keep = _deciding(scores)
            kernel = fit_kernel(data.inputs[keep], scores[keep], group, same[np.ix_(keep, keep)])
        self.kernel = kernel
        covariance = kernel.covariance(data.inputs, data.inputs) * same
        self._factor = _factor(covariance, kernel.noise)
        self._weights = cho_solve((self._factor, True), scores, check_finite=False)
        self.incumbent = float((covariance @ self._weights).max()) if len(scores) else None

    @property
    def noise_variance(self) -> float:
        """Variance of the noise, in scores."""
        return self.kernel.noise

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict the score of ``n`` configurations, shape ``(n, d)``, without observation noise."""
        cross = self.kernel.covariance(inputs, self._inputs) * self._same
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        mean = cross @ self._weights
        if is_joint:
            covariance = self.kernel.covariance(inputs, inputs) - half.T @ half
        else:
            prior = self.kernel.amplitude + OFFSET_VARIANCE
            covariance = np.maximum(prior - np.square(half).sum(0), SMALLEST_VARIANCE)
        incumbent = None if self.incumbent is None else np.array([self.incumbent])
        return Prediction(mean[None], covariance[None], np.ones(1), incumbent)

    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected score of ``n`` configurations, shape ``(n,)``."""
        found: FloatArray = self.kernel.covariance(inputs, self._inputs) @ (self._same * self._weights)
        return found

    @cached_property
    def _inverse(self) -> FloatArray:
        return np.asarray(cho_solve((self._factor, True), np.eye(len(self._factor)), check_finite=False))

    def gradients(self, point: FloatArray) -> tuple[float, float, FloatArray, FloatArray]:
        """Return mean and variance at one configuration, shape ``(d,)``, and the gradient of each, shape ``(d,)``."""
        difference = (point - self._inputs) / self.kernel.length
        q = np.sqrt(5 * np.square(difference).sum(1))
        decay = self.kernel.amplitude * np.exp(-q)
        cross = ((1 + q + q * q / 3) * decay + OFFSET_VARIANCE) * self._same
        # d k / d x_j = -amplitude 5/3 (1 + q) exp(-q) (x_j - x'_j) / l_j^2
        gradient = (-(5 / 3) * (1 + q) * decay * self._same)[:, None] * difference / self.kernel.length
        solved = self._inverse @ cross
        variance = self.kernel.amplitude + OFFSET_VARIANCE - float(cross @ solved)
        return float(cross @ self._weights), max(variance, SMALLEST_VARIANCE), self._weights @ gradient, -2 * solved @ gradient

    def mean_gradient(self, point: FloatArray) -> tuple[float, FloatArray]:
        """Return the expected score of one configuration, shape ``(d,)``, and its gradient."""
        mean, _, gradient, _ = self.gradients(point)
        return mean, gradient

    def log_improvement_gradient(self, point: FloatArray) -> tuple[float, FloatArray]:
        """Return the logarithm of the expected improvement on the best run at one configuration, shape ``(d,)``, and its gradient."""
        if self.incumbent is None:
            raise AssertionError("an improvement needs runs of the task")
        mean, variance, mean_slope, variance_slope = self.gradients(point)
        sigma = math.sqrt(variance)
        value = float(log_expected_improvement(np.array([mean]), np.array([variance]), self.incumbent)[0])
        u = (mean - self.incumbent) / sigma
        # d EI / d mean = Phi(u), d EI / d sigma = phi(u)
        by_mean = math.exp(min(float(log_ndtr(u)) - value, 700.0))
        by_sigma = math.exp(min(-0.5 * u * u - 0.5 * math.log(2 * math.pi) - value, 700.0))
        return value, by_mean * mean_slope + by_sigma * variance_slope / (2 * sigma)


def _factor(covariance: FloatArray, noise: float) -> FloatArray:
    """Factorise with as little jitter as near-duplicate runs need."""
    eye = np.eye(len(covariance))
    for jitter in (0.0, 1e-8, 1e-6, 1e-4):
        try:
            return np.asarray(cholesky(covariance + (noise + jitter) * eye, lower=True, check_finite=False))
        except LinAlgError:
            continue
    return np.asarray(cholesky(covariance + (noise + 1e-2) * eye, lower=True, check_finite=False))


def _deciding(scores: FloatArray) -> npt.NDArray[np.intp]:
    """Return which runs decide on length scales."""
    if len(scores) <= MAX_FIT_RUNS:
        return np.arange(len(scores))
    best = np.argsort(-scores, kind="stable")[: MAX_FIT_RUNS // 2]
    rest = np.setdiff1d(np.arange(len(scores)), best)
    return np.sort(np.concatenate([best, rest[-(MAX_FIT_RUNS - len(best)) :]]))
