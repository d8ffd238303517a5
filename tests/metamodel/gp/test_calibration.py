"""Intervals hold what they claim on tasks that were left out."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from metamodel.data.observations import single_task_scores
from metamodel.data.run_groups import RunGroups
from metamodel.gp.calibration import LEVELS, MIN_TRUST, Calibration, calibrate, trust_in
from metamodel.gp.gp_meta_model import task_effects
from metamodel.gp.posterior import Posterior
from metamodel.gp.prediction import TargetTaskData
from metamodel.gp.prior import HistoryPrior, task_weightings
from metamodel.gp.relatedness import fit_relatedness
from metamodel.gp.single_task import SingleTaskPosterior
from metamodel.gp.task_gp_fit import fit_task_gps
from metamodel.gp.task_gps import TrainingTask
from tests.metamodel.gps import ranked


def shifted_tasks(n_tasks: int, seed: int, n: int = 30) -> list[TrainingTask]:
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        inputs = rng.random((n, 2))
        value = -np.abs(inputs[:, 0] - 0.5 - 0.2 * rng.normal()) + 0.1 * rng.normal(size=n)
        tasks.append(ranked(inputs, value))
    return tasks


def test_calibrated_intervals_of_new_tasks_hold_what_they_claim() -> None:
    fitted = fit_task_gps(shifted_tasks(20, 0))
    features: list[dict[str, float]] = [{} for _ in range(20)]
    relatedness = fit_relatedness(features, task_effects(fitted))
    calibration = calibrate(fitted, relatedness, features)
    posterior = Posterior(HistoryPrior(fitted, task_weightings(relatedness, {}, np.arange(20))))
    inside = {level: [] for level in LEVELS}
    for task in shifted_tasks(40, 1):
        mean, variance = posterior.predict(task.inputs).mixture()
        z = np.abs(task.scores - mean) / np.sqrt(variance + posterior.noise_variance)
        for level in LEVELS:
            inside[level].extend(z <= calibration.half_width(0, level))
    for level in LEVELS:
        assert np.mean(inside[level]) == pytest.approx(level, abs=0.07)


def test_widths_between_the_measured_numbers_of_runs_are_interpolated_and_the_ends_are_kept() -> None:
    calibration = Calibration({0: (0.5, 1.0, 1.5), 4: (0.6, 1.2, 1.8), 16: (0.7, 1.4, 2.0)}, {})
    assert calibration.half_width(0) == pytest.approx(1.0)
    assert 1.0 < calibration.half_width(2) < 1.2
    assert calibration.half_width(100) == pytest.approx(1.4)
    assert Calibration.from_json(calibration.to_json()) == calibration


def test_where_past_tasks_were_too_short_to_test_an_interval_the_prediction_is_taken_at_its_word() -> None:
    calibration = Calibration({0: (0.4, 0.8, 1.2)}, {})
    assert calibration.half_width(0) == pytest.approx(0.8)
    assert calibration.half_width(4) == calibration.half_width(16) == pytest.approx(norm.ppf(0.9))
    assert 0.8 < calibration.half_width(1) < norm.ppf(0.9)


def test_too_few_tasks_leave_the_normal_widths() -> None:
    fitted = fit_task_gps(shifted_tasks(3, 0))
    features: list[dict[str, float]] = [{}, {}, {}]
    calibration = calibrate(fitted, fit_relatedness(features, task_effects(fitted)), features)
    assert calibration.half_width(0, 0.95) == pytest.approx(norm.ppf(0.975))


def test_a_history_is_distrusted_where_its_tasks_do_not_foretell_each_other() -> None:
    features: list[dict[str, float]] = [{} for _ in range(12)]
    telling = fit_task_gps(shifted_tasks(12, 0))
    assert calibrate(telling, fit_relatedness(features, task_effects(telling)), features).trust > 0.9
    found = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        shuffled = fit_task_gps([TrainingTask(task.inputs, rng.permutation(task.scores)) for task in shifted_tasks(12, 0)])
        found.append(calibrate(shuffled, fit_relatedness(features, task_effects(shuffled)), features))
    # One shuffle in some makes tasks alike by chance.
    assert np.mean([calibration.trust for calibration in found]) < 0.4
    assert min(calibration.trust for calibration in found) == MIN_TRUST
    assert Calibration.from_json(found[0].to_json()) == found[0]
    assert Calibration.from_json({}).trust == 1.0  # a model of before is asked as it was


def test_trust_needs_eight_tasks_and_a_correlation_beyond_its_error() -> None:
    assert trust_in([-0.5] * 7) == 1.0
    assert trust_in([-0.5] * 8) == MIN_TRUST
    assert trust_in([0.15] * 8) == pytest.approx(0.5)
    assert trust_in([0.8, -0.6] * 4) == MIN_TRUST
    assert trust_in([0.6, 0.4] * 4) == 1.0


def test_what_a_distrusted_history_loses_in_weight_the_process_without_it_gets() -> None:
    fitted = fit_task_gps(shifted_tasks(8, 0))
    views = task_weightings(fit_relatedness([{}] * 8, task_effects(fitted)), {}, np.arange(8))
    usual, distrusted = (np.exp(HistoryPrior(fitted, views, trust=trust).log_weights) for trust in (1.0, 0.1))
    assert usual.sum() == pytest.approx(1.0)
    assert distrusted.sum() == pytest.approx(1.0)
    assert distrusted[-1] > 0.8 > 0.2 > usual[-1]


@pytest.mark.parametrize("n", [6, 16, 48])
def test_intervals_from_a_tasks_own_runs_alone_hold_about_what_they_claim(n: int) -> None:
    rng = np.random.default_rng(n)
    inside = {level: [] for level in LEVELS}
    for _ in range(24):
        centre, width = rng.random(4), rng.uniform(0.5, 2.0, 4)
        inputs = rng.random((n + 40, 4))
        values = -((np.abs(inputs - centre) * width).sum(1) ** 1.5) + 0.05 * rng.normal(size=n + 40)
        posterior = SingleTaskPosterior(TargetTaskData(inputs[:n], values[:n], RunGroups.asked(n)))
        told = single_task_scores(values[:n])
        slope, offset = np.polyfit(values[:n], told, 1)  # standardised outcomes: without far outliers a straight line
        prediction = posterior.predict(inputs[n:])
        scale = np.sqrt(prediction.variance[0] + posterior.noise_variance)
        z = np.abs(slope * values[n:] + offset - prediction.mean[0]) / scale
        for level in LEVELS:
            inside[level].extend(z <= Calibration({}, {}).half_width(n, level))
    for level in LEVELS:
        assert np.mean(inside[level]) == pytest.approx(level, abs=0.1)
