"""Configurations as numbers: one column a hyperparameter, for histories whose tasks tuned different ones.

A number becomes one column, scaled to [0, 1] over what the history holds, logarithmic where the values span decades; a label
becomes one column a choice. A hyperparameter that some task does not have gets an indicator column and a neutral value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from metamodel.space.arrays import FloatArray
from metamodel.space.dimensions import Dimension, Space, is_number
from metamodel.space.run_configs import column_of
from store.hyperparameters import GLOBAL_BATCH_SIZE, is_always_log, is_of_run

MAX_COLUMNS = 48
"""More names than this are mostly settings of no consequence; those that vary in most tasks are kept."""
MAX_CHOICES = 12
"""A label with more values than this is an identifier (a path, a run name), not a choice."""
MIN_LOG_SPAN = 8.0
"""Ratio of the largest to the smallest value from which their spread can tell a log scale from a linear one."""
OVERHANG = 0.25
"""How far outside the seen range a value may be encoded; beyond that the surrogate would only extrapolate."""

_PLAIN_NUMBERS = frozenset({int, float})
_CONTEXT = frozenset({"model_family", "optimizer", "is_pretrained", "lr_scheduler"})
"""Labels worth knowing although they are constant within a task: what is trained, and with what."""


def is_learnable(name: str) -> bool:
    """Say whether a name may matter for the outcome; scoped readings (``optimizer.lr``) repeat a hyperparameter and are left out."""
    return "." not in name and not name.startswith("_") and not is_of_run(name)


def column_order(name: str) -> str:
    """Return the key by which columns are sorted: the name, with the batch where any batch size stands.

    Networks draw their weights column by column and searches their points, so the order decides what a seed means.
    """
    return "batch_size" if name == GLOBAL_BATCH_SIZE else name


def plain_numbers(values: Sequence[Any]) -> FloatArray | None:
    """Return values as floats, shape ``(n,)``, where all are plain numbers: the usual case, thousands at once. Else None."""
    if not {*map(type, values)} <= _PLAIN_NUMBERS:
        return None
    try:
        return np.array(values, dtype=np.float64)
    except OverflowError:  # a whole number that no float can hold
        return None


@dataclass(frozen=True)
class Column:
    """One hyperparameter as the encoder sees it.

    Attributes:
        name: Canonical name.
        choices: Values of a label; empty for a number.
        low: Lower end of the range, on the encoded scale's own units (a logarithm where ``is_log``).
        high: Upper end.
        is_log: Whether numbers are taken as logarithms.
        floor: Smallest number a logarithm is taken of, so that a weight decay of 0 has a place.
        can_miss: Whether some run does not have it.
        is_context: Constant within every task: describes the task rather than being tuned.
    """

    name: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False
    floor: float = 1e-12
    can_miss: bool = False
    is_context: bool = False

    @property
    def width(self) -> int:
        """Number of encoded columns."""
        return (len(self.choices) or 1) + int(self.can_miss)

    def encode_numbers(self, numbers: FloatArray) -> FloatArray:
        """Encode finite numbers of shape ``(n,)``, shape ``(n, width)``; only for a column that is no label."""
        out = np.zeros((len(numbers), self.width))
        out[:, 0] = self._scaled(np.log(np.maximum(numbers, self.floor)) if self.is_log else numbers)
        return out

    def decode_numbers(self, encoded: FloatArray) -> FloatArray:
        """Return the numbers that are encoded so, shape ``(n,)``; inside of the range it inverts ``encode_numbers``."""
        numbers = self.low + encoded * (self.high - self.low)
        return np.exp(numbers) if self.is_log else numbers

    def encode(self, values: Sequence[Any]) -> FloatArray:
        """Encode ``n`` values (None: missing), shape ``(n, width)``."""
        n_value = len(self.choices) or 1
        out = np.zeros((len(values), self.width))
        if not self.choices and (numbers := plain_numbers(values)) is not None and np.isfinite(numbers).all():
            return self.encode_numbers(numbers)
        for i, value in enumerate(values):
            row = self._encode_one(value)
            if row is None:
                out[i, :n_value] = 0.5 if not self.choices else 1.0 / n_value
                if self.can_miss:
                    out[i, n_value] = 1.0
            else:
                out[i, :n_value] = row
        return out

    def _encode_one(self, value: Any) -> FloatArray | float | None:
        if self.choices:
            if value is None or value not in self.choices:
                return None
            return np.array([float(value == choice) for choice in self.choices])
        if not is_number(value):
            return None
        number = math.log(max(float(value), self.floor)) if self.is_log else float(value)
        return float(self._scaled(np.array(number)))

    def _scaled(self, numbers: FloatArray) -> FloatArray:
        span = self.high - self.low
        return np.clip((numbers - self.low) / span if span > 0 else np.full(numbers.shape, 0.5), -OVERHANG, 1 + OVERHANG)


@dataclass(frozen=True)
class Encoder:
    """Maps configurations to rows of shape ``(n, d)``."""

    columns: tuple[Column, ...]

    @property
    def width(self) -> int:
        """Number of encoded columns ``d``."""
        return sum(column.width for column in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Hyperparameters it knows."""
        return tuple(column.name for column in self.columns)

    @property
    def places(self) -> dict[str, tuple[Column, int]]:
        """Name -> its column, and which encoded column is its first."""
        starts = accumulate((column.width for column in self.columns), initial=0)
        return {column.name: (column, start) for column, start in zip(self.columns, starts, strict=False)}

    @property
    def is_context(self) -> npt.NDArray[np.bool_]:
        """Which encoded columns describe the task, shape ``(d,)``."""
        return np.array([column.is_context for column in self.columns for _ in range(column.width)], dtype=bool)

    @property
    def groups(self) -> list[int]:
        """Which hyperparameter each encoded column belongs to, ``d`` of them."""
        return [i for i, column in enumerate(self.columns) for _ in range(column.width)]

    @property
    def missing_row(self) -> FloatArray:
        """Encoding of a configuration of which nothing is known, shape ``(d,)``."""
        return np.asarray(self.encode([{}])[0], dtype=np.float64)

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> FloatArray:
        """Encode ``n`` configurations.

        Args:
            configs: Canonical name -> value; names without a column are ignored, missing ones are encoded as missing.

        Returns:
            Shape ``(n, d)``; numbers lie in [-0.25, 1.25], the seen range in [0, 1].
        """
        if not self.columns:
            return np.zeros((len(configs), 0))
        return np.concatenate([column.encode(column_of(configs, column.name)) for column in self.columns], axis=1)

    def extended(self, space: Space, configs: Sequence[Mapping[str, Any]]) -> Encoder:
        """Return an encoder that also knows the names of a space the history has not tuned.

        Args:
            space: The query's space.
            configs: The task's own configurations, which say whether a new name can be missing.
        """
        known = set(self.names)
        new = [
            _column_of_dimension(name, dimension, [config.get(name) for config in configs])
            for name, dimension in space.items()
            if name not in known
        ]
        return replace(self, columns=(*self.columns, *new))

    def to_json(self) -> list[dict[str, Any]]:
        """Return the columns, JSON-compatible."""
        return [{**asdict(column), "choices": list(column.choices)} for column in self.columns]

    @classmethod
    def from_json(cls, values: Iterable[Mapping[str, Any]]) -> Encoder:
        """Rebuild an encoder from ``to_json``."""
        return cls(tuple(Column(**{**value, "choices": tuple(value["choices"])}) for value in values))


