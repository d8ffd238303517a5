"""Learning what the tasks of a history share: gradient steps on their joint marginal likelihood, in batches. Arrays in, arrays out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from metamodel.gp.shared_function import MAX_INDUCING, SharedFunction, SharedKernel, choose_inducing
from metamodel.gp.task_gps import TaskGPs, TaskKernel, TrainingTask, sufficient_statistics, task_factor

N_STEPS = 100
"""Gradient steps of a fit; the few shared numbers have settled by then."""
LEARNING_RATE = 0.08
LENGTH_SPREAD = 0.7
"""Length scales lie within a factor of about two, before anything is seen: those of task effects around 1, and inputs span about 1."""
LOG_SHARED_LENGTH = 0.7
"""Those of the shared function lie around two: what holds on every task is smoother than what tells tasks apart."""
LOG_AMPLITUDE = -0.3
"""Where both amplitudes start: scores have variance 1, half of it shared."""
LOG_NOISE = (-1.2, 0.7)
"""Scores of past tasks are noisy even where outcomes are not: the rank of a run depends on which others were made. A fit starts with much
noise: one that starts with little explains it by short length scales, and stays there."""
TASKS_PER_STEP = 32
TASKS_AT_ONCE = 64
"""Tasks whose sufficient statistics are collected in one batch; memory grows with it."""


def joint_negative_log_likelihood(kernel: SharedKernel, task_kernel: TaskKernel, inputs: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    """Negative log marginal likelihood of all tasks together: their effects, the noise, and the function they share.

    By the matrix determinant and inversion lemmas it costs the cube of the runs of a task and of the inducing points, not of all runs.

    Args:
        kernel: Of the shared function.
        task_kernel: Of the task effects.
        inputs: Shape ``(b, n, d)``.
        scores: Shape ``(b, n)``.
        mask: Which rows are runs, shape ``(b, n)``.

    Where single precision cannot tell the points of many runs apart, double precision can.

    Returns:
        A scalar.
    """
    if inputs.ndim != 3 or scores.shape != inputs.shape[:2] or mask.shape != scores.shape:
        raise AssertionError(
            f"inputs must be (b, n, d), scores and mask (b, n), got {tuple(inputs.shape)}, {tuple(scores.shape)}, {tuple(mask.shape)}"
        )
    try:
        return _joint_negative_log_likelihood(kernel, task_kernel, inputs, scores, mask)
    except RuntimeError:  # torch.linalg.LinAlgError, which torch does not export to type checkers
        if inputs.dtype == torch.double:
            raise
    found = _joint_negative_log_likelihood(kernel.double(), task_kernel.double(), inputs.double(), scores.double(), mask)
    return found.to(inputs.dtype)


def _joint_negative_log_likelihood(kernel: SharedKernel, task_kernel: TaskKernel, inputs: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
    factor = task_factor(task_kernel, inputs, mask)
    both = torch.cat([kernel.basis(inputs), scores[..., None]], -1) * mask[..., None]
    white = torch.linalg.solve_triangular(factor, both, upper=False).flatten(0, 1)
    basis, target = white[:, :-1], white[:, -1]
    precision = torch.linalg.cholesky(torch.eye(basis.shape[1], dtype=basis.dtype, device=basis.device) + basis.T @ basis)
    explained = torch.linalg.solve_triangular(precision, (basis.T @ target)[:, None], upper=False)
    log_determinant = factor.diagonal(dim1=-2, dim2=-1).log().sum() + precision.diagonal().log().sum()
    likelihood: Tensor = (
        0.5 * (target.square().sum() - explained.square().sum()) + log_determinant + 0.5 * math.log(2 * math.pi) * mask.sum()
    )
    return likelihood


def fit_task_gps(
    tasks: Sequence[TrainingTask],
    *,
    n_steps: int = N_STEPS,
    n_inducing: int = MAX_INDUCING,
    device: str = "cpu",
    seed: int = 0,
    deadline_s: float | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> TaskGPs:
    """Learn the hyperparameters, all tasks of a step in one batch, then the shared function from all of them.

    Args:
        tasks: At least one task.
        n_steps: Gradient steps, at most; cut short where ``deadline_s`` is reached.
        n_inducing: Points that stand for all runs, at most; with 0 the tasks share nothing but hyperparameters.
        device: Torch device of the fit.
        seed: Seed of what is drawn: runs of large tasks, inducing points, and tasks of a step where there are many.
        deadline_s: Time for the fit in seconds.
        progress: Called with a fraction in [0, 1] and a text.

    Returns:
        The tasks with what was learned, on the CPU.
    """
    rng = np.random.default_rng(seed)
    kept = [task.thinned(rng) for task in tasks]
    inputs, scores, mask = padded(kept, device)
    representatives = choose_inducing(np.concatenate([task.inputs for task in kept]), rng, n_inducing)
    inducing = torch.as_tensor(representatives, dtype=torch.float32, device=device)
    d = inputs.shape[2]
    starts = torch.zeros(d), torch.zeros(d), torch.tensor(LOG_AMPLITUDE), torch.tensor(LOG_AMPLITUDE), torch.tensor(LOG_NOISE[0])
    parameters = [value.to(device).requires_grad_() for value in starts]
    kernel, task_kernel = SharedKernel(inducing, parameters[0], parameters[2]), TaskKernel(parameters[1], parameters[3], parameters[4])
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    started, step = time.monotonic(), 0
    while step < n_steps:
        chosen = slice(None) if len(tasks) <= TASKS_PER_STEP else torch.as_tensor(rng.choice(len(tasks), TASKS_PER_STEP, replace=False))
        batch = inputs[chosen], scores[chosen], mask[chosen]
        loss = joint_negative_log_likelihood(kernel, task_kernel, *batch) * (len(tasks) / len(batch[1])) - _log_prior(kernel, task_kernel)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        step += 1
        spent = 0.0 if deadline_s is None else (time.monotonic() - started) / max(deadline_s, 1e-3)
        if progress is not None:
            progress(max(step / n_steps, min(spent, 1.0)), "learning from past runs")
        if spent >= 1.0:
            break
    for value in parameters:
        value.requires_grad_(False)
    shared_gp = learn_shared(kernel.double(), task_kernel, inputs, scores, mask) if n_inducing else None
    on_cpu = TaskKernel(task_kernel.log_length.cpu(), task_kernel.log_amplitude.cpu(), task_kernel.log_noise.cpu())
    return TaskGPs(inputs.cpu(), scores.cpu(), mask.cpu(), on_cpu, shared_gp, step)


def learn_shared(kernel: SharedKernel, task_kernel: TaskKernel, inputs: Tensor, scores: Tensor, mask: Tensor) -> SharedFunction:
    """Collect the sufficient statistics of all tasks for the function they share; shapes as above.

    Returns:
        The function, on the CPU.
    """
    m = len(kernel.inducing)
    precision = torch.eye(m, dtype=torch.double, device=inputs.device)
    evidence = torch.zeros(m, dtype=torch.double, device=inputs.device)
    for first in range(0, len(inputs), TASKS_AT_ONCE):
        rows = slice(first, first + TASKS_AT_ONCE)
        more = sufficient_statistics(kernel, task_kernel, inputs[rows], scores[rows], mask[rows])
        precision, evidence = precision + more[0], evidence + more[1]
    on_cpu = SharedKernel(kernel.inducing.cpu(), kernel.log_length.cpu(), kernel.log_amplitude.cpu())
    return SharedFunction(on_cpu, precision.cpu(), evidence.cpu())


def _log_prior(kernel: SharedKernel, task_kernel: TaskKernel) -> Tensor:
    """Weak log-normal priors: they decide where there are few runs."""
    shared = (kernel.log_length - LOG_SHARED_LENGTH) / LENGTH_SPREAD
    length = (shared.square() + (task_kernel.log_length / LENGTH_SPREAD).square()).sum()
    noise = ((task_kernel.log_noise - LOG_NOISE[0]) / LOG_NOISE[1]).square()
    return -0.5 * (length + kernel.log_amplitude.square() + task_kernel.log_amplitude.square() + noise)


def padded(tasks: Sequence[TrainingTask], device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return inputs ``(T, n, d)``, scores ``(T, n)`` and which rows are runs, single precision."""
    longest, d = max(len(task.scores) for task in tasks), tasks[0].inputs.shape[1]
    inputs, scores = torch.zeros(len(tasks), longest, d), torch.zeros(len(tasks), longest)
    mask = torch.zeros(len(tasks), longest, dtype=torch.bool)
    for i, task in enumerate(tasks):
        n = len(task.scores)
        inputs[i, :n] = torch.as_tensor(task.inputs, dtype=torch.float32)
        scores[i, :n] = torch.as_tensor(task.scores, dtype=torch.float32)
        mask[i, :n] = True
    return inputs.to(device), scores.to(device), mask.to(device)
