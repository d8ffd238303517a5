"""A process for a task alone. Arrays in, arrays out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from metamodel.kernels import JITTER, cholesky, matern52
from metamodel.task_gp_fit import padded as _padded
from metamodel.task_gps import TrainingTask


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
