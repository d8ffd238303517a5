"""A Gaussian process that learns from the new task alone and chooses among the recorded configurations: what transfer has to beat.

Optuna's ``gp`` proposes points of the whole space, which are snapped; this one ranks the pool itself and is not handicapped.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from compare_baselines.methods.base import Method, NewTask, filled
from compare_baselines.methods.rgpe import Processes
from metamodel.gp.prediction import log_expected_improvement

N_RANDOM = 3
"""Random configurations before there is anything to model. From one to five, the figures after eight evaluations differ little."""


class PlainGP(Method):
    """Matern-5/2 with a length scale a column, log expected improvement over the rest of the pool."""

    name = "plain-gp"

    def start(self, task: NewTask) -> None:
        """Shuffle the pool."""
        super().start(task)
        self._order = np.random.default_rng(task.seed).permutation(len(task.configs))
        self._points = torch.as_tensor(task.points, dtype=torch.float32)
        self._start: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Fit the process to what was evaluated and return the most promising of the rest."""
        if len(tried) < N_RANDOM:
            return self.task.first_free(self._order, tried)
        outcomes = torch.as_tensor(filled(values), dtype=torch.float32)[None]
        process = Processes(self._points[list(tried)][None], outcomes, steps=40 if self._start is None else 12, start=self._start)
        self._start = process.parameters  # type: ignore[assignment]  # three of them
        mean, variance = (value[0].double().numpy() for value in process.predict(self._points))
        score = log_expected_improvement(mean, variance, float(mean[list(tried)].max()))
        return int(np.argmax(np.where(self.task.is_free(tried), score, -np.inf)))
