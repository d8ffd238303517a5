"""What all tasks have in common: one function over hyperparameters, learned from all runs through a few hundred inducing points.

A Gaussian process over every run of every task costs the cube of their number. Its values at ``m`` points that stand for all of them (the
deterministic training conditional; Quinonero-Candela & Rasmussen, "A unifying view of sparse approximate Gaussian process regression",
JMLR 2005) make it a linear model with ``m`` weights: each task adds a precision and an evidence, so tasks are learned from in batches, and
one of them is left out by subtraction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from metamodel.gp.kernels import JITTER, matern52
from metamodel.space.arrays import FloatArray

MAX_INDUCING = 256
"""Points that stand for all runs. Half as many predict the best tenth of held-out tasks measurably worse; twice as many cost four times."""

POINTS_PER_CHUNK = 256
"""Points evaluated at once."""


@dataclass(frozen=True, eq=False)
class SharedKernel:
    """Prior of the shared function: a Matern-5/2 kernel seen through ``m`` inducing points.

    Attributes:
        inducing: Encoded configurations, shape ``(m, d)``.
        log_length: Logarithm of the length scale of each column, shape ``(d,)``.
        log_amplitude: Logarithm of the standard deviation of the function, a scalar.
    """

    inducing: Tensor
    log_length: Tensor
    log_amplitude: Tensor

    def cross(self, points: Tensor) -> Tensor:
        """Return the correlation of ``n`` encoded points, shape ``(..., n, d)``, with the inducing ones, shape ``(..., n, m)``."""
        length = self.log_length.exp()
        return matern52(points / length, self.inducing / length)

    def weighted(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return sums of the correlations with the inducing points, which for many points are larger than a processor's cache.

        Args:
            points: Encoded, shape ``(..., n, d)``.
            weights: Of each inducing point, shape ``(m,)``, or in several sums ``(m, e)``.

        Returns:
            Shape ``(..., n)`` or ``(..., n, e)``.
        """
        flat = points.reshape(-1, points.shape[-1])
        found: Tensor = torch.cat([self.cross(rows) @ weights for rows in torch.split(flat, POINTS_PER_CHUNK)])
        return found.reshape(*points.shape[:-1], *weights.shape[1:])

    def whitener(self) -> Tensor:
        """Return ``W``, shape ``(m, m)``, such that the basis of points is their correlation with the inducing ones times ``W``."""
        scaled = self.inducing / self.log_length.exp()
        eye = torch.eye(len(scaled), dtype=scaled.dtype, device=scaled.device)
        factor = torch.linalg.cholesky(matern52(scaled, scaled) + JITTER * eye)
        root: Tensor = torch.linalg.solve_triangular(factor, eye, upper=False).T
        return root * self.log_amplitude.exp()

    def basis(self, points: Tensor) -> Tensor:
        """Return the basis functions at encoded points, shape ``(..., n, m)``; their products approximate the kernel."""
        return self.cross(points) @ self.whitener()

    def double(self) -> SharedKernel:
        """Return the same in double precision."""
        return SharedKernel(self.inducing.double(), self.log_length.double(), self.log_amplitude.double())


@dataclass(frozen=True, eq=False)
class SharedFunction:
    """The function that all tasks share, as their runs leave it: a normal distribution over the weights of a basis.

    Attributes:
        kernel: Its prior, double precision.
        precision: Shape ``(m, m)``: ``1 + sum_t F_t^T F_t`` with the whitened basis ``F_t`` at the runs of task ``t``.
        evidence: Shape ``(m,)``: ``sum_t F_t^T r_t`` with its whitened scores ``r_t``.
    """

    kernel: SharedKernel
    precision: Tensor
    evidence: Tensor

    @cached_property
    def _whitener(self) -> Tensor:
        return self.kernel.whitener()

    @cached_property
    def _factor(self) -> Tensor:
        factor: Tensor = torch.linalg.cholesky(self.precision)
        return factor

    @cached_property
    def mean_weights(self) -> Tensor:
        """Weights of the correlations in the mean, shape ``(m,)``."""
        return self._whitener @ torch.cholesky_solve(self.evidence[:, None], self._factor)[:, 0]

    @cached_property
    def _spread_weights(self) -> Tensor:
        """Weights of the correlations in ``spread``, single precision, shape ``(m, m)``."""
        weights: Tensor = torch.linalg.solve_triangular(self._factor, self._whitener.T, upper=False)
        return weights.float()

    def basis(self, points: Tensor) -> Tensor:
        """Return the basis functions at encoded points, double precision, shape ``(..., n, m)``."""
        return self.kernel.cross(points.double()) @ self._whitener

    def mean(self, points: Tensor) -> Tensor:
        """Return the expected value at encoded points ``(..., n, d)``, double precision, shape ``(..., n)``."""
        return self.kernel.weighted(points.double(), self.mean_weights)

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return the posterior of the function.

        Args:
            points: Encoded, shape ``(n, d)``.

        Returns:
            Its mean, shape ``(n,)``, and ``G`` of shape ``(m, n)``, single precision, whose ``G^T G`` is its covariance.
        """
        cross = self.kernel.cross(points.double())
        return cross @ self.mean_weights, self._spread_weights @ cross.float().T

    def unwhitened(self, values: Tensor) -> Tensor:
        """Return ``W v`` for whose correlations ``c`` with the inducing points ``c^T W v = (G^T v)``, shape ``(m,)``, double precision."""
        return self._spread_weights.double().T @ values

    def without(self, precision: Tensor, evidence: Tensor) -> SharedFunction:
        """Return the function without what one task has added."""
        left = replace(self, precision=self.precision - precision, evidence=self.evidence - evidence)
        left.__dict__["_whitener"] = self._whitener
        return left


def choose_inducing(inputs: FloatArray, rng: np.random.Generator, n: int = MAX_INDUCING) -> FloatArray:
    """Choose points that stand for all runs: a draw of the distinct ones, where they are that many.

    Args:
        inputs: Encoded runs of all tasks, shape ``(n_runs, d)``.
        rng: Source of randomness.
        n: How many, at most.
    """
    distinct = np.unique(inputs, axis=0)
    if len(distinct) <= n:
        return distinct
    return distinct[np.sort(rng.choice(len(distinct), n, replace=False))]
