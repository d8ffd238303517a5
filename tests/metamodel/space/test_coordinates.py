"""A space as arrays agrees with the same space one configuration at a time."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from metamodel.space.coordinates import Coordinates, is_complete, listed
from metamodel.space.dimensions import parse_space
from metamodel.space.encoding import Encoder, fit_encoder

SPACE: dict[str, Any] = {
    "lr": FloatDistribution(1e-5, 1e-1, log=True),
    "dropout": FloatDistribution(0.0, 0.5, step=0.05),
    "num_layers": IntDistribution(1, 200, log=True),
    "kernel_width": IntDistribution(16, 64, step=16),
    "batch_size": [16, 32, 64, 128],
    "optimizer": CategoricalDistribution(["sgd", "adam", None]),
    "nesterov": [True, False],
    "momentum": FloatDistribution(0.5, 0.5),
}


@pytest.fixture
def coordinates() -> Coordinates:
    space = parse_space(SPACE)
    return Coordinates(space, Encoder(()).extended(space, []), {"weight_decay": 0.1})


def test_every_sample_is_a_configuration_of_the_space_and_survives_the_way_back(coordinates: Coordinates) -> None:
    space, points = parse_space(SPACE), coordinates.sample(300, np.random.default_rng(0))
    configs = [coordinates.config(point) for point in points]
    assert all(space[name].contains(value) for config in configs for name, value in config.items())
    assert np.allclose(coordinates.points(configs), points, rtol=1e-12)
    assert {type(config["kernel_width"]) for config in configs} == {int}
    assert np.allclose(coordinates.encode(points), Encoder(()).extended(space, []).encode(configs), atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_the_unit_cube_means_the_same_as_for_one_dimension(units: list[float]) -> None:
    space = parse_space(SPACE)
    coordinates = Coordinates(space, Encoder(()).extended(space, []), {})
    config = coordinates.config(coordinates.from_units(np.array([units]))[0])
    for (name, dimension), unit in zip(space.items(), units, strict=True):
        want = dimension.from_unit(unit)
        assert config[name] == (pytest.approx(want) if isinstance(want, float) else want)


def test_each_value_of_a_list_and_each_decade_is_drawn_equally_often(coordinates: Coordinates) -> None:
    configs = [coordinates.config(point) for point in coordinates.sample(4096, np.random.default_rng(0))]
    decades = Counter(math.floor(math.log10(config["learning_rate"])) for config in configs)
    sizes, widths = Counter(config["per_device_batch_size"] for config in configs), Counter(config["kernel_width"] for config in configs)
    for counts in (decades, sizes, widths):
        assert all(900 < counts[key] < 1150 for key in counts if key != -1)


def test_what_a_history_encodes_otherwise_is_encoded_as_it_does() -> None:
    seen = [
        {"learning_rate": rate, "optimizer": name, "kernel_width": w}
        for rate, name, w in [(1e-4, "sgd", 8), (1e-2, "adam", 700), (0.5, "lion", 30)]
    ]
    encoder, space = fit_encoder([seen]), parse_space({name: SPACE[name] for name in ("lr", "optimizer", "kernel_width", "batch_size")})
    coordinates = Coordinates(space, encoder, {"dropout": 0.5})
    points = coordinates.sample(64, np.random.default_rng(1))
    assert np.allclose(coordinates.encode(points), encoder.encode([coordinates.config(point) for point in points]), atol=1e-12)


def test_neighbours_stay_inside_and_move_by_what_is_asked(coordinates: Coordinates) -> None:
    space, centre = parse_space(SPACE), coordinates.sample(1, np.random.default_rng(0))
    found = coordinates.neighbours(centre, 500, 0.02, np.random.default_rng(1))
    configs = [coordinates.config(point) for point in found]
    assert all(space[name].contains(value) for config in configs for name, value in config.items())
    moved = [
        space["learning_rate"].scaled(c["learning_rate"]) - space["learning_rate"].scaled(coordinates.config(centre[0])["learning_rate"])
        for c in configs
    ]
    assert 0.4 < np.mean(np.array(moved) == 0) < 0.6
    assert 0.005 < np.std(moved) < 0.03


def test_flips_change_one_value_at_a_time_and_list_all_of_a_short_list(coordinates: Coordinates) -> None:
    point = coordinates.points(
        [{**{name: dim.from_unit(0.5) for name, dim in parse_space(SPACE).items()}, "num_layers": 7, "dropout": 0.25}]
    )[0]
    flips = coordinates.flips(point)
    assert ((flips != point).sum(1) == 1).all()
    values = {name: {coordinates.config(flip)[name] for flip in flips} for name in coordinates.names}
    assert values["optimizer"] == {"sgd", "adam", None}
    assert values["kernel_width"] == {16, 32, 48, 64}
    assert values["num_layers"] == {6, 7, 8}
    assert len(values["learning_rate"]) == len(values["momentum"]) == 1


def test_a_free_coordinate_is_decoded_to_the_nearest_possible_value(coordinates: Coordinates) -> None:
    assert [coordinates.names[j] for j in coordinates.free] == ["learning_rate", "num_layers"]
    point = coordinates.sample(1, np.random.default_rng(0))[0]
    config = coordinates.config(coordinates.with_free(point, np.array([0.5, 0.5])))
    assert config["learning_rate"] == pytest.approx(1e-3)
    assert config["num_layers"] == 14  # the root of 200
    ends = [coordinates.with_free(point, np.array(end)) for end in zip(*coordinates.free_bounds, strict=True)]
    assert [coordinates.config(end)["num_layers"] for end in ends] == [1, 200]


def test_a_finite_space_is_listed_in_full_and_an_infinite_one_not(coordinates: Coordinates) -> None:
    space = parse_space({name: SPACE[name] for name in ("kernel_width", "batch_size", "optimizer", "dropout")})
    finite = Coordinates(space, Encoder(()).extended(space, []), {})
    points = listed(finite, 2048)
    assert points is not None
    assert len({tuple(finite.config(point).values()) for point in points}) == 4 * 4 * 3 * 11
    assert listed(finite, 500) is None
    assert listed(coordinates, 2048) is None


def test_a_configuration_that_lacks_a_number_has_no_place() -> None:
    space = parse_space({"lr": SPACE["lr"], "batch_size": SPACE["batch_size"]})
    assert is_complete({"learning_rate": 0.1, "per_device_batch_size": 7}, space)
    assert not is_complete({"learning_rate": "auto", "per_device_batch_size": 16}, space)
    assert not is_complete({"per_device_batch_size": 16}, space)
