"""A search space as arrays: thousands of candidates are drawn, snapped and encoded at once. Arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import qmc

from metamodel.space.arrays import FloatArray
from metamodel.space.dimensions import Dimension, Space, is_number
from metamodel.space.encoding import Column, Encoder

MAX_ENUMERATED = 16
"""Values of an interval up to which all of them are tried one by one; beyond, it is searched as if it were continuous, and snapped."""


@dataclass(frozen=True)
class Axis:
    """One dimension of the space and where it stands among the encoded columns.

    Attributes:
        dimension: The dimension.
        column: Its column of the encoder; None where the encoder does not know it.
        start: First encoded column.
    """

    dimension: Dimension
    column: Column | None
    start: int

    @property
    def is_free(self) -> bool:
        """Whether it can be climbed along a gradient."""
        is_interval = self.dimension.choices is None and self.dimension.n_values > MAX_ENUMERATED
        return is_interval and self.column is not None and not self.column.choices

    @cached_property
    def positions(self) -> FloatArray:
        """Position of each choice on the dimension's own scale; the index itself for labels."""
        choices = self.dimension.choices or ()
        if not self.dimension.is_numeric:
            return np.arange(len(choices), dtype=np.float64)
        return np.array([self.dimension.scaled(choice) for choice in choices])

    @cached_property
    def _encoded_choices(self) -> FloatArray:
        assert self.column is not None
        return self.column.encode(list(self.dimension.choices or ()))

    def from_unit(self, units: FloatArray) -> FloatArray:
        """Map numbers in [0, 1] to coordinates, uniformly on the dimension's own scale."""
        dim = self.dimension
        if dim.choices is not None:
            return np.minimum(np.floor(units * len(dim.choices)), len(dim.choices) - 1.0)
        if dim.is_log:
            margin = 0.5 if dim.is_int else 0.0
            low, high = math.log(max(dim.low - margin, 1e-300)), math.log(dim.high + margin)
            return self.snap(np.exp(low + units * (high - low)))
        half = 0.0 if dim.step is None else dim.step / 2
        return self.snap(dim.low - half + units * (dim.high - dim.low + 2 * half))

    def snap(self, numbers: npt.NDArray[np.floating[Any]]) -> FloatArray:
        """Return the nearest possible coordinates."""
        dim = self.dimension
        if dim.choices is not None:
            return np.asarray(np.clip(np.rint(numbers), 0, len(dim.choices) - 1.0), dtype=np.float64)
        clipped = np.asarray(np.clip(numbers, dim.low, dim.high), dtype=np.float64)
        if dim.step is None:
            return clipped
        snapped: FloatArray = np.minimum(dim.low + np.rint((clipped - dim.low) / dim.step) * dim.step, dim.high)
        return snapped

    def moved(self, numbers: FloatArray, steps: FloatArray, units: FloatArray) -> FloatArray:
        """Move coordinates by a share of the range on the dimension's own scale; labels are drawn anew from ``units``."""
        dim = self.dimension
        if not dim.is_numeric:
            return self.from_unit(units)
        if dim.choices is not None:
            wanted = self.positions[numbers.astype(np.intp)] + steps
            nearest = np.abs(wanted[:, None] - self.positions[None, :]).argmin(1)
            return np.asarray(nearest, dtype=np.float64)
        if dim.high == dim.low:
            return numbers
        if dim.is_log:
            span = math.log(dim.high / dim.low)
            return self.snap(dim.low * np.exp(np.clip(np.log(numbers / dim.low) / span + steps, 0, 1) * span))
        return self.snap(numbers + steps * (dim.high - dim.low))

    def encode(self, numbers: FloatArray) -> FloatArray:
        """Encode coordinates, shape ``(n, width)``."""
        assert self.column is not None
        if self.dimension.choices is not None:
            return self._encoded_choices[numbers.astype(np.intp)]
        if self.column.choices:  # numbers where the history has labels
            return self.column.encode([self.value(number) for number in numbers])
        return self.column.encode_numbers(numbers)

    def position(self, numbers: FloatArray) -> FloatArray:
        """Return where coordinates lie on the dimension's own scale, 0 at ``low`` and 1 at ``high``; of a list the index."""
        dim = self.dimension
        if dim.choices is not None or dim.high == dim.low:
            return numbers
        if not dim.is_log:
            return (numbers - dim.low) / (dim.high - dim.low)
        found: FloatArray = np.log(np.maximum(numbers, dim.low * 1e-6) / dim.low) / math.log(dim.high / dim.low)
        return found

    def alternatives(self, number: float) -> FloatArray:
        """Return the other values worth trying in place of one: all of a short list, else the next on both sides."""
        dim = self.dimension
        if dim.choices is not None:
            return np.delete(np.arange(len(dim.choices), dtype=np.float64), int(number))
        if dim.step is None or dim.n_values == 1:
            return np.zeros(0)
        if dim.n_values <= MAX_ENUMERATED:
            values = self.snap(dim.low + np.arange(int(dim.n_values)) * dim.step)
        else:
            values = self.snap(number + np.array([-1.0, 1.0]) * dim.step)
        return values[np.abs(values - number) > 1e-9 * max(abs(number), dim.step)]

    def value(self, number: float) -> Any:
        """Return the value of one coordinate, as the user's space writes it."""
        if self.dimension.choices is not None:
            return self.dimension.choices[int(number)]
        return self.dimension.snap(float(number))

    def coordinate(self, value: Any) -> float:
        """Return the coordinate of a value, snapped into the space."""
        snapped = self.dimension.snap(value)
        return float(snapped) if self.dimension.choices is None else float(self.dimension.choices.index(snapped))


