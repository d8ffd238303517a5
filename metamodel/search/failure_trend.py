"""Where runs fail, as a trend: logistic regression on encoded hyperparameters and their products.

Failures have causes in one or two hyperparameters (a large learning rate with much momentum, a wide model with a large batch), whatever the
others are. Runs that are near in every column, which a kernel asks for, are rare where there are many; a trend needs none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metamodel.space.arrays import FloatArray

PRIOR_RATE = 0.02
"""Share of runs that fail, before any run."""
RIDGE = 0.3
"""Precision of the normal prior of each coefficient. On recorded tasks with failing regions, held-out losses are level from .03 to .3."""
INTERCEPT_PRECISION = 0.25
MAX_PAIRED = 16
"""Columns up to which products of two columns count; with more of them squares alone."""
MAX_STEPS = 30
TOLERANCE = 1e-6
CLIP = 1.0
"""Centred values of the range that runs had; outside of it a square would say anything, so the rate stays that of its end."""


@dataclass(frozen=True, eq=False)
class FailureTrend:
    """The log odds of failing as a quadratic function of ``z = 2 x - 1``: ``offset + linear z + z quadratic z``.

    Attributes:
        offset: A scalar.
        linear: Shape ``(d,)``.
        quadratic: Symmetric, shape ``(d, d)``.
    """

    offset: float
    linear: FloatArray
    quadratic: FloatArray

    @classmethod
    def fit(cls, inputs: FloatArray, is_failed: npt.NDArray[np.bool_], weight: FloatArray) -> FailureTrend:
        """Fit by Newton's method with halved steps; the penalised likelihood has one maximum.

        Args:
            inputs: Encoded runs, shape ``(n, d)``.
            is_failed: Shape ``(n,)``.
            weight: Weight of each run, shape ``(n,)``.
        """
        n, d = inputs.shape
        if is_failed.shape != (n,) or weight.shape != (n,):
            raise AssertionError(f"is_failed and weight must have shape ({n},), got {is_failed.shape} and {weight.shape}")
        z = _centred(inputs)
        rows, columns = np.triu_indices(d) if d <= MAX_PAIRED else (np.arange(d), np.arange(d))
        features = np.concatenate([np.ones((n, 1)), z, z[:, rows] * z[:, columns]], axis=1)
        precision = np.full(features.shape[1], RIDGE)
        precision[0] = INTERCEPT_PRECISION
        prior = np.zeros(features.shape[1])
        prior[0] = math.log(PRIOR_RATE / (1 - PRIOR_RATE))

        def loss(beta: FloatArray) -> float:
            logits = features @ beta
            return float(weight @ (np.logaddexp(0.0, logits) - is_failed * logits) + 0.5 * precision @ np.square(beta - prior))

        beta, before = prior, loss(prior)
        for _ in range(MAX_STEPS):
            rate = _sigmoid(features @ beta)
            slope = features.T @ (weight * (rate - is_failed)) + precision * (beta - prior)
            curvature = (features * (weight * rate * (1 - rate))[:, None]).T @ features + np.diag(precision)
            step = np.linalg.solve(curvature, slope)
            size = 1.0
            while (after := loss(beta - size * step)) > before and size > 1e-4:
                size /= 2
            if after > before:
                break
            beta, gained, before = beta - size * step, before - after, after
            if gained < TOLERANCE:
                break
        quadratic = np.zeros((d, d))
        quadratic[rows, columns] += 0.5 * beta[1 + d :]
        quadratic[columns, rows] += 0.5 * beta[1 + d :]
        return cls(float(beta[0]), beta[1 : 1 + d], quadratic)

    def rate(self, inputs: FloatArray) -> FloatArray:
        """Return the probability of failing of ``n`` encoded configurations, shape ``(n,)``."""
        z = _centred(inputs)
        return _sigmoid(self.offset + z @ self.linear + ((z @ self.quadratic) * z).sum(1))

    def gradient(self, row: FloatArray) -> FloatArray:
        """Return the gradient of ``rate`` at one encoded configuration, shape ``(d,)``."""
        rate = float(self.rate(row[None])[0])
        z = _centred(row)
        inside = np.abs(2 * row - 1) < CLIP
        gradient: FloatArray = rate * (1 - rate) * 2 * inside * (self.linear + 2 * self.quadratic @ z)
        return gradient


def _centred(inputs: FloatArray) -> FloatArray:
    return np.clip(2 * inputs - 1, -CLIP, CLIP)


def _sigmoid(logits: FloatArray) -> FloatArray:
    found: FloatArray = 1 / (1 + np.exp(-np.clip(logits, -30.0, 30.0)))
    return found
