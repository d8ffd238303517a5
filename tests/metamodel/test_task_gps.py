"""The tasks of a history as Gaussian processes, against GPyTorch and SciPy."""

from __future__ import annotations

import math

import gpytorch
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from metamodel.kernels import matern52
from metamodel.task_gps import (
    KEPT_BEST,
    MAX_TASK_RUNS,
    Hyperparameters,
    TrainingTask,
    fit_plain_gp,
    fit_task_gps,
    negative_log_likelihood,
)


def shared_of(length: list[float], amplitude: float = 0.8, noise: float = 0.3, mean: float = 0.0) -> Hyperparameters:
    values = (torch.tensor(length).log(), torch.tensor(math.log(amplitude)), torch.tensor(math.log(noise)), torch.tensor(mean))
    return Hyperparameters(*values)


def drawn_tasks(n_tasks: int, n: int, seed: int, length: float = 0.3) -> list[TrainingTask]:
    """Tasks drawn from the very model, with a second column that does not matter."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        inputs = rng.random((n, 2))
        distance = math.sqrt(5) * np.abs(inputs[:, :1] - inputs[:, 0]) / length
        covariance = (1 + distance + distance**2 / 3) * np.exp(-distance) + 0.05 * np.eye(n)
        tasks.append(TrainingTask(inputs, np.linalg.cholesky(covariance) @ rng.normal(size=n)))
    return tasks


@pytest.mark.parametrize("scale", [1e-3, 0.1, 1.0, 30.0])
def test_the_matern_correlation_is_that_of_gpytorch(scale: float) -> None:
    left, right = torch.rand(7, 3, dtype=torch.double) * scale, torch.rand(5, 3, dtype=torch.double) * scale
    kernel = gpytorch.kernels.MaternKernel(nu=2.5).double()
    kernel.lengthscale = 1.0
    with torch.no_grad():
        assert torch.allclose(matern52(left, right), kernel(left, right).to_dense(), atol=1e-9)


def test_the_matern_correlation_is_differentiable_where_points_coincide() -> None:
    points = torch.rand(4, 2, requires_grad=True)
    matern52(points, points).sum().backward()
    assert points.grad is not None
    assert torch.isfinite(points.grad).all()


def test_the_likelihood_is_that_of_a_multivariate_normal_and_padding_adds_nothing() -> None:
    shared, rng = shared_of([0.4, 0.9, 2.0], mean=0.3), np.random.default_rng(0)
    inputs, scores = rng.random((6, 3)), rng.normal(size=6)
    padded, targets, mask = torch.full((1, 9, 3), 0.123), torch.full((1, 9), 55.0), torch.zeros(1, 9, dtype=torch.bool)
    padded[0, :6], targets[0, :6], mask[0, :6] = torch.as_tensor(inputs), torch.as_tensor(scores), True
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=3)).double()
    kernel.base_kernel.lengthscale, kernel.outputscale = torch.tensor([0.4, 0.9, 2.0]).double(), 0.64
    with torch.no_grad():
        covariance = kernel(torch.as_tensor(inputs)).to_dense().numpy() + float(shared.noise_variance) * np.eye(6)
    want = -multivariate_normal(np.full(6, 0.3), covariance).logpdf(scores)
    assert float(negative_log_likelihood(shared, padded, targets, mask)[0]) == pytest.approx(want, abs=1e-3)


def test_a_task_is_predicted_as_gpytorch_predicts_it() -> None:
    fitted = fit_task_gps(drawn_tasks(3, 12, 0), n_steps=5)
    shared, points = fitted.shared, torch.rand(4, 2, dtype=torch.double)
    mean, known = fitted.predict(points / shared.length.double())
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=2)).double()
    kernel.base_kernel.lengthscale, kernel.outputscale = shared.length.double(), float(shared.amplitude)
    for i in range(3):
        likelihood = gpytorch.likelihoods.GaussianLikelihood().double()
        likelihood.noise = float(shared.noise_variance)

        class Exact(gpytorch.models.ExactGP):
            def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
                return gpytorch.distributions.MultivariateNormal(torch.zeros(len(x), dtype=torch.double), kernel(x))

        model = Exact(fitted.inputs[i].double(), fitted.scores[i].double(), likelihood).eval()
        with torch.no_grad():
            want = model(points)
        assert torch.allclose(mean[i].double(), want.mean, atol=1e-4)
        assert torch.allclose(float(shared.amplitude) - known[i].double().square().sum(0), want.variance, atol=1e-4)


def test_the_length_scales_find_what_matters() -> None:
    fitted = fit_task_gps(drawn_tasks(8, 30, 1))
    first, second = fitted.shared.length.tolist()
    assert first == pytest.approx(0.3, rel=0.5)
    assert second > 2 * first


def test_the_same_seed_gives_the_same_numbers() -> None:
    tasks = drawn_tasks(70, 6, 1)  # more than a step looks at, so that a draw decides
    first, again, other = (fit_task_gps(tasks, n_steps=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.shared.log_length, again.shared.log_length)
    assert not torch.equal(first.shared.log_length, other.shared.log_length)


def test_a_deadline_cuts_the_fit_short_and_says_how_far_it_came() -> None:
    fitted = fit_task_gps(drawn_tasks(3, 10, 1), n_steps=1_000_000, deadline_s=0.3)
    assert 1 <= fitted.n_steps_done < 1_000_000


def test_of_a_large_task_the_best_runs_are_kept_with_their_scores_and_the_rest_is_a_draw() -> None:
    (task,) = drawn_tasks(1, 500, 3)
    kept = task.thinned(np.random.default_rng(0))
    assert len(kept.scores) == MAX_TASK_RUNS
    best = np.sort(task.scores)[-KEPT_BEST:]
    assert set(best) <= set(kept.scores)
    assert kept.scores.min() < np.median(task.scores)


def test_a_task_with_one_run_or_none_gets_the_medians_of_the_priors() -> None:
    for n in (0, 1):
        shared = fit_plain_gp(TrainingTask(np.zeros((n, 2)), np.zeros(n)))
        assert torch.equal(shared.log_length, Hyperparameters.initial(2, is_plain=True).log_length)
