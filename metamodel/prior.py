"""What is believed of a new task before its first run: a few rival Gaussian processes with weights. Tensors in, tensors out.

``HistoryPrior`` takes the new task for one more draw of the kind of thing the past tasks were. Their posteriors, with means ``m_t`` and
covariances ``C_t``, are matched by the moments of their mixture (law of total covariance):

    mean(x) = sum_t w_t m_t(x),    cov(x, x') = sum_t w_t [C_t(x, x') + (m_t(x) - mean(x)) (m_t(x') - mean(x'))] + r k(x, x')

so where past tasks agree it is sure, where they differ it is not, and configurations that were good together are expected to be good
together again. How far a task may differ from all of them is not known: a small ``r``, a large one, and a process that has learned nothing
but the length scales stand side by side, and the task's own runs decide between them.

References:
    Wang et al., "Pre-trained Gaussian processes for Bayesian optimization", JMLR 2024 (a prior estimated by moments from past tasks).
    Feurer et al., "Practical transfer learning for Bayesian optimization", 2018 (rankings decide what the past is worth).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from metamodel.kernels import matern52
from metamodel.task_gps import FloatArray, Hyperparameters, TaskGPs

RESIDUALS = (0.1, 1.0)
"""``r``: how much a task may differ from everything seen, as a share of the variance of a past task."""
SHARE_OF_HISTORY = 0.75
SHARE_OF_LOOSE = 0.8
"""Prior probability that a new task is like a long history's, and which part of the rest still trusts its mean."""
EXTRA_LENGTH = 1.0
"""Length scale of columns the history has not tuned, where nothing could be learned."""


@dataclass(frozen=True)
class Prepared:
    """Points with what every covariance with them needs.

    Attributes:
        scaled: All columns in units of their length scales, shape ``(n, d + d_extra)``.
        mean: Mean of each rival, shape ``(e, n)``.
        variance: Variance of each rival, shape ``(e, n)``.
        known: Weighted ``V`` of the past tasks one below the other, shape ``(T n_runs, n)``; None without a history.
        deviation: Weighted deviations of their means, shape ``(T, n)``; None without a history.
    """

    scaled: Tensor
    mean: Tensor
    variance: Tensor
    known: Tensor | None = None
    deviation: Tensor | None = None


class Prior(Protocol):
    """``e`` rival Gaussian processes over encoded configurations of ``n_columns`` columns."""

    log_weights: FloatArray
    noise_variance: float
    n_columns: int

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Evaluate mean and variance at encoded configurations, shape ``(n, n_columns)``."""

    def covariance(self, left: Prepared, right: Prepared) -> Tensor:
        """Return the covariance of each rival, shape ``(e, n_left, n_right)``."""


class PlainPrior:
    """One process with a constant mean, for a task without a history.

    Args:
        shared: Its hyperparameters.
    """

    def __init__(self, shared: Hyperparameters) -> None:
        self._shared = shared
        self._length = shared.length.double()
        self._amplitude = float(shared.amplitude)
        self.log_weights: FloatArray = np.zeros(1)
        self.noise_variance = float(shared.noise_variance)
        self.n_columns = len(shared.log_length)

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Evaluate mean and variance."""
        scaled = _tensor(inputs, self.n_columns) / self._length
        mean = torch.full((1, len(inputs)), float(self._shared.mean), dtype=torch.double)
        return Prepared(scaled, mean, torch.full_like(mean, self._amplitude))

    def covariance(self, left: Prepared, right: Prepared) -> Tensor:
        """Return the covariance, shape ``(1, n_left, n_right)``."""
        return self._amplitude * matern52(left.scaled, right.scaled)[None]


class HistoryPrior:
    """The new task as one more draw of the past ones; see the module.

    Args:
        tasks: The past tasks.
        task_weights: How much each counts, shape ``(T,)``, sum 1.
        n_extra: Columns after those of the tasks that the history does not know; only the residuals see them.
    """

    def __init__(self, tasks: TaskGPs, task_weights: FloatArray, n_extra: int = 0) -> None:
        if task_weights.shape != (tasks.n_tasks,):
            raise AssertionError(f"task_weights must have shape ({tasks.n_tasks},), got {task_weights.shape}")
        self._tasks = tasks
        self._root = torch.as_tensor(np.sqrt(task_weights))
        self._amplitude = float(tasks.shared.amplitude)
        self._length = torch.cat([tasks.shared.length.double(), torch.full((n_extra,), EXTRA_LENGTH, dtype=torch.double)])
        # With one or two tasks, that they agree says little about the next one.
        n_effective = 1.0 / float(np.square(task_weights).sum())
        history = SHARE_OF_HISTORY * n_effective / (n_effective + 1)
        rest = 1 - history
        self.log_weights: FloatArray = np.log([history, SHARE_OF_LOOSE * rest, (1 - SHARE_OF_LOOSE) * rest])
        self._spread = math.sqrt(n_effective / max(n_effective - 1, 1.0))
        self.noise_variance = float(tasks.shared.noise_variance)
        self.n_columns = tasks.n_inputs + n_extra

    def prepare(self, inputs: FloatArray) -> Prepared:
        """Evaluate mean and variance of the three rivals."""
        scaled = _tensor(inputs, self.n_columns) / self._length
        means, known = self._tasks.predict(scaled[:, : self._tasks.n_inputs])
        means = means.double()
        mean = (self._root.square()[:, None] * means).sum(0)
        deviation = (means - mean) * self._root[:, None] * self._spread
        known *= self._root[:, None, None]
        flat = known.flatten(0, 1)
        shared = self._amplitude - torch.linalg.vector_norm(flat, dim=0).double().square() + deviation.square().sum(0)
        variance = torch.stack([*(shared + r * self._amplitude for r in RESIDUALS), torch.full_like(mean, self._amplitude)])
        return Prepared(scaled, torch.stack([mean, mean, torch.zeros_like(mean)]), variance.clamp_min(1e-8), flat, deviation)

    def covariance(self, left: Prepared, right: Prepared) -> Tensor:
        """Return the covariance of the three rivals, shape ``(3, n_left, n_right)``."""
        assert left.known is not None
        assert left.deviation is not None
        assert right.known is not None
        assert right.deviation is not None
        d = self._tasks.n_inputs
        local = self._amplitude * matern52(left.scaled, right.scaled)
        # The history's own part knows only the history's columns.
        own = local if self.n_columns == d else self._amplitude * matern52(left.scaled[:, :d], right.scaled[:, :d])
        shared = own - (left.known.T @ right.known).double() + left.deviation.T @ right.deviation
        return torch.stack([*(shared + r * local for r in RESIDUALS), local])


def _tensor(inputs: FloatArray, width: int) -> Tensor:
    if inputs.ndim != 2 or inputs.shape[1] != width:
        raise AssertionError(f"inputs must have shape (n, {width}), got {inputs.shape}")
    return torch.as_tensor(inputs, dtype=torch.double)