def _column_of_dimension(name: str, dimension: Dimension, values: Sequence[Any]) -> Column:
    """Make a column for a name only the space knows, wide enough for the values the task's own runs had."""
    can_miss = any(value is None for value in values)
    if not dimension.is_numeric:
        return Column(name, tuple(dimension.choices or ()), can_miss=can_miss)
    seen = [float(value) for value in values if is_number(value)]
    low, high = min([dimension.low, *seen]), max([dimension.high, *seen])
    if (dimension.is_log or is_always_log(name)) and dimension.low > 0:
        floor = dimension.low * 1e-3
        return Column(name, (), math.log(max(low, floor)), math.log(high), True, floor, can_miss)
    return Column(name, (), low, high, False, 1e-12, can_miss)


def fit_encoder(task_configs: Sequence[Sequence[Mapping[str, Any]]]) -> Encoder:
    """Choose the columns a history supports.

    A name gets a column where it varies within a task, or where it is a label that tells kinds of tasks apart.

    Args:
        task_configs: For each task, its runs' configurations by canonical name.

    Returns:
        The encoder, columns sorted by ``column_order``.
    """
    varying: Counter[str] = Counter()
    values: dict[str, list[Any]] = {}
    n_configs = sum(len(configs) for configs in task_configs)
    for configs in map(list, task_configs):
        for name in {name for config in configs for name in config if is_learnable(name)}:
            here = [config[name] for config in configs if name in config and _is_scalar(config[name])]
            if len({repr(value) for value in here}) > 1:
                varying[name] += 1
            values.setdefault(name, []).extend(here)
    kept = sorted(varying, key=lambda name: (-varying[name], column_order(name)))[:MAX_COLUMNS]
    columns = []
    for name in sorted({*kept, *(_CONTEXT & values.keys())}, key=column_order):
        column = _fit_column(name, values[name], len(values[name]) < n_configs, is_context=name not in varying)
        if column is not None:
            columns.append(column)
    return Encoder(tuple(columns))


