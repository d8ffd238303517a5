"""The function that all tasks share, against the dense normal distribution of all runs."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metamodel.gp.shared_function import choose_inducing
from metamodel.gp.task_gp_fit import learn_shared, padded
from tests.metamodel.gps import Dense, shared_of, some_tasks, task_kernel_of


def test_it_is_predicted_as_the_dense_distribution_of_all_runs_says() -> None:
    tasks = [*some_tasks(3), *some_tasks(1, n=4, seed=9)]  # of different lengths, so that padding matters
    kernel, own = shared_of(np.random.default_rng(2).random((6, 2)), [0.5, 0.8]), task_kernel_of([0.4, 1.2])
    found = learn_shared(kernel, own, *padded(tasks, "cpu"))
    points = np.random.default_rng(1).random((5, 2))
    mean, spread = found.predict(torch.as_tensor(points))
    want_mean, want_covariance = Dense(tasks, kernel, own).predict_shared(points)
    assert np.allclose(mean, want_mean, atol=1e-5)
    assert np.allclose(spread.T @ spread, want_covariance, atol=1e-4)
    assert np.allclose(found.mean(torch.as_tensor(points)), mean)


def test_inducing_points_at_every_run_approximate_the_kernel_itself() -> None:
    points = np.random.default_rng(0).random((8, 2))
    kernel = shared_of(points, [0.5, 0.8], amplitude=0.9)
    basis = kernel.basis(torch.as_tensor(points))
    dense = Dense(some_tasks(1), kernel, task_kernel_of([1.0, 1.0])).shared(points, points)
    assert np.allclose(basis @ basis.T, dense, atol=1e-8)
    assert np.allclose(np.diagonal(dense), 0.81, atol=1e-3)


def test_a_task_is_forgotten_as_if_it_had_never_been() -> None:
    tasks = some_tasks(4)
    kernel, own = shared_of(np.random.default_rng(2).random((6, 2)), [0.5, 0.8]), task_kernel_of([0.4, 1.2])
    everything, others = (learn_shared(kernel, own, *padded(some, "cpu")) for some in (tasks, tasks[1:]))
    alone = learn_shared(kernel, own, *padded(tasks[:1], "cpu"))
    left = everything.without(alone.precision - torch.eye(6), alone.evidence)
    points = torch.rand(5, 2, dtype=torch.double)
    assert torch.allclose(left.mean(points), others.mean(points), atol=1e-6)
    assert torch.allclose(left.predict(points)[1], others.predict(points)[1], atol=1e-4)


@pytest.mark.parametrize("n", [3, 50])
def test_inducing_points_are_runs_each_once(n: int) -> None:
    inputs = np.repeat(np.random.default_rng(0).random((10, 2)), 2, axis=0)
    found = choose_inducing(inputs, np.random.default_rng(0), n)
    assert len(found) == min(n, 10)
    assert len(np.unique(found, axis=0)) == len(found)
    assert {tuple(row) for row in found} <= {tuple(row) for row in inputs}
