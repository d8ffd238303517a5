"""The source tasks as Gaussian processes, against GPyTorch and dense algebra."""

from __future__ import annotations

import gpytorch
import numpy as np
import pytest
import torch

from metamodel.gp.task_gp_fit import fit_task_gps
from metamodel.gp.task_gps import KEPT_BEST, MAX_TASK_RUNS, TrainingTask
from tests.metamodel.gps import Dense, shared_of, some_tasks, task_kernel_of, with_shared


def test_task_effects_are_predicted_as_gpytorch_predicts_what_the_shared_function_leaves() -> None:
    fitted = fit_task_gps(some_tasks(3, 12), n_steps=5)
    assert fitted.shared_gp is not None
    own, points = fitted.task_kernel, torch.rand(4, 2, dtype=torch.double)
    mean, known = fitted.predict(points)
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=2)).double()
    kernel.base_kernel.lengthscale, kernel.outputscale = own.length.double(), float(own.amplitude)
    for i in range(3):
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        likelihood.noise = float(own.noise_variance)

        class Exact(gpytorch.models.ExactGP):
            def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
                return gpytorch.distributions.MultivariateNormal(torch.zeros(len(x), dtype=torch.double), kernel(x))

        left = fitted.scores[i].double() - fitted.shared_gp.mean(fitted.inputs[i])
        model = Exact(fitted.inputs[i].double(), left, likelihood).eval()
        with torch.no_grad():
            want = model(points)
        assert torch.allclose(mean[i].double(), want.mean, atol=1e-4)
        assert torch.allclose(float(own.amplitude) - known[i].double().square().sum(0), want.variance, atol=1e-4)


@pytest.mark.parametrize("is_without_one", [False, True])
def test_means_of_task_effects_are_those_of_the_dense_distribution_of_all_runs(is_without_one: bool) -> None:
    tasks = [*some_tasks(3), *some_tasks(1, n=4, seed=9)]
    kernel, own = shared_of(np.random.default_rng(2).random((6, 2)), [0.5, 0.8]), task_kernel_of([0.4, 1.2])
    gps, dense = with_shared(tasks, kernel, own), Dense(tasks, kernel, own)
    if is_without_one:
        gps, dense = gps.without(1), Dense([*tasks[:1], *tasks[2:]], kernel, own)
    points = np.random.default_rng(1).random((5, 2))
    mean, _ = gps.predict(torch.as_tensor(points))
    weights = np.linalg.solve(dense.covariance, dense.scores)
    for i in range(gps.n_tasks):
        mine = dense.index == i
        assert np.allclose(mean[i], dense.apart(points, dense.inputs[mine]) @ weights[mine], atol=1e-4)


def test_the_variance_of_a_task_before_any_run_is_that_of_both_parts() -> None:
    own, kernel = task_kernel_of([1.0, 1.0], amplitude=0.5), shared_of(np.random.default_rng(2).random((6, 2)), [0.5, 0.8], amplitude=0.7)
    assert with_shared(some_tasks(), kernel, own).amplitude == pytest.approx(0.49 + 0.25)
    assert with_shared(some_tasks(), None, own).amplitude == pytest.approx(0.25)


def test_of_a_large_task_the_best_runs_are_kept_with_their_scores_and_the_rest_is_a_draw() -> None:
    (task,) = some_tasks(1, 500)
    kept = task.thinned(np.random.default_rng(0))
    assert len(kept.scores) == MAX_TASK_RUNS
    best = np.sort(task.scores)[-KEPT_BEST:]
    assert set(best) <= set(kept.scores)
    assert kept.scores.min() < np.median(task.scores)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(AssertionError, match=r"inputs must be \(n, d\)"):
        TrainingTask(np.zeros((3, 2)), np.zeros(4))
