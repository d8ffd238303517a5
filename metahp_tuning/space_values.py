"""Which numbers a space may hold: those that the registry gives a meaning."""

from __future__ import annotations

import math

from metamodel.space.dimensions import Dimension
from store.errors import SpaceError
from store.hyperparameters import Scale, hyperparameter


def check_numbers(dimension: Dimension) -> None:
    """Check the values of one name of a space; a name without a row in the registry takes any.

    Raises:
        SpaceError: If a value is out of the range that makes sense, or no whole number where one is needed.
    """
    row = hyperparameter(dimension.name)
    if row is None or row.scale is Scale.CHOICE:
        return
    kind = "a whole number" if row.is_count else "a number"
    upper = "on" if row.high == math.inf else f"to {'below ' if row.is_high_open else ''}{row.high:g}"
    # What is chosen from an interval is rounded where it has to be; a value of a list is what the user gets, or an error.
    must_be_whole = row.is_count and dimension.choices is not None
    for value in (dimension.low, dimension.high) if dimension.choices is None else dimension.choices:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        is_in_range = is_number and row.low <= value and (value < row.high if row.is_high_open else value <= row.high)
        if not is_in_range or (must_be_whole and value != int(value)):
            rule = f"A value of {dimension.raw_name} must be {kind} from {row.low:g} {upper}"
            raise SpaceError(f"{rule}, but got {value!r}. Take it out of the space.")
