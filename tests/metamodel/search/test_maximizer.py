"""The best configurations of a space, on landscapes whose top is known."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pytest
from optuna.distributions import FloatDistribution

from metamodel.search.maximizer import best_configs
from metamodel.space.coordinates import Coordinates
from metamodel.space.dimensions import Space, parse_space
from metamodel.space.encoding import Encoder

FloatArray = npt.NDArray[np.float64]


class Hill:
    """Higher the nearer to a top, and how often it was asked."""

    has_gradient = False

    def __init__(self, top: FloatArray) -> None:
        self.top, self.n_asked = top, 0

    def values(self, inputs: FloatArray) -> FloatArray:
        self.n_asked += len(inputs)
        return np.asarray(-np.square(inputs - self.top).sum(1))

    def slope(self, row: FloatArray) -> tuple[float, FloatArray]:
        raise AssertionError(f"a landscape without a gradient was asked for it at {row}")

    def is_supported(self, points: Mapping[str, FloatArray]) -> npt.NDArray[np.bool_]:
        return np.ones(len(next(iter(points.values()))), dtype=bool)


def seven_numbers() -> tuple[Space, Coordinates]:
    space = parse_space({f"x{i}": FloatDistribution(0, 1) for i in range(7)})
    return space, Coordinates(space, Encoder(()).extended(space, []), {})


def test_the_top_of_seven_numbers_is_found_in_some_thousand_candidates() -> None:
    space, coordinates = seven_numbers()
    rng = np.random.default_rng(0)
    for seed in range(5):
        hill = Hill(rng.uniform(0.1, 0.9, 7))
        (best,) = best_configs(hill, space, coordinates, [], 1, np.random.default_rng(seed))
        assert np.abs(np.array([best[name] for name in coordinates.names]) - hill.top).max() < 0.1
        assert hill.n_asked < 2_500


def test_the_first_of_several_is_the_one_that_stands_alone() -> None:
    space, coordinates = seven_numbers()
    hill = Hill(np.full(7, 0.3))
    alone, several = (best_configs(hill, space, coordinates, [], k, np.random.default_rng(1)) for k in (1, 12))
    assert several[0] == alone[0]
    assert len(several) == 12
    for i, config in enumerate(several):
        for other in several[:i]:
            assert max(abs(config[name] - other[name]) for name in space) >= 0.05


def test_a_known_configuration_is_a_place_to_look_around() -> None:
    space, coordinates = seven_numbers()
    hill = Hill(np.full(7, 0.9))
    known = {f"x{i}": 0.89 for i in range(7)}
    (best,) = best_configs(hill, space, coordinates, [known], 1, np.random.default_rng(0))
    assert np.abs(np.array(list(best.values())) - 0.9).max() < 0.02


@pytest.mark.parametrize("k", [1, 5])
def test_a_small_grid_is_listed_in_full(k: int) -> None:
    space = parse_space({"a": list(range(20)), "b": list(range(30))})
    coordinates = Coordinates(space, Encoder(()).extended(space, []), {})
    hill = Hill(coordinates.encode(coordinates.points([{"a": 7, "b": 23}]))[0])
    found = best_configs(hill, space, coordinates, [], k, np.random.default_rng(0))
    assert found[0] == {"a": 7, "b": 23}
    assert len(found) == k
    assert hill.n_asked == 600
