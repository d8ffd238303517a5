"""Outcomes of related groups of runs on one scale."""

from __future__ import annotations

import numpy as np
import pytest

from metamodel.data.alignment import MAX_RUNS, Kinship, align

OWN, SIBLING, ORDER_ONLY = Kinship(), Kinship(is_learned=True), Kinship(0.9, is_order_only=True)


def bowl(inputs: np.ndarray, best: float = 0.4) -> np.ndarray:
    return -np.square(inputs[:, 0] - best)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    return rng.random((n, 1)), rng


def test_a_group_by_itself_stays_as_it_is() -> None:
    inputs, _ = drawn(8)
    found = align(inputs, bowl(inputs), np.zeros(8, dtype=np.intp), [OWN])
    np.testing.assert_allclose(found.values, bowl(inputs))
    assert found.is_level_known


@pytest.mark.parametrize("offset", [-50.0, 0.3, 1e4])
def test_outcomes_that_are_comparable_in_order_only_lose_their_offset(offset: float) -> None:
    inputs, _ = drawn(20)
    index = np.repeat([0, 1], 10)
    found = align(inputs, bowl(inputs) + offset * index, index, [OWN, ORDER_ONLY])
    np.testing.assert_allclose(found.values, bowl(inputs), atol=0.08)
    np.testing.assert_array_equal(found.values[:10], bowl(inputs)[:10])
    assert found.correlations.tolist() == [1.0, 0.9]


def test_outcomes_of_another_scale_get_the_spread_of_the_reference() -> None:
    inputs, _ = drawn(40)
    index = np.repeat([0, 1], 20)
    found = align(inputs, np.where(index == 1, 7.0 + 5 * bowl(inputs), bowl(inputs)), index, [OWN, ORDER_ONLY])
    np.testing.assert_allclose(found.values, bowl(inputs), atol=0.08)


def test_folds_of_one_run_each_are_pooled_by_their_outcomes() -> None:
    inputs, rng = drawn(5)
    values = bowl(inputs) + 0.01 * rng.normal(size=5)
    found = align(inputs, values, np.arange(5), [OWN, SIBLING, SIBLING, SIBLING, SIBLING])
    assert np.argsort(found.values).tolist() == np.argsort(values).tolist()
    assert (found.correlations[1:] > 0.5).all()


def test_a_sibling_that_goes_another_way_counts_less_than_one_that_goes_along() -> None:
    inputs, rng = drawn(24)
    index = np.repeat([0, 1], 12)
    noise = 0.02 * rng.normal(size=24)
    like, unlike = (
        align(inputs, noise + np.where(index == 0, bowl(inputs), bowl(inputs, best)), index, [OWN, SIBLING]).correlations[1]
        for best in (0.4, 1.2)
    )
    assert like > 0.85
    assert unlike < 0.6


def test_without_runs_of_what_is_asked_the_level_is_that_of_a_sibling_or_unknown() -> None:
    inputs, _ = drawn(6)
    by_sibling = align(inputs, bowl(inputs), np.ones(6, dtype=np.intp), [OWN, SIBLING])
    by_order = align(inputs, bowl(inputs), np.ones(6, dtype=np.intp), [OWN, ORDER_ONLY])
    assert by_sibling.is_level_known
    assert not by_order.is_level_known
    np.testing.assert_allclose(by_order.values, bowl(inputs))


def test_failed_runs_and_exploded_losses_move_nobody() -> None:
    inputs, _ = drawn(20)
    index = np.repeat([0, 1], 10)
    values = bowl(inputs) + 3.0 * index
    values[3] = np.nan
    values[12] = -1e9
    found = align(inputs, values, index, [OWN, ORDER_ONLY])
    keep = ~np.isin(np.arange(20), [3, 12])
    np.testing.assert_allclose(found.values[keep], bowl(inputs)[keep], atol=0.25)
    assert np.isnan(found.values[3])


def test_no_outcome_at_all_is_no_error() -> None:
    found = align(np.zeros((3, 2)), np.full(3, np.nan), np.array([0, 1, 1]), [OWN, SIBLING])
    assert np.isnan(found.values).all()


def test_many_runs_are_looked_at_in_turn_so_that_each_group_has_its_offset() -> None:
    inputs, _ = drawn(2 * MAX_RUNS + 6)
    index = np.repeat([0, 1], [2 * MAX_RUNS, 6])
    found = align(inputs, bowl(inputs) + 9.0 * index, index, [OWN, ORDER_ONLY])
    np.testing.assert_allclose(found.values, bowl(inputs), atol=0.1)
