"""The source tasks as Gaussian processes: a function they share, and an effect of each task. Arrays in, arrays out.

The outcome of configuration ``x`` on task ``t``, as a score, is ``g(x) + h_t(x) + noise``. The shared function ``g`` and the task effects
``h_t`` are draws of processes with a Matern-5/2 kernel each, and length scales of their own: what matters for every task need not be what
tells tasks apart. Length scales, amplitudes and noise are learned from all tasks together, by their marginal likelihood; what differs
between tasks is their data alone, so there are few numbers to learn and nothing to overfit with a handful of tasks.

References:
    Wang et al., "Pre-trained Gaussian processes for Bayesian optimization", JMLR 2024 (HyperBO).
    Bonilla, Chai & Williams, "Multi-task Gaussian process prediction", NeurIPS 2007; the covariance between tasks here is 1 + identity,
    descriptors of tasks enter later (``relatedness``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metamodel.gp.kernels import JITTER, cholesky, matern52
from metamodel.gp.shared_function import SharedFunction, SharedKernel
from metamodel.space.arrays import FloatArray

MAX_TASK_RUNS = 64
"""Runs of one task that are kept; more cost cubically and add little."""
KEPT_BEST = 24
"""Of these, the best: a query is about the neighbourhood of the optimum."""
CONFIGS_PER_CHUNK = 32
"""Configurations predicted at once: what is computed of them fits into a processor's cache."""


@dataclass(frozen=True, eq=False)
class TrainingTask:
    """One task to learn from: encoded runs of shape ``(n, d)`` and their scores of shape ``(n,)``."""

    inputs: FloatArray
    scores: FloatArray

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.inputs.ndim != 2 or self.scores.shape != (len(self.inputs),):
            raise AssertionError(f"inputs must be (n, d) and scores (n,), got {self.inputs.shape} and {self.scores.shape}")

    def thinned(self, rng: np.random.Generator) -> TrainingTask:
        """Keep the best ``KEPT_BEST`` runs and random others, ``MAX_TASK_RUNS`` in all; scores stay those among all runs."""
        if len(self.scores) <= MAX_TASK_RUNS:
            return self
        order = np.argsort(-self.scores, kind="stable")
        others = rng.choice(order[KEPT_BEST:], MAX_TASK_RUNS - KEPT_BEST, replace=False)
        kept = np.sort(np.concatenate([order[:KEPT_BEST], others]))
        return TrainingTask(self.inputs[kept], self.scores[kept])


@dataclass(frozen=True, eq=False)
class TaskKernel:
    """The kernel that all task effects have, and the noise.

    Attributes:
        log_length: Logarithm of the length scale of each column, shape ``(d,)``.
        log_amplitude: Logarithm of the standard deviation of the process, a scalar.
        log_noise: Logarithm of the standard deviation of the noise, a scalar.
    """

    log_length: Tensor
    log_amplitude: Tensor
    log_noise: Tensor

    @property
    def length(self) -> Tensor:
        """Length scales, shape ``(d,)``."""
        return self.log_length.exp()

    @property
    def amplitude(self) -> Tensor:
        """Variance of the process."""
        return (2 * self.log_amplitude).exp()

    @property
    def noise_variance(self) -> Tensor:
        """Variance of the noise."""
        return (2 * self.log_noise).exp() + JITTER

    def double(self) -> TaskKernel:
        """Return the same in double precision."""
        return TaskKernel(self.log_length.double(), self.log_amplitude.double(), self.log_noise.double())


