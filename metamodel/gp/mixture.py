"""Mixtures of priors, and the single-task GP that is added to one as a safeguard against negative transfer.

A Gaussian process fitted to the target task's runs cannot be worse than having no history. From a few runs on it is one more component of
the mixture, and the evidence of the runs' order weighs it. Where past tasks do not predict each other it is one from the first run on,
with the hyperparameters of its prior.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import single_task_scores
from metamodel.gp.kernels import JITTER
from metamodel.gp.posterior import ConditionedComponents, Posterior
from metamodel.gp.prediction import TargetTaskData
from metamodel.gp.prior import Conditioning, MeanFunction, Prior, PriorFeatures, concat_features
from metamodel.gp.single_task import OFFSET_VARIANCE, SingleTaskKernel, fit_kernel
from metamodel.space.arrays import FloatArray

MIN_OUTCOMES_TO_FIT = 3
"""Different outcomes from which a single-task GP can be fitted."""
SINGLE_TASK_SHARE = 0.3
"""Its prior weight, as a share of that of the last component of a trusted history: it was fitted to the very runs that weigh it."""


class SingleTaskPrior:
    """A fitted single-task GP as a prior, on another scale than it was fitted on.

    Args:
        kernel: Its covariance.
        shift: Added to every score, and
        scale: what they are multiplied by first.
    """

    def __init__(self, kernel: SingleTaskKernel, shift: float, scale: float) -> None:
        self._kernel, self._shift, self._variance = kernel, shift, scale**2
        self.log_weights: FloatArray = np.zeros(1)
        self.noise_variance: FloatArray = np.array([self._variance * kernel.noise + JITTER])
        self.n_columns = len(kernel.length)

    def prepare(self, inputs: FloatArray) -> PriorFeatures:
        """Evaluate mean and variance."""
        mean = torch.full((1, len(inputs)), self._shift, dtype=torch.double)
        variance = self._variance * (self._kernel.amplitude + OFFSET_VARIANCE)
        return PriorFeatures(torch.as_tensor(inputs, dtype=torch.double), mean, torch.full_like(mean, variance))

    def covariance(self, left: PriorFeatures, right: PriorFeatures) -> Tensor:
        """Return the covariance, shape ``(1, n_left, n_right)``."""
        return self._variance * torch.as_tensor(self._kernel.covariance(left.scaled.numpy(), right.scaled.numpy()))[None]

    def mean_given(self, conditioning: Conditioning) -> MeanFunction:
        """Return the conditioned mean."""

        def mean(inputs: FloatArray) -> Tensor:
            points = self.prepare(inputs)
            return points.mean + conditioning.weights @ self.covariance(conditioning.points, points)[0]

        return mean


class MixturePrior:
    """The components of several priors.

    Args:
        priors: They have the same columns.
        log_weights: Of all their components, shape ``(e,)``.
    """

    def __init__(self, priors: Sequence[Prior], log_weights: FloatArray) -> None:
        if len({prior.n_columns for prior in priors}) != 1 or len(log_weights) != sum(len(prior.log_weights) for prior in priors):
            raise AssertionError(
                f"priors must have the same columns and a weight a component, got {len(priors)} and {len(log_weights)} weights"
            )
        self._priors = tuple(priors)
        self.log_weights = log_weights
        self.noise_variance: FloatArray = np.concatenate([prior.noise_variance for prior in priors])
        self.n_columns = priors[0].n_columns

    def prepare(self, inputs: FloatArray) -> PriorFeatures:
        """Evaluate mean and variance of all components."""
        return concat_features([prior.prepare(inputs) for prior in self._priors])

    def covariance(self, left: PriorFeatures, right: PriorFeatures) -> Tensor:
        """Return the covariance of all components, shape ``(e, n_left, n_right)``."""
        pairs = zip(self._priors, left.parts, right.parts, strict=True)
        return torch.cat([prior.covariance(first, second) for prior, first, second in pairs])

    def mean_given(self, conditioning: Conditioning) -> MeanFunction:
        """Return the conditioned means of all components."""
        counts = [len(prior.log_weights) for prior in self._priors]
        parts = zip(self._priors, conditioning.points.parts, torch.split(conditioning.weights, counts), strict=True)
        means = [prior.mean_given(Conditioning(points, weights)) for prior, points, weights in parts]
        return lambda inputs: torch.cat([mean(inputs) for mean in means])


def posterior_with_single_task_component(prior: Prior, data: TargetTaskData, trust: float = 1.0) -> Posterior:
    """Condition a history's prior on the target task's runs, with a single-task GP as one more component.

    The single-task GP has the scores of these outcomes by themselves, on the scale that the history gives the same runs. Before there are
    enough of them to fit it, it is added to a distrusted history only, with the hyperparameters of its prior.

    Args:
        prior: Of the history.
        data: The target task's runs.
        trust: Weight of the history, in (0, 1]. Its length scales and noise, which its last component keeps, are trusted no more than its
            outcomes.
    """
    distrust = 1 / trust - 1
    outcomes = data.outcomes
    if len(np.unique(outcomes)) < MIN_OUTCOMES_TO_FIT:
        if len(outcomes) == 0 or distrust == 0:
            return Posterior(prior, data)
        return Posterior(_with_component(prior, SingleTaskPrior(_fitted(data, outcomes[:0]), 0.0, 1.0), distrust), data)
    history = Posterior(prior, data)
    assert history.target_scores is not None
    scores = single_task_scores(outcomes)
    middle, spread = float(history.target_scores.mean()), float(history.target_scores.std())
    single = SingleTaskPrior(_fitted(data, scores), middle, spread)
    components = history.components.concat(ConditionedComponents.of(single, data, middle + spread * scores))
    return Posterior(_with_component(prior, single, SINGLE_TASK_SHARE + distrust), data, components)


def _fitted(data: TargetTaskData, scores: FloatArray) -> SingleTaskKernel:
    """Return the most probable covariance after the first runs, as many as there are scores."""
    inputs = data.inputs[: len(scores)]
    return fit_kernel(inputs, scores, np.arange(inputs.shape[1]), data.groups[: len(scores)].between())


def _with_component(prior: Prior, single: SingleTaskPrior, share: float) -> MixturePrior:
    """Add a component, whose weight is a share of that of the prior's last one."""
    return MixturePrior([prior, single], np.append(prior.log_weights, prior.log_weights[-1] + math.log(share)))
