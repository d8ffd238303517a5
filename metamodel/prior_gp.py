"""The default meta-model's numerics: a Gaussian process whose mean and kernel are learned from many tasks. Arrays in, arrays out.

A small network maps an encoded configuration to a mean ``m(x)`` and ``b`` basis functions ``psi(x)``. The outcome of a task is

    f(x) = m(x) + psi(x) . w + g(x),   w ~ N(0, I),   g ~ GP(0, a^2 Matern-5/2 with one length scale a column),   y = f(x) + noise

so the learned Gaussian over the basis weights is absorbed into ``psi``: it is the covariance across configurations that tasks share, and
the Matern residual lets one task differ. Training maximises the marginal likelihood over random subsets of each task's runs, several
independent members at once in batched tensors; a new task conditions each member exactly (one Cholesky).

References:
    Wang et al., "Pre-trained Gaussian processes for Bayesian optimization", JMLR 2024 (HyperBO).
    Perrone et al., "Scalable hyperparameter transfer learning", NeurIPS 2018 (ABLR).
    Wistuba & Grabocka, "Few-shot Bayesian optimization with deep kernel surrogates", ICLR 2021 (FSBO).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

JITTER = 1e-4
"""Added to every noise variance: single precision needs it, and outcomes in normal scores are of order one."""
N_MEMBERS = 4
N_STEPS = 1200
N_SUBSET = 50
"""Runs of one task a training step looks at; more cost cubically and add little."""
LEARNING_RATE = 5e-3
WEIGHT_DECAY = 1e-4
CONTEXT_DROPOUT = 0.5
"""How often a training step hides from a task what kind of task it is: with few tasks the description would name each of them."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Run the small matrices of this module on one CPU thread, and give the host its number of threads back.

    At these sizes more threads wait for each other; beside a busy data loader they make a step ten times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class TrainingTask:
    """One task to learn from: encoded runs of shape ``(n, d)`` and their scores of shape ``(n,)``."""

    inputs: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Check the shapes."""
        if self.inputs.ndim != 2 or self.scores.shape != (len(self.inputs),):
            raise AssertionError(f"inputs must be (n, d) and scores (n,), got {self.inputs.shape} and {self.scores.shape}")


class PriorGP(nn.Module):
    """``e`` independent members, each a mean, a basis and a residual kernel; every parameter has a leading member dimension.

    Args:
        n_inputs: Encoded columns ``d``.
        n_members: Members ``e``.
        n_hidden: Width of the two hidden layers.
        n_basis: Basis functions ``b``.
        seed: Seed of the initial weights.
    """

    def __init__(self, n_inputs: int, n_members: int = N_MEMBERS, n_hidden: int = 64, n_basis: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.n_inputs, self.n_members, self.n_hidden, self.n_basis = n_inputs, n_members, n_hidden, n_basis
        self.n_steps_done = 0
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(n_members, *shape, generator=generator) * scale)

        self.weight_1 = normal(n_inputs, n_hidden, scale=1.5 / math.sqrt(max(n_inputs, 1)))
        self.bias_1 = normal(1, n_hidden, scale=1.0)
        self.weight_2 = normal(n_hidden, n_hidden, scale=1.0 / math.sqrt(n_hidden))
        self.bias_2 = normal(1, n_hidden, scale=0.1)
        self.weight_basis = normal(n_hidden, n_basis, scale=1.0 / math.sqrt(n_hidden * n_basis))
        self.weight_mean = normal(n_hidden, 1, scale=0.1 / math.sqrt(n_hidden))
        self.bias_mean = nn.Parameter(torch.zeros(n_members, 1, 1))
        self.log_length = nn.Parameter(torch.full((n_members, n_inputs), math.log(0.5)))
        self.log_amplitude = nn.Parameter(torch.full((n_members,), math.log(0.5)))
        self.log_noise = nn.Parameter(torch.full((n_members,), -1.5))

    @property
    def noise_variance(self) -> Tensor:
        """Noise variance of each member, shape ``(e,)``."""
        return (2 * self.log_noise).exp() + JITTER

    @property
    def amplitude(self) -> Tensor:
        """Residual variance of each member, shape ``(e,)``."""
        return (2 * self.log_amplitude).exp()

    def mean_and_basis(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate the network.

        Args:
            inputs: Shape ``(e, n, d)``.

        Returns:
            Mean ``(e, n)`` and basis ``(e, n, b)``.
        """
        hidden = torch.tanh((inputs - 0.5) @ self.weight_1 + self.bias_1)
        hidden = torch.tanh(hidden @ self.weight_2 + self.bias_2)
        return (hidden @ self.weight_mean + self.bias_mean)[..., 0], hidden @ self.weight_basis

    def residual(self, left: Tensor, right: Tensor) -> Tensor:
        """Matern-5/2 covariance of the residual.

        Args:
            left: Shape ``(e, ..., n, d)``.
            right: Shape ``(e, ..., k, d)``.

        Returns:
            Shape ``(e, ..., n, k)``.
        """
        extra = (1,) * (left.ndim - 2)
        length = self.log_length.exp().view(self.n_members, *extra, self.n_inputs)
        return self.amplitude.view(self.n_members, *extra, 1) * matern52(left / length, right / length)


