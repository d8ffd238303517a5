"""Search spaces: what a user lets us choose from. A query-time thing, never stored with a run.

A space is ``{raw name: Optuna distribution or list}``. A list of numbers is a set of ordered numbers, not of labels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import SpaceError
from store.names import canonical_name

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

MAX_LISTED_VALUES = 12
"""A number seen with at most this many values is one of these (a batch size, a number of layers), not one of an interval."""
LOG_RATIO = 20.0
"""A list of positive numbers spanning more than this is read on a log scale."""


def is_number(value: object) -> bool:
    """Say whether a value is a finite number; booleans are labels."""
    if type(value) is float:  # almost all there are, and a history has many
        return math.isfinite(value)
    if not isinstance(value, int | float | np.number) or isinstance(value, bool | np.bool_):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # a whole number that no float can hold
        return False


@dataclass(frozen=True, slots=True)
class Dimension:
    """One hyperparameter of a space.

    Attributes:
        raw_name: As the user wrote it.
        choices: The possible values of a list; None for an interval.
        low: Smallest value of an interval or of a numeric list.
        high: Largest value.
        is_log: Whether the scale is logarithmic.
        is_int: Whether values are integers.
        step: Grid of an interval, None if continuous.
    """

    raw_name: str
    choices: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False
    is_int: bool = False
    step: float | None = None

    @property
    def name(self) -> str:
        """Canonical name."""
        return canonical_name(self.raw_name)

    @property
    def is_numeric(self) -> bool:
        """Whether values are ordered numbers."""
        return self.choices is None or all(is_number(choice) for choice in self.choices)

    @property
    def n_values(self) -> float:
        """Number of possible values, infinite for a continuous interval."""
        if self.choices is not None:
            return len(self.choices)
        if self.step is None:
            return 1.0 if self.low == self.high else math.inf
        return math.floor((self.high - self.low) / self.step + 1e-9) + 1

    def from_unit(self, unit: float) -> Any:
        """Map a number in [0, 1] to a value, uniformly on the dimension's own scale."""
        if self.choices is not None:
            return self.choices[min(int(unit * len(self.choices)), len(self.choices) - 1)]
        if self.is_log:
            # Half a unit of margin makes both ends of an integer range as likely as the others.
            margin = 0.5 if self.is_int else 0.0
            low, high = math.log(max(self.low - margin, 1e-300)), math.log(self.high + margin)
            return self.snap(math.exp(low + unit * (high - low)))
        half = 0.0 if self.step is None else self.step / 2
        return self.snap(self.low - half + unit * (self.high - self.low + 2 * half))

    def snap(self, value: Any) -> Any:
        """Return the possible value nearest to ``value``; a label that is not a choice becomes the first one."""
        if self.choices is not None:
            if value in self.choices:
                return self.choices[self.choices.index(value)]
            if self.is_numeric and is_number(value):
                return min(self.choices, key=lambda choice: abs(self.scaled(choice) - self.scaled(value)))
            return self.choices[0]
        if not is_number(value):
            return self.from_unit(0.5)
        number = min(max(float(value), self.low), self.high)
        if self.step is not None:
            number = min(self.low + round((number - self.low) / self.step) * self.step, self.high)
        return round(number) if self.is_int else number

    def contains(self, value: Any) -> bool:
        """Say whether a value is possible here."""
        if self.choices is not None:
            return value in self.choices
        return is_number(value) and self.low <= value <= self.high

    def scaled(self, value: float) -> float:
        """Return a number on the dimension's own scale, 0 at ``low`` and 1 at ``high``; numbers outside fall outside."""
        if self.high == self.low:
            return 0.5
        if self.is_log:
            tiny = self.low * 1e-6
            return (math.log(max(value, tiny)) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (float(value) - self.low) / (self.high - self.low)


Space = dict[str, Dimension]
"""Canonical name -> dimension."""


def parse_space(space: Mapping[str, BaseDistribution | Sequence[Any]]) -> Space:
    """Check a space and bring it into one form.

    Args:
        space: Raw name -> Optuna distribution, or list of possible values.

    Returns:
        Canonical name -> dimension, in the order given.

    Raises:
        SpaceError: If it is not a mapping, empty, has an empty list, bounds the wrong way round, or two spellings of one name.
    """
    if not isinstance(space, Mapping):
        raise SpaceError(
            f"A space must be a mapping of names to distributions or lists, but got {type(space).__name__}. "
            'Write for example {"lr": FloatDistribution(1e-5, 1e-1, log=True), "batch_size": [16, 32, 64]}.'
        )
    if not space:
        raise SpaceError("A space must name at least one hyperparameter, but got {}. Leave it out to tune only what is safe.")
    result: Space = {}
    for raw, value in space.items():
        if not isinstance(raw, str) or not raw:
            raise SpaceError(f"A name in a space must be a non-empty string, but got {raw!r}. Use the hyperparameter's name.")
        dimension = _parse_dimension(raw, value)
        if dimension.name in result:
            raise SpaceError(
                f"A space must name a hyperparameter once, but {result[dimension.name].raw_name!r} and {raw!r} both mean "
                f"{dimension.name!r}. Keep one of them."
            )
        result[dimension.name] = dimension
    return result


def _parse_dimension(raw: str, value: Any) -> Dimension:
    if not isinstance(value, list | tuple):  # optuna takes 50 ms to import, and a plain list does not need it
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        if isinstance(value, FloatDistribution | IntDistribution):
            low, high = float(value.low), float(value.high)
            _check_bounds(raw, low, high, value.log)
            is_int = isinstance(value, IntDistribution)
            step = None if value.step is None or (value.log and not is_int) else float(value.step)
            return Dimension(raw, None, low, high, value.log, is_int, step)
        if isinstance(value, CategoricalDistribution):
            value = list(value.choices)
    if isinstance(value, tuple) and len(value) == 2 and all(is_number(item) for item in value):
        raise SpaceError(
            f"A pair of numbers in a space must say whether it is an interval or two choices, but {raw!r} got {value!r}. "
            f"Use FloatDistribution{value!r} for an interval, or {list(value)!r} for two choices."
        )
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | Dimension):  # a space that was parsed already is none
        choices = tuple(value)
        if not choices:
            raise SpaceError(f"A list in a space must hold at least one value, but {raw!r} got an empty one. List the possible values.")
        if len(set(map(repr, choices))) < len(choices):
            raise SpaceError(f"A list in a space must hold each value once, but {raw!r} got {list(choices)}. Remove the doubles.")
        if not all(is_number(choice) for choice in choices):
            return Dimension(raw, choices)
        choices = tuple(sorted(choices))
        low, high = float(choices[0]), float(choices[-1])
        is_int = all(isinstance(choice, int | np.integer) for choice in choices)
        return Dimension(raw, choices, low, high, low > 0 and (high / low > LOG_RATIO or _is_geometric(choices)), is_int)
    raise SpaceError(
        f"A value in a space must be an Optuna distribution or a list of possible values, but {raw!r} got {value!r}. "
        "Use FloatDistribution, IntDistribution, CategoricalDistribution, or a list."
    )


