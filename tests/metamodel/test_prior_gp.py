"""The numerics of the default meta-model against GPyTorch, SciPy and closed forms."""

from __future__ import annotations

import math

import gpytorch
import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from metamodel.posterior import OwnRuns, Posterior, log_expected_improvement
from metamodel.prior_gp import (
    PriorGP,
    TrainingTask,
    fit_plain_gp,
    fit_prior_gp,
    matern52,
    negative_log_likelihood,
)


def random_model(d: int = 3, members: int = 2, seed: int = 0) -> PriorGP:
    model = PriorGP(d, members, n_hidden=8, n_basis=4, seed=seed)
    with torch.no_grad():
        model.log_length.add_(torch.randn(members, d, generator=torch.Generator().manual_seed(seed)) * 0.3)
        model.bias_mean.add_(0.3)
    return model.requires_grad_(False)


def dense_prior(model: PriorGP, member: int, inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and noiseless covariance of one member, written out in double precision by GPyTorch's kernel."""
    points = torch.as_tensor(inputs)
    hidden = torch.tanh((points - 0.5) @ model.weight_1[member].double() + model.bias_1[member].double())
    hidden = torch.tanh(hidden @ model.weight_2[member].double() + model.bias_2[member].double())
    mean = (hidden @ model.weight_mean[member].double())[:, 0] + model.bias_mean[member, 0, 0].double()
    basis = hidden @ model.weight_basis[member].double()
    kernel = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=2.5, ard_num_dims=inputs.shape[1])).double()
    kernel.base_kernel.lengthscale = model.log_length[member].exp().double()
    kernel.outputscale = (2 * model.log_amplitude[member]).exp().double()
    with torch.no_grad():
        covariance = basis @ basis.T + kernel(points).to_dense()
    return mean.numpy(), covariance.numpy()


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
    model, rng = random_model(), np.random.default_rng(0)
    inputs, scores = rng.random((6, 3)), rng.normal(size=6)
    padded = torch.zeros(2, 1, 9, 3)
    padded[:, 0, :6] = torch.as_tensor(inputs, dtype=torch.float32)
    padded[:, 0, 6:] = 0.123
    targets, mask = torch.full((2, 1, 9), 55.0), torch.zeros(2, 1, 9, dtype=torch.bool)
    targets[:, 0, :6] = torch.as_tensor(scores, dtype=torch.float32)
    mask[:, :, :6] = True
    got = negative_log_likelihood(model, padded, targets, mask)
    for member in range(2):
        mean, covariance = dense_prior(model, member, inputs)
        noise = float(model.noise_variance[member])
        want = -multivariate_normal(mean, covariance + noise * np.eye(6)).logpdf(scores) / 6
        assert float(got[member, 0]) == pytest.approx(want, abs=2e-4)


def test_conditioning_on_own_runs_is_exact_and_a_joint_prediction_agrees_with_the_marginal_one() -> None:
    model, rng = random_model(), np.random.default_rng(1)
    own, points = rng.random((5, 3)), rng.random((4, 3))
    posterior = Posterior(model, OwnRuns(own, rng.normal(size=5), np.ones(5, dtype=bool)))
    joint, marginal = posterior.predict(points, is_joint=True), posterior.predict(points)
    assert np.allclose(np.diagonal(joint.covariance, axis1=1, axis2=2), marginal.covariance, atol=1e-4)
    for member in range(2):
        _, covariance = dense_prior(model, member, np.concatenate([own, points]))
        gain = covariance[5:, :5] @ np.linalg.inv(covariance[:5, :5] + float(model.noise_variance[member]) * np.eye(5))
        want = covariance[5:, 5:] - gain @ covariance[:5, 5:]
        assert np.allclose(joint.covariance[member], want, atol=1e-3)


def test_only_the_order_of_own_outcomes_matters() -> None:
    model, rng = random_model(), np.random.default_rng(2)
    own, outcomes, points = rng.random((6, 3)), rng.normal(size=6), rng.random((9, 3))
    same = np.ones(6, dtype=bool)
    plain = Posterior(model, OwnRuns(own, outcomes, same)).predict(points)
    warped = Posterior(model, OwnRuns(own, np.exp(3 * outcomes) * 1e6, same)).predict(points)
    assert np.allclose(plain.mean, warped.mean)


def test_better_own_runs_get_higher_scores_and_ties_the_same() -> None:
    own = np.random.default_rng(3).random((5, 3))
    posterior = Posterior(random_model(), OwnRuns(own, np.array([3.0, 1.0, 2.0, 2.0, 9.0]), np.ones(5, dtype=bool)))
    assert posterior.own_scores is not None
    scores = posterior.own_scores
    assert scores[1] < scores[2] == pytest.approx(scores[3])
    assert scores[3] < scores[0] < scores[4]


