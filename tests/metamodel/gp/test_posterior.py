"""The prior made of source tasks and its posterior, against dense algebra, SciPy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import norm

from metamodel.data.run_groups import RunGroups
from metamodel.gp.posterior import Posterior, _leave_one_out_evidence
from metamodel.gp.prediction import TargetTaskData, log_expected_improvement
from metamodel.gp.prior import RESIDUALS, HistoryPrior, TaskWeighting
from metamodel.gp.task_gp_fit import fit_task_gps
from metamodel.gp.task_gps import TaskGPs, TrainingTask
from tests.metamodel.gps import Dense, matern, ranked, shared_of, some_tasks, task_kernel_of, with_shared

INDUCING = np.random.default_rng(2).random((6, 2))


def task_gps(tasks: list[TrainingTask], is_sharing: bool = False) -> TaskGPs:
    d = tasks[0].inputs.shape[1]
    return with_shared(
        tasks, shared_of(INDUCING, [0.5, 0.8]) if is_sharing else None, task_kernel_of([0.6] * d, math.exp(0.1), math.exp(-1.0))
    )


def history_prior(tasks: list[TrainingTask], n_extra: int = 0) -> HistoryPrior:
    n = len(tasks)
    weightings = [TaskWeighting.mixture(np.full(n, 1 / n)), TaskWeighting.regression(np.linspace(-0.1, 0.4, n), 0.6)]
    return HistoryPrior(task_gps(tasks, is_sharing=True), weightings, n_extra)


def all_same(n: int) -> RunGroups:
    return RunGroups.asked(n)


def dense_effects(tasks: list[TrainingTask], points: np.ndarray) -> tuple[Dense, np.ndarray, np.ndarray]:
    """Return the dense model, and means and covariances of the task effects, the shared function given."""
    dense = Dense(tasks, shared_of(INDUCING, [0.5, 0.8]), task_kernel_of([0.6, 0.6], math.exp(0.1), math.exp(-1.0)))
    weights, noise = np.linalg.solve(dense.covariance, dense.scores), float(dense.task_kernel.noise_variance)
    means, covariances = [], []
    for i, task in enumerate(tasks):
        cross = dense.apart(points, task.inputs)
        inner = dense.apart(task.inputs, task.inputs) + noise * np.eye(len(task.scores))
        means.append(cross @ weights[dense.index == i])
        covariances.append(dense.apart(points, points) - cross @ np.linalg.solve(inner, cross.T))
    return dense, np.array(means), np.array(covariances)


def test_mean_and_covariance_of_a_new_task_are_those_of_a_mixture_of_source_tasks_and_of_a_regression_on_them() -> None:
    tasks = [*some_tasks(3), *some_tasks(1, n=4, seed=9)]  # of different lengths, so that padding matters
    mixed, regressed, left_open = np.array([0.4, 0.3, 0.2, 0.1]), np.array([0.5, -0.1, 0.2, 0.0]), 0.7
    gps, points = task_gps(tasks, is_sharing=True), np.random.default_rng(1).random((5, 2))
    prior = HistoryPrior(gps, [TaskWeighting.mixture(mixed), TaskWeighting.regression(regressed, left_open)])
    dense, means, covariances = dense_effects(tasks, points)
    base, base_covariance = dense.predict_shared(points)
    deviation = means - mixed @ means
    n_effective = 1 / np.square(mixed).sum()
    of_mixture = np.einsum("t,tij->ij", mixed, covariances) + (mixed[:, None] * deviation).T @ deviation * n_effective / (n_effective - 1)
    of_regression = np.einsum("t,tij->ij", np.square(regressed) + left_open / 4, covariances) + left_open / 4 * means.T @ means
    prepared = prior.prepare(points)
    got, k = prior.covariance(prepared, prepared).numpy(), dense.apart(points, points)
    components = [(weighting, r) for weighting in ((mixed @ means, of_mixture), (regressed @ means, of_regression)) for r in RESIDUALS]
    for component, ((mean, covariance), r) in enumerate(components):
        assert np.allclose(prepared.mean[component], base + mean, atol=1e-4)
        assert np.allclose(got[component], base_covariance + covariance + r * k, atol=1e-4)
    assert np.allclose(prepared.mean[-1], 0)
    assert np.allclose(got[-1], gps.amplitude * matern(points, points, 0.6), atol=1e-5)
    assert np.allclose(np.diagonal(got, axis1=1, axis2=2), prepared.variance, atol=1e-5)


def test_weightings_of_another_number_of_tasks_are_refused() -> None:
    with pytest.raises(AssertionError, match="weightings must be of 3 tasks"):
        HistoryPrior(task_gps(some_tasks(3)), [TaskWeighting.mixture(np.full(2, 0.5))])


def test_a_short_history_is_trusted_less_than_a_long_one() -> None:
    weights = [np.exp(history_prior(some_tasks(n)).log_weights) for n in (1, 2, 16)]
    assert all(float(w.sum()) == pytest.approx(1.0) for w in weights)
    assert weights[0][0] < weights[1][0] < weights[2][0]
    assert weights[0][-1] > weights[1][-1] > weights[2][-1]


def test_conditioning_on_target_runs_is_exact_and_a_joint_prediction_agrees_with_the_marginal_one() -> None:
    prior, rng = history_prior(some_tasks()), np.random.default_rng(1)
    own, points = rng.random((5, 2)), rng.random((4, 2))
    posterior = Posterior(prior, TargetTaskData(own, rng.normal(size=5), all_same(5)))
    joint, marginal = posterior.predict(points, is_joint=True), posterior.predict(points)
    assert np.allclose(joint.variance, marginal.covariance, atol=1e-8)
    everything = prior.prepare(np.concatenate([own, points]))
    covariance = prior.covariance(everything, everything).numpy()
    for component in range(len(covariance)):
        inverse = np.linalg.inv(covariance[component, :5, :5] + prior.noise_variance[component] * np.eye(5))
        gain = covariance[component, 5:, :5] @ inverse
        assert np.allclose(joint.covariance[component], covariance[component, 5:, 5:] - gain @ covariance[component, :5, 5:], atol=1e-5)


def test_scale_and_offset_of_outcomes_do_not_matter() -> None:
    prior, rng = history_prior(some_tasks()), np.random.default_rng(2)
    own, outcomes, points = rng.random((6, 2)), rng.normal(size=6), rng.random((9, 2))
    plain = Posterior(prior, TargetTaskData(own, outcomes, all_same(6))).predict(points)
    warped = Posterior(prior, TargetTaskData(own, 1e6 * outcomes - 300.0, all_same(6))).predict(points)
    assert np.allclose(plain.mean, warped.mean)
    assert np.allclose(plain.weights, warped.weights)


def test_better_runs_get_higher_scores_and_ties_the_same() -> None:
    own = np.random.default_rng(3).random((5, 2))
    posterior = Posterior(history_prior(some_tasks()), TargetTaskData(own, np.array([3.0, 1.0, 2.0, 2.0, 9.0]), all_same(5)))
    assert posterior.target_scores is not None
    scores = posterior.target_scores
    assert scores[1] < scores[2] == pytest.approx(scores[3])
    assert scores[3] < scores[0] < scores[4]


def test_runs_around_an_optimum_that_hardly_differ_get_scores_that_hardly_differ() -> None:
    rng = np.random.default_rng(8)
    outcomes = np.array([-9.0, -7.0, -5.0, -3.0, 0.0, *(1e-3 * rng.random(7))])
    posterior = Posterior(history_prior(some_tasks()), TargetTaskData(rng.random((12, 2)), outcomes, all_same(12)))
    assert posterior.target_scores is not None
    scores = posterior.target_scores
    assert np.ptp(scores[5:]) < 0.7 * (scores[5:].min() - scores[:4].mean())


def test_a_run_of_other_model_code_is_weaker_evidence() -> None:
    prior, rng = history_prior(some_tasks()), np.random.default_rng(4)
    own, outcomes = rng.random((4, 2)), np.arange(4.0)
    exact = Posterior(prior, TargetTaskData(own, outcomes, all_same(4))).predict(own)
    related = Posterior(prior, TargetTaskData(own, outcomes, RunGroups.of_versions(np.zeros(4, dtype=bool)))).predict(own)
    nothing = Posterior(prior).predict(own)
    assert (exact.covariance < related.covariance).all()
    assert (related.covariance < nothing.covariance).all()


def test_a_history_that_orders_the_target_runs_wrongly_loses_its_weight_and_one_that_orders_them_rightly_gains() -> None:
    rng = np.random.default_rng(0)
    tasks = []
    for _ in range(6):
        inputs = rng.random((30, 2))
        tasks.append(ranked(inputs, inputs[:, 0]))
    prior, own = HistoryPrior(task_gps(tasks), [TaskWeighting.mixture(np.full(6, 1 / 6))]), rng.random((8, 2))
    before = Posterior(prior).weights
    right = Posterior(prior, TargetTaskData(own, own[:, 0], all_same(8))).weights
    wrong = Posterior(prior, TargetTaskData(own, -own[:, 0], all_same(8))).weights
    assert right[-1] < before[-1] < wrong[-1]
    assert wrong[-1] > 0.9


def test_leave_one_out_evidence_is_that_of_leaving_each_run_out() -> None:
    rng = np.random.default_rng(3)
    prior, inputs, outcomes = history_prior(some_tasks()), rng.random((6, 2)), rng.normal(size=6)
    prepared = prior.prepare(inputs)
    covariance = prior.covariance(prepared, prepared) + torch.as_tensor(prior.noise_variance)[:, None, None] * torch.eye(6)
    scores = torch.as_tensor(rng.normal(size=(len(covariance), 6)))
    got = _leave_one_out_evidence(prepared.mean, torch.linalg.cholesky(covariance), scores, outcomes)
    for component, (mean, matrix, known) in enumerate(zip(prepared.mean.numpy(), covariance.numpy(), scores.numpy(), strict=True)):
        predicted, variance = np.zeros(6), np.zeros(6)
        for i in range(6):
            rest = np.arange(6) != i
            gain = np.linalg.solve(matrix[np.ix_(rest, rest)], matrix[rest, i])
            predicted[i], variance[i] = mean[i] + gain @ (known[rest] - mean[rest]), matrix[i, i] - gain @ matrix[rest, i]
        pairs = [(i, j) for i in range(6) for j in range(i)]
        gaps = [np.sign(outcomes[i] - outcomes[j]) * (predicted[i] - predicted[j]) / math.sqrt(variance[i] + variance[j]) for i, j in pairs]
        assert got[component] == pytest.approx(2 / 5 * norm.logcdf(gaps).sum(), abs=1e-6)
    assert np.array_equal(
        _leave_one_out_evidence(prepared.mean[:, :2], torch.eye(2)[None], scores[:, :2], outcomes[:2]), np.zeros(len(got))
    )


def test_a_column_only_the_target_runs_have_is_learned_from_them() -> None:
    prior, rng = history_prior(some_tasks(), n_extra=1), np.random.default_rng(5)
    own = np.column_stack([np.full((12, 2), 0.5), np.linspace(0, 1, 12)])
    posterior = Posterior(prior, TargetTaskData(own, own[:, 2] + 0.01 * rng.normal(size=12), all_same(12)))
    mean, _ = posterior.predict(np.array([[0.5, 0.5, 0.05], [0.5, 0.5, 0.95]])).mixture()
    assert mean[1] > mean[0] + 0.5


def test_near_duplicate_runs_do_not_break_the_factorisation() -> None:
    own = np.repeat(np.random.default_rng(5).random((1, 2)), 40, axis=0)
    outcomes = np.random.default_rng(6).normal(size=40)
    predicted = Posterior(history_prior(some_tasks()), TargetTaskData(own, outcomes, all_same(40))).predict(own[:2])
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
        tasks.append(ranked(inputs, value))
    return tasks


def test_what_tasks_have_in_common_is_learned_and_a_new_task_is_predicted_without_a_run() -> None:
    fitted = fit_task_gps(quadratic_tasks(6, 20, 0))
    grid = np.stack([np.linspace(0, 1, 41), np.full(41, 0.5)], axis=1)
    mean, _ = Posterior(HistoryPrior(fitted, [TaskWeighting.mixture(np.full(6, 1 / 6))])).predict(grid).mixture()
    assert grid[mean.argmax(), 0] == pytest.approx(0.7, abs=0.1)


def test_the_improvement_of_a_mixture_is_the_mean_of_the_improvements_of_its_components() -> None:
    own = np.random.default_rng(7).random((4, 2))
    predicted = Posterior(history_prior(some_tasks()), TargetTaskData(own, np.arange(4.0), all_same(4))).predict(own[:3] + 0.05)
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
