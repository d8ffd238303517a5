from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from metahp_report.statistics import best_so_far, bootstrap_intervals, expected_best, mean_ranks, random_equivalent


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_random_search_is_the_mean_over_all_subsets(n: int) -> None:
    values = np.random.default_rng(n).random(n)
    expected = [np.mean([min(subset) for subset in combinations(values, k)]) for k in range(1, n + 1)]
    np.testing.assert_allclose(expected_best(values, n), expected, rtol=1e-9)


def test_random_search_of_a_large_pool_stays_finite_and_ends_at_the_best() -> None:
    values = np.random.default_rng(0).random(5000)
    exact = expected_best(values, 5000)
    assert exact[0] == pytest.approx(values.mean())
    assert exact[-1] == pytest.approx(values.min())
    assert (np.diff(exact) <= 1e-12).all()


def test_the_best_so_far_never_gets_worse() -> None:
    np.testing.assert_array_equal(best_so_far(np.array([0.3, 0.5, 0.1, 0.2]), [1, 0, 3, 2]), [0.5, 0.3, 0.2, 0.1])


def test_the_equivalent_of_random_search_is_itself() -> None:
    exact = expected_best(np.random.default_rng(1).random(50), 50)
    np.testing.assert_allclose(random_equivalent(exact[:10], exact), np.arange(1, 11))
    assert random_equivalent(np.array([2.0, -1.0]), exact) == [1.0, None]


def test_intervals_hold_the_mean_and_are_paired() -> None:
    base = np.random.default_rng(2).random((12, 4))
    found = bootstrap_intervals({"a": base, "b": base + 0.5})
    assert (found["a"][:, 0] < base.mean(0)).all()
    assert (found["a"][:, 1] > base.mean(0)).all()
    np.testing.assert_allclose(found["b"] - found["a"], 0.5)


def test_ranks_share_ties() -> None:
    better, worse = np.zeros((2, 3, 1)), np.ones((2, 3, 1))
    found = mean_ranks({"a": better, "b": worse, "c": worse.copy()})
    assert [float(found[name][0]) for name in "abc"] == [1.0, 2.5, 2.5]
