"""Peers that learn from past tasks without looking at a single outcome of the new one: zero-shot portfolio and copula Thompson sampling.

References:
    Wistuba, Schilling & Schmidt-Thieme, "Sequential model-free hyperparameter tuning", ICDM 2015.
    Salinas, Shen & Perrone, "A quantile-based approach for hyperparameter transfer learning", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, rankdata

from compare_baselines.methods.base import Method, NewTask, Past

FloatArray = npt.NDArray[np.float64]

N_TREES, TREE_DEPTH, TREE_RATE = 100, 3, 0.1
"""Gradient boosting of one past task: scikit-learn's defaults."""
N_PORTFOLIO = 64
"""Length of a portfolio; after it, the rest of the pool by predicted mean."""
HIDDEN, N_LAYERS, DROPOUT = 50, 3, 0.1
RATES, STEPS_PER_RATE, BATCH = (1e-2, 1e-3, 1e-4), 1000, 64
"""Network and schedule of the copula's prior, as in the paper."""


def normal_scores(values: FloatArray) -> FloatArray:
    """Return the normal quantiles of the ranks of outcomes, the copula transform, shape ``(n,)``."""
    n = len(values)
    # The paper cuts the empirical distribution function near 0 and 1 so that the quantiles stay finite.
    delta = 1.0 / (4.0 * n**0.25 * np.sqrt(np.pi * np.log(max(n, 2))))
    return np.asarray(norm.ppf(np.clip((rankdata(values) - 0.5) / n, min(delta, 0.5 / n), 1 - min(delta, 0.5 / n))), dtype=np.float64)


class ZeroShot(Method):
    """A sequence of configurations, chosen greedily so that on every past task one of the first ``k`` is good.

    A gradient-boosted surrogate of each past task predicts how good a configuration of the pool would have been there.
    """

    name = "zero-shot"
    uses_past = needs_pool = True
    n_portfolio: ClassVar[int] = N_PORTFOLIO

    def learn(self, past: Past) -> None:
        """Fit a surrogate a past task, on outcomes scaled to [0, 1] in the task."""
        from sklearn.ensemble import GradientBoostingRegressor

        self._surrogates = []
        for i, task in enumerate(past.tasks):
            model = GradientBoostingRegressor(
                n_estimators=N_TREES, max_depth=TREE_DEPTH, learning_rate=TREE_RATE, random_state=past.seed * 1000 + i
            )
            self._surrogates.append(model.fit(task.points, normal_scores(task.values)))

    def start(self, task: NewTask) -> None:
        """Build the portfolio from the pool."""
        super().start(task)
        scores = np.stack([model.predict(task.points) for model in self._surrogates])
        low, high = scores.min(1, keepdims=True), scores.max(1, keepdims=True)
        loss = (high - scores) / np.maximum(high - low, 1e-12)
        self._order = greedy_portfolio(loss, self.n_portfolio)

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the next one of the portfolio."""
        return self.task.first_free(self._order, tried)


class Constant(ZeroShot):
    """The configuration that is best on average over the past tasks, whatever the task; then the next best."""

    name = "constant"
    n_portfolio = 0


def greedy_portfolio(loss: FloatArray, length: int) -> list[int]:
    """Order configurations so that each adds most to the mean over tasks of the best so far.

    Args:
        loss: Shape ``(n_tasks, n)``, comparable between tasks.
        length: How many are chosen so; the rest follows by mean loss.

    Returns:
        All ``n`` indices.
    """
    best = np.full(len(loss), np.inf)
    mean = loss.mean(0)
    chosen: list[int] = []
    for _ in range(min(length, loss.shape[1])):
        reached = np.minimum(loss, best[:, None]).mean(0)
        reached[chosen] = np.inf
        # Where nothing improves any task any more, the better on average.
        index = int(np.lexsort((mean, np.round(reached, 12)))[0])
        chosen.append(index)
        best = np.minimum(best, loss[:, index])
    taken = set(chosen)
    return chosen + [int(i) for i in np.argsort(mean, kind="stable") if int(i) not in taken]


class Quantile(Method):
    """Copula Thompson sampling: a network predicts mean and spread of normal scores on all past tasks; the best draw is tried."""

    name = "quantile"
    uses_past = needs_pool = True

    def learn(self, past: Past) -> None:
        """Fit the network to the past tasks together."""
        import torch
        from torch import nn

        generator = torch.Generator().manual_seed(past.seed)
        inputs = torch.as_tensor(np.concatenate([task.points for task in past.tasks]), dtype=torch.float32)
        scores = torch.as_tensor(np.concatenate([normal_scores(task.values) for task in past.tasks]), dtype=torch.float32)
        with torch.random.fork_rng():
            torch.manual_seed(past.seed)
            layers: list[nn.Module] = []
            width = inputs.shape[1]
            for _ in range(N_LAYERS):
                layers += [nn.Linear(width, HIDDEN), nn.ReLU(), nn.Dropout(DROPOUT)]
                width = HIDDEN
            network = nn.Sequential(*layers, nn.Linear(width, 2))
            for rate in RATES:
                optimizer = torch.optim.Adam(network.parameters(), lr=rate, fused=True)
                for _ in range(STEPS_PER_RATE):
                    batch = torch.randint(len(scores), (min(BATCH, len(scores)),), generator=generator)
                    mean, raw = network(inputs[batch]).unbind(1)
                    variance = nn.functional.softplus(raw) + 1e-4
                    loss = nn.functional.gaussian_nll_loss(mean, scores[batch], variance)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
        self._network = network.eval()

    def start(self, task: NewTask) -> None:
        """Predict the pool."""
        import torch
        from torch import nn

        super().start(task)
        self._rng = np.random.default_rng(task.seed)
        with torch.no_grad():
            mean, raw = self._network(torch.as_tensor(task.points, dtype=torch.float32)).unbind(1)
        self._mean = mean.double().numpy()
        self._spread = np.sqrt(nn.functional.softplus(raw).double().numpy() + 1e-4)

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Draw an outcome for every configuration and return the best one."""
        draws = self._rng.normal(self._mean, self._spread)
        return int(np.argmax(np.where(self.task.is_free(tried), draws, -np.inf)))
