from __future__ import annotations

import math
from dataclasses import asdict

from hypothesis import given
from hypothesis import strategies as st

from store.recording.summary import Summary

NUMBERS = st.one_of(st.floats(-3, 3), st.integers(-2, 2).map(float), st.sampled_from([math.nan, math.inf, -math.inf]))
CALLS = st.lists(st.tuples(st.one_of(st.none(), NUMBERS), st.integers(0, 5)), max_size=12)


def shown(summary: Summary) -> str:
    return repr(asdict(summary))  # NaN is equal to itself here


@given(st.lists(CALLS, max_size=4))
def test_a_series_counts_as_its_values_one_by_one(series: list[list[tuple[float | None, int]]]) -> None:
    at_once, one_by_one = Summary(), Summary()
    for calls in series:
        if calls:
            at_once.add_series([value for value, _ in calls], [step for _, step in calls])
        for value, step in calls:
            if value is not None:
                one_by_one.add(value, step)
    assert shown(at_once) == shown(one_by_one)


@given(st.lists(st.floats(-3, 3), min_size=1), st.lists(st.floats(-3, 3), min_size=1))
def test_a_plain_series_counts_as_its_values_one_by_one(first: list[float], second: list[float]) -> None:
    at_once, one_by_one = Summary(), Summary()
    at_once.add_series(first, range(len(first)))
    at_once.add_series(second, range(len(first), len(first) + len(second)))
    for step, value in enumerate(first + second):
        one_by_one.add(value, step)
    assert shown(at_once) == shown(one_by_one)
    at_once.add(-9.0, len(first + second) - 1)  # the last step again
    one_by_one.add(-9.0, len(first + second) - 1)
    assert shown(at_once) == shown(one_by_one)
