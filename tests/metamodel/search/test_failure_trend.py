"""Logistic regression of failures, against SciPy's optimiser and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import PolynomialFeatures

from metamodel.search.failure_trend import INTERCEPT_PRECISION, MAX_PAIRED, PRIOR_RATE, RIDGE, FailureTrend


def failing(n: int, d: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.random((n, d))
    return inputs, inputs[:, 0] * inputs[:, -1] + 0.1 * rng.normal(size=n) > 0.4


def test_the_fit_is_that_of_a_general_optimiser() -> None:
    inputs, failed = failing(120, 3)
    weight = np.random.default_rng(1).uniform(0.5, 4, 120)
    z = 2 * inputs - 1
    features = PolynomialFeatures(2).fit_transform(z)
    precision, prior = np.full(features.shape[1], RIDGE), np.zeros(features.shape[1])
    precision[0], prior[0] = INTERCEPT_PRECISION, np.log(PRIOR_RATE / (1 - PRIOR_RATE))

    def loss(beta: np.ndarray) -> float:
        logits = features @ beta
        return float(weight @ (np.logaddexp(0, logits) - failed * logits) + 0.5 * precision @ np.square(beta - prior))

    best = minimize(loss, prior, method="BFGS", options={"gtol": 1e-8})
    expected = 1 / (1 + np.exp(-features @ best.x))
    np.testing.assert_allclose(FailureTrend.fit(inputs, failed, weight).rate(inputs), expected, atol=2e-4)


def test_with_many_runs_the_rates_are_those_of_scikit_learn() -> None:
    inputs, failed = failing(3000, 2)
    features = PolynomialFeatures(2, include_bias=False).fit_transform(2 * inputs - 1)
    reference = LogisticRegression(C=1 / RIDGE, max_iter=1000, tol=1e-8).fit(features, failed)
    found = FailureTrend.fit(inputs, failed, np.ones(3000)).rate(inputs)
    np.testing.assert_allclose(found, reference.predict_proba(features)[:, 1], atol=0.02)


@pytest.mark.parametrize("d", [1, 5, MAX_PAIRED + 1, 48])
@pytest.mark.parametrize("what", ["one", "all", "separable"])
def test_it_stays_finite_whatever_failed(d: int, what: str) -> None:
    inputs = np.random.default_rng(0).random((80, d))
    failed = {"one": np.arange(80) == 3, "all": np.ones(80, dtype=bool), "separable": inputs[:, 0] > 0.5}[what]
    trend = FailureTrend.fit(inputs, failed, np.ones(80))
    rates = trend.rate(np.concatenate([inputs, np.full((1, d), -50.0), np.full((1, d), 50.0)]))
    assert ((rates > 0) & (rates < 1)).all()
    assert rates[:80][failed].mean() > (0.5 if what != "one" else rates[:80].mean())
    if what == "one":
        assert rates[:80].mean() < 0.1


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(AssertionError, match="must have shape"):
        FailureTrend.fit(np.zeros((3, 2)), np.zeros(2, dtype=bool), np.ones(3))