def _is_scalar(value: Any) -> bool:
    return isinstance(value, str | bool) or is_number(value)


def _fit_column(name: str, values: list[Any], can_miss: bool, *, is_context: bool) -> Column | None:
    numbers = [float(value) for value in values if is_number(value)]
    if len(numbers) > len(values) / 2:
        positive = [number for number in numbers if number > 0]
        is_log = (
            _is_more_even_on_log(numbers, positive)
            or (is_always_log(name) and len(positive) == len(numbers))
            or _doubles(positive, numbers)
        )
        can_miss = can_miss or len(numbers) < len(values)
        if not is_log:
            return Column(name, (), min(numbers), max(numbers), False, 1e-12, can_miss, is_context)
        floor = min(positive) / (10.0 if len(positive) < len(numbers) else 1000.0)
        low = math.log(floor if len(positive) < len(numbers) else min(positive))
        return Column(name, (), low, math.log(max(positive)), True, floor, can_miss, is_context)
    counts = Counter(value for value in values if isinstance(value, str | bool))
    if not 2 <= len(counts) <= MAX_CHOICES:
        return None
    return Column(name, tuple(sorted(counts, key=repr)), can_miss=can_miss, is_context=is_context)


def _is_more_even_on_log(numbers: list[float], positive: list[float]) -> bool:
    """Say whether values spanning decades were chosen on a log scale: there they lie closer to evenly spread than as they are."""
    distinct = np.unique(positive)
    if min(numbers) < 0 or len(distinct) < 2 or float(distinct[-1]) <= MIN_LOG_SPAN * float(distinct[0]):
        return False

    def unevenness(points: FloatArray) -> float:
        scaled = (points - points[0]) / (points[-1] - points[0])
        return float(np.abs(scaled - np.linspace(0, 1, len(points))).max())

    # With their multiplicity: integers drawn on a log scale are all distinct neighbours at the lower end.
    points = np.sort(np.asarray(positive))
    return unevenness(np.log(points)) < unevenness(points)


def _doubles(positive: list[float], numbers: list[float]) -> bool:
    """Few values at constant ratios (16, 32, 64) are meant on a log scale."""
    distinct = sorted(set(positive))
    if len(positive) < len(numbers) or not 3 <= len(distinct) <= 8:
        return False
    ratios = [b / a for a, b in pairwise(distinct)]
    return min(ratios) > 1.4 and max(ratios) / min(ratios) < 1.5
