"""A history against what a task's own runs say alone."""

from __future__ import annotations

import numpy as np
import pytest

from metamodel.gp.mixture import MIN_OWN_RUNS, Rivals, against_alone
from metamodel.gp.posterior import AtOwnRuns, OwnRuns, Posterior
from metamodel.gp.prior import HistoryPrior, View
from metamodel.gp.task_gps import CHUNK, TrainingTask
from tests.metamodel.gps import own_of, ranked, shared_of, some_tasks, with_shared


def first_column(n_tasks: int, n: int = 30, sign: float = 1.0) -> list[TrainingTask]:
    rng = np.random.default_rng(0)
    inputs = [rng.random((n, 2)) for _ in range(n_tasks)]
    return [ranked(each, sign * each[:, 0]) for each in inputs]


def prior_of(tasks: list[TrainingTask], trust: float = 1.0) -> HistoryPrior:
    n = len(tasks)
    return HistoryPrior(with_shared(tasks, None, own_of([0.5, 2.0])), [View.mixture(np.full(n, 1 / n))], trust=trust)


def own_runs(inputs: np.ndarray, outcomes: np.ndarray) -> OwnRuns:
    return OwnRuns(inputs, outcomes, np.ones(len(outcomes), dtype=bool))


def test_a_history_that_is_wrong_gives_way_to_what_the_own_runs_say() -> None:
    inputs = np.random.default_rng(1).random((10, 2))
    misled = against_alone(prior_of(first_column(6)), own_runs(inputs, -inputs[:, 0]))
    assert misled.weights[-1] + misled.weights[-2] > 0.9
    mean, _ = misled.predict(np.array([[0.05, 0.5], [0.95, 0.5]])).mixture()
    assert mean[0] > mean[1]


def test_a_history_that_is_right_keeps_its_say() -> None:
    inputs = np.random.default_rng(1).random((10, 2))
    posterior = against_alone(prior_of(first_column(6)), own_runs(inputs, inputs[:, 0]))
    assert posterior.weights[0] == posterior.weights.max()


def test_the_length_scales_of_a_distrusted_history_give_way_to_own_runs() -> None:
    inputs = np.random.default_rng(1).random((10, 2))
    prior, own = prior_of(first_column(6)), own_runs(inputs, inputs[:, 0])
    usual, distrusted = (against_alone(prior, own, trust).weights for trust in (1.0, 0.05))
    assert distrusted[-1] / distrusted[-2] == pytest.approx((0.3 + 19) / 0.3 * usual[-1] / usual[-2])


def test_a_distrusted_history_says_little_from_the_first_own_run_on() -> None:
    past, run, points = first_column(6), own_runs(np.array([[0.5, 0.5]]), np.array([3.0])), np.array([[0.6, 0.5], [1.0, 0.5]])
    usual, distrusted = (against_alone(prior_of(past, trust), run, trust).predict(points) for trust in (1.0, 0.05))
    assert usual.weights.shape == (3,)
    assert distrusted.weights[-1] > 0.8
    assert np.ptp(usual.mixture()[0]) > 1  # the past tasks say what the first column does
    assert np.ptp(distrusted.mixture()[0]) < 0.2


def test_trust_moves_the_rivals_weights_without_a_jump() -> None:
    prior, run = prior_of(first_column(6)), own_runs(np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([3.0, 4.0]))
    whole, almost = (against_alone(prior, run, trust).weights for trust in (1.0, 0.999))
    assert almost == pytest.approx(np.append(whole, 0.0), abs=0.01)


def test_a_history_that_says_nothing_loses_to_own_runs_that_do() -> None:
    rng = np.random.default_rng(2)
    tasks = [TrainingTask(task.inputs, rng.permutation(task.scores)) for task in first_column(8)]
    inputs = rng.random((16, 2))
    posterior = against_alone(prior_of(tasks), own_runs(inputs, inputs[:, 1]))
    assert posterior.weights[-1] > Posterior(prior_of(tasks)).weights[-1]
    mean, _ = posterior.predict(np.array([[0.5, 0.05], [0.5, 0.95]])).mixture()
    assert mean[1] > mean[0] + 0.5


@pytest.mark.parametrize("outcomes", [[], [1.0], [1.0, 2.0], [1.0, 1.0, 2.0, 2.0]])
def test_with_fewer_different_outcomes_the_history_speaks_alone(outcomes: list[float]) -> None:
    prior, inputs = prior_of(first_column(3)), np.random.default_rng(1).random((len(outcomes), 2))
    assert len(set(outcomes)) < MIN_OWN_RUNS
    assert len(against_alone(prior, own_runs(inputs, np.array(outcomes))).weights) == len(prior.log_weights)


