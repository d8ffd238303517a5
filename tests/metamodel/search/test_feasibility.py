"""The failure rate: high where runs failed, low where they did not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from metamodel.search.failure_trend import PRIOR_RATE
from metamodel.search.feasibility import Feasibility


def test_without_failures_the_prior_speaks() -> None:
    feasibility = Feasibility(np.random.default_rng(0).random((5, 2)), np.zeros(5, dtype=bool), np.ones(5))
    assert feasibility.finish_probability(np.random.default_rng(1).random((3, 2))) == pytest.approx(1 - PRIOR_RATE)


def test_a_region_of_failures_is_found_and_the_rest_stays_good() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((200, 2))
    feasibility = Feasibility(inputs, inputs[:, 0] > 0.8, np.ones(200))
    bad, good, far = feasibility.finish_probability(np.array([[0.95, 0.5], [0.3, 0.5], [-3.0, 0.5]]))
    assert bad < 0.3
    assert good > 0.9
    assert far > 0.9


def test_a_cause_in_two_of_many_hyperparameters_is_found_though_no_run_is_near() -> None:
    rng = np.random.default_rng(0)
    inputs = rng.random((400, 8))
    feasibility = Feasibility(inputs, inputs[:, 0] + inputs[:, 1] > 1.5, np.ones(400))
    asked = rng.random((200, 8))
    fails = asked[:, 0] + asked[:, 1] > 1.5
    probability = feasibility.finish_probability(asked)
    assert probability[fails].mean() < 0.35
    assert probability[~fails].mean() > 0.92


def test_the_slope_is_that_of_the_probability() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.random((60, 3))
    feasibility = Feasibility(inputs, inputs[:, 0] > 0.7, rng.uniform(1, 4, 60))
    for row in rng.random((5, 3)):
        value, gradient = feasibility.gradient(row)
        assert value == pytest.approx(feasibility.finish_probability(row[None])[0])
        reference = approx_fprime(row, lambda x: float(feasibility.finish_probability(x[None])[0]), 1e-6)
        np.testing.assert_allclose(gradient, reference, atol=1e-4)


def test_own_failures_weigh_more_than_those_of_others() -> None:
    inputs = np.zeros((2, 1))
    failed = np.array([True, False])
    light = Feasibility(inputs, failed, np.array([1.0, 1.0])).finish_probability(np.zeros((1, 1)))
    heavy = Feasibility(inputs, failed, np.array([4.0, 1.0])).finish_probability(np.zeros((1, 1)))
    assert heavy < light


def test_without_a_column_the_overall_rate_speaks() -> None:
    feasibility = Feasibility(np.zeros((4, 0)), np.array([True, True, False, False]), np.ones(4))
    assert feasibility.finish_probability(np.zeros((2, 0))) == pytest.approx(1 - (2 + PRIOR_RATE) / 5)
