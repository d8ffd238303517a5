"""What every Gaussian process here shares: the kernel, a factorisation that does not fail, one CPU thread for small matrices.

There are two implementations of the kernel, on purpose. This one is for batches: all tasks of a history, thousands of candidates at once,
gradients by autograd. ``single_task`` fits one task's few dozen runs by L-BFGS, hundreds of evaluations of matrices so small that a call of
torch costs more than the arithmetic in it; it uses NumPy, with the gradient by hand. Tests hold both to the same formula.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

JITTER = 1e-4
"""Added to every noise variance: single precision needs it, and outcomes in normal scores are of order one."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Run small matrices on one CPU thread, and give the host its number of threads back.

    At these sizes more threads wait for each other; beside a busy data loader they make a step ten times slower.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matern52(left: Tensor, right: Tensor) -> Tensor:
    """Matern-5/2 correlation with unit length scale: ``(1 + q + q^2/3) exp(-q)``, ``q = sqrt(5) |x - x'|``.

    The distance is expanded into products, which is differentiable at zero after the clamp; ``cdist`` is not.

    Args:
        left: Shape ``(..., n, d)``.
        right: Shape ``(..., k, d)``.

    Returns:
        Shape ``(..., n, k)``.
    """
    lengths = left.square().sum(-1)[..., :, None] + right.square().sum(-1)[..., None, :]
    squared = lengths.sub_(left @ right.transpose(-1, -2), alpha=2)
    if squared.requires_grad:
        q = (5 * squared.clamp_min(1e-12)).sqrt()
        return (1 + q + q.square() / 3) * torch.exp(-q)
    # In place and in few passes: with thousands of candidates the time goes into memory.
    q = squared.clamp_min_(1e-12).mul_(5).sqrt_()
    decay = q.neg().exp_()
    return decay.addcmul_(decay, q.addcmul(q, q, value=1 / 3))


def cholesky(covariance: Tensor) -> Tensor:
    """Factorise ``(..., n, n)``, with growing jitter where rounding is not enough for near-duplicate runs."""
    eye = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    for jitter in (0.0, JITTER, 10 * JITTER, 100 * JITTER):
        factor: Tensor
        factor, info = torch.linalg.cholesky_ex(covariance + jitter * eye)
        if not info.any():
            return factor
    factor = torch.linalg.cholesky(covariance + 0.1 * eye)
    return factor
