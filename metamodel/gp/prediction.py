"""What is asked of a posterior and what it answers. Arrays in, arrays out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from metamodel.data.run_groups import RunGroups
from metamodel.space.arrays import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class TargetTaskData:
    """The target task's runs that have an outcome.

    Attributes:
        inputs: Encoded configurations, shape ``(n, d)``.
        outcomes: Oriented outcomes, shape ``(n,)``, finite.
        groups: Which of them are exactly what is asked about, and how much the others count, ``n`` of them.
    """

    inputs: FloatArray
    outcomes: FloatArray
    groups: RunGroups

    def narrowed(self, width: int) -> TargetTaskData:
        """Return the same runs with their first encoded columns only."""
        return TargetTaskData(self.inputs[:, :width], self.outcomes, self.groups)


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """Prediction of each mixture component at ``n`` configurations, in normal scores; larger is better.

    Attributes:
        mean: Shape ``(e, n)``.
        covariance: Shape ``(e, n, n)``, or ``(e, n)`` variances where only those were asked for.
        weights: Probability of each component, shape ``(e,)``.
        incumbent: Expected score of the best run of the target task under each component, shape ``(e,)``; None without runs.
    """

    mean: FloatArray
    covariance: FloatArray
    weights: FloatArray
    incumbent: FloatArray | None = None

    @property
    def variance(self) -> FloatArray:
        """Variances, shape ``(e, n)``."""
        return self.covariance if self.covariance.ndim == 2 else np.diagonal(self.covariance, axis1=1, axis2=2)

    def mixture(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of the mixture, each of shape ``(n,)``."""
        mean = self.weights @ self.mean
        return mean, self.weights @ (self.variance + np.square(self.mean - mean))

    def log_improvement(self, incumbent: FloatArray) -> FloatArray:
        """Return the logarithm of the expected improvement under the mixture, shape ``(n,)``.

        Args:
            incumbent: Score to improve on under each component, which has a scale of its own, shape ``(e,)``.
        """
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        parts = [log_expected_improvement(m, v, float(b)) for m, v, b in zip(self.mean, self.variance, incumbent, strict=True)]
        return np.asarray(np.logaddexp.reduce([w + part for w, part in zip(log_weights, parts, strict=True)], axis=0), dtype=np.float64)


class TaskPosterior(ABC):
    """What a meta-model predicts of one task, conditioned on its runs.

    Attributes:
        target_scores: Score of each run of the task, shape ``(n,)``, increasing in its outcome; None without runs.
        has_gradient: Whether ``mean_gradient`` and ``log_improvement_gradient`` can be asked.
    """

    target_scores: FloatArray | None
    has_gradient: bool = False

    @property
    @abstractmethod
    def noise_variance(self) -> float:
        """Variance of an outcome around the prediction of its configuration, in normal scores."""

    @abstractmethod
    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict the score of ``n`` configurations, without observation noise.

        Args:
            inputs: Encoded, shape ``(n, d)``.
            is_joint: Whether the whole covariance is wanted.
        """

    @abstractmethod
    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected score of ``n`` encoded configurations, shape ``(n,)``."""

    @property
    def is_informed(self) -> bool:
        """Whether the task has runs of its own."""
        return self.target_scores is not None and len(self.target_scores) > 0

    def mean_gradient(self, point: FloatArray) -> tuple[float, FloatArray]:
        """Return the expected score of one encoded configuration, shape ``(d,)``, and its gradient."""
        raise NotImplementedError

    def log_improvement_gradient(self, point: FloatArray) -> tuple[float, FloatArray]:
        """Return the logarithm of the expected improvement on the best run at one configuration, shape ``(d,)``, and its gradient."""
        raise NotImplementedError


def log_expected_improvement(mean: FloatArray, variance: FloatArray, best: float) -> FloatArray:
    """Logarithm of the expected improvement over ``best`` under a normal prediction, stable far below it.

    Ament et al., "Unexpected improvements to expected improvement for Bayesian optimization", NeurIPS 2023.

    Args:
        mean: Shape ``(n,)``.
        variance: Shape ``(n,)``, positive.
        best: Score to improve on.

    Returns:
        Shape ``(n,)``.
    """
    from scipy.special import erfcx, log_ndtr

    sigma = np.sqrt(variance)
    u = (mean - best) / sigma
    log_pdf = -0.5 * u**2 - 0.5 * math.log(2 * math.pi)
    # phi(u) + u Phi(u) cancels for u << 0; there it equals phi(u) (1 - |u| sqrt(pi/2) erfcx(|u|/sqrt 2)), and for u << -1e4 phi(u)/u^2.
    far = u < -1.0
    direct = np.log(np.maximum(np.exp(log_pdf) + u * np.exp(log_ndtr(u)), 1e-300))
    ratio = 1.0 - np.abs(u) * math.sqrt(math.pi / 2) * erfcx(np.abs(u) / math.sqrt(2))
    tail = log_pdf + np.where(u > -1e4, np.log(np.maximum(ratio, 1e-16)), -2 * np.log(np.maximum(np.abs(u), 1.0)))
    return np.asarray(np.where(far, tail, direct) + np.log(sigma), dtype=np.float64)