@dataclass(frozen=True, eq=False)
class TaskGPs:
    """``T`` tasks with up to ``n`` runs each.

    Attributes:
        inputs: Encoded runs, shape ``(T, n, d)``; rows without a run are 0.
        scores: Shape ``(T, n)``.
        mask: Which rows are runs, shape ``(T, n)``.
        task_kernel: Of the task effects, with the noise.
        shared_gp: The function they share; None where they share nothing but hyperparameters.
        n_steps_done: Gradient steps of the fit.
    """

    inputs: Tensor
    scores: Tensor
    mask: Tensor
    task_kernel: TaskKernel
    shared_gp: SharedFunction | None = None
    n_steps_done: int = 0

    @property
    def n_tasks(self) -> int:
        """Number of tasks ``T``."""
        return int(self.inputs.shape[0])

    @property
    def n_inputs(self) -> int:
        """Encoded columns ``d``."""
        return int(self.inputs.shape[2])

    @property
    def amplitude(self) -> float:
        """Variance of a task before any run: that of the shared function and of a task effect."""
        shared = 0.0 if self.shared_gp is None else math.exp(2 * float(self.shared_gp.kernel.log_amplitude))
        return shared + float(self.task_kernel.amplitude)

    @cached_property
    def scaled(self) -> Tensor:
        """Runs in units of the task effects' length scales, double precision, shape ``(T, n, d)``."""
        return self.inputs.double() / self.task_kernel.length.double()

    @cached_property
    def factor(self) -> Tensor:
        """Cholesky factors of the covariances of the task effects with noise, shape ``(T, n, n)``."""
        return task_factor(self.task_kernel, self.inputs.double(), self.mask)

    @cached_property
    def weights(self) -> Tensor:
        """``S^-1 (y - g)`` of each task, shape ``(T, n, 1)``, with the covariance ``S`` of its effect with noise."""
        shared = 0.0 if self.shared_gp is None else self.shared_gp.mean(self.inputs)
        return torch.cholesky_solve(((self.scores.double() - shared) * self.mask)[..., None], self.factor)

    @cached_property
    def _single(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled runs, inverse factors and weights in single precision: thousands of candidates are predicted at once.

        The noise keeps the inverse well conditioned, and a product with it takes half of the time of solving.
        """
        eye = torch.eye(self.factor.shape[-1], dtype=torch.double)
        inverse = torch.linalg.solve_triangular(self.factor, eye.expand_as(self.factor), upper=False)
        return self.scaled.float(), inverse.float(), self.weights.float()

    def chosen(self, index: npt.NDArray[np.intp]) -> TaskGPs:
        """Return some of the tasks; the shared function stays that of all."""
        if len(index) == self.n_tasks:
            return self
        rows = torch.as_tensor(index, dtype=torch.long)
        return replace(self, inputs=self.inputs[rows], scores=self.scores[rows], mask=self.mask[rows])

    def without(self, *index: int) -> TaskGPs:
        """Return the other tasks, as if these had never been: the shared function is without them too."""
        others, shared_gp = self.chosen(np.delete(np.arange(self.n_tasks), list(index))), self.shared_gp
        if shared_gp is None:
            return others
        for i in sorted(index, reverse=True):
            rows = slice(i, i + 1)
            shared_gp = shared_gp.without(
                *sufficient_statistics(shared_gp.kernel, self.task_kernel, self.inputs[rows], self.scores[rows], self.mask[rows])
            )
        return replace(others, shared_gp=shared_gp)

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Predict the effect of each task from its runs.

        Args:
            points: Encoded, shape ``(p, d)``.

        Returns:
            Posterior means ``(T, p)``, and ``V = L^-1 K(runs, points)`` of shape ``(T, n, p)``: the posterior covariance of an effect is
            ``k(x, x') - V(x)^T V(x')``. Single precision, whose rounding is far below the noise.
        """
        scaled, inverse, weights = self._single
        asked, scale = (points / self.task_kernel.length.to(points.dtype)).float(), self.task_kernel.amplitude * self.mask[..., None]
        mean, known = scaled.new_empty(self.n_tasks, len(asked)), scaled.new_empty(*self.mask.shape, len(asked))
        for start in range(0, len(asked), CONFIGS_PER_CHUNK):
            rows = slice(start, start + CONFIGS_PER_CHUNK)
            cross = matern52(scaled, asked[rows].expand(self.n_tasks, -1, -1)).mul_(scale)
            mean[:, rows] = (cross.transpose(1, 2) @ weights)[..., 0]
            known[..., rows] = inverse @ cross
        return mean, known

    def unwhitened(self, values: Tensor) -> Tensor:
        """Return ``L^-T v`` of each task, shape ``(T, n, 1)``, double precision."""
        found: Tensor = torch.linalg.solve_triangular(self.factor.transpose(1, 2), values, upper=True)
        return found

    def weighted(self, points: Tensor, weights: Tensor) -> Tensor:
        """Return sums of the task effects' covariances with points, over all runs.

        Args:
            points: Encoded, shape ``(p, d)``.
            weights: Of each run in each sum, shape ``(e, T, n)``, single precision.

        Returns:
            Shape ``(e, p)``, single precision.
        """
        runs, asked = self._single[0][self.mask], (points / self.task_kernel.length.to(points.dtype)).float()
        chosen = weights[:, self.mask] * self.task_kernel.amplitude
        found = chosen.new_empty(len(chosen), len(asked))
        for start in range(0, len(asked), CONFIGS_PER_CHUNK):
            rows = slice(start, start + CONFIGS_PER_CHUNK)
            found[:, rows] = chosen @ matern52(runs, asked[rows])
        return found


def task_factor(kernel: TaskKernel, inputs: Tensor, mask: Tensor) -> Tensor:
    """Factorise the covariance of each task's effect with noise.

    Args:
        kernel: Its kernel and noise.
        inputs: Encoded runs, shape ``(b, n, d)``; the result has their precision.
        mask: Which rows are runs, shape ``(b, n)``; the others become independent standard normals, which add nothing to a likelihood.

    Returns:
        Lower Cholesky factors, shape ``(b, n, n)``.
    """
    scaled = inputs / kernel.length.to(inputs.dtype)
    covariance = kernel.amplitude.to(inputs.dtype) * matern52(scaled, scaled)
    return cholesky(_masked(covariance, mask, kernel.noise_variance.to(inputs.dtype)))


def sufficient_statistics(
    kernel: SharedKernel, task_kernel: TaskKernel, inputs: Tensor, scores: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the precision ``(m, m)`` and the evidence ``(m,)`` that the runs of tasks add to the shared function, double precision."""
    inputs = inputs.double()
    real = mask[..., None].double()
    both = torch.cat([kernel.basis(inputs), scores.double()[..., None]], -1) * real
    white = torch.linalg.solve_triangular(task_factor(task_kernel, inputs, mask), both, upper=False).flatten(0, 1)
    basis = white[:, :-1]
    return basis.T @ basis, basis.T @ white[:, -1]


def _masked(covariance: Tensor, mask: Tensor, noise_variance: Tensor) -> Tensor:
    """Add the noise, and make rows without a run independent standard normals, which add nothing to a likelihood."""
    real = mask.to(covariance.dtype)
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return (covariance + noise_variance * eye) * real[..., :, None] * real[..., None, :] + eye * (1 - real)[..., None]
