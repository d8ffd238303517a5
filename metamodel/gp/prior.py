"""The prior of a new task: a mixture of a few Gaussian processes with weights. Tensors in, tensors out.

``HistoryPrior`` takes the new task for one more draw of the distribution of the source tasks: the function ``g`` that all share, and a task
effect ``h``. The effects of the source tasks, with means ``h_t`` and covariances ``C_t``, enter the new one's linearly:

    mean(x) = g(x) + sum_t a_t h_t(x),    cov(x, x') = cov_g(x, x') + sum_t w_t C_t(x, x') + sum_t v_t d_t(x) d_t(x') + r k(x, x')

so where source tasks agree it is sure, where they differ it is not, and configurations that were good together are expected to be good
together again. There are two kinds of ``TaskWeighting`` of the same tasks, and the mixture has components of both:

- a *mixture*: the new task is drawn from the source tasks by their weights, and ``d_t`` is how far each is from their mean (law of total
  covariance);
- a *regression*: its effect is correlated with theirs by descriptors (``relatedness``), and ``d_t`` is all of a task effect, as far as the
  regression leaves it open.

How far a task may differ from all of them is not known: the mixture has components with a small ``r``, with a large one, and one that keeps
nothing but the length scales, and the task's runs decide between them.

References:
    Wang et al., "Pre-trained Gaussian processes for Bayesian optimization", JMLR 2024 (a prior estimated by moments from past tasks).
    Feurer et al., "Practical transfer learning for Bayesian optimization", 2018 (rankings decide what the past is worth).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metamodel.gp.kernels import matern52
from metamodel.gp.relatedness import Relatedness
from metamodel.gp.task_gps import TaskGPs
from metamodel.space.arrays import FloatArray

RESIDUALS = (0.1, 1.0)
"""``r``: how much a task may differ from everything seen, as a share of the variance of a task effect."""
SHARE_OF_HISTORY = 0.75
SHARE_OF_LOOSE = 0.8
"""Prior probability that a new task is like those of a long history, and which part of the rest still has its mean."""
EXTRA_LENGTH = 1.0
"""Length scale of columns the history has not tuned, where nothing could be learned."""


@dataclass(frozen=True, slots=True, eq=False)
class TaskWeighting:
    """How ``T`` source tasks weigh in the prior of a new one.

    Attributes:
        mean: Weight of each task effect in the mean, shape ``(T,)``.
        covariance: Weight of the covariance of each task effect, shape ``(T,)``.
        deviation: Weight of the square of its deviation, shape ``(T,)``.
        is_centred: Whether deviations are from the mean of the task effects; else from the shared function.
        n_effective: Effective number of tasks.
    """

    mean: FloatArray
    covariance: FloatArray
    deviation: FloatArray
    is_centred: bool
    n_effective: float

    @classmethod
    def mixture(cls, weights: FloatArray) -> TaskWeighting:
        """Return the weighting in which the new task is one of the source tasks.

        Args:
            weights: Probability of each, shape ``(T,)``, sum 1.
        """
        n_effective = 1.0 / float(np.square(weights).sum())
        # The mean is estimated from the same tasks, so deviations from it are too small by this.
        return cls(weights, weights, weights * n_effective / max(n_effective - 1, 1.0), True, n_effective)

    @classmethod
    def regression(cls, weights: FloatArray, left_open: float) -> TaskWeighting:
        """Return the weighting in which the new task's effect is predicted from theirs.

        Args:
            weights: Of the task effects, shape ``(T,)``.
            left_open: Share of its variance that they leave open, in [0, 1].
        """
        rest = np.full(len(weights), left_open / len(weights))
        return cls(weights, rest + np.square(weights), rest, False, float(len(weights)))


def task_weightings(
    relatedness: Relatedness, features: Mapping[str, float], index: npt.NDArray[np.intp]
) -> tuple[TaskWeighting, TaskWeighting]:
    """Return how some source tasks weigh in the prior of one with these descriptors.

    Args:
        relatedness: How tasks are related by descriptors.
        features: Of the new task.
        index: The source tasks that count, out of all.
    """
    keep = np.zeros(len(relatedness.values), dtype=bool)
    keep[index] = True
    return TaskWeighting.mixture(relatedness.weights(features, keep)[index]), TaskWeighting.regression(
        *relatedness.regression(features, index)
    )


@dataclass(frozen=True, slots=True, eq=False)
class PriorFeatures:
    """Points with what every covariance with them needs.

    Attributes:
        scaled: All columns in units of their length scales, shape ``(n, d + d_extra)``.
        mean: Mean of each component, shape ``(e, n)``.
        variance: Variance of each component, shape ``(e, n)``.
        known: ``V`` of the source tasks, shape ``(T, n_runs, n)``; None without a history.
        deviation: Weighted deviations of the task effects in each weighting, shape ``(v, T, n)``; None without a history.
        shared: ``G`` of the shared function, shape ``(m, n)``; None without one.
        parts: The same of each of several priors that were concatenated.
    """

    scaled: Tensor
    mean: Tensor
    variance: Tensor
    known: Tensor | None = None
    deviation: Tensor | None = None
    shared: Tensor | None = None
    parts: tuple[PriorFeatures, ...] = ()


def concat_features(parts: Sequence[PriorFeatures]) -> PriorFeatures:
    """Return the components of several priors at the same points."""
    mean, variance = torch.cat([part.mean for part in parts]), torch.cat([part.variance for part in parts])
    return PriorFeatures(parts[0].scaled, mean, variance, parts=tuple(parts))


@dataclass(frozen=True, slots=True, eq=False)
class Conditioning:
    """Points that a prior is conditioned on, and the dual weight of each under each component, shape ``(e, n)``."""

    points: PriorFeatures
    weights: Tensor

    def of(self, component: int) -> Conditioning:
        """Return the same with the weights of one component, shape ``(n,)``."""
        return Conditioning(self.points, self.weights[component])


MeanFunction = Callable[[FloatArray], Tensor]
"""From encoded configurations, shape ``(n, n_columns)``, to the mean of each component, shape ``(e, n)``, double precision."""


class Prior(Protocol):
    """``e`` Gaussian processes over encoded configurations of ``n_columns`` columns.

    Attributes:
        log_weights: Logarithm of the prior weight of each, shape ``(e,)``.
        noise_variance: Of each, shape ``(e,)``.
    """

    log_weights: FloatArray
    noise_variance: FloatArray
    n_columns: int

    def prepare(self, inputs: FloatArray) -> PriorFeatures:
        """Evaluate mean and variance at encoded configurations, shape ``(n, n_columns)``."""

    def covariance(self, left: PriorFeatures, right: PriorFeatures) -> Tensor:
        """Return the covariance of each component, shape ``(e, n_left, n_right)``."""

    def mean_given(self, conditioning: Conditioning) -> MeanFunction:
        """Return ``x -> mean(x) + cov(x, points) weights`` of each component: what a search asks thousands of times."""


class HistoryPrior:
    """The new task as one more draw of the source tasks; see the module.

    Args:
        tasks: The source tasks.
        weightings: How they weigh in the new one, ``v`` of them; there are ``2 v + 1`` components.
        n_extra: Columns after those of the tasks that the history does not have; only the residuals have them.
        trust: Share of their usual weight that the components with the history have, in [0, 1]; the rest goes to the one that keeps
            nothing but the length scales.
    """

    def __init__(self, tasks: TaskGPs, weightings: Sequence[TaskWeighting], n_extra: int = 0, trust: float = 1.0) -> None:
        if not weightings or any(weighting.mean.shape != (tasks.n_tasks,) for weighting in weightings):
            raise AssertionError(f"weightings must be of {tasks.n_tasks} tasks, got {[weighting.mean.shape for weighting in weightings]}")
        self._tasks, self._weightings = tasks, tuple(weightings)
        self._amplitude = float(tasks.task_kernel.amplitude)
        self._length = torch.cat([tasks.task_kernel.length.double(), torch.full((n_extra,), EXTRA_LENGTH, dtype=torch.double)])
        weights, loose = [], 0.0
        for weighting in weightings:
            # With one or two tasks, that they agree says little about the next one.
            history = trust * SHARE_OF_HISTORY * weighting.n_effective / (weighting.n_effective + 1)
            weights += [history, trust * SHARE_OF_LOOSE * (1 - history)]
            loose += (1 - trust * SHARE_OF_LOOSE) * (1 - history)
        self.log_weights: FloatArray = np.log(np.array([*weights, loose]) / len(weightings))
        self.noise_variance: FloatArray = np.full(len(self.log_weights), float(tasks.task_kernel.noise_variance))
        self.n_columns = tasks.n_inputs + n_extra

    def prepare(self, inputs: FloatArray) -> PriorFeatures:
        """Evaluate mean and variance of the components."""
        points = _tensor(inputs, self.n_columns)
        seen = points[:, : self._tasks.n_inputs]
        effects, known = self._tasks.predict(seen)
        effects = effects.double()
        base, shared = torch.zeros(len(points), dtype=torch.double), None
        if self._tasks.shared_gp is not None:
            base, shared = self._tasks.shared_gp.predict(seen)
        base_variance = torch.zeros_like(base) if shared is None else shared.square().sum(0).double()
        learned = known.square().sum(1).double()
        means, variances, deviations = [], [], []
        for weighting in self._weightings:
            shift = (_column(weighting.mean) * effects).sum(0)
            deviation = (effects - shift if weighting.is_centred else effects) * _column(np.sqrt(weighting.deviation))
            variance = float(weighting.covariance.sum()) * self._amplitude - (_column(weighting.covariance) * learned).sum(0)
            variance = variance + deviation.square().sum(0) + base_variance
            means += [base + shift] * len(RESIDUALS)
            variances += [variance + r * self._amplitude for r in RESIDUALS]
            deviations.append(deviation)
        means.append(torch.zeros_like(base))
        variances.append(torch.full_like(base, self._tasks.amplitude))
        scaled = points / self._length
        return PriorFeatures(scaled, torch.stack(means), torch.stack(variances).clamp_min(1e-8), known, torch.stack(deviations), shared)

    def covariance(self, left: PriorFeatures, right: PriorFeatures) -> Tensor:
        """Return the covariance of the components, shape ``(e, n_left, n_right)``."""
        assert left.known is not None
        assert left.deviation is not None
        assert right.known is not None
        assert right.deviation is not None
        d = self._tasks.n_inputs
        local = matern52(left.scaled, right.scaled)
        # A task effect has only the history's columns.
        effect = local if self.n_columns == d else matern52(left.scaled[:, :d], right.scaled[:, :d])
        shared: Tensor | float = 0.0
        if left.shared is not None and right.shared is not None:
            shared = (left.shared.T @ right.shared).double()
        flat = left.known.flatten(0, 1).T
        found = []
        for weighting, left_deviation, right_deviation in zip(self._weightings, left.deviation, right.deviation, strict=True):
            learned = flat @ (torch.as_tensor(weighting.covariance)[:, None, None].float() * right.known).flatten(0, 1)
            history = (
                shared
                + float(weighting.covariance.sum()) * self._amplitude * effect
                - learned.double()
                + left_deviation.T @ right_deviation
            )
            found += [history + r * self._amplitude * local for r in RESIDUALS]
        return torch.stack([*found, self._tasks.amplitude * local])

    def mean_given(self, conditioning: Conditioning) -> MeanFunction:
        """Return the conditioned mean of the components: it is linear in the kernels at ``x``, so all that it sums is summed up once."""
        tasks, d = self._tasks, self._tasks.n_inputs
        components = [(v, r) for v in range(len(self._weightings)) for r in RESIDUALS]
        found = [self._kernel_weights(v, conditioning.of(row)) for row, (v, _) in enumerate(components)]
        weights = torch.stack([*(runs for runs, _ in found), torch.zeros_like(found[0][0])]).float()
        inducing = torch.stack([*(shared for _, shared in found), torch.zeros_like(found[0][1])])
        effect = (
            _column(np.array([*(float(self._weightings[v].covariance.sum()) * self._amplitude for v, _ in components), 0.0]))
            * conditioning.weights
        )
        local = _column(np.array([*(r * self._amplitude for _, r in components), tasks.amplitude])) * conditioning.weights

        def mean(inputs: FloatArray) -> Tensor:
            points = _tensor(inputs, self.n_columns)
            found = tasks.weighted(points[:, :d], weights).double()
            if tasks.shared_gp is not None:
                found += tasks.shared_gp.kernel.weighted(points[:, :d], inducing.T).T
            scaled, at = points / self._length, conditioning.points.scaled
            if self.n_columns == d:
                return found + (local + effect) @ matern52(at, scaled)
            return found + local @ matern52(at, scaled) + effect @ matern52(at[:, :d], scaled[:, :d])

        return mean

    def _kernel_weights(self, v: int, conditioning: Conditioning) -> tuple[Tensor, Tensor]:
        """Return how a weighting's mean weighs the kernels of source runs, shape ``(T, n)``, and of inducing points, shape ``(m,)``.

        Args:
            v: Which weighting.
            conditioning: With the weights of one component of the weighting, shape ``(n_own,)``.
        """
        tasks, weighting = self._tasks, self._weightings[v]
        shared = torch.zeros(0, dtype=torch.double) if tasks.shared_gp is None else tasks.shared_gp.mean_weights
        share = torch.as_tensor(weighting.mean)
        points, dual = conditioning.points, conditioning.weights
        assert points.known is not None
        assert points.deviation is not None
        agreed = torch.as_tensor(np.sqrt(weighting.deviation)) * (points.deviation[v] @ dual)
        share = share * (1 - agreed.sum()) + agreed if weighting.is_centred else share + agreed
        learned = torch.as_tensor(weighting.covariance)[:, None, None] * tasks.unwhitened(points.known.double() @ dual[:, None])
        if tasks.shared_gp is not None and points.shared is not None:
            shared = shared + tasks.shared_gp.unwhitened(points.shared.double() @ dual)
        return share[:, None] * tasks.weights[..., 0] - learned[..., 0], shared


def _column(values: FloatArray) -> Tensor:
    return torch.as_tensor(values)[:, None]


def _tensor(inputs: FloatArray, width: int) -> Tensor:
    if inputs.ndim != 2 or inputs.shape[1] != width:
        raise AssertionError(f"inputs must have shape (n, {width}), got {inputs.shape}")
    return torch.as_tensor(inputs, dtype=torch.double)
