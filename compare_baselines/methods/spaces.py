"""The space that recorded configurations span, and configurations as points of a unit cube for distances and surrogates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from metamodel.space.batch import with_global_batch
from metamodel.space.dimensions import Dimension, Space, is_number, parse_space
from metamodel.space.encoding import column_order, fit_encoder

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

FloatArray = npt.NDArray[np.float64]

MAX_LABELS_SHOWN, MAX_LABEL_SHOWN = 8, 30
"""Labels of a name, and characters of each, that a table shows."""


def space_of(configs: Sequence[Mapping[str, Any]], given: Mapping[str, BaseDistribution | Sequence[Any]] | None = None) -> Space:
    """Return the space that configurations span: what varies in them, between the smallest and the largest value.

    A scale is logarithmic where the values are spread more evenly there, by the same rule as in the meta-model's encoder.

    Args:
        configs: By canonical name, with the global batch.
        given: A space by raw name; it then decides which hyperparameters there are, and their scales.

    Returns:
        Canonical name -> dimension, sorted by ``column_order``.
    """
    if given is not None:
        parsed = with_global_batch(parse_space(given))
        return {name: parsed[name] for name in sorted(parsed, key=column_order)}
    space: Space = {}
    for name in sorted({name for config in configs for name in config}, key=column_order):
        dimension = _dimension(name, [config[name] for config in configs if name in config])
        if dimension is not None:
            space[name] = dimension
    return space


def as_label(value: Any) -> str:
    """Return a value as one of a list of labels: text, since of a mixture neither order nor equality can be relied on."""
    return value if isinstance(value, str) else str(value)


def _dimension(name: str, values: list[Any]) -> Dimension | None:
    """Return what values span; None where they are all the same. A name is a number where most values are, as in the encoder."""
    numbers = [value for value in values if is_number(value)]
    if len(numbers) <= len(values) / 2 or len(set(numbers)) < 2:
        labels = sorted(set(map(as_label, values)))
        return Dimension(name, tuple(labels)) if len(labels) > 1 else None
    # With their multiplicity: integers drawn on a log scale are all distinct neighbours at the lower end.
    columns = fit_encoder([[{name: value} for value in numbers]]).columns
    low, high = float(min(numbers)), float(max(numbers))
    is_int = all(isinstance(value, int | np.integer) for value in numbers)
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
    if dim.is_numeric:
        missing = np.array([[float(not is_number(value)) / math.sqrt(2)] for value in values])
        numbers = [dim.scaled(float(value)) if is_number(value) else 0.5 for value in values]
        return np.concatenate([np.array(numbers)[:, None], missing], axis=1)
    places = {as_label(choice): place for place, choice in enumerate(dim.choices or ())}
    coordinates = np.zeros((len(values), len(places) + 1))
    for row, value in zip(coordinates, values, strict=True):
        place = places.get(as_label(value), len(places) if value is None else None)
        if place is not None:
            row[place] = 1 / math.sqrt(2)
    return coordinates


def outside_counts(space: Space, configs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count the values of each hyperparameter that lie outside a space, over distinct configurations."""
    return {name: sum(name in config and not _contains(dim, config[name]) for config in configs) for name, dim in space.items()}


def _contains(dim: Dimension, value: Any) -> bool:
    return dim.contains(value) if dim.is_numeric else as_label(value) in map(as_label, dim.choices or ())


def describe_scales(space: Space, *, is_given: bool) -> list[tuple[str, str, str, str]]:
    """Say how each hyperparameter is read: rows of name, kind, range, and where that comes from."""
    rows = []
    for name, dim in space.items():
        if not dim.is_numeric:
            labels = [" ".join(str(choice).split())[:MAX_LABEL_SHOWN] for choice in dim.choices or ()]
            more = f" and {len(labels) - MAX_LABELS_SHOWN} more" if len(labels) > MAX_LABELS_SHOWN else ""
            rows.append((name, "label", ", ".join(labels[:MAX_LABELS_SHOWN]) + more, "space file" if is_given else "values"))
            continue
        kind = ("log" if dim.is_log else "linear") + (" integer" if dim.is_int else "")
        rows.append((name, kind, f"{dim.low:g} to {dim.high:g}", "space file" if is_given else "spread of the values"))
    return rows
