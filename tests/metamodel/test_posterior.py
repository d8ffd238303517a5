"""The prior made of past tasks and its posterior, against dense algebra, SciPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from metamodel.posterior import OwnRuns, Posterior, log_expected_improvement
from metamodel.prior import RESIDUALS, HistoryPrior, PlainPrior
from metamodel.task_gps import Hyperparameters, TaskGPs, TrainingTask, fit_plain_gp, fit_task_gps


def some_tasks(n_tasks: int = 3, n: int = 7, d: int = 2, seed: int = 0) -> list[TrainingTask]:
    rng = np.random.default_rng(seed)
    return [TrainingTask(rng.random((n, d)), rng.normal(size=n)) for _ in range(n_tasks)]


def task_gps(tasks: list[TrainingTask], length: float = 0.6) -> TaskGPs:
    d = tasks[0].inputs.shape[1]
    shared = Hyperparameters(torch.full((d,), math.log(length)), torch.tensor(0.1), torch.tensor(-1.0), torch.tensor(0.0))
    longest = max(len(task.scores) for task in tasks)
    inputs, scores = torch.zeros(len(tasks), longest, d), torch.zeros(len(tasks), longest)
    mask = torch.zeros(len(tasks), longest, dtype=torch.bool)
    for i, task in enumerate(tasks):
        inputs[i, : len(task.scores)], scores[i, : len(task.scores)] = torch.as_tensor(task.inputs), torch.as_tensor(task.scores)
        mask[i, : len(task.scores)] = True
    return TaskGPs(inputs, scores, mask, shared)


def history_prior(tasks: list[TrainingTask], n_extra: int = 0) -> HistoryPrior:
    return HistoryPrior(task_gps(tasks), np.full(len(tasks), 1 / len(tasks)), n_extra)


def matern(left: np.ndarray, right: np.ndarray, length: float = 0.6) -> np.ndarray:
    q = math.sqrt(5) * np.linalg.norm((left[:, None] - right[None]) / length, axis=-1)
    return (1 + q + q**2 / 3) * np.exp(-q)


def all_same(n: int) -> np.ndarray:
    return np.ones(n, dtype=bool)


def test_mean_and_covariance_of_a_new_task_are_the_moments_of_the_mixture_of_the_past_ones() -> None:
    tasks = [*some_tasks(3), *some_tasks(1, n=4, seed=9)]  # of different lengths, so that padding matters
    prior, points = history_prior(tasks), np.random.default_rng(1).random((5, 2))
    a, noise = math.exp(0.2), math.exp(-2.0) + 1e-4
    means, covariances = [], []
    for task in tasks:
        gain = a * matern(points, task.inputs) @ np.linalg.inv(a * matern(task.inputs, task.inputs) + noise * np.eye(len(task.scores)))
        means.append(gain @ task.scores)
        covariances.append(a * matern(points, points) - gain @ (a * matern(task.inputs, points)))
    deviation = np.array(means) - np.mean(means, axis=0)
    shared = np.mean(covariances, axis=0) + deviation.T @ deviation / (len(tasks) - 1)
    prepared = prior.prepare(points)
    got = prior.covariance(prepared, prepared).numpy()
    for rival, r in enumerate(RESIDUALS):
        assert np.allclose(prepared.mean[rival], np.mean(means, axis=0), atol=1e-5)
        assert np.allclose(got[rival], shared + r * a * matern(points, points), atol=1e-5)
    assert np.allclose(prepared.mean[2], 0)
    assert np.allclose(got[2], a * matern(points, points), atol=1e-5)
    assert np.allclose(np.diagonal(got, axis1=1, axis2=2), prepared.variance, atol=1e-6)


def test_a_short_history_is_trusted_less_than_a_long_one() -> None:
    weights = [np.exp(history_prior(some_tasks(n)).log_weights) for n in (1, 2, 16)]
    assert all(float(w.sum()) == pytest.approx(1.0) for w in weights)
    assert weights[0][0] < weights[1][0] < weights[2][0]
    assert weights[0][2] > weights[1][2] > weights[2][2]


def test_conditioning_on_own_runs_is_exact_and_a_joint_prediction_agrees_with_the_marginal_one() -> None:
    prior, rng = history_prior(some_tasks()), np.random.default_rng(1)
    own, points = rng.random((5, 2)), rng.random((4, 2))
    posterior = Posterior(prior, OwnRuns(own, rng.normal(size=5), all_same(5)))
    joint, marginal = posterior.predict(points, is_joint=True), posterior.predict(points)
    assert np.allclose(joint.variance, marginal.covariance, atol=1e-8)
    everything = prior.prepare(np.concatenate([own, points]))
    covariance = prior.covariance(everything, everything).numpy()
    for rival in range(3):
        inverse = np.linalg.inv(covariance[rival, :5, :5] + prior.noise_variance * np.eye(5))
        gain = covariance[rival, 5:, :5] @ inverse
        assert np.allclose(joint.covariance[rival], covariance[rival, 5:, 5:] - gain @ covariance[rival, :5, 5:], atol=1e-8)


def test_scale_and_offset_of_own_outcomes_do_not_matter() -> None:
    prior, rng = history_prior(some_tasks()), np.random.default_rng(2)
    own, outcomes, points = rng.random((6, 2)), rng.normal(size=6), rng.random((9, 2))
    plain = Posterior(prior, OwnRuns(own, outcomes, all_same(6))).predict(points)
    warped = Posterior(prior, OwnRuns(own, 1e6 * outcomes - 300.0, all_same(6))).predict(points)
    assert np.allclose(plain.mean, warped.mean)
    assert np.allclose(plain.weights, warped.weights)


def test_better_own_runs_get_higher_scores_and_ties_the_same() -> None:
    own = np.random.default_rng(3).random((5, 2))
    posterior = Posterior(history_prior(some_tasks()), OwnRuns(own, np.array([3.0, 1.0, 2.0, 2.0, 9.0]), all_same(5)))
    assert posterior.own_scores is not None
    scores = posterior.own_scores
    assert scores[1] < scores[2] == pytest.approx(scores[3])
    assert scores[3] < scores[0] < scores[4]


def test_runs_around_an_optimum_that_hardly_differ_get_scores_that_hardly_differ() -> None:
    rng = np.random.default_rng(8)
    outcomes = np.array([-9.0, -7.0, -5.0, -3.0, 0.0, *(1e-3 * rng.random(7))])
    posterior = Posterior(history_prior(some_tasks()), OwnRuns(rng.random((12, 2)), outcomes, all_same(12)))
    assert posterior.own_scores is not None
    scores = posterior.own_scores
    assert np.ptp(scores[5:]) < 0.7 * (scores[5:].min() - scores[:4].mean())


def test_a_run_of_other_model_code_says_less_than_one_of_this() -> None:
    prior, rng = history_prior(some_tasks()), np.random.default_rng(4)
    own, outcomes = rng.random((4, 2)), np.arange(4.0)
    exact = Posterior(prior, OwnRuns(own, outcomes, all_same(4))).predict(own)
    related = Posterior(prior, OwnRuns(own, outcomes, ~all_same(4))).predict(own)
    nothing = Posterior(prior).predict(own)
    assert (exact.covariance < related.covariance).all()
    assert (related.covariance < nothing.covariance).all()


def test_a_history_that_orders_the_own_runs_wrongly_loses_its_weight_and_one_that_orders_them_rightly_gains() -> None:
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(6):
        inputs = rng.random((30, 2))
        tasks.append(TrainingTask(inputs, norm.ppf((inputs[:, 0].argsort().argsort() + 0.5) / 30)))
    prior, own = HistoryPrior(task_gps(tasks), np.full(6, 1 / 6)), rng.random((8, 2))
    before = Posterior(prior).weights
    right = Posterior(prior, OwnRuns(own, own[:, 0], all_same(8))).weights
    wrong = Posterior(prior, OwnRuns(own, -own[:, 0], all_same(8))).weights
    assert right[2] < before[2] < wrong[2]
    assert wrong[2] > 0.9


def test_a_column_only_the_own_runs_have_is_learned_from_them() -> None:
    prior, rng = history_prior(some_tasks(), n_extra=1), np.random.default_rng(5)
    own = np.column_stack([np.full((12, 2), 0.5), np.linspace(0, 1, 12)])
    posterior = Posterior(prior, OwnRuns(own, own[:, 2] + 0.01 * rng.normal(size=12), all_same(12)))
    mean, _ = posterior.predict(np.array([[0.5, 0.5, 0.05], [0.5, 0.5, 0.95]])).mixture()
    assert mean[1] > mean[0] + 0.5


def test_near_duplicate_runs_do_not_break_the_factorisation() -> None:
    own = np.repeat(np.random.default_rng(5).random((1, 2)), 40, axis=0)
    outcomes = np.random.default_rng(6).normal(size=40)
    predicted = Posterior(history_prior(some_tasks()), OwnRuns(own, outcomes, all_same(40))).predict(own[:2])
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
    fitted = fit_task_gps(quadratic_tasks(6, 20, 0))
    grid = np.stack([np.linspace(0, 1, 41), np.full(41, 0.5)], axis=1)
    mean, _ = Posterior(HistoryPrior(fitted, np.full(6, 1 / 6))).predict(grid).mixture()
    assert grid[mean.argmax(), 0] == pytest.approx(0.7, abs=0.1)


def test_a_plain_gp_finds_the_peak_of_one_task_alone() -> None:
    (task,) = quadratic_tasks(1, 25, 2)
    posterior = Posterior(PlainPrior(fit_plain_gp(task)), OwnRuns(task.inputs, task.scores, all_same(25), task.scores))
    grid = np.stack([np.linspace(0, 1, 41), np.full(41, 0.5)], axis=1)
    assert grid[posterior.predict(grid).mixture()[0].argmax(), 0] == pytest.approx(0.7, abs=0.12)
    assert posterior.weights.tolist() == [1.0]


def test_the_improvement_of_a_mixture_is_the_mean_of_the_improvements_of_its_rivals() -> None:
    own = np.random.default_rng(7).random((4, 2))
    predicted = Posterior(history_prior(some_tasks()), OwnRuns(own, np.arange(4.0), all_same(4))).predict(own[:3] + 0.05)
    assert predicted.incumbent is not None
    gap = predicted.mean - predicted.incumbent[:, None]
    sigma = np.sqrt(predicted.variance)
    direct = predicted.weights @ (gap * norm.cdf(gap / sigma) + sigma * norm.pdf(gap / sigma))
    assert np.allclose(np.exp(predicted.log_improvement(predicted.incumbent)), direct, rtol=1e-6)


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