def _is_geometric(choices: tuple[Any, ...]) -> bool:
    """16, 32, 64, 128 are equal steps on a log scale even though they span less than ``LOG_RATIO``."""
    if len(choices) < 3 or choices[0] <= 0:
        return False
    ratios = [float(b) / float(a) for a, b in pairwise(choices)]
    return max(ratios) / min(ratios) < 1.5 and min(ratios) > 1.4


def _check_bounds(raw: str, low: float, high: float, is_log: bool) -> None:
    if not (math.isfinite(low) and math.isfinite(high)):
        raise SpaceError(f"Bounds in a space must be finite, but {raw!r} got low={low}, high={high}. Give numbers.")
    if low > high:
        raise SpaceError(f"In a space low must not be above high, but {raw!r} got low={low}, high={high}. Swap them.")
    if is_log and low <= 0:
        raise SpaceError(f"A log scale must start above 0, but {raw!r} got low={low}. Raise low or drop log=True.")


def limited(space: Space, limits: Mapping[str, float]) -> Space:
    """Return a space without the numbers above some limits; a dimension that keeps none is left out.

    Args:
        space: The space.
        limits: Canonical name -> largest value that is possible at all.
    """
    result: Space = {}
    for name, dimension in space.items():
        high = limits.get(name)
        if high is None or not dimension.is_numeric or dimension.high <= high:
            result[name] = dimension
        elif dimension.choices is not None:
            choices = tuple(choice for choice in dimension.choices if choice <= high)
            if choices:
                result[name] = replace(dimension, choices=choices, high=float(choices[-1]))
        elif dimension.low <= high:
            result[name] = replace(dimension, high=float(dimension.snap(high)) if dimension.step is None else _last_step(dimension, high))
    return result


def _last_step(dimension: Dimension, high: float) -> float:
    step = dimension.step or 1.0
    return dimension.low + math.floor((high - dimension.low) / step + 1e-9) * step


def load_space_file(path: str | Path) -> dict[str, BaseDistribution | list[Any]]:
    """Read a space from a JSON file and check it, as ``parse_space`` does.

    The file is an object ``{raw name: {"name": ..., "attributes": ...}}`` with values as
    ``optuna.distributions.distribution_to_json`` writes them; a list of values is accepted as well.

    Raises:
        SpaceError: If the file is missing, is no JSON object, or holds a malformed distribution.
    """
    from optuna.distributions import json_to_distribution

    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SpaceError(
            f"A space file must be a readable JSON file, but {str(path)!r} is not: {error}. "
            'Write {"lr": {"name": "FloatDistribution", "attributes": {"low": 1e-5, "high": 0.1, "log": true}}}.'
        ) from error
    if not isinstance(content, dict):
        raise SpaceError(f"A space file must hold a JSON object, but {str(path)!r} holds {type(content).__name__}. Use names as keys.")
    space: dict[str, BaseDistribution | list[Any]] = {}
    for raw, value in content.items():
        if isinstance(value, list):
            space[raw] = value
            continue
        try:
            attributes = value["attributes"]
            if "low" in attributes:
                # Checked here first, so that the message has our wording and the name.
                _check_bounds(raw, float(attributes["low"]), float(attributes["high"]), bool(attributes.get("log", False)))
            space[raw] = json_to_distribution(json.dumps(value))
        except SpaceError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SpaceError(
                f"An entry of a space file must be a distribution as optuna writes it, or a list, but {raw!r} in {str(path)!r} is "
                f"{json.dumps(value)}: {error}. Possible are FloatDistribution, IntDistribution and CategoricalDistribution."
            ) from error
    parse_space(space)
    return space


def sample_space(space: Space, n: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Draw configurations uniformly, each dimension on its own scale.

    Args:
        space: The space.
        n: How many.
        rng: Source of randomness.

    Returns:
        ``n`` configurations by canonical name.
    """
    units = rng.random((n, len(space)))
    return [{name: dim.from_unit(float(unit)) for (name, dim), unit in zip(space.items(), row, strict=True)} for row in units]
