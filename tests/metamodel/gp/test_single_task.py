"""The single-task GP, against GPyTorch, SciPy and closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import gpytorch
import numpy as np
import pytest
import torch
from scipy.optimize import approx_fprime
from scipy.stats import multivariate_normal, norm

from metamodel.data.run_groups import VARIANT_CORRELATION, RunGroups
from metamodel.gp.prediction import TargetTaskData
from metamodel.gp.single_task import NOISE, OFFSET_VARIANCE, SingleTaskKernel, SingleTaskPosterior, fit_kernel, negative_log_posterior


def same(n: int) -> RunGroups:
    return RunGroups.asked(n)


def gpytorch_process(
    inputs: np.ndarray, scores: np.ndarray, kernel: SingleTaskKernel
) -> tuple[gpytorch.models.ExactGP, gpytorch.likelihoods.Likelihood]:
    likelihood = gpytorch.likelihoods.GaussianLikelihood(noise_constraint=gpytorch.constraints.GreaterThan(1e-12)).double()
    likelihood.noise = kernel.noise

    class Process(gpytorch.models.ExactGP):
        def __init__(self) -> None:
            super().__init__(torch.as_tensor(inputs), torch.as_tensor(scores), likelihood)
            self.mean_module = gpytorch.means.ZeroMean()
            local = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=inputs.shape[1])).double()
            offset = gpytorch.kernels.ConstantKernel().double()
            self.covar_module = local + offset
            local.outputscale, offset.constant = kernel.amplitude, torch.tensor([OFFSET_VARIANCE], dtype=torch.double)
            local.base_kernel.lengthscale = torch.as_tensor(kernel.length)

        def forward(self, x: torch.Tensor) -> gpytorch.distributions.MultivariateNormal:
            return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))

    return Process(), likelihood


@pytest.fixture
def runs() -> tuple[np.ndarray, np.ndarray, SingleTaskKernel]:
    rng = np.random.default_rng(0)
    return rng.random((14, 3)), rng.normal(size=14), SingleTaskKernel(np.array([0.3, 0.8, 1.7]), 1.4, 0.02)


def test_the_likelihood_is_that_of_gpytorch(runs: tuple[np.ndarray, np.ndarray, SingleTaskKernel]) -> None:
    inputs, scores, kernel = runs
    process, likelihood = gpytorch_process(inputs, scores, kernel)
    process.train()
    marginal = gpytorch.mlls.ExactMarginalLogLikelihood(likelihood, process)
    want = float(marginal(process(torch.as_tensor(inputs)), torch.as_tensor(scores))) * len(scores)
    theta = np.log([*kernel.length, kernel.amplitude, kernel.noise])
    got, _ = negative_log_posterior(theta, inputs, scores, np.arange(3), np.ones((14, 14)))
    length = math.log(0.4 * math.sqrt(3))
    prior = 0.5 * float(np.square((theta[:3] - length) / 1.0).sum() + theta[3] ** 2 + ((theta[4] - NOISE[0]) / NOISE[1]) ** 2)
    assert got - prior == pytest.approx(-want, abs=1e-6)


def test_predictions_are_those_of_gpytorch(runs: tuple[np.ndarray, np.ndarray, SingleTaskKernel]) -> None:
    inputs, scores, kernel = runs
    process, _ = gpytorch_process(inputs, scores, kernel)
    process.eval()
    points = np.random.default_rng(1).random((6, 3))
    with torch.no_grad(), gpytorch.settings.fast_computations(False, False, False):
        want = process(torch.as_tensor(points))
    posterior = SingleTaskPosterior(TargetTaskData(inputs, scores, same(14)), kernel=kernel, scores=scores)
    got, joint = posterior.predict(points), posterior.predict(points, is_joint=True)
    assert np.allclose(got.mean[0], want.mean.numpy(), atol=1e-7)
    assert np.allclose(joint.covariance[0], want.covariance_matrix.numpy(), atol=1e-7)
    assert np.allclose(joint.variance, got.covariance, atol=1e-9)


def test_the_likelihood_of_runs_of_two_model_sources_is_that_of_scipy(runs: tuple[np.ndarray, np.ndarray, SingleTaskKernel]) -> None:
    inputs, scores, kernel = runs
    is_same = np.arange(14) < 9
    correlation = np.where(is_same[:, None] == is_same[None, :], 1.0, VARIANT_CORRELATION)
    covariance = kernel.covariance(inputs, inputs) * correlation + kernel.noise * np.eye(14)
    theta = np.log([*kernel.length, kernel.amplitude, kernel.noise])
    parts = [negative_log_posterior(theta, inputs, values, np.arange(3), correlation)[0] for values in (scores, np.zeros(14))]
    want = [-multivariate_normal(np.zeros(14), covariance).logpdf(values) for values in (scores, np.zeros(14))]
    assert parts[0] - parts[1] == pytest.approx(want[0] - want[1], rel=1e-9)


@pytest.mark.parametrize("groups", [(0, 1, 2), (0, 1, 1), (0, 0, 0)])
def test_the_gradient_of_the_likelihood_is_its_slope(
    runs: tuple[np.ndarray, np.ndarray, SingleTaskKernel], groups: tuple[int, ...]
) -> None:
    inputs, scores, _ = runs
    group, correlation = np.array(groups), np.where(np.arange(14)[:, None] % 2 == np.arange(14) % 2, 1.0, VARIANT_CORRELATION)
    theta = np.random.default_rng(2).normal(0, 0.4, max(groups) + 3)

    def value(at: np.ndarray) -> float:
        return negative_log_posterior(at, inputs, scores, group, correlation)[0]

    _, gradient = negative_log_posterior(theta, inputs, scores, group, correlation)
    assert np.allclose(gradient, approx_fprime(theta, value, 1e-6), atol=1e-4)


def test_the_improvement_is_the_closed_form_and_its_gradient_the_slope(runs: tuple[np.ndarray, np.ndarray, SingleTaskKernel]) -> None:
    inputs, scores, kernel = runs
    posterior = SingleTaskPosterior(TargetTaskData(inputs, scores, RunGroups.of_versions(np.arange(14) < 9)), kernel=kernel, scores=scores)
    assert posterior.incumbent is not None
    for point in np.random.default_rng(3).random((8, 3)):
        predicted = posterior.predict(point[None])
        sigma = math.sqrt(float(predicted.variance[0, 0]))
        u = (float(predicted.mean[0, 0]) - posterior.incumbent) / sigma
        value, gradient = posterior.log_improvement_gradient(point)
        assert value == pytest.approx(math.log(sigma * (norm.pdf(u) + u * norm.cdf(u))), rel=1e-6)
        assert np.allclose(gradient, approx_fprime(point, lambda at: posterior.log_improvement_gradient(at)[0], 1e-7), rtol=1e-3, atol=1e-4)


def draws_of(kernel: SingleTaskKernel, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.random((n, len(kernel.length)))
    covariance = kernel.covariance(inputs, inputs) - OFFSET_VARIANCE + kernel.noise * np.eye(n)
    return inputs, rng.multivariate_normal(np.zeros(n), covariance)


def test_a_fit_finds_what_draws_of_a_process_were_made_with() -> None:
    true = SingleTaskKernel(np.array([0.2, 2.0]), 1.0, 1e-3)
    inputs, scores = draws_of(true, 80, 4)
    found = fit_kernel(inputs, scores, np.arange(2), np.ones((80, 80)))
    assert found.length[0] == pytest.approx(0.2, rel=0.5)
    assert found.length[1] > 4 * found.length[0]
    assert 2e-4 < found.noise < 5e-3


@pytest.mark.parametrize(("noise", "bounds"), [(0.0, (0.0, 1e-5)), (0.3, (0.03, 0.6))])
def test_a_fit_tells_a_deterministic_function_from_a_noisy_one(noise: float, bounds: tuple[float, float]) -> None:
    rng = np.random.default_rng(5)
    inputs = rng.random((40, 2))
    outcomes = np.sin(4 * inputs[:, 0]) + inputs[:, 1] + noise * rng.normal(size=40)
    posterior = SingleTaskPosterior(TargetTaskData(inputs, outcomes, same(40)))
    assert bounds[0] < posterior.noise_variance < bounds[1]


@pytest.mark.parametrize(
    "outcomes",
    [
        lambda rng: np.zeros(6),
        lambda rng: np.array([1.0, 1.0, 1.0, 1.0, 1.0, 2.0]),
        lambda rng: -np.logspace(-8, 300, 6),
        lambda rng: 1e300 * rng.normal(size=6),
    ],
)
def test_outcomes_of_any_size_give_finite_predictions(outcomes: Callable[[np.random.Generator], np.ndarray]) -> None:
    rng = np.random.default_rng(6)
    inputs = np.repeat(rng.random((3, 2)), 2, axis=0)  # near-duplicates as well
    posterior = SingleTaskPosterior(TargetTaskData(inputs, outcomes(rng), same(6)))
    predicted = posterior.predict(rng.random((5, 2)))
    assert np.isfinite(predicted.mean).all()
    assert (predicted.variance > 0).all()


def test_one_run_and_no_column_are_enough_for_an_answer() -> None:
    assert np.isfinite(SingleTaskPosterior(TargetTaskData(np.full((1, 2), 0.5), np.ones(1), same(1))).predict(np.zeros((2, 2))).mean).all()
    assert np.isfinite(SingleTaskPosterior(TargetTaskData(np.zeros((3, 0)), np.arange(3.0), same(3))).predict(np.zeros((2, 0))).mean).all()


def test_the_mean_of_a_search_is_that_of_the_prediction() -> None:
    rng = np.random.default_rng(0)
    posterior = SingleTaskPosterior(TargetTaskData(rng.random((8, 3)), rng.normal(size=8), RunGroups.of_versions(rng.random(8) < 0.6)))
    points = rng.random((5, 3))
    assert np.allclose(posterior.mean(points), posterior.predict(points).mixture()[0])


def test_it_finds_the_peak_of_one_task() -> None:
    rng = np.random.default_rng(2)
    inputs = rng.random((25, 2))
    outcomes = -((inputs[:, 0] - 0.7) ** 2) + 0.02 * rng.normal(size=25)
    grid = np.stack([np.linspace(0, 1, 41), np.full(41, 0.5)], axis=1)
    mean, _ = SingleTaskPosterior(TargetTaskData(inputs, outcomes, same(25))).predict(grid).mixture()
    assert (grid[mean.argmax(), 0] - 0.7) ** 2 < 0.02  # what is lost there is less than the noise


def test_a_run_of_other_model_code_is_weaker_evidence(runs: tuple[np.ndarray, np.ndarray, SingleTaskKernel]) -> None:
    inputs, scores, kernel = runs
    exact, related = (
        SingleTaskPosterior(TargetTaskData(inputs, scores, RunGroups.of_versions(flags)), kernel=kernel, scores=scores).predict(inputs)
        for flags in (np.ones(14, dtype=bool), np.zeros(14, dtype=bool))
    )
    assert (exact.variance < related.variance).all()
