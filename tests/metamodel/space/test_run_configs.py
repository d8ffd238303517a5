"""Configurations by column are the same configurations."""

from __future__ import annotations

import json
import math
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamodel.space.run_configs import ConfigColumns, column_of
from store.sqlite.cache import from_columns, to_columns

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(),
    st.text(max_size=5),
    st.tuples(st.floats(0, 1), st.integers(0, 9)),
    st.just({}),
    st.just([64, 32]),
)
CONFIGS = st.lists(st.dictionaries(st.sampled_from(["lr", "optimizer", "layers", "betas"]), VALUES), min_size=1, max_size=8)


def told(configs: Any) -> list[dict[str, str]]:
    return [{name: repr(value) for name, value in sorted(config.items())} for config in configs]


@given(CONFIGS)
def test_what_was_cached_comes_back_with_its_types_and_its_gaps(configs: list[dict[str, Any]]) -> None:
    back = ConfigColumns(*from_columns(json.loads(json.dumps(to_columns(configs)))))
    assert told(back) == told(configs)
    assert told([back[-1]]) == told([configs[-1]])
    assert len(back) == len(configs)
    for name in ("lr", "betas", "unknown"):
        assert list(map(repr, column_of(back, name))) == list(map(repr, column_of(configs, name)))


def test_no_runs_and_no_hyperparameters_are_nothing_special() -> None:
    assert list(ConfigColumns(*from_columns(to_columns([{}, {}])))) == [{}, {}]
    assert list(ConfigColumns(0, {}, {})) == []


def test_zero_of_either_sign_and_whole_numbers_of_either_type_stay_apart() -> None:
    back = ConfigColumns(*from_columns(json.loads(json.dumps(to_columns([{"a": 0.0, "b": 1}, {"a": -0.0, "b": 1.0}])))))
    assert [math.copysign(1, config["a"]) for config in back] == [1, -1]
    assert [type(config["b"]) for config in back] == [int, float]


def test_a_part_of_the_runs_can_be_asked_for() -> None:
    columns = ConfigColumns(3, {"opt": "adam"}, {"lr": [1.0, 2.0, 3.0]})
    assert columns[1:] == ({"opt": "adam", "lr": 2.0}, {"opt": "adam", "lr": 3.0})
    assert [config["lr"] for config in columns] == [1.0, 2.0, 3.0]
    assert column_of(({"path": PurePosixPath("a")}, {}), "path") == [PurePosixPath("a"), None]


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 3 values, got"):
        ConfigColumns(3, {}, {"lr": [1.0, 2.0]})