class Coordinates:
    """A space as ``d`` numbers a configuration: the value of an interval, the index of a choice.

    Args:
        space: The space.
        encoder: How configurations become inputs of a meta-model.
        context: What every configuration has in addition to the space.
    """

    def __init__(self, space: Space, encoder: Encoder, context: Mapping[str, Any]) -> None:
        self.names = tuple(space)
        self._base = encoder.encode([context])[0]
        places = encoder.places
        self.axes = tuple(Axis(dimension, *places.get(name, (None, 0))) for name, dimension in space.items())

    def sample(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Draw ``n`` points that fill the space evenly (scrambled Sobol), shape ``(n, d)``."""
        units = qmc.Sobol(len(self.axes), rng=rng).random_base2(math.ceil(math.log2(n)))[:n]
        return self.from_units(units)

    def from_units(self, units: FloatArray) -> FloatArray:
        """Map the unit cube to points, shape ``(n, d)``."""
        return np.column_stack([axis.from_unit(units[:, j]) for j, axis in enumerate(self.axes)])

    def points(self, configs: Sequence[Mapping[str, Any]]) -> FloatArray:
        """Return configurations, which must name every dimension, as points, shape ``(n, d)``."""
        rows = [[axis.coordinate(config[name]) for name, axis in zip(self.names, self.axes, strict=True)] for config in configs]
        return np.array(rows, dtype=np.float64).reshape(len(configs), len(self.axes))

    @property
    def is_interval(self) -> npt.NDArray[np.bool_]:
        """Which dimensions are intervals rather than lists, shape ``(d,)``."""
        return np.array([axis.dimension.choices is None for axis in self.axes], dtype=bool)

    def positions(self, points: FloatArray) -> FloatArray:
        """Return where points lie on the scale of each dimension, in [0, 1]; of a list the index of the choice. Shape ``(n, d)``."""
        return np.column_stack([axis.position(points[:, j]) for j, axis in enumerate(self.axes)])

    def config(self, point: FloatArray) -> dict[str, Any]:
        """Return one point as a configuration."""
        return {name: axis.value(float(number)) for name, axis, number in zip(self.names, self.axes, point, strict=True)}

    def encode(self, points: FloatArray) -> FloatArray:
        """Encode points with their context, shape ``(n, width)``."""
        inputs = np.tile(self._base, (len(points), 1))
        for j, axis in enumerate(self.axes):
            if axis.column is not None:
                inputs[:, axis.start : axis.start + axis.column.width] = axis.encode(points[:, j])
        return inputs

    def neighbours(self, centres: FloatArray, n: int, scale: float, rng: np.random.Generator) -> FloatArray:
        """Draw points near some: each dimension moves with probability one half.

        Args:
            centres: Shape ``(c, d)``.
            n: How many for each.
            scale: Standard deviation in units of a dimension's range.
            rng: Source of randomness.

        Returns:
            Shape ``(c n, d)``.
        """
        found = np.repeat(centres, n, axis=0)
        is_moved = rng.random(found.shape) < 0.5
        steps, units = rng.normal(0.0, scale, found.shape), rng.random(found.shape)
        for j, axis in enumerate(self.axes):
            found[:, j] = np.where(is_moved[:, j], axis.moved(found[:, j], steps[:, j], units[:, j]), found[:, j])
        return found

    def flips(self, point: FloatArray) -> FloatArray:
        """Return all points that differ from one in a single coordinate that is no continuous number, shape ``(m, d)``."""
        found = [np.zeros((0, len(point)))]
        for j, axis in enumerate(self.axes):
            others = axis.alternatives(float(point[j]))
            rows = np.repeat(point[None], len(others), axis=0)
            rows[:, j] = others
            found.append(rows)
        return np.concatenate(found)

    @cached_property
    def free(self) -> tuple[int, ...]:
        """Which axes can be climbed along a gradient."""
        return tuple(j for j, axis in enumerate(self.axes) if axis.is_free)

    @cached_property
    def free_columns(self) -> npt.NDArray[np.intp]:
        """The encoded column of each free axis."""
        return np.array([self.axes[j].start for j in self.free], dtype=np.intp)

    @cached_property
    def free_bounds(self) -> list[tuple[float, float]]:
        """Encoded ends of each free axis."""
        ends = [self.axes[j].encode(np.array([self.axes[j].dimension.low, self.axes[j].dimension.high]))[:, 0] for j in self.free]
        return [(float(low), float(high)) for low, high in ends]

    def with_free(self, point: FloatArray, encoded: FloatArray) -> FloatArray:
        """Return a point whose free coordinates are the nearest possible to encoded ones, shape ``(d,)``."""
        result = point.copy()
        for j, value in zip(self.free, encoded, strict=True):
            column = self.axes[j].column
            assert column is not None
            result[j] = self.axes[j].snap(column.decode_numbers(np.array([value])))[0]
        return result


def listed(coordinates: Coordinates, limit: int) -> FloatArray | None:
    """List a whole finite space, shape ``(n, d)``, or None where it is infinite or has more than ``limit`` configurations."""
    dimensions = [axis.dimension for axis in coordinates.axes]
    if math.prod(dimension.n_values for dimension in dimensions) > limit:
        return None
    values = []
    for axis in coordinates.axes:
        dim = axis.dimension
        n = np.arange(int(dim.n_values), dtype=np.float64)
        values.append(n if dim.choices is not None else axis.snap(dim.low + n * (dim.step or 0.0)))
    return np.stack(np.meshgrid(*values, indexing="ij"), axis=-1).reshape(-1, len(values))


def is_complete(config: Mapping[str, Any], space: Space) -> bool:
    """Say whether a configuration has a value for every dimension that can be placed there."""
    return all(name in config and (dim.choices is not None or is_number(config[name])) for name, dim in space.items())
