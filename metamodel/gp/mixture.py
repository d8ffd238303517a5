"""A history against what a task's own runs say alone: one more rival, that has learned nothing from other tasks.

However wrong a history is, a process fitted to the task's own runs is not worse than having none. So from a few own runs on it stands
beside the history's rivals, and the order of the runs decides between them (``posterior``). Beside a history whose tasks do not foretell
each other it stands from the first run on, not fitted to anything yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import own_scores
from metamodel.gp.kernels import JITTER
from metamodel.gp.posterior import AtOwnRuns, OwnRuns, Posterior
from metamodel.gp.prior import MeanFunction, Prepared, Prior, Told, joined
from metamodel.gp.single_task import OFFSET_VARIANCE, Kernel, fit_kernel, variant_correlation
from metamodel.gp.task_gps import FloatArray

MIN_OWN_RUNS = 3
"""Own runs from which a process of their own can be fitted to them."""
SHARE_OF_ALONE = 0.3
"""Its prior weight, as a share of that of the last rival of a trusted history: it was fitted to the very runs that judge it."""


class AlonePrior:
    """A fitted process of one task as a prior, on another scale than it was fitted on.

    Args:
        kernel: Its covariance.
        shift: Added to every score, and
        scale: what they are multiplied by first.
    """

    def __init__(self, kernel: Kernel, shift: float, scale: float) -> None:
        self._kernel, self._shift, self._variance = kernel, shift, scale**2
        self.log_weights: FloatArray = np.zeros(1)
        self.noise_variance: FloatArray = np.array([self._variance * kernel.noise + JITTER])
        self.n_columns = len(kernel.length)

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Evaluate mean and variance."""
        mean = torch.full((1, len(inputs)), self._shift, dtype=torch.double)
        variance = self._variance * (self._kernel.amplitude + OFFSET_VARIANCE)
        return Prepared(torch.as_tensor(inputs, dtype=torch.double), mean, torch.full_like(mean, variance))

    def covariance(self, left: Prepared, right: Prepared) -> Tensor:
        """Return the covariance, shape ``(1, n_left, n_right)``."""
        return self._variance * torch.as_tensor(self._kernel.covariance(left.scaled.numpy(), right.scaled.numpy()))[None]

    def mean_given(self, told: Told) -> MeanFunction:
        """Return the mean, given own runs."""

        def mean(inputs: FloatArray) -> Tensor:
            points = self.prepare(inputs)
            return points.mean + told.weights @ self.covariance(told.points, points)[0]

        return mean


class Rivals:
    """Several priors as rivals of each other.

    Args:
        priors: They see the same columns.
        log_weights: Of all their processes, shape ``(e,)``.
    """

    def __init__(self, priors: Sequence[Prior], log_weights: FloatArray) -> None:
        if len({prior.n_columns for prior in priors}) != 1 or len(log_weights) != sum(len(prior.log_weights) for prior in priors):
            raise AssertionError(
                f"rivals must see the same columns and have a weight each, got {len(priors)} and {len(log_weights)} weights"
            )
        self._priors = tuple(priors)
        self.log_weights = log_weights
        self.noise_variance: FloatArray = np.concatenate([prior.noise_variance for prior in priors])
        self.n_columns = priors[0].n_columns

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Evaluate mean and variance of all."""
        return joined([prior.prepare(inputs) for prior in self._priors])

    def covariance(self, left: Prepared, right: Prepared) -> Tensor:
        """Return the covariance of all, shape ``(e, n_left, n_right)``."""
        pairs = zip(self._priors, left.parts, right.parts, strict=True)
        return torch.cat([prior.covariance(mine, theirs) for prior, mine, theirs in pairs])

    def mean_given(self, told: Told) -> MeanFunction:
        """Return the means of all, given own runs."""
        counts = [len(prior.log_weights) for prior in self._priors]
        parts = zip(self._priors, told.points.parts, torch.split(told.weights, counts), strict=True)
        means = [prior.mean_given(Told(points, weights)) for prior, points, weights in parts]
        return lambda inputs: torch.cat([mean(inputs) for mean in means])


def against_alone(prior: Prior, own: OwnRuns, trust: float = 1.0) -> Posterior:
    """Condition a history's prior on a task's own runs, with one more rival that is fitted to these alone.

    Its scores are those of the outcomes as one task knows them, on the scale that the history gives the same runs. Before there are
    enough of them to fit anything to, it stands beside a distrusted history only, with what is believed of any task.

    Args:
        prior: Of the history.
        own: The own runs, ``n`` of them; fewer than ``MIN_OWN_RUNS`` different outcomes leave a trusted history alone.
        trust: How far the history is trusted, in (0, 1]: its length scales and noise, which its last rival has kept, no further than its
            outcomes.
    """
    distrusted = 1 / trust - 1
    outcomes = own.outcomes
    if len(np.unique(outcomes)) < MIN_OWN_RUNS:
        if len(outcomes) == 0 or distrusted == 0:
            return Posterior(prior, own)
        return Posterior(_beside(prior, AlonePrior(_fitted(own, outcomes[:0]), 0.0, 1.0), distrusted), own)
    history = Posterior(prior, own)
    assert history.own_scores is not None
    scores = own_scores(outcomes)
    middle, spread = float(history.own_scores.mean()), float(history.own_scores.std())
    alone = AlonePrior(_fitted(own, scores), middle, spread)
    at = history.at.beside(AtOwnRuns.of(alone, own, middle + spread * scores))
    return Posterior(_beside(prior, alone, SHARE_OF_ALONE + distrusted), own, at)


def _fitted(own: OwnRuns, scores: FloatArray) -> Kernel:
    """Return the covariance that is most probable after the first own runs, as many as there are scores."""
    inputs, same = own.inputs[: len(scores)], own.is_same_variant[: len(scores)]
    return fit_kernel(inputs, scores, np.arange(inputs.shape[1]), variant_correlation(same, same))


def _beside(prior: Prior, alone: AlonePrior, share: float) -> Rivals:
    """Return both as rivals; the share is that of the history's last rival."""
    return Rivals([prior, alone], np.append(prior.log_weights, prior.log_weights[-1] + math.log(share)))