def matern52(left: Tensor, right: Tensor) -> Tensor:
    """Matern-5/2 correlation with unit length scale: ``(1 + q + q^2/3) exp(-q)``, ``q = sqrt(5) |x - x'|``.

    The distance is expanded into products, which is differentiable at zero after the clamp; ``cdist`` is not.

    Args:
        left: Shape ``(..., n, d)``.
        right: Shape ``(..., k, d)``.

    Returns:
        Shape ``(..., n, k)``.
    """
    squared = left.square().sum(-1)[..., :, None] + right.square().sum(-1)[..., None, :] - 2 * left @ right.transpose(-1, -2)
    q = (5 * squared.clamp_min(1e-12)).sqrt()
    return (1 + q + q.square() / 3) * torch.exp(-q)


def negative_log_likelihood(model: PriorGP, inputs: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Negative log marginal likelihood per run, tasks in one batch.

    Args:
        model: The members.
        inputs: Shape ``(e, b, n, d)``.
        scores: Shape ``(e, b, n)``.
        mask: Which runs are real, shape ``(e, b, n)``; padding becomes independent standard noise at zero, which adds nothing.

    Returns:
        Shape ``(e, b)``.
    """
    e, b, n, d = inputs.shape
    mean, basis = model.mean_and_basis(inputs.reshape(e, b * n, d))
    basis = basis.reshape(e, b, n, -1)
    covariance = basis @ basis.transpose(-1, -2) + model.residual(inputs, inputs)
    eye = torch.eye(n, device=inputs.device, dtype=inputs.dtype)
    covariance = covariance + eye * model.noise_variance[:, None, None, None]
    real = (mask[..., :, None] & mask[..., None, :]).to(inputs.dtype)
    covariance = covariance * real + eye * (1 - mask.to(inputs.dtype))[..., None]
    factor = torch.linalg.cholesky(covariance)
    gap = (scores - mean.reshape(e, b, n)) * mask
    whitened = torch.linalg.solve_triangular(factor, gap[..., None], upper=False)[..., 0]
    n_real = mask.sum(-1).clamp_min(1)
    log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    likelihood: Tensor = (0.5 * whitened.square().sum(-1) + log_determinant) / n_real + 0.5 * math.log(2 * math.pi)
    return likelihood


def log_prior(model: PriorGP, *, is_plain: bool = False) -> Tensor:
    """Weak log-normal priors on length scales, residual amplitude and noise, shape ``(e,)``; they decide where a history says little.

    The residual of a learned prior is small and local. A plain process has to carry everything, and with a few runs a short length
    scale would make a name that changed once look decisive: its prior prefers long ones.
    """
    length_median, length_spread, amplitude_median = (1.5, 0.8, 1.0) if is_plain else (0.6, 1.0, 0.5)
    length = ((model.log_length - math.log(length_median)) / length_spread).square().sum(-1)
    amplitude = ((model.log_amplitude - math.log(amplitude_median)) / 0.7).square()
    noise = ((model.log_noise - math.log(0.25)) / 0.7).square()
    return -0.5 * (length + amplitude + noise)


def fit_prior_gp(
    tasks: Sequence[TrainingTask],
    *,
    is_context: npt.NDArray[np.bool_] | None = None,
    missing_row: npt.NDArray[np.float64] | None = None,
    n_members: int = N_MEMBERS,
    n_steps: int = N_STEPS,
    device: str = "cpu",
    seed: int = 0,
    deadline_s: float | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> PriorGP:
    """Learn mean and kernel from tasks.

    Args:
        tasks: At least one task.
        is_context: Columns that describe the task, shape ``(d,)``; they are hidden from half of the tasks in each step.
        missing_row: What a hidden column is set to, shape ``(d,)``.
        n_members: Ensemble members.
        n_steps: Gradient steps; cut short where ``deadline_s`` is reached, the schedule is shortened with it.
        device: Torch device.
        seed: Seed; the same seed, tasks and device give the same weights as long as no deadline cuts.
        deadline_s: Time for training in seconds.
        progress: Called with a fraction in [0, 1] and a text.

    Returns:
        The trained members, on the CPU.
    """
    d = tasks[0].inputs.shape[1]
    inputs, scores, mask = _pad(tasks, device)
    generator = torch.Generator(device="cpu").manual_seed(seed)
    model = PriorGP(d, n_members, seed=seed).to(device)
    context = None if is_context is None or not is_context.any() else torch.as_tensor(is_context, device=device)
    hidden_row = None if missing_row is None else torch.as_tensor(missing_row, dtype=torch.float32, device=device)
    decayed = [parameter for name, parameter in model.named_parameters() if name.startswith("weight")]
    others = [parameter for name, parameter in model.named_parameters() if not name.startswith("weight")]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}], lr=LEARNING_RATE
    )
    n_points = float(mask.sum())
    started, step = time.monotonic(), 0
    while step < n_steps:
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(_fraction_done(step, n_steps, started, deadline_s))
        batch, batch_scores, batch_mask = _draw(inputs, scores, mask, n_members, generator)
        if context is not None and hidden_row is not None:
            hide = (torch.rand(n_members, len(tasks), 1, 1, generator=generator) < CONTEXT_DROPOUT).to(device)
            batch = torch.where(hide & context, hidden_row, batch)
        loss = negative_log_likelihood(model, batch, batch_scores, batch_mask).mean(1).sum() - log_prior(model).sum() / n_points
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        step += 1
        model.n_steps_done = step
        if progress is not None and step % 20 == 0:
            progress(_fraction_done(step, n_steps, started, deadline_s), "learning from past runs")
        if _fraction_done(step, n_steps, started, deadline_s) >= 1.0:
            break
    return model.to("cpu").requires_grad_(False)


def fit_plain_gp(task: TrainingTask, *, n_steps: int = 80) -> PriorGP:
    """Fit a Gaussian process to one task alone: constant mean, Matern-5/2, no network. What is left where nothing can be transferred.

    Args:
        task: Runs of the task, at least one.
        n_steps: Gradient steps on length scales, amplitude, noise and mean, under the same weak priors.

    Returns:
        A model with one member and no basis.
    """
    model = PriorGP(task.inputs.shape[1], n_members=1, n_hidden=1, n_basis=1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("weight", "bias")):
                parameter.zero_()
        model.log_amplitude.zero_()
    inputs, scores, mask = _pad([task], "cpu")
    optimizer = torch.optim.Adam([model.log_length, model.log_amplitude, model.log_noise, model.bias_mean], lr=0.1)
    for _ in range(n_steps if len(task.scores) > 1 else 0):
        prior = log_prior(model, is_plain=True).sum() - 0.5 * (model.bias_mean / 0.3).square().sum()
        loss = negative_log_likelihood(model, inputs[None], scores[None], mask[None]).sum() - prior / len(task.scores)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return model.requires_grad_(False)


def _pad(tasks: Sequence[TrainingTask], device: str) -> tuple[Tensor, Tensor, Tensor]:
    longest, d = max(len(task.scores) for task in tasks), tasks[0].inputs.shape[1]
    inputs = torch.zeros(len(tasks), longest, d)
    scores = torch.zeros(len(tasks), longest)
    mask = torch.zeros(len(tasks), longest, dtype=torch.bool)
    for i, task in enumerate(tasks):
        n = len(task.scores)
        inputs[i, :n] = torch.as_tensor(task.inputs, dtype=torch.float32)
        scores[i, :n] = torch.as_tensor(task.scores, dtype=torch.float32)
        mask[i, :n] = True
    return inputs.to(device), scores.to(device), mask.to(device)


def _draw(inputs: Tensor, scores: Tensor, mask: Tensor, n_members: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw for each member and task a random subset of its runs, real ones first."""
    n_tasks, longest, _ = inputs.shape
    size = min(N_SUBSET, longest)
    order = torch.rand(n_members, n_tasks, longest, generator=generator).to(inputs.device)
    index = order.masked_fill(~mask, 2.0).argsort(-1)[..., :size]
    task = torch.arange(n_tasks, device=inputs.device)[:, None]
    return inputs[task, index], scores[task, index], mask[task, index]


def _fraction_done(step: int, n_steps: int, started: float, deadline_s: float | None) -> float:
    by_steps = step / n_steps
    return by_steps if deadline_s is None else max(by_steps, (time.monotonic() - started) / max(deadline_s, 1e-3))


def _schedule(fraction: float) -> float:
    """Warm up over the first tenth, then fall along a cosine to zero."""
    if fraction < 0.1:
        return max(fraction / 0.1, 0.04)
    return 0.5 * (1 + math.cos(math.pi * min((fraction - 0.1) / 0.9, 1.0)))