def test_the_rival_of_its_own_speaks_on_the_scale_of_the_history() -> None:
    inputs = np.random.default_rng(1).random((12, 2))
    outcomes = 1e4 * inputs[:, 0] + 3e5
    prior = prior_of(first_column(6))
    history, posterior = Posterior(prior, own_runs(inputs, outcomes)), against_alone(prior, own_runs(inputs, outcomes))
    alone = posterior.predict(inputs).mean[-1]
    assert history.own_scores is not None
    assert np.corrcoef(alone, history.own_scores)[0, 1] > 0.95
    assert alone.mean() == pytest.approx(history.own_scores.mean(), abs=0.2)
    assert alone.std() == pytest.approx(history.own_scores.std(), rel=0.2)


def test_rivals_are_predicted_as_each_of_them_alone() -> None:
    first, second = prior_of(first_column(3)), prior_of(first_column(4, sign=-1.0))
    both = Rivals([first, second], np.concatenate([first.log_weights, second.log_weights]))
    points = np.random.default_rng(1).random((5, 2))
    prepared, n = both.prepare(points), len(first.log_weights)
    for part, prior in ((slice(None, n), first), (slice(n, None), second)):
        mine = prior.prepare(points)
        assert np.array_equal(prepared.mean[part], mine.mean)
        assert np.array_equal(both.covariance(prepared, prepared)[part], prior.covariance(mine, mine))
        assert np.array_equal(both.noise_variance[part], prior.noise_variance)


def test_own_runs_beside_each_other_are_those_of_both_priors_at_once() -> None:
    first, second = prior_of(first_column(3)), prior_of(first_column(4, sign=-1.0))
    both = Rivals([first, second], np.concatenate([first.log_weights, second.log_weights]))
    rng = np.random.default_rng(1)
    own = OwnRuns(rng.random((7, 2)), rng.normal(size=7), rng.random(7) < 0.5)
    at_once, side_by_side = AtOwnRuns.of(both, own), AtOwnRuns.of(first, own).beside(AtOwnRuns.of(second, own))
    for name in ("covariance", "factor", "scores", "evidence"):
        assert np.allclose(getattr(side_by_side, name), getattr(at_once, name), atol=1e-12), name
    points = rng.random((5, 2))
    joined, direct = (Posterior(both, own, at).predict(points) for at in (side_by_side, None))
    assert np.allclose(joined.mean, direct.mean, atol=1e-12)
    assert np.allclose(joined.covariance, direct.covariance, atol=1e-12)
    assert np.allclose(joined.incumbent, direct.incumbent, atol=1e-12)


@pytest.mark.parametrize("n_extra", [0, 2])
@pytest.mark.parametrize("is_sharing", [False, True])
@pytest.mark.parametrize("n_own", [0, 1, 2, 9])
def test_the_mean_that_a_search_asks_for_is_that_of_the_prediction(n_own: int, is_sharing: bool, n_extra: int) -> None:
    rng = np.random.default_rng(4)
    tasks = [*some_tasks(3), *some_tasks(1, n=4, seed=9)]  # of different lengths, so that padding matters
    gps = with_shared(tasks, shared_of(rng.random((6, 2)), [0.5, 0.8]) if is_sharing else None, own_of([0.6, 0.9]))
    views = [View.mixture(np.array([0.4, 0.3, 0.2, 0.1])), View.regression(np.array([0.5, -0.1, 0.2, 0.0]), 0.7)]
    own = OwnRuns(rng.random((n_own, 2 + n_extra)), rng.normal(size=n_own), rng.random(n_own) < 0.6)
    history = HistoryPrior(gps, views, n_extra)
    points = rng.random((2 * CHUNK + 3, 2 + n_extra))
    for posterior in (Posterior(history, own), against_alone(history, own)):
        assert np.allclose(posterior.mean(points), posterior.predict(points).mixture()[0], atol=2e-6)
        assert posterior.mean(points[:0]).shape == (0,)


def test_rivals_of_different_columns_are_refused() -> None:
    first = prior_of(first_column(3))
    second = HistoryPrior(with_shared(first_column(3), None, own_of([0.5, 2.0])), [View.mixture(np.full(3, 1 / 3))], n_extra=1)
    with pytest.raises(AssertionError, match="must see the same columns"):
        Rivals([first, second], np.zeros(6))
