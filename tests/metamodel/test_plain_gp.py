"""A process for a task alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metamodel.plain_gp import Hyperparameters, fit_plain_gp
from metamodel.posterior import OwnRuns, Posterior
from metamodel.prior import PlainPrior
from metamodel.task_gps import TrainingTask
from tests.metamodel.gps import ranked


def test_a_plain_gp_finds_the_peak_of_one_task_alone() -> None:
    inputs = np.random.default_rng(2).random((25, 2))
    task = ranked(inputs, -np.abs(inputs[:, 0] - 0.7))
    posterior = Posterior(PlainPrior(fit_plain_gp(task)), OwnRuns(task.inputs, task.scores, np.ones(25, dtype=bool)), task.scores[None])
    grid = np.stack([np.linspace(0, 1, 41), np.full(41, 0.5)], axis=1)
    assert grid[posterior.predict(grid).mixture()[0].argmax(), 0] == pytest.approx(0.7, abs=0.12)
    assert posterior.weights.tolist() == [1.0]


def test_a_task_with_one_run_or_none_gets_the_medians_of_the_priors() -> None:
    for n in (0, 1):
        shared = fit_plain_gp(TrainingTask(np.zeros((n, 2)), np.zeros(n)))
        assert torch.equal(shared.log_length, Hyperparameters.initial(2, is_plain=True).log_length)
