"""RGPE: an ensemble of Gaussian processes, one a past task and one of the new task, weighted by how well each ranks the new outcomes.

References:
    Feurer, Letham, Hutter & Bakshy, "Practical transfer learning for Bayesian optimization", arXiv:1802.02219 (2018, v4 2022).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from compare_baselines.methods.base import Method, NewTask, Past, filled
from metamodel.gp.kernels import cholesky, matern52
from metamodel.gp.prediction import log_expected_improvement

FloatArray = npt.NDArray[np.float64]

N_SAMPLES = 256
"""Draws of the ranking loss."""
MIN_RANKED = 2
"""Own evaluations from which there is an order to rank."""
RGPE_JITTER = 1e-5


class Processes:
    """``b`` independent Gaussian processes, batched: constant mean 0, Matern-5/2 with a length scale a column; outcomes standardised.

    Args:
        inputs: Shape ``(b, n, d)``.
        outcomes: Shape ``(b, n)``; each row is standardised here.
        steps: Gradient steps on the marginal likelihood with weak priors.
        start: Parameters to start from, of an earlier fit of the same ``b`` and ``d``.
    """

    def __init__(self, inputs: Tensor, outcomes: Tensor, steps: int, start: tuple[Tensor, Tensor, Tensor] | None = None) -> None:
        b, _, d = inputs.shape
        self.inputs = inputs
        spread = outcomes.std(1, keepdim=True) if outcomes.shape[1] > 1 else torch.ones_like(outcomes[:, :1])
        self.outcomes = (outcomes - outcomes.mean(1, keepdim=True)) / torch.where(spread > 1e-9, spread, 1.0)
        found = start or (torch.full((b, 1, d), math.log(0.5)), torch.zeros(b), torch.full((b,), math.log(0.05)))
        self.parameters = tuple(value.detach().clone().requires_grad_() for value in found)
        optimizer = torch.optim.Adam(list(self.parameters), lr=0.05, fused=True)
        for _ in range(steps):
            optimizer.zero_grad()
            self._loss().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        self.parameters = tuple(value.detach() for value in self.parameters)
        with torch.no_grad():
            self.factor = self._factor()
            self.weights = torch.cholesky_solve(self.outcomes[..., None], self.factor)[..., 0]

    def _kernel(self, left: Tensor, right: Tensor) -> Tensor:
        length = self.parameters[0].exp()
        covariance: Tensor = self.parameters[1].exp()[:, None, None] * matern52(left / length, right / length)
        return covariance

    def _factor(self) -> Tensor:
        noise = self.parameters[2].exp()[:, None, None] + RGPE_JITTER
        return cholesky(self._kernel(self.inputs, self.inputs) + noise * torch.eye(self.inputs.shape[1]))

    def _loss(self) -> Tensor:
        """Negative log marginal likelihood and priors: length 0.5, variance 1, noise 0.05, each log-normal."""
        factor = self._factor()
        white = torch.linalg.solve_triangular(factor, self.outcomes[..., None], upper=False)
        fit = 0.5 * white.square().sum() + factor.diagonal(dim1=1, dim2=2).log().sum()
        length, scale, noise = self.parameters
        prior = 0.5 * (length - math.log(0.5)).square().sum() + 0.5 * scale.square().sum()
        loss: Tensor = fit + prior + 0.25 * (noise - math.log(0.05)).square().sum()
        return loss

    def predict(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance at points ``(n, d)``, each of shape ``(b, n)``."""
        cross = self._kernel(self.inputs, points.expand(len(self.inputs), -1, -1))
        half = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        mean = (cross * self.weights[..., None]).sum(1)
        return mean, (self.parameters[1].exp()[:, None] - half.square().sum(1)).clamp_min(1e-8)

    def sample(self, points: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draw from the joint posterior at points ``(m, d)``, shape ``(n, b, m)``."""
        batch = points.expand(len(self.inputs), -1, -1)
        cross = self._kernel(self.inputs, batch)
        half = torch.linalg.solve_triangular(self.factor, cross, upper=False)
        mean = (cross * self.weights[..., None]).sum(1)
        covariance = self._kernel(batch, batch) - half.transpose(1, 2) @ half
        factor = cholesky(covariance + 1e-3 * torch.eye(len(points)))
        noise = torch.randn(n, *mean.shape, generator=generator)
        draws: Tensor = mean + (factor @ noise[..., None])[..., 0]
        return draws

    def leave_one_out(self) -> tuple[Tensor, Tensor]:
        """Return mean and variance of each own outcome predicted from the others, each ``(b, n)``; parameters stay."""
        inverse = torch.cholesky_inverse(self.factor)
        diagonal = inverse.diagonal(dim1=1, dim2=2)
        return self.outcomes - self.weights / diagonal, 1.0 / diagonal


class RGPE(Method):
    """Ranking-weighted ensemble with expected improvement. Before there is an order to rank, the past tasks weigh the same."""

    name = "rgpe"
    uses_past = needs_pool = True

    def learn(self, past: Past) -> None:
        """Fit a process a past task, all with equally many runs at once."""
        self._past = []
        for n in sorted({len(task.outcomes) for task in past.tasks}):
            alike = [task for task in past.tasks if len(task.outcomes) == n]
            inputs = torch.as_tensor(np.stack([task.points for task in alike]), dtype=torch.float32)
            outcomes = torch.as_tensor(np.stack([task.values for task in alike]), dtype=torch.float32)
            self._past.append(Processes(inputs, outcomes, steps=100))

    def start(self, task: NewTask) -> None:
        """Predict the pool from every past task."""
        super().start(task)
        self._points = torch.as_tensor(task.points, dtype=torch.float32)
        found = [process.predict(self._points) for process in self._past]
        self._mean, self._variance = (torch.cat(values).double().numpy() for values in zip(*found, strict=True))
        self._generator = torch.Generator().manual_seed(task.seed)
        self._start: tuple[Tensor, Tensor, Tensor] | None = None

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Weigh the processes, return the configuration with the largest expected improvement."""
        n_past = len(self._mean)
        if len(tried) < MIN_RANKED:
            weights = np.full(n_past, 1.0 / n_past)
            mean, variance = weights @ self._mean, np.square(weights) @ self._variance
        else:
            outcomes = torch.as_tensor(filled(values), dtype=torch.float32)[None]
            own = Processes(self._points[list(tried)][None], outcomes, steps=40 if self._start is None else 12, start=self._start)
            self._start = own.parameters  # type: ignore[assignment]  # three of them
            weights = self._weigh(own, list(tried))
            own_mean, own_variance = (value.double().numpy() for value in own.predict(self._points))
            mean = weights @ np.concatenate([self._mean, own_mean])
            variance = np.square(weights) @ np.concatenate([self._variance, own_variance])
        # The incumbent is that of the ensemble's own mean: its scale is no single task's.
        best = float(mean[list(tried)].max()) if tried else float(mean.max())
        score = log_expected_improvement(mean, np.maximum(variance, 1e-10), best)
        return int(np.argmax(np.where(self.task.is_free(tried), score, -np.inf)))

    def _weigh(self, own: Processes, tried: list[int]) -> FloatArray:
        """Return how often each process, the new task's last, has the smallest ranking loss; those that dilute it get nothing."""
        points, outcomes = self._points[tried], own.outcomes[0]
        draws = [process.sample(points, N_SAMPLES, self._generator) for process in self._past]
        losses = _ranking_loss(torch.cat(draws, dim=1), outcomes)
        mean, variance = own.leave_one_out()
        own_draws = mean + variance.sqrt() * torch.randn(N_SAMPLES, *mean.shape, generator=self._generator)
        # Each left-out draw is ranked against what was really observed of the others.
        wrong = (own_draws[..., :, None] < outcomes[None, None, None, :]) ^ (outcomes[:, None] < outcomes[None, :])
        own_loss = wrong.sum((-1, -2)).double()
        losses = torch.cat([losses, own_loss], dim=1)
        # Prevention of weight dilution: a process whose typical loss is above nearly all of the new task's own is left out.
        is_diluting = losses[:, :-1].median(0).values > torch.quantile(own_loss[:, 0], 0.95)
        losses[:, :-1] = torch.where(is_diluting, torch.inf, losses[:, :-1])
        smallest = losses == losses.min(1, keepdim=True).values
        share = smallest.double() / smallest.sum(1, keepdim=True)
        weights: FloatArray = share.mean(0).numpy()
        return weights


def _ranking_loss(draws: Tensor, outcomes: Tensor) -> Tensor:
    """Count the ordered pairs a draw orders otherwise than the outcomes: draws ``(s, b, n)`` to ``(s, b)``."""
    first, second = torch.triu_indices(len(outcomes), len(outcomes), 1)
    differs = outcomes[first] != outcomes[second]
    # A draw has no ties: each pair of differing outcomes is wrong both ways or not at all, each pair of equal ones one way.
    wrong = (draws[..., first[differs]] < draws[..., second[differs]]) ^ (outcomes[first[differs]] < outcomes[second[differs]])
    return 2.0 * wrong.sum(-1).double() + float((~differs).sum())
