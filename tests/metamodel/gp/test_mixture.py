"""The single-task GP as a component of a history's mixture."""

from __future__ import annotations

import numpy as np
import pytest

from metamodel.data.run_groups import RunGroups
from metamodel.gp.mixture import MIN_OUTCOMES_TO_FIT, MixturePrior, posterior_with_single_task_component
from metamodel.gp.posterior import ConditionedComponents, Posterior
from metamodel.gp.prediction import TargetTaskData
from metamodel.gp.prior import HistoryPrior, TaskWeighting
from metamodel.gp.task_gps import CONFIGS_PER_CHUNK, TrainingTask
from tests.metamodel.gps import ranked, shared_of, some_tasks, task_kernel_of, with_shared


def first_column(n_tasks: int, n: int = 30, sign: float = 1.0) -> list[TrainingTask]:
    rng = np.random.default_rng(0)
    inputs = [rng.random((n, 2)) for _ in range(n_tasks)]
    return [ranked(each, sign * each[:, 0]) for each in inputs]


def prior_of(tasks: list[TrainingTask], trust: float = 1.0) -> HistoryPrior:
    n = len(tasks)
    return HistoryPrior(with_shared(tasks, None, task_kernel_of([0.5, 2.0])), [TaskWeighting.mixture(np.full(n, 1 / n))], trust=trust)


def target_data(inputs: np.ndarray, outcomes: np.ndarray) -> TargetTaskData:
    return TargetTaskData(inputs, outcomes, RunGroups.asked(len(outcomes)))


def test_a_wrong_history_loses_its_weight_to_the_target_runs() -> None:
    inputs = np.random.default_rng(1).random((10, 2))
    misled = posterior_with_single_task_component(prior_of(first_column(6)), target_data(inputs, -inputs[:, 0]))
    assert misled.weights[-1] + misled.weights[-2] > 0.9
    mean, _ = misled.predict(np.array([[0.05, 0.5], [0.95, 0.5]])).mixture()
    assert mean[0] > mean[1]


def test_a_right_history_keeps_its_weight() -> None:
    inputs = np.random.default_rng(1).random((10, 2))
    posterior = posterior_with_single_task_component(prior_of(first_column(6)), target_data(inputs, inputs[:, 0]))
    assert posterior.weights[0] == posterior.weights.max()


def test_the_length_scales_of_a_distrusted_history_lose_weight_to_target_runs() -> None:
    inputs = np.random.default_rng(1).random((10, 2))
    prior, data = prior_of(first_column(6)), target_data(inputs, inputs[:, 0])
    usual, distrusted = (posterior_with_single_task_component(prior, data, trust).weights for trust in (1.0, 0.05))
    assert distrusted[-1] / distrusted[-2] == pytest.approx((0.3 + 19) / 0.3 * usual[-1] / usual[-2])


def test_a_distrusted_history_has_little_weight_from_the_first_run_on() -> None:
    past, run, points = first_column(6), target_data(np.array([[0.5, 0.5]]), np.array([3.0])), np.array([[0.6, 0.5], [1.0, 0.5]])
    usual, distrusted = (posterior_with_single_task_component(prior_of(past, trust), run, trust).predict(points) for trust in (1.0, 0.05))
    assert usual.weights.shape == (3,)
    assert distrusted.weights[-1] > 0.8
    assert np.ptp(usual.mixture()[0]) > 1  # the source tasks show what the first column does
    assert np.ptp(distrusted.mixture()[0]) < 0.2


def test_trust_moves_the_weights_of_components_without_a_jump() -> None:
    prior, run = prior_of(first_column(6)), target_data(np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([3.0, 4.0]))
    whole, almost = (posterior_with_single_task_component(prior, run, trust).weights for trust in (1.0, 0.999))
    assert almost == pytest.approx(np.append(whole, 0.0), abs=0.01)


def test_an_uninformative_history_loses_weight_to_informative_runs() -> None:
    rng = np.random.default_rng(2)
    tasks = [TrainingTask(task.inputs, rng.permutation(task.scores)) for task in first_column(8)]
    inputs = rng.random((16, 2))
    posterior = posterior_with_single_task_component(prior_of(tasks), target_data(inputs, inputs[:, 1]))
    assert posterior.weights[-1] > Posterior(prior_of(tasks)).weights[-1]
    mean, _ = posterior.predict(np.array([[0.5, 0.05], [0.5, 0.95]])).mixture()
    assert mean[1] > mean[0] + 0.5


