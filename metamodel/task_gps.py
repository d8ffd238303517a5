"""The tasks of a history as Gaussian processes that share their hyperparameters. Arrays in, arrays out.

Each task's outcomes, as normal scores of their ranks, are one draw of a process with constant mean 0, a Matern-5/2 kernel with one length
scale a column, and noise. Length scales, amplitude and noise are learned from all tasks together, by the sum of their marginal likelihoods;
what differs between tasks is their data alone, so there are few numbers to learn and nothing to overfit with a handful of tasks.

References:
    Wang et al., "Pre-trained Gaussian processes for Bayesian optimization", JMLR 2024 (HyperBO).
    Rasmussen & Williams, "Gaussian processes for machine learning", 2006, section 5.4.3 (multi-task likelihood).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from metamodel.kernels import JITTER, cholesky, matern52

FloatArray = npt.NDArray[np.float64]

N_STEPS = 120
"""Gradient steps of a fit; the few shared numbers have settled by then."""
LEARNING_RATE = 0.05
TASKS_PER_STEP = 64
MAX_TASK_RUNS = 64
"""Runs of one task that are kept; more cost cubically and add little."""
KEPT_BEST = 24
"""Of these, the best: the neighbourhood of the optimum is what is asked for."""


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class Hyperparameters:
    """What the processes share.

    Attributes:
        log_length: Logarithm of the length scale of each column, shape ``(d,)``.
        log_amplitude: Logarithm of the standard deviation of the process, a scalar.
        log_noise: Logarithm of the standard deviation of the noise, a scalar.
        mean: Constant mean, a scalar.
    """

    log_length: Tensor
    log_amplitude: Tensor
    log_noise: Tensor
    mean: Tensor

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

    @classmethod
    def initial(cls, d: int, *, is_plain: bool = False, device: str = "cpu") -> Hyperparameters:
        """Return where a fit starts, for ``d`` columns."""
        length = _PLAIN_LENGTH[0] if is_plain else _LENGTH[0]
        # From much noise downwards: a fit that starts with little explains noise by short length scales, and stays there.
        values = (torch.full((d,), math.log(length)), torch.tensor(0.0), torch.tensor(_LOG_NOISE[0]), torch.tensor(0.0))
        return cls(*(value.to(device) for value in values))

    def log_prior(self, *, is_plain: bool = False) -> Tensor:
        """Weak log-normal priors: they decide where the runs say little.

        A task alone with a few runs has longer length scales, since a short one would make a name that changed once look decisive.
        """
        median, spread = _PLAIN_LENGTH if is_plain else _LENGTH
        length = ((self.log_length - math.log(median)) / spread).square().sum()
        amplitude = (self.log_amplitude / 0.5).square()
        noise_median, noise_spread = _PLAIN_LOG_NOISE if is_plain else _LOG_NOISE
        noise = ((self.log_noise - noise_median) / noise_spread).square()
        return -0.5 * (length + amplitude + noise + (self.mean / 0.3).square())


_LENGTH = (1.0, 0.7)
_PLAIN_LENGTH = (1.5, 0.8)
_LOG_NOISE = (-1.2, 0.7)
"""Scores of past tasks are noisy even where outcomes are not: the rank of a run depends on which others were made."""
_PLAIN_LOG_NOISE = (-2.3, 1.3)


@dataclass(frozen=True, eq=False)
class TaskGPs:
    """``T`` tasks with up to ``n`` runs each, under shared hyperparameters.

    Attributes:
        inputs: Encoded runs, shape ``(T, n, d)``; rows without a run are 0.
        scores: Shape ``(T, n)``.
        mask: Which rows are runs, shape ``(T, n)``.
        shared: The hyperparameters.
        n_steps_done: Gradient steps of the fit.
    """

    inputs: Tensor
    scores: Tensor
    mask: Tensor
    shared: Hyperparameters
    n_steps_done: int = 0

    @property
    def n_tasks(self) -> int:
        """Number of tasks ``T``."""
        return int(self.inputs.shape[0])

    @property
    def n_inputs(self) -> int:
        """Encoded columns ``d``."""
        return int(self.inputs.shape[2])

    @cached_property
    def scaled(self) -> Tensor:
        """Runs in units of the length scales, double precision, shape ``(T, n, d)``."""
        return self.inputs.double() / self.shared.length.double()

    @cached_property
    def factor(self) -> Tensor:
        """Cholesky factors of the tasks' covariances with noise, shape ``(T, n, n)``."""
        shared = self.shared
        return cholesky(_masked(shared.amplitude.double() * matern52(self.scaled, self.scaled), self.mask, shared.noise_variance.double()))

    @cached_property
    def weights(self) -> Tensor:
        """``K^-1 y`` of each task, shape ``(T, n, 1)``."""
        return torch.cholesky_solve((self.scores.double() * self.mask)[..., None], self.factor)

    @cached_property
    def _single(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scaled runs, factors and weights in single precision: thousands of candidates are asked at once."""
        return self.scaled.float(), self.factor.float(), self.weights.float()

    def chosen(self, index: npt.NDArray[np.intp]) -> TaskGPs:
        """Return some of the tasks, with what is already computed of them."""
        if len(index) == self.n_tasks:
            return self
        rows = torch.as_tensor(index, dtype=torch.long)
        tasks = TaskGPs(self.inputs[rows], self.scores[rows], self.mask[rows], self.shared, self.n_steps_done)
        tasks.__dict__["factor"], tasks.__dict__["weights"] = self.factor[rows], self.weights[rows]
        return tasks

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Predict points from each task's own runs.

        Args:
            points: In units of the length scales, shape ``(p, d)``.

        Returns:
            Posterior means ``(T, p)``, and ``V = L^-1 K(runs, points)`` of shape ``(T, n, p)``: the posterior covariance of a task is
            ``k(x, x') - V(x)^T V(x')``. Single precision, whose rounding is far below the noise.
        """
        scaled, factor, weights = self._single
        cross = matern52(scaled, points.float().expand(self.n_tasks, -1, -1))
        cross *= self.shared.amplitude * self.mask[..., None]
        mean = (cross.transpose(1, 2) @ weights)[..., 0]
        return mean, torch.linalg.solve_triangular(factor, cross, upper=False)


def _masked(covariance: Tensor, mask: Tensor, noise_variance: Tensor) -> Tensor:
    """Add the noise, and make rows without a run independent standard normals, which add nothing to a likelihood."""
    real = mask.to(covariance.dtype)
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    return (covariance + noise_variance * eye) * real[..., :, None] * real[..., None, :] + eye * (1 - real)[..., None]


def negative_log_likelihood(shared: Hyperparameters, inputs: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Negative log marginal likelihood of each task.

    Args:
        shared: The hyperparameters.
        inputs: Shape ``(b, n, d)``.
        scores: Shape ``(b, n)``.
        mask: Which rows are runs, shape ``(b, n)``.

    Returns:
        Shape ``(b,)``.
    """
    if inputs.ndim != 3 or scores.shape != inputs.shape[:2] or mask.shape != scores.shape:
        raise AssertionError(
            f"inputs must be (b, n, d), scores and mask (b, n), got {tuple(inputs.shape)}, {tuple(scores.shape)}, {tuple(mask.shape)}"
        )
    scaled = inputs / shared.length
    factor = cholesky(_masked(shared.amplitude * matern52(scaled, scaled), mask, shared.noise_variance))
    gap = (scores - shared.mean) * mask
    whitened = torch.linalg.solve_triangular(factor, gap[..., None], upper=False)[..., 0]
    log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    likelihood: Tensor = 0.5 * whitened.square().sum(-1) + log_determinant + 0.5 * math.log(2 * math.pi) * mask.sum(-1)
    return likelihood


def fit_task_gps(
    tasks: Sequence[TrainingTask],
    *,
    n_steps: int = N_STEPS,
    device: str = "cpu",
    seed: int = 0,
    deadline_s: float | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> TaskGPs:
    """Learn the shared hyperparameters, all tasks of a step in one batch.

    Args:
        tasks: At least one task.
        n_steps: Gradient steps, at most; cut short where ``deadline_s`` is reached.
        device: Torch device of the fit.
        seed: Seed of what is drawn: runs of large tasks, and tasks of a step where there are many.
        deadline_s: Time for the fit in seconds.
        progress: Called with a fraction in [0, 1] and a text.

    Returns:
        The tasks with the hyperparameters, on the CPU.
    """
    rng = np.random.default_rng(seed)
    inputs, scores, mask = _padded([task.thinned(rng) for task in tasks], device)
    start = Hyperparameters.initial(inputs.shape[2], device=device)
    # The scores of a task have mean 0 by construction, so the mean is not learned.
    parameters = [value.clone().requires_grad_() for value in (start.log_length, start.log_amplitude, start.log_noise)]
    shared = Hyperparameters(parameters[0], parameters[1], parameters[2], start.mean)
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    started, step = time.monotonic(), 0
    while step < n_steps:
        chosen = slice(None) if len(tasks) <= TASKS_PER_STEP else torch.as_tensor(rng.choice(len(tasks), TASKS_PER_STEP, replace=False))
        batch = inputs[chosen], scores[chosen], mask[chosen]
        loss = negative_log_likelihood(shared, *batch).sum() * (len(tasks) / len(batch[1])) - shared.log_prior()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        spent = 0.0 if deadline_s is None else (time.monotonic() - started) / max(deadline_s, 1e-3)
        if progress is not None:
            progress(max(step / n_steps, min(spent, 1.0)), "learning from past runs")
        if spent >= 1.0:
            break
    length, amplitude, noise = (value.detach().cpu() for value in parameters)
    final = Hyperparameters(length, amplitude, noise, start.mean.cpu())
    return TaskGPs(inputs.cpu(), scores.cpu(), mask.cpu(), final, step)


def fit_plain_gp(task: TrainingTask, *, n_steps: int = 80) -> Hyperparameters:
    """Fit a process with a constant mean to one task alone: what is left where nothing can be transferred.

    Args:
        task: Runs of the task; none or one gives the medians of the priors.
        n_steps: Gradient steps.
    """
    start = Hyperparameters.initial(task.inputs.shape[1], is_plain=True)
    parameters = [value.clone().requires_grad_() for value in (start.log_length, start.log_amplitude, start.log_noise, start.mean)]
    shared = Hyperparameters(parameters[0], parameters[1], parameters[2], parameters[3])
    inputs, scores, mask = _padded([task], "cpu")
    optimizer = torch.optim.Adam(parameters, lr=0.1)
    for _ in range(n_steps if len(task.scores) > 1 else 0):
        loss = negative_log_likelihood(shared, inputs, scores, mask).sum() - shared.log_prior(is_plain=True)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    length, amplitude, noise, mean = (value.detach() for value in parameters)
    return Hyperparameters(length, amplitude, noise, mean)


def _padded(tasks: Sequence[TrainingTask], device: str) -> tuple[Tensor, Tensor, Tensor]:
    longest, d = max(len(task.scores) for task in tasks), tasks[0].inputs.shape[1]
    inputs, scores = torch.zeros(len(tasks), longest, d), torch.zeros(len(tasks), longest)
    mask = torch.zeros(len(tasks), longest, dtype=torch.bool)
    for i, task in enumerate(tasks):
        n = len(task.scores)
        inputs[i, :n] = torch.as_tensor(task.inputs, dtype=torch.float32)
        scores[i, :n] = torch.as_tensor(task.scores, dtype=torch.float32)
        mask[i, :n] = True
    return inputs.to(device), scores.to(device), mask.to(device)
