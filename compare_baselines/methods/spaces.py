"""The space that recorded configurations span, and configurations as points of a unit cube for distances and surrogates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from metamodel.space.dimensions import Dimension, Space, is_number, parse_space
from metamodel.space.encoding import column_order, fit_encoder

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FloatArray = npt.NDArray[np.float64]


def space_of(configs: Sequence[Mapping[str, Any]], given: Mapping[str, BaseDistribution | Sequence[Any]] | None = None) -> Space:
    """Return the space that configurations span: what varies in them, between the smallest and the largest value.

    A scale is logarithmic where the values are spread more evenly there, by the same rule as in the meta-model's encoder.

    Args:
        configs: By canonical name.
        given: A space by raw name; it then decides which hyperparameters there are, and their scales.

    Returns:
        Canonical name -> dimension, sorted by ``column_order``.
    """
    if given is not None:
        parsed = parse_space(given)
        return {name: parsed[name] for name in sorted(parsed)}
    space: Space = {}
    for name in sorted({name for config in configs for name in config}, key=column_order):
        values = [config[name] for config in configs if name in config]
        distinct = sorted({repr(value): value for value in values}.values(), key=lambda value: (str(type(value)), value))
        if len(distinct) > 1:
            space[name] = _dimension(name, distinct, values)
    return space


def _dimension(name: str, distinct: list[Any], values: list[Any]) -> Dimension:
    if not all(is_number(value) for value in distinct):
        return Dimension(name, tuple(distinct))
    # With their multiplicity: integers drawn on a log scale are all distinct neighbours at the lower end.
    columns = fit_encoder([[{name: value} for value in values]]).columns
    low, high = float(min(distinct)), float(max(distinct))
    is_int = all(isinstance(value, int | np.integer) for value in distinct)
    return Dimension(name, None, low, high, low > 0 and bool(columns) and columns[0].is_log, is_int, 1.0 if is_int else None)


def distributions_of(space: Space) -> dict[str, BaseDistribution]:
    """Return a space as Optuna's samplers take it."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, dim in space.items():
        if not dim.is_numeric:
            found[name] = CategoricalDistribution(list(dim.choices or ()))
        elif dim.is_int:
            found[name] = IntDistribution(int(dim.low), int(dim.high), log=dim.is_log)
        else:
            found[name] = FloatDistribution(dim.low, dim.high, log=dim.is_log)
    return found


@dataclass(frozen=True, slots=True)
class UnitCube:
    """Maps configurations to points whose Euclidean distance is the one that proposals are snapped by.

    A number is one coordinate on its own scale, 0 to 1 over the space; a label is one coordinate a choice, so that two labels are
    at distance 1; a hyperparameter that a configuration does not have is in the middle, with a coordinate that marks it.
    """

    space: Space

    @property
    def names(self) -> tuple[str, ...]:
        """Canonical names."""
        return tuple(self.space)

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> FloatArray:
        """Encode ``n`` configurations by canonical name, shape ``(n, d)``."""
        if not self.space:
            return np.zeros((len(configs), 0))
        return np.concatenate([_coordinates(dim, [config.get(name) for config in configs]) for name, dim in self.space.items()], axis=1)

    def nearest(self, config: Mapping[str, Any], points: FloatArray, allowed: npt.NDArray[np.bool_]) -> int:
        """Return the index of the allowed point nearest to a configuration; the first one of equals."""
        distance = np.square(points - self.encode([config])).sum(1)
        return int(np.argmin(np.where(allowed, distance, np.inf)))


def _coordinates(dim: Dimension, values: Sequence[Any]) -> FloatArray:
    missing = np.array([[float(value is None) / math.sqrt(2)] for value in values])
    if dim.is_numeric:
        numbers = [dim.scaled(float(value)) if is_number(value) else 0.5 for value in values]
        return np.concatenate([np.array(numbers)[:, None], missing], axis=1)
    choices = dim.choices or ()
    labels = np.array([[float(value == choice) / math.sqrt(2) for choice in choices] for value in values])
    return np.concatenate([labels, missing], axis=1)


def outside_counts(space: Space, configs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the values of each hyperparameter that lie outside a space, over distinct configurations."""
    return {name: sum(name in config and not dim.contains(config[name]) for config in configs) for name, dim in space.items()}


def describe_scales(space: Space, *, is_given: bool) -> list[tuple[str, str, str, str]]:
    """Say how each hyperparameter is read: rows of name, kind, range, and where that comes from."""
    rows = []
    for name, dim in space.items():
        if not dim.is_numeric:
            rows.append((name, "label", ", ".join(map(str, dim.choices or ())), "space file" if is_given else "values"))
            continue
        kind = ("log" if dim.is_log else "linear") + (" integer" if dim.is_int else "")
        rows.append((name, kind, f"{dim.low:g} to {dim.high:g}", "space file" if is_given else "spread of the values"))
    return rows
