"""What is believed of a new task before its first run: a few rival Gaussian processes with weights. Tensors in, tensors out.

``HistoryPrior`` takes the new task for one more draw of the kind of thing the past tasks were: the function ``g`` that all share, and an
own part ``h``. Own parts of past tasks, with means ``h_t`` and covariances ``C_t``, tell of the new one's in a linear way:

    mean(x) = g(x) + sum_t a_t h_t(x),    cov(x, x') = cov_g(x, x') + sum_t w_t C_t(x, x') + sum_t v_t d_t(x) d_t(x') + r k(x, x')

so where past tasks agree it is sure, where they differ it is not, and configurations that were good together are expected to be good
together again. There are two such kinds of ``View`` of the same tasks, and both stand side by side:

- a *mixture*: the new task is drawn from past ones by their weights, and ``d_t`` is how far each is from their mean (law of total
  covariance);
- a *regression*: its own part is correlated with theirs as descriptors say (``relatedness``), and ``d_t`` is all of an own part, as far as
  the regression leaves it open.

How far a task may differ from all of them is not known: a small ``r``, a large one, and a process that has learned nothing but the length
scales stand side by side, and the task's own runs decide between them.

References:
    Wang et al., "Pre-trained Gaussian processes for Bayesian optimization", JMLR 2024 (a prior estimated by moments from past tasks).
    Feurer et al., "Practical transfer learning for Bayesian optimization", 2018 (rankings decide what the past is worth).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metamodel.gp.kernels import matern52
from metamodel.gp.relatedness import Relatedness
from metamodel.gp.task_gps import FloatArray, TaskGPs

RESIDUALS = (0.1, 1.0)
"""``r``: how much a task may differ from everything seen, as a share of the variance of an own part."""
SHARE_OF_HISTORY = 0.75
SHARE_OF_LOOSE = 0.8
"""Prior probability that a new task is like a long history's, and which part of the rest still trusts its mean."""
EXTRA_LENGTH = 1.0
"""Length scale of columns the history has not tuned, where nothing could be learned."""


@dataclass(frozen=True, eq=False)
class View:
    """How ``T`` past tasks speak for a new one.

    Attributes:
        mean: Weight of each own part in the mean, shape ``(T,)``.
        covariance: Weight of the covariance of each own part, shape ``(T,)``.
        deviation: Weight of the square of its deviation, shape ``(T,)``.
        is_centred: Whether deviations are from the mean of the own parts; else from the shared function.
        n_effective: How many tasks speak.
    """

    mean: FloatArray
    covariance: FloatArray
    deviation: FloatArray
    is_centred: bool
    n_effective: float

    @classmethod
    def mixture(cls, weights: FloatArray) -> View:
        """Return the view in which the new task is one of the past ones.

        Args:
            weights: Probability of each, shape ``(T,)``, sum 1.
        """
        n_effective = 1.0 / float(np.square(weights).sum())
        # The mean is estimated from the same tasks, so deviations from it are too small by this.
        return cls(weights, weights, weights * n_effective / max(n_effective - 1, 1.0), True, n_effective)

    @classmethod
    def regression(cls, weights: FloatArray, left_open: float) -> View:
        """Return the view in which the new task's own part is predicted from theirs.

        Args:
            weights: Of the own parts, shape ``(T,)``.
            left_open: Share of its variance that they leave open, in [0, 1].
        """
        rest = np.full(len(weights), left_open / len(weights))
        return cls(weights, rest + np.square(weights), rest, False, float(len(weights)))


def views_of(relatedness: Relatedness, features: Mapping[str, float], index: npt.NDArray[np.intp]) -> tuple[View, View]:
    """Return how some past tasks speak for one with these descriptors.

    Args:
        relatedness: What descriptors say.
        features: Of the new task.
        index: The past tasks that speak, out of all.
    """
    keep = np.zeros(len(relatedness.values), dtype=bool)
    keep[index] = True
    return View.mixture(relatedness.weights(features, keep)[index]), View.regression(*relatedness.regression(features, index))


@dataclass(frozen=True, eq=False)
class Prepared:
    """Points with what every covariance with them needs.

    Attributes:
        scaled: All columns in units of their length scales, shape ``(n, d + d_extra)``.
        mean: Mean of each rival, shape ``(e, n)``.
        variance: Variance of each rival, shape ``(e, n)``.
        known: ``V`` of the past tasks, shape ``(T, n_runs, n)``; None without a history.
        deviation: Weighted deviations of the own parts in each view, shape ``(v, T, n)``; None without a history.
        shared: ``G`` of the shared function, shape ``(m, n)``; None without one.
        parts: The same of each of several priors.
    """

    scaled: Tensor
    mean: Tensor
    variance: Tensor
    known: Tensor | None = None
    deviation: Tensor | None = None
    shared: Tensor | None = None
    parts: tuple[Prepared, ...] = ()


