"""What the meta-learned networks have to beat: the same network without anything learned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from compare_baselines.methods.base import Method, NewTask, filled

if TYPE_CHECKING:
    from metamodel.networks.adaptation import Parameters

SCRATCH_STEPS, SCRATCH_RATE = 150, 1e-2
"""Steps of Adam from a random initialisation; the handful of points is fitted by then."""
SCRATCH_RESIDUAL = 0.3


class Scratch(Method):
    """The networks of ``maml`` and ``reptile`` from a random initialisation, trained on the new task's own runs until they fit them.

    It is given more than those: many steps of Adam on the scores instead of a few on their order. Two random configurations first.
    """

    name = "scratch"

    def start(self, task: NewTask) -> None:
        """Draw the networks."""
        import torch

        from metamodel.networks.adaptation import N_MEMBERS, random_network

        super().start(task)
        self._order = np.random.default_rng(task.seed).permutation(len(task.configs))
        generator = torch.Generator().manual_seed(task.seed)
        self._points = torch.as_tensor(task.points, dtype=torch.float32).expand(N_MEMBERS, -1, -1)
        self._networks = random_network(N_MEMBERS, task.points.shape[1], generator)

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Train, then return the configuration with the largest expected improvement."""
        import torch

        from metamodel.data.observations import past_scores
        from metamodel.networks.adaptation import Runs, predict, squared_loss

        if len(tried) < 2:
            return self.task.first_free(self._order, tried)
        points = self._points[:, list(tried)]
        scores = torch.as_tensor(past_scores(filled(values)), dtype=torch.float32).expand(len(points), -1)
        runs = Runs(points, scores, torch.ones_like(scores))
        networks = [network.clone().requires_grad_() for network in self._networks]
        optimizer = torch.optim.Adam(networks, lr=SCRATCH_RATE)
        for _ in range(SCRATCH_STEPS):
            optimizer.zero_grad()
            squared_loss(predict(networks, points), runs).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return self._chosen(networks, tried)

    def _chosen(self, networks: Parameters, tried: Sequence[int]) -> int:
        """Return the free configuration with the largest expected improvement."""
        import torch

        from metamodel.gp.prediction import log_expected_improvement
        from metamodel.networks.adaptation import predict

        with torch.no_grad():
            mean = predict(networks, self._points).double().numpy()
        variance = np.full(mean.shape[1], SCRATCH_RESIDUAL**2)
        parts = [log_expected_improvement(row, variance, float(row[list(tried)].max())) for row in mean]
        score = np.logaddexp.reduce(parts, axis=0)
        return int(np.argmax(np.where(self.task.is_free(tried), score, -np.inf)))


class ScratchFew(Scratch):
    """The same networks from a random initialisation, adapted exactly as ``maml`` and ``reptile`` are: a few steps on the order of runs."""

    name = "scratch-few"

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Take the few steps, then return the configuration with the largest expected improvement."""
        import torch

        from metamodel.networks.adaptation import MAML, Runs, adapt
        from metamodel.networks.residuals import ranks

        if len(tried) < 2:
            return self.task.first_free(self._order, tried)
        points = self._points[:, list(tried)]
        outcomes = torch.as_tensor(ranks(filled(values)), dtype=torch.float32).expand(len(points), -1)
        rates = [torch.full((1, 1, 1), MAML.inner_rate)] * len(self._networks)
        return self._chosen(adapt(self._networks, rates, Runs(points, outcomes, torch.ones_like(outcomes)), MAML.n_inner), tried)
