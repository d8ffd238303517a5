"""Conditioning a prior on the target task's runs. Arrays in, arrays out; one Cholesky a mixture component.

The scale and offset of a new task are unknown, and its first outcomes do not determine them. So outcomes enter by their order: the score of
the r-th best run is the expected r-th order statistic of exactly these configurations under a component. Any monotone change of units
leaves a recommendation as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from metamodel.data.observations import single_task_scores
from metamodel.gp.kernels import cholesky
from metamodel.gp.prediction import Prediction, TargetTaskData, TaskPosterior
from metamodel.gp.prior import Conditioning, MeanFunction, Prior, PriorFeatures, concat_features
from metamodel.space.arrays import FloatArray

N_ORDER_DRAWS = 256
"""Draws from the prior whose sorted mean gives the expected order statistics; their error is far below the noise."""
N_ORDER_NUMBERS = 6_400
"""Budget (draws x runs) for the Monte-Carlo order statistics; at least a quarter of ``N_ORDER_DRAWS``."""
MIN_RUNS_FOR_LEAVE_ONE_OUT = 3
"""With two runs, predicting one from the other shows only how they are correlated."""
MIN_RUNS_FOR_DISTANCES = 3
"""With two runs there is one distance, and nothing to compare it with."""


@dataclass(frozen=True, slots=True, eq=False)
class ConditionedComponents:
    """The components of a prior at the target task's runs. They are independent, so those of several priors can be concatenated.

    Attributes:
        points: The runs as points of the prior.
        covariance: Shape ``(e, n, n)``; smaller between groups of runs.
        factor: Cholesky factor of it with noise, shape ``(e, n, n)``.
        scores: Score of each run under each component, shape ``(e, n)``.
        evidence: Log evidence of the runs' order, shape ``(e,)``.
    """

    points: PriorFeatures
    covariance: Tensor
    factor: Tensor
    scores: Tensor
    evidence: FloatArray

    @classmethod
    def of(cls, prior: Prior, data: TargetTaskData, scores: FloatArray | None = None) -> ConditionedComponents:
        """Evaluate a prior at ``n`` runs.

        Args:
            prior: The prior.
            data: The runs.
            scores: Their scores to which the only component of the prior was fitted, shape ``(n,)``; None where only their order counts.
        """
        points, outcomes = prior.prepare(data.inputs), data.outcomes
        mean = points.mean
        covariance = prior.covariance(points, points) * torch.as_tensor(data.groups.between())
        noisy = covariance + torch.as_tensor(prior.noise_variance)[:, None, None] * torch.eye(len(outcomes), dtype=torch.double)
        factor = cholesky(noisy)
        known = _scores_by_order(mean, factor, outcomes) if scores is None else torch.as_tensor(scores)[None]
        evidence = _order_evidence(mean, noisy, outcomes) + _leave_one_out_evidence(mean, factor, known, outcomes)
        return cls(points, covariance, factor, known, evidence)

    def concat(self, other: ConditionedComponents) -> ConditionedComponents:
        """Return the components of both."""
        return ConditionedComponents(
            concat_features([self.points, other.points]),
            torch.cat([self.covariance, other.covariance]),
            torch.cat([self.factor, other.factor]),
            torch.cat([self.scores, other.scores]),
            np.concatenate([self.evidence, other.evidence]),
        )


class Posterior(TaskPosterior):
    """The components of a prior, conditioned on the target task's runs and weighted by their evidence.

    Args:
        prior: The prior.
        data: The target task's runs, ``n`` of them; None for a new task.
        components: The prior's components at the runs, where they are known already.
    """

    def __init__(self, prior: Prior, data: TargetTaskData | None = None, components: ConditionedComponents | None = None) -> None:
        self._prior = prior
        self._data = data if data is not None and len(data.outcomes) else None
        self.target_scores: FloatArray | None = None
        self.weights = _softmax(prior.log_weights)
        if self._data is None:
            return
        self.components = ConditionedComponents.of(prior, self._data) if components is None else components
        self._points = self.components.points
        self.weights = _softmax(prior.log_weights + self.components.evidence)
        self.target_scores = self.weights @ self.components.scores.numpy()
        gap = (self.components.scores - self._points.mean)[..., None]
        self._whitened = torch.linalg.solve_triangular(self.components.factor, gap, upper=False)

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict the score of ``n`` configurations, shape ``(n, d)``, without observation noise."""
        points = self._prior.prepare(inputs)
        mean = points.mean
        covariance = self._prior.covariance(points, points) if is_joint else points.variance
        incumbent = None
        if self._data is not None:
            cross = self._prior.covariance(points, self._points) * torch.as_tensor(self._data.groups.correlation)
            half = torch.linalg.solve_triangular(self.components.factor, cross.transpose(-1, -2), upper=False)
            mean = mean + (half.transpose(-1, -2) @ self._whitened)[..., 0]
            covariance = covariance - (half.transpose(-1, -2) @ half if is_joint else half.square().sum(-2))
            incumbent = self._incumbent
        if not is_joint:
            covariance = covariance.clamp_min(1e-8)
        return Prediction(mean.numpy(), covariance.numpy(), self.weights, incumbent)

    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected score of ``n`` configurations, shape ``(n, d)``: that of ``predict`` without its variance."""
        if self._data is None:
            return self.predict(inputs).mixture()[0]
        found: FloatArray = self.weights @ self._mean_function(inputs).numpy()
        return found

    @cached_property
    def _mean_function(self) -> MeanFunction:
        assert self._data is not None
        weights = torch.linalg.solve_triangular(self.components.factor.transpose(-1, -2), self._whitened, upper=True)[..., 0]
        return self._prior.mean_given(Conditioning(self._points, weights * torch.as_tensor(self._data.groups.correlation)))

    @cached_property
    def _incumbent(self) -> FloatArray:
        """Return the expected score of the best run under each component, shape ``(e,)``."""
        half = torch.linalg.solve_triangular(self.components.factor, self.components.covariance.transpose(-1, -2), upper=False)
        mean = self._points.mean + (half.transpose(-1, -2) @ self._whitened)[..., 0]
        best: FloatArray = mean.max(-1).values.numpy()
        return best

    @property
    def noise_variance(self) -> float:
        """Noise variance in normal scores, the average of the components."""
        return float(self.weights @ self._prior.noise_variance)


def _softmax(logits: FloatArray) -> FloatArray:
    weights = np.exp(logits - logits.max())
    result: FloatArray = weights / weights.sum()
    return result


def _order_evidence(mean: Tensor, covariance: Tensor, outcomes: FloatArray) -> FloatArray:
    """Return the log evidence of the runs' order before any was seen.

    A composite likelihood: the probability of the order of each pair, each run counted once in all (Varin, Reid & Firth, "An overview of
    composite likelihood methods", 2011). Unlike the likelihood of scores it needs no scale, and an indifferent component gets one half a
    pair.

    Args:
        mean: Prior mean, shape ``(e, n)``.
        covariance: Prior covariance with noise, shape ``(e, n, n)``.
        outcomes: Oriented outcomes, shape ``(n,)``; tied pairs do not count.

    Returns:
        Shape ``(e,)``.
    """
    first, second = np.triu_indices(len(outcomes), 1)
    variance = covariance.diagonal(dim1=-2, dim2=-1)
    return _of_pairs(mean, variance[:, first] + variance[:, second] - 2 * covariance[:, first, second], outcomes)


def _leave_one_out_evidence(mean: Tensor, factor: Tensor, scores: Tensor, outcomes: FloatArray) -> FloatArray:
    """Return the log evidence of the runs' order, each run predicted from all others.

    What a component learns from the runs counts here, where ``_order_evidence`` knows only its prior.

    Args:
        mean: Prior mean, shape ``(e, n)``.
        factor: Cholesky factor of the prior covariance with noise, shape ``(e, n, n)``.
        scores: Of the runs, shape ``(e, n)``.
        outcomes: Oriented outcomes, shape ``(n,)``; tied pairs do not count.

    Returns:
        Shape ``(e,)``; 0 with fewer than three runs.
    """
    if len(outcomes) < MIN_RUNS_FOR_LEAVE_ONE_OUT:
        return np.zeros(len(mean))
    inverse = torch.cholesky_inverse(factor)
    spread = 1 / inverse.diagonal(dim1=-2, dim2=-1)
    predicted = scores - spread * (inverse @ (scores - mean)[..., None])[..., 0]  # Rasmussen & Williams 2006, eq. 5.12
    first, second = np.triu_indices(len(outcomes), 1)
    return _of_pairs(predicted, spread[:, first] + spread[:, second], outcomes)


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


def _scores_by_order(mean: Tensor, factor: Tensor, outcomes: FloatArray) -> Tensor:
    """Score runs half by their order, half by their distances on the scale of the order.

    The order by itself would spread many runs around an optimum, which hardly differ, over the whole upper half.

    Args:
        mean: Prior mean, shape ``(e, n)``.
        factor: Cholesky factor of the prior covariance with noise, shape ``(e, n, n)``.
        outcomes: Oriented outcomes, shape ``(n,)``.

    Returns:
        Shape ``(e, n)``, increasing in the outcome.
    """
    expected = expected_order_statistics(mean, factor, outcomes)
    if len(outcomes) < MIN_RUNS_FOR_DISTANCES:
        return expected
    distances = torch.as_tensor(single_task_scores(outcomes))
    middle = expected.mean(-1, keepdim=True)
    return 0.5 * expected + 0.5 * (middle + (expected - middle).square().mean(-1, keepdim=True).sqrt() * distances)


def expected_order_statistics(mean: Tensor, factor: Tensor, outcomes: FloatArray) -> Tensor:
    """Score each run by the expected value of its rank among exactly these configurations.

    Args:
        mean: Predicted scores, shape ``(e, n)``.
        factor: Cholesky factor of their covariance with noise, shape ``(e, n, n)``.
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