def joined(parts: Sequence[Prepared]) -> Prepared:
    """Put the same points, as several priors see them, side by side."""
    mean, variance = torch.cat([part.mean for part in parts]), torch.cat([part.variance for part in parts])
    return Prepared(parts[0].scaled, mean, variance, parts=tuple(parts))


class Told(NamedTuple):
    """What a task's own runs add to the mean: points, and the weight of each under each rival, shape ``(e, n)``."""

    points: Prepared
    weights: Tensor

    def of(self, rival: int) -> Told:
        """Return the same with the weights of one rival, shape ``(n,)``."""
        return Told(self.points, self.weights[rival])


MeanFunction = Callable[[FloatArray], Tensor]
"""From encoded configurations, shape ``(n, n_columns)``, to the mean of each rival, shape ``(e, n)``, double precision."""


class Prior(Protocol):
    """``e`` rival Gaussian processes over encoded configurations of ``n_columns`` columns.

    Attributes:
        log_weights: Logarithm of the prior weight of each, shape ``(e,)``.
        noise_variance: Of each, shape ``(e,)``.
    """

    log_weights: FloatArray
    noise_variance: FloatArray
    n_columns: int

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Evaluate mean and variance at encoded configurations, shape ``(n, n_columns)``."""

    def covariance(self, left: Prepared, right: Prepared) -> Tensor:
        """Return the covariance of each rival, shape ``(e, n_left, n_right)``."""

    def mean_given(self, told: Told) -> MeanFunction:
        """Return ``x -> mean(x) + cov(x, points) weights`` of each rival: what a search asks thousands of times."""


class HistoryPrior:
    """The new task as one more draw of the past ones; see the module.

    Args:
        tasks: The past tasks.
        views: How they speak for the new one, ``v`` of them; there are ``2 v + 1`` rivals.
        n_extra: Columns after those of the tasks that the history does not know; only the residuals see them.
        trust: How much of their usual weight the rivals that believe the history have, in [0, 1]; what they lose, the one that has
            kept nothing but the length scales gets.
    """

    def __init__(self, tasks: TaskGPs, views: Sequence[View], n_extra: int = 0, trust: float = 1.0) -> None:
        if not views or any(view.mean.shape != (tasks.n_tasks,) for view in views):
            raise AssertionError(f"views must weigh {tasks.n_tasks} tasks, got {[view.mean.shape for view in views]}")
        self._tasks, self._views = tasks, tuple(views)
        self._own = float(tasks.own.amplitude)
        self._length = torch.cat([tasks.own.length.double(), torch.full((n_extra,), EXTRA_LENGTH, dtype=torch.double)])
        weights, loose = [], 0.0
        for view in views:
            # With one or two tasks, that they agree says little about the next one.
            history = trust * SHARE_OF_HISTORY * view.n_effective / (view.n_effective + 1)
            weights += [history, trust * SHARE_OF_LOOSE * (1 - history)]
            loose += (1 - trust * SHARE_OF_LOOSE) * (1 - history)
        self.log_weights: FloatArray = np.log(np.array([*weights, loose]) / len(views))
        self.noise_variance: FloatArray = np.full(len(self.log_weights), float(tasks.own.noise_variance))
        self.n_columns = tasks.n_inputs + n_extra

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Evaluate mean and variance of the rivals."""
        points = _tensor(inputs, self.n_columns)
        seen = points[:, : self._tasks.n_inputs]
        own, known = self._tasks.predict(seen)
        own = own.double()
        base, shared = torch.zeros(len(points), dtype=torch.double), None
        if self._tasks.common is not None:
            base, shared = self._tasks.common.predict(seen)
        base_variance = torch.zeros_like(base) if shared is None else shared.square().sum(0).double()
        learned = known.square().sum(1).double()
        means, variances, deviations = [], [], []
        for view in self._views:
            shift = (_column(view.mean) * own).sum(0)
            deviation = (own - shift if view.is_centred else own) * _column(np.sqrt(view.deviation))
            variance = float(view.covariance.sum()) * self._own - (_column(view.covariance) * learned).sum(0)
            variance = variance + deviation.square().sum(0) + base_variance
            means += [base + shift] * len(RESIDUALS)
            variances += [variance + r * self._own for r in RESIDUALS]
            deviations.append(deviation)
        means.append(torch.zeros_like(base))
        variances.append(torch.full_like(base, self._tasks.amplitude))
        scaled = points / self._length
        return Prepared(scaled, torch.stack(means), torch.stack(variances).clamp_min(1e-8), known, torch.stack(deviations), shared)

    def covariance(self, left: Prepared, right: Prepared) -> Tensor:
        """Return the covariance of the rivals, shape ``(e, n_left, n_right)``."""
        assert left.known is not None
        assert left.deviation is not None
        assert right.known is not None
        assert right.deviation is not None
        d = self._tasks.n_inputs
        local = matern52(left.scaled, right.scaled)
        # The history's own part knows only the history's columns.
        own = local if self.n_columns == d else matern52(left.scaled[:, :d], right.scaled[:, :d])
        shared: Tensor | float = 0.0
        if left.shared is not None and right.shared is not None:
            shared = (left.shared.T @ right.shared).double()
        flat = left.known.flatten(0, 1).T
        found = []
        for view, left_deviation, right_deviation in zip(self._views, left.deviation, right.deviation, strict=True):
            learned = flat @ (torch.as_tensor(view.covariance)[:, None, None].float() * right.known).flatten(0, 1)
            history = shared + float(view.covariance.sum()) * self._own * own - learned.double() + left_deviation.T @ right_deviation
            found += [history + r * self._own * local for r in RESIDUALS]
        return torch.stack([*found, self._tasks.amplitude * local])

    def mean_given(self, told: Told) -> MeanFunction:
        """Return the mean of the rivals, given own runs: it is linear in the kernels at ``x``, so all that it sums is summed up once."""
        tasks, d = self._tasks, self._tasks.n_inputs
        rivals = [(v, r) for v in range(len(self._views)) for r in RESIDUALS]
        found = [self._kernel_weights(v, told.of(row)) for row, (v, _) in enumerate(rivals)]
        weights = torch.stack([*(runs for runs, _ in found), torch.zeros_like(found[0][0])]).float()
        inducing = torch.stack([*(shared for _, shared in found), torch.zeros_like(found[0][1])])
        own = _column(np.array([*(float(self._views[v].covariance.sum()) * self._own for v, _ in rivals), 0.0])) * told.weights
        local = _column(np.array([*(r * self._own for _, r in rivals), tasks.amplitude])) * told.weights

        def mean(inputs: FloatArray) -> Tensor:
            points = _tensor(inputs, self.n_columns)
            found = tasks.weighted(points[:, :d], weights).double()
            if tasks.common is not None:
                found += tasks.common.kernel.weighted(points[:, :d], inducing.T).T
            scaled, at = points / self._length, told.points.scaled
            if self.n_columns == d:
                return found + (local + own) @ matern52(at, scaled)
            return found + local @ matern52(at, scaled) + own @ matern52(at[:, :d], scaled[:, :d])

        return mean

    def _kernel_weights(self, v: int, told: Told) -> tuple[Tensor, Tensor]:
        """Return how a view's mean weighs the kernels of all past runs, shape ``(T, n)``, and of the inducing points, shape ``(m,)``.

        Args:
            v: Which view.
            told: What own runs add, the weights of one rival of the view, shape ``(n_own,)``.
        """
        tasks, view = self._tasks, self._views[v]
        shared = torch.zeros(0, dtype=torch.double) if tasks.common is None else tasks.common.mean_weights
        share = torch.as_tensor(view.mean)
        points, own = told
        assert points.known is not None
        assert points.deviation is not None
        agreed = torch.as_tensor(np.sqrt(view.deviation)) * (points.deviation[v] @ own)
        share = share * (1 - agreed.sum()) + agreed if view.is_centred else share + agreed
        learned = torch.as_tensor(view.covariance)[:, None, None] * tasks.unwhitened(points.known.double() @ own[:, None])
        if tasks.common is not None and points.shared is not None:
            shared = shared + tasks.common.unwhitened(points.shared.double() @ own)
        return share[:, None] * tasks.weights[..., 0] - learned[..., 0], shared


def _column(values: FloatArray) -> Tensor:
    return torch.as_tensor(values)[:, None]


def _tensor(inputs: FloatArray, width: int) -> Tensor:
    if inputs.ndim != 2 or inputs.shape[1] != width:
        raise AssertionError(f"inputs must have shape (n, {width}), got {inputs.shape}")
    return torch.as_tensor(inputs, dtype=torch.double)
