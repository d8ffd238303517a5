"""Conditioning a prior on a task's own runs. Arrays in, arrays out; one Cholesky a rival.

The scale and offset of a new task are unknown, and its first outcomes say nothing about them. So outcomes enter by their order: the
score of the r-th best own run is what a rival expects of the r-th best of exactly these configurations. Any monotone change of
units leaves a recommendation as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import rankdata
from torch import Tensor

from metamodel.data.observations import own_scores
from metamodel.gp.kernels import cholesky
from metamodel.gp.prior import MeanFunction, Prepared, Prior, Told, joined
from metamodel.gp.task_gps import FloatArray

N_ORDER_DRAWS = 256
"""Draws from the prior whose sorted mean gives the expected order statistics; their error is far below the noise."""
N_ORDER_NUMBERS = 6_400
"""Of many runs fewer draws say the same, since each rank has neighbours: as many as hold this many numbers, and at least a quarter."""
MIN_RUNS_LEFT_OUT = 3
"""With two runs, one says of the other only how they are correlated."""
MIN_RUNS_FOR_DISTANCES = 3
"""With two runs there is one distance, and nothing to compare it with."""
VARIANT_CORRELATION = 0.8
"""Correlation between two versions of the model's source: related evidence, not an exact observation."""


@dataclass(frozen=True, eq=False)
class OwnRuns:
    """The task's own runs that have an outcome.

    Attributes:
        inputs: Encoded, as the prior's, shape ``(n, d)``.
        outcomes: Oriented outcomes, shape ``(n,)``, finite.
        is_same_variant: Whether a run's model source is that of the run in question, shape ``(n,)``.
    """

    inputs: FloatArray
    outcomes: FloatArray
    is_same_variant: npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Prediction:
    """Joint prediction of each rival at ``n`` configurations, in normal scores; larger is better.

    Attributes:
        mean: Shape ``(e, n)``.
        covariance: Shape ``(e, n, n)``, or ``(e, n)`` variances where only those were asked for.
        weights: Probability of each rival, shape ``(e,)``.
        incumbent: What each expects of the best own run, shape ``(e,)``; None without own runs.
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
        """Return mean and variance of the mixture of the rivals, each of shape ``(n,)``."""
        mean = self.weights @ self.mean
        return mean, self.weights @ (self.variance + np.square(self.mean - mean))

    def log_improvement(self, incumbent: FloatArray) -> FloatArray:
        """Return the logarithm of the expected improvement under the mixture, shape ``(n,)``.

        Each rival measures by its own scale: what the best own run is worth differs between them.

        Args:
            incumbent: Score to improve on under each rival, shape ``(e,)``.
        """
        with np.errstate(divide="ignore"):
            log_weights = np.log(self.weights)
        parts = [log_expected_improvement(m, v, float(b)) for m, v, b in zip(self.mean, self.variance, incumbent, strict=True)]
        return np.asarray(np.logaddexp.reduce([w + part for w, part in zip(log_weights, parts, strict=True)], axis=0), dtype=np.float64)


class AtOwnRuns(NamedTuple):
    """The own runs as each rival sees them. No rival knows of another, so those of several priors are put side by side.

    Attributes:
        points: The runs as points of the prior.
        covariance: Of the rivals there, shape ``(e, n, n)``; between versions of the model's source it is smaller.
        factor: Cholesky factor of it with noise, shape ``(e, n, n)``.
        scores: What each rival takes the outcomes for, shape ``(e, n)``.
        evidence: How well each foresaw their order, as a logarithm, shape ``(e,)``.
    """

    points: Prepared
    covariance: Tensor
    factor: Tensor
    scores: Tensor
    evidence: FloatArray

    @classmethod
    def of(cls, prior: Prior, own: OwnRuns, scores: FloatArray | None = None) -> AtOwnRuns:
        """Look at the own runs, ``n`` of them.

        Args:
            prior: What is believed before.
            own: The runs.
            scores: Their scores by which the one rival of the prior was fitted, shape ``(n,)``; None where only their order counts.
        """
        points, same = prior.prepare(own.inputs), torch.as_tensor(own.is_same_variant)
        mean, outcomes = points.mean, own.outcomes
        covariance = prior.covariance(points, points) * _variant_correlation(same, same)
        noisy = covariance + torch.as_tensor(prior.noise_variance)[:, None, None] * torch.eye(len(outcomes), dtype=torch.double)
        factor = cholesky(noisy)
        told = _expected_scores(mean, factor, outcomes) if scores is None else torch.as_tensor(scores)[None]
        evidence = _order_evidence(mean, noisy, outcomes) + _left_out_evidence(mean, factor, told, outcomes)
        return cls(points, covariance, factor, told, evidence)

    def beside(self, other: AtOwnRuns) -> AtOwnRuns:
        """Return the rivals of two priors side by side."""
        covariance, factor, scores = (torch.cat(pair) for pair in zip(self[1:4], other[1:4], strict=True))
        evidence = np.concatenate([self.evidence, other.evidence])
        return AtOwnRuns(joined([self.points, other.points]), covariance, factor, scores, evidence)


class Posterior:
    """The rivals of a prior, conditioned on a task's own runs and weighted by how well they foresaw their order.

    Args:
        prior: What is believed before.
        own: The task's own runs, ``n`` of them; None for a new task.
        at: The own runs as the prior's rivals see them, where that is known already.
    """

    def __init__(self, prior: Prior, own: OwnRuns | None = None, at: AtOwnRuns | None = None) -> None:
        self._prior = prior
        self._own = own if own is not None and len(own.outcomes) else None
        self.own_scores: FloatArray | None = None
        self.weights = _softmax(prior.log_weights)
        if self._own is None:
            return
        self.at = AtOwnRuns.of(prior, self._own) if at is None else at
        self._points, self._same = self.at.points, torch.as_tensor(self._own.is_same_variant)
        self.weights = _softmax(prior.log_weights + self.at.evidence)
        self.own_scores = self.weights @ self.at.scores.numpy()
        self._whitened = torch.linalg.solve_triangular(self.at.factor, (self.at.scores - self._points.mean)[..., None], upper=False)

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict the score of ``n`` configurations, without observation noise.

        Args:
            inputs: Encoded, as the prior's, shape ``(n, d)``.
            is_joint: Whether the whole covariance is wanted.
        """
        points = self._prior.prepare(inputs)
        mean = points.mean
        covariance = self._prior.covariance(points, points) if is_joint else points.variance
        incumbent = None
        if self._own is not None:
            same = torch.ones(len(inputs), dtype=torch.bool)
            cross = self._prior.covariance(points, self._points) * _variant_correlation(same, self._same)
            half = torch.linalg.solve_triangular(self.at.factor, cross.transpose(-1, -2), upper=False)
            mean = mean + (half.transpose(-1, -2) @ self._whitened)[..., 0]
            covariance = covariance - (half.transpose(-1, -2) @ half if is_joint else half.square().sum(-2))
            incumbent = self._incumbent
        if not is_joint:
            covariance = covariance.clamp_min(1e-8)
        return Prediction(mean.numpy(), covariance.numpy(), self.weights, incumbent)

    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected score of ``n`` configurations under all rivals, ``predict(inputs).mixture()[0]`` without its variance.

        Args:
            inputs: Encoded, as the prior's, shape ``(n, d)``.
        """
        if self._own is None:
            return self.predict(inputs).mixture()[0]
        found: FloatArray = self.weights @ self._mean_function(inputs).numpy()
        return found

    @cached_property
    def _mean_function(self) -> MeanFunction:
        weights = torch.linalg.solve_triangular(self.at.factor.transpose(-1, -2), self._whitened, upper=True)[..., 0]
        return self._prior.mean_given(Told(self._points, weights * torch.where(self._same, 1.0, VARIANT_CORRELATION)))

    @cached_property
    def _incumbent(self) -> FloatArray:
        """Return what each rival expects of the best own configuration, shape ``(e,)``."""
        half = torch.linalg.solve_triangular(self.at.factor, self.at.covariance.transpose(-1, -2), upper=False)
        mean = self._points.mean + (half.transpose(-1, -2) @ self._whitened)[..., 0]
        best: FloatArray = mean.max(-1).values.numpy()
        return best

    @property
    def noise_variance(self) -> float:
        """Noise variance, in normal scores: what the rivals hold on average."""
        return float(self.weights @ self._prior.noise_variance)


def _softmax(logits: FloatArray) -> FloatArray:
    weights = np.exp(logits - logits.max())
    result: FloatArray = weights / weights.sum()
    return result


def _variant_correlation(left: Tensor, right: Tensor) -> Tensor:
    # Source versions are compared with the run in question only, so two different others count as equal to each other.
    return torch.where(left[:, None] == right[None, :], 1.0, VARIANT_CORRELATION).double()


def _order_evidence(mean: Tensor, covariance: Tensor, outcomes: FloatArray) -> FloatArray:
    """Say how well each rival foresaw the order of the own runs, as a logarithm.

    A composite likelihood: the probability of the order of each pair before any was seen, each run counted once in all (Varin, Reid &
    Firth, "An overview of composite likelihood methods", 2011). Unlike the likelihood of scores it needs no scale, and a rival that has
    no opinion gets one half a pair.

    Args:
        mean: Prior mean, shape ``(e, n)``.
        covariance: Prior covariance with noise, shape ``(e, n, n)``.
        outcomes: Oriented outcomes, shape ``(n,)``; tied pairs say nothing.

    Returns:
        Shape ``(e,)``.
    """
    first, second = np.triu_indices(len(outcomes), 1)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    return _of_pairs(mean, variance[:, first] + variance[:, second] - 2 * covariance[:, first, second], outcomes)


def _left_out_evidence(mean: Tensor, factor: Tensor, scores: Tensor, outcomes: FloatArray) -> FloatArray:
    """Say how well each rival foresees the order of the own runs, each one from all others, as a logarithm.

    What a rival learns from the runs counts here, where ``_order_evidence`` knows only what it believed before.

    Args:
        mean: Prior mean, shape ``(e, n)``.
        factor: Cholesky factor of the prior covariance with noise, shape ``(e, n, n)``.
        scores: Of the own runs, shape ``(e, n)``.
        outcomes: Oriented outcomes, shape ``(n,)``; tied pairs say nothing.

    Returns:
        Shape ``(e,)``; 0 with fewer than three runs.
    """
    if len(outcomes) < MIN_RUNS_LEFT_OUT:
        return np.zeros(len(mean))
    inverse = torch.cholesky_inverse(factor)
    spread = 1 / inverse.diagonal(dim1=-2, dim2=-1)
    left_out = scores - spread * (inverse @ (scores - mean)[..., None])[..., 0]  # Rasmussen & Williams 2006, eq. 5.12
    first, second = np.triu_indices(len(outcomes), 1)
    return _of_pairs(left_out, spread[:, first] + spread[:, second], outcomes)


def _of_pairs(mean: Tensor, variance: Tensor, outcomes: FloatArray) -> FloatArray:
    """Return the composite log likelihood of the order of ``n`` runs; means ``(e, n)``, variances of differences ``(e, n (n - 1) / 2)``."""
    n = len(outcomes)
    if n < 2:
        return np.zeros(len(mean))
    first, second = np.triu_indices(n, 1)
    order = torch.as_tensor(np.sign(outcomes[first] - outcomes[second]))
    gap = order * (mean[:, first] - mean[:, second]) / variance.clamp_min(1e-6).sqrt()
    evidence: FloatArray = (torch.special.log_ndtr(gap) * order.abs()).sum(-1).numpy() * (2 / (n - 1))
    return evidence


def _expected_scores(mean: Tensor, factor: Tensor, outcomes: FloatArray) -> Tensor:
    """Score own runs half by their order, half by their distances on the scale that the order suggests.

    The order alone would spread many runs around an optimum, which hardly differ, over the whole upper half.

    Args:
        mean: Prior mean, shape ``(e, n)``.
        factor: Cholesky factor of the prior covariance with noise, shape ``(e, n, n)``.
        outcomes: Oriented outcomes, shape ``(n,)``.

    Returns:
        Shape ``(e, n)``, increasing in the outcome.
    """
    expected = _expected_order_statistics(mean, factor, outcomes)
    if len(outcomes) < MIN_RUNS_FOR_DISTANCES:
        return expected
    distances = torch.as_tensor(own_scores(outcomes))
    middle = expected.mean(-1, keepdim=True)
    return 0.5 * expected + 0.5 * (middle + (expected - middle).square().mean(-1, keepdim=True).sqrt() * distances)


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
    n_draws = min(N_ORDER_DRAWS, max(N_ORDER_DRAWS // 4, N_ORDER_NUMBERS // n))
    noise = torch.randn(n_draws, n, generator=torch.Generator().manual_seed(0), dtype=torch.double)
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