def test_a_run_of_other_model_code_says_less_than_one_of_this() -> None:
    model, rng = random_model(members=1), np.random.default_rng(4)
    own = rng.random((4, 3))
    outcomes = np.arange(4.0)
    exact = Posterior(model, OwnRuns(own, outcomes, np.ones(4, dtype=bool))).predict(own)
    related = Posterior(model, OwnRuns(own, outcomes, np.zeros(4, dtype=bool))).predict(own)
    nothing = Posterior(model).predict(own)
    assert (exact.covariance < related.covariance).all()
    assert (related.covariance < nothing.covariance).all()


def test_near_duplicate_runs_do_not_break_the_factorisation() -> None:
    own = np.repeat(np.random.default_rng(5).random((1, 3)), 40, axis=0)
    predicted = Posterior(random_model(), OwnRuns(own, np.random.default_rng(6).normal(size=40), np.ones(40, dtype=bool))).predict(own[:2])
    assert np.isfinite(predicted.mean).all()
    assert (predicted.covariance > 0).all()


def quadratic_tasks(n_tasks: int, n: int, seed: int) -> list[TrainingTask]:
    """Tasks whose best first coordinate is 0.7, with a little of their own."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        inputs = rng.random((n, 2))
        peak = 0.7 + 0.05 * rng.normal()
        value = -((inputs[:, 0] - peak) ** 2) + 0.02 * rng.normal(size=n)
        tasks.append(TrainingTask(inputs, norm.ppf((value.argsort().argsort() + 0.5) / n)))
    return tasks


def test_what_tasks_have_in_common_is_learned_and_a_new_task_is_predicted_without_a_run() -> None:
    model = fit_prior_gp(quadratic_tasks(6, 20, 0), n_steps=200, n_members=2)
    grid = np.stack([np.linspace(0, 1, 41), np.full(41, 0.5)], axis=1)
    mean, _ = Posterior(model).predict(grid).mixture()
    assert grid[mean.argmax(), 0] == pytest.approx(0.7, abs=0.1)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    tasks = quadratic_tasks(3, 10, 1)
    first, again, other = (fit_prior_gp(tasks, n_steps=15, n_members=2, seed=seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.weight_1, other.weight_1)


def test_a_deadline_cuts_the_fit_short_and_says_how_far_it_came() -> None:
    model = fit_prior_gp(quadratic_tasks(3, 10, 1), n_steps=100_000, n_members=2, deadline_s=0.3)
    assert 1 <= model.n_steps_done < 100_000


def test_hiding_the_context_needs_no_context_column_to_exist() -> None:
    model = fit_prior_gp(quadratic_tasks(2, 8, 1), is_context=np.array([False, True]), missing_row=np.array([0.5, 0.5]), n_steps=5)
    assert model.n_steps_done == 5


def test_a_plain_gp_finds_the_peak_of_one_task_alone() -> None:
    (task,) = quadratic_tasks(1, 25, 2)
    model = fit_plain_gp(task)
    posterior = Posterior(model, OwnRuns(task.inputs, task.scores, np.ones(25, dtype=bool)))
    grid = np.stack([np.linspace(0, 1, 41), np.full(41, 0.5)], axis=1)
    assert grid[posterior.predict(grid).mixture()[0].argmax(), 0] == pytest.approx(0.7, abs=0.12)
    assert model.n_members == 1
    assert float(model.weight_basis.abs().sum()) == 0


@pytest.mark.parametrize("gap", [-200.0, -30.0, -5.0, -1.0, 0.0, 1.0, 5.0])
def test_the_log_expected_improvement_is_that_of_the_closed_form(gap: float) -> None:
    got = float(log_expected_improvement(np.array([gap * 0.5]), np.array([0.25]), 0.0)[0])
    if gap > -6:
        want = math.log(0.5 * (norm.pdf(gap) + gap * norm.cdf(gap)))
    else:
        # Leading terms of the asymptotic series for gaps where the closed form underflows.
        want = math.log(0.5) + norm.logpdf(gap) - 2 * math.log(-gap) + math.log1p(-3 / gap**2 + 15 / gap**4)
    assert got == pytest.approx(want, rel=1e-4, abs=1e-4)


def test_the_log_expected_improvement_grows_with_the_mean_however_small_it_is() -> None:
    values = log_expected_improvement(np.linspace(-1e3, 10, 500), np.full(500, 1.0), 0.0)
    assert np.isfinite(values).all()
    assert (np.diff(values) > 0).all()
