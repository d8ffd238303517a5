"""Spaces: what is accepted, what is refused with one sentence, and the way from [0, 1] to a value."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution, distribution_to_json

from metamodel.space.dimensions import Dimension, load_space_file, parse_space
from store.errors import SpaceError


def test_a_space_is_kept_in_order_under_canonical_names() -> None:
    space = parse_space({"bs": [32, 16], "lr": FloatDistribution(1e-5, 1e-1, log=True), "act": CategoricalDistribution(["relu", "gelu"])})
    assert list(space) == ["per_device_batch_size", "learning_rate", "act"]
    assert space["per_device_batch_size"].choices == (16, 32)
    assert space["per_device_batch_size"].raw_name == "bs"
    assert space["learning_rate"].is_log
    assert not space["act"].is_numeric


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, r"must name at least one hyperparameter, but got \{\}"),
        ([("lr", [1])], r"must be a mapping of names to distributions or lists, but got list"),
        ({"lr": []}, r"must hold at least one value, but 'lr' got an empty one"),
        ({"lr": [1, 1]}, r"must hold each value once, but 'lr' got \[1, 1\]"),
        ({"lr": 0.1}, r"must be an Optuna distribution or a list of possible values, but 'lr' got 0.1"),
        ({"lr": "ab"}, r"must be an Optuna distribution or a list of possible values, but 'lr' got 'ab'"),
        ({"lr": [1], "learning_rate": [2]}, r"'lr' and 'learning_rate' both mean 'learning_rate'"),
        ({"lr": (1e-5, 1e-1)}, r"must say whether it is an interval or two choices, but 'lr' got \(1e-05, 0.1\)"),
        (parse_space({"lr": [1, 2]}), r"must be an Optuna distribution or a list of possible values, but 'learning_rate' got Dimension"),
        ({"": [1]}, r"must be a non-empty string, but got ''"),
    ],
)
def test_a_malformed_space_is_refused_with_the_value_received(space: object, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        parse_space(space)  # type: ignore[arg-type]


def test_low_above_high_in_a_space_file_is_one_clear_error(tmp_path: Path) -> None:
    file = tmp_path / "space.json"
    file.write_text(json.dumps({"lr": {"name": "FloatDistribution", "attributes": {"low": 1.0, "high": 0.1, "log": True, "step": None}}}))
    with pytest.raises(SpaceError, match=r"low must not be above high, but 'lr' got low=1.0, high=0.1. Swap them."):
        load_space_file(file)


def test_a_space_file_as_optuna_writes_it_is_read_back(tmp_path: Path) -> None:
    space = {"lr": FloatDistribution(1e-4, 1e-1, log=True), "num_layers": IntDistribution(2, 5), "opt": CategoricalDistribution(["a", "b"])}
    file = tmp_path / "space.json"
    file.write_text(json.dumps({name: json.loads(distribution_to_json(dist)) for name, dist in space.items()}))
    assert parse_space(load_space_file(file)) == parse_space(space)


@pytest.mark.parametrize(
    "content", ["[1]", "{", '{"lr": 3}', '{"lr": {"name": "Nothing", "attributes": {}}}', '{"lr": {"name": "FloatDistribution"}}']
)
def test_a_space_file_of_another_kind_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "space.json"
    file.write_text(content)
    with pytest.raises(SpaceError, match="space file"):
        load_space_file(file)


def test_a_missing_space_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match=r"nothing\.json"):
        load_space_file(tmp_path / "nothing.json")


@given(st.floats(0, 1, exclude_max=True), st.sampled_from(["log", "linear", "int", "intlog", "step", "list", "labels"]))
def test_every_number_in_the_unit_interval_becomes_a_possible_value(unit: float, kind: str) -> None:
    dimension = {
        "log": Dimension("x", None, 1e-5, 1e-1, True),
        "linear": Dimension("x", None, -2.0, 3.0),
        "int": Dimension("x", None, 2, 5, False, True, 1.0),
        "intlog": Dimension("x", None, 1, 100, True, True, 1.0),
        "step": Dimension("x", None, 0.1, 0.5, step=0.1),
        "list": Dimension("x", (16, 32, 64), 16, 64, True, True),
        "labels": Dimension("x", ("a", "b", "c")),
    }[kind]
    value = dimension.from_unit(unit)
    assert dimension.contains(value)
    assert dimension.snap(value) == pytest.approx(value) if dimension.is_numeric else dimension.snap(value) == value


def test_values_are_drawn_evenly_on_the_scale_of_the_dimension() -> None:
    space = parse_space({"lr": FloatDistribution(1e-4, 1e-0, log=True), "n": IntDistribution(1, 4)})
    configs = [
        {name: dim.from_unit(float(unit)) for (name, dim), unit in zip(space.items(), row, strict=True)}
        for row in np.random.default_rng(0).random((4000, 2))
    ]
    decades = np.histogram(np.log10([config["learning_rate"] for config in configs]), bins=4, range=(-4, 0))[0]
    counts = np.bincount([config["n"] for config in configs])[1:]
    assert decades.min() > 850
    assert decades.max() < 1150
    assert counts.min() > 850
    assert counts.max() < 1150


def test_a_number_outside_a_numeric_list_snaps_to_the_nearest_on_its_scale() -> None:
    dimension = parse_space({"bs": [16, 32, 64, 128]})["per_device_batch_size"]
    assert [dimension.snap(value) for value in (1, 22, 24, 100, 1000)] == [16, 16, 32, 128, 128]
