"""Conditioning the pre-trained members on a task's own runs. Arrays in, arrays out; one Cholesky a member.

The scale and offset of a new task are unknown, and its first outcomes say nothing about them. So outcomes enter by their order: the
score of the r-th best own run is what the members expect of the r-th best of exactly these configurations. Any monotone change of
units leaves a recommendation as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from metamodel.prior_gp import JITTER, PriorGP, matern52

FloatArray = npt.NDArray[np.float64]

N_ORDER_DRAWS = 256
"""Draws from the prior whose sorted mean gives the expected order statistics; their error is far below the noise."""
VARIANT_CORRELATION = 0.8
"""Correlation of the residual between two versions of the model's source: related evidence, not an exact observation."""
EXTRA_LENGTH = 1.0
"""Length scale of columns the history has not tuned, where nothing could be learned."""


@dataclass(frozen=True)
class OwnRuns:
    """The task's own runs that have an outcome.

    Attributes:
        inputs: Encoded, shape ``(n, d + d_extra)``.
        outcomes: Oriented outcomes, shape ``(n,)``, finite.
        is_same_variant: Whether a run's model source is that of the run in question, shape ``(n,)``.
    """

    inputs: FloatArray
    outcomes: FloatArray
    is_same_variant: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Prediction:
    """Joint prediction of each member at ``n`` configurations, in normal scores; larger is better.

    Attributes:
        mean: Shape ``(e, n)``.
        covariance: Shape ``(e, n, n)``, or ``(e, n)`` variances where only those were asked for.
    """

    mean: FloatArray
    covariance: FloatArray

    def mixture(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of the equal mixture of the members, each of shape ``(n,)``."""
        variance = self.covariance if self.covariance.ndim == 2 else np.diagonal(self.covariance, axis1=1, axis2=2)
        mean = self.mean.mean(0)
        return mean, variance.mean(0) + self.mean.var(0)


class Posterior:
    """The members, conditioned on a task's own runs.

    Args:
        model: Trained members over the first ``d`` columns.
        own: The task's own runs; None for a new task.
        n_extra: Columns after the first ``d`` that the members do not know; only the residual sees them.
    """

    def __init__(self, model: PriorGP, own: OwnRuns | None = None, n_extra: int = 0) -> None:
        self._model, self._n_extra = model, n_extra
        self._own = own if own is not None and len(own.outcomes) else None
        self.own_scores: FloatArray | None = None
        if self._own is None:
            return
        inputs = self._tensor(self._own.inputs)
        self._own_inputs = inputs
        self._same = torch.as_tensor(self._own.is_same_variant)
        mean, basis = self._evaluate(inputs)
        covariance = basis @ basis.transpose(-1, -2) + self._residual(inputs, inputs) * self._variant_correlation(self._same, self._same)
        noise = torch.eye(len(self._own.outcomes)) * model.noise_variance[:, None, None]
        self._factor = _cholesky(covariance + noise)
        scores = _expected_order_statistics(mean, self._factor, self._own.outcomes)
        self.own_scores = scores.mean(0).double().numpy()
        self._own_basis = basis
        self._whitened = torch.linalg.solve_triangular(self._factor, (scores - mean)[..., None], upper=False)

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict the score of ``n`` configurations, without observation noise.

        Args:
            inputs: Encoded, shape ``(n, d + d_extra)``.
            is_joint: Whether the whole covariance is wanted.
        """
        points = self._tensor(inputs)
        mean, basis = self._evaluate(points)
        if is_joint:
            covariance = basis @ basis.transpose(-1, -2) + self._residual(points, points)
        else:
            covariance = basis.square().sum(-1) + self._model.amplitude[:, None]
        if self._own is not None:
            same = torch.ones(len(inputs), dtype=torch.bool)
            cross = basis @ self._own_basis.transpose(-1, -2)
            cross = cross + self._residual(points, self._own_inputs) * self._variant_correlation(same, self._same)
            half = torch.linalg.solve_triangular(self._factor, cross.transpose(-1, -2), upper=False)
            mean = mean + (half.transpose(-1, -2) @ self._whitened)[..., 0]
            covariance = covariance - (half.transpose(-1, -2) @ half if is_joint else half.square().sum(-2))
        if not is_joint:
            covariance = covariance.clamp_min(1e-8)
        return Prediction(mean.double().numpy(), covariance.double().numpy())

    @property
    def noise_variance(self) -> float:
        """Mean noise variance of the members, in normal scores."""
        return float(self._model.noise_variance.mean())

    def _tensor(self, inputs: FloatArray) -> Tensor:
        width = self._model.n_inputs + self._n_extra
        if inputs.ndim != 2 or inputs.shape[1] != width:
            raise AssertionError(f"inputs must have shape (n, {width}), got {inputs.shape}")
        return torch.as_tensor(inputs, dtype=torch.float32).expand(self._model.n_members, -1, -1)

    def _evaluate(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            mean, basis = self._model.mean_and_basis(inputs[..., : self._model.n_inputs])
            return mean, basis

    def _residual(self, left: Tensor, right: Tensor) -> Tensor:
        length: Tensor = self._model.log_length.exp()[:, None, :]
        if self._n_extra:
            extra: Tensor = torch.full((self._model.n_members, 1, self._n_extra), EXTRA_LENGTH)
            length = torch.cat([length, extra], dim=-1)
        covariance: Tensor = self._model.amplitude[:, None, None] * matern52(left / length, right / length)
        return covariance

    @staticmethod
    def _variant_correlation(left: Tensor, right: Tensor) -> Tensor:
        # Source versions are compared with the run in question only, so two different others count as equal to each other.
        return torch.where(left[:, None] == right[None, :], 1.0, VARIANT_CORRELATION)


def _cholesky(covariance: Tensor) -> Tensor:
    """Factorise, with growing jitter where single precision is not enough for near-duplicate runs."""
    eye = torch.eye(covariance.shape[-1])
    for jitter in (0.0, JITTER, 10 * JITTER, 100 * JITTER):
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(covariance + jitter * eye)
        if not info.any():
            return factor
    factor = torch.linalg.cholesky(covariance + 0.1 * eye)
    return factor


def _expected_order_statistics(mean: Tensor, factor: Tensor, outcomes: FloatArray) -> Tensor:
    """Score each own run by what is expected of its rank among exactly these configurations.

    Args:
        mean: Prior mean, shape ``(e, n)``.
        factor: Cholesky factor of the prior covariance with noise, shape ``(e, n, n)``.
        outcomes: Oriented outcomes, shape ``(n,)``; ties get the mean of their ranks' scores.

    Returns:
        Shape ``(e, n)``, increasing in the outcome.
    """
    n = len(outcomes)
    noise = torch.randn(N_ORDER_DRAWS, n, generator=torch.Generator().manual_seed(0))
    draws = mean[:, None, :] + noise @ factor.transpose(-1, -2)
    expected = draws.sort(-1).values.mean(1)
    rank = torch.as_tensor(rankdata(outcomes, method="average") - 1.0)
    low, high = rank.floor().long(), rank.ceil().long()
    fraction = (rank - low).to(expected.dtype)
    return expected[:, low] * (1 - fraction) + expected[:, high] * fraction


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