@pytest.mark.parametrize("outcomes", [[], [1.0], [1.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
def test_with_fewer_different_outcomes_there_is_no_single_task_component(outcomes: list[float]) -> None:
    prior, inputs = prior_of(first_column(3)), np.random.default_rng(1).random((len(outcomes), 2))
    assert len(set(outcomes)) < MIN_OUTCOMES_TO_FIT
    assert len(posterior_with_single_task_component(prior, target_data(inputs, np.array(outcomes))).weights) == len(prior.log_weights)


def test_the_single_task_component_is_on_the_scale_of_the_history() -> None:
    inputs = np.random.default_rng(1).random((12, 2))
    outcomes = 1e4 * inputs[:, 0] + 3e5
    prior = prior_of(first_column(6))
    history, posterior = (
        Posterior(prior, target_data(inputs, outcomes)),
        posterior_with_single_task_component(prior, target_data(inputs, outcomes)),
    )
    single = posterior.predict(inputs).mean[-1]
    assert history.target_scores is not None
    assert np.corrcoef(single, history.target_scores)[0, 1] > 0.95
    assert single.mean() == pytest.approx(history.target_scores.mean(), abs=0.2)
    assert single.std() == pytest.approx(history.target_scores.std(), rel=0.2)


def test_the_components_of_a_mixture_are_those_of_each_prior() -> None:
    first, second = prior_of(first_column(3)), prior_of(first_column(4, sign=-1.0))
    both = MixturePrior([first, second], np.concatenate([first.log_weights, second.log_weights]))
    points = np.random.default_rng(1).random((5, 2))
    prepared, n = both.prepare(points), len(first.log_weights)
    for part, prior in ((slice(None, n), first), (slice(n, None), second)):
        mine = prior.prepare(points)
        assert np.array_equal(prepared.mean[part], mine.mean)
        assert np.array_equal(both.covariance(prepared, prepared)[part], prior.covariance(mine, mine))
        assert np.array_equal(both.noise_variance[part], prior.noise_variance)


def test_concatenated_components_are_those_of_both_priors_at_once() -> None:
    first, second = prior_of(first_column(3)), prior_of(first_column(4, sign=-1.0))
    both = MixturePrior([first, second], np.concatenate([first.log_weights, second.log_weights]))
    rng = np.random.default_rng(1)
    data = TargetTaskData(rng.random((7, 2)), rng.normal(size=7), RunGroups.of_versions(rng.random(7) < 0.5))
    at_once, concatenated = (
        ConditionedComponents.of(both, data),
        ConditionedComponents.of(first, data).concat(ConditionedComponents.of(second, data)),
    )
    for name in ("covariance", "factor", "scores", "evidence"):
        assert np.allclose(getattr(concatenated, name), getattr(at_once, name), atol=1e-12), name
    points = rng.random((5, 2))
    found, direct = (Posterior(both, data, at).predict(points) for at in (concatenated, None))
    assert np.allclose(found.mean, direct.mean, atol=1e-12)
    assert np.allclose(found.covariance, direct.covariance, atol=1e-12)
    assert np.allclose(found.incumbent, direct.incumbent, atol=1e-12)


@pytest.mark.parametrize("n_extra", [0, 2])
@pytest.mark.parametrize("is_sharing", [False, True])
@pytest.mark.parametrize("n_own", [0, 1, 2, 9])
def test_the_mean_of_a_search_is_that_of_the_prediction(n_own: int, is_sharing: bool, n_extra: int) -> None:
    rng = np.random.default_rng(4)
    tasks = [*some_tasks(3), *some_tasks(1, n=4, seed=9)]  # of different lengths, so that padding matters
    gps = with_shared(tasks, shared_of(rng.random((6, 2)), [0.5, 0.8]) if is_sharing else None, task_kernel_of([0.6, 0.9]))
    weightings = [TaskWeighting.mixture(np.array([0.4, 0.3, 0.2, 0.1])), TaskWeighting.regression(np.array([0.5, -0.1, 0.2, 0.0]), 0.7)]
    data = TargetTaskData(rng.random((n_own, 2 + n_extra)), rng.normal(size=n_own), RunGroups.of_versions(rng.random(n_own) < 0.6))
    history = HistoryPrior(gps, weightings, n_extra)
    points = rng.random((2 * CONFIGS_PER_CHUNK + 3, 2 + n_extra))
    for posterior in (Posterior(history, data), posterior_with_single_task_component(history, data)):
        assert np.allclose(posterior.mean(points), posterior.predict(points).mixture()[0], atol=2e-6)
        assert posterior.mean(points[:0]).shape == (0,)


def test_priors_of_different_columns_are_refused() -> None:
    first = prior_of(first_column(3))
    second = HistoryPrior(
        with_shared(first_column(3), None, task_kernel_of([0.5, 2.0])), [TaskWeighting.mixture(np.full(3, 1 / 3))], n_extra=1
    )
    with pytest.raises(AssertionError, match="must have the same columns"):
        MixturePrior([first, second], np.zeros(6))
