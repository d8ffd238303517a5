"""Which values a space may hold: those that the host would take for the field, told before anything is asked or built.

The host itself checks little of it, and late: a negative learning rate fails when the optimizer is made, a batch of nothing in the
loader.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from hf_callbacks.arguments import plain_value
from hf_callbacks.spaces import WARM_UP_RATIO
from metamodel.space.dimensions import Dimension, parse_space
from store.errors import SpaceError
from store.hyperparameters import ACCUMULATION, GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE


@dataclass(frozen=True)
class _Range:
    """What numbers a field takes: from ``low`` on, up to ``high`` or below it."""

    low: float = 0.0
    high: float = math.inf
    is_below: bool = False
    is_whole: bool = False

    def __str__(self) -> str:
        kind = "a whole number" if self.is_whole else "a number"
        if self.high == math.inf:
            return f"{kind} from {self.low:g} on"
        return f"{kind} from {self.low:g} {'to below' if self.is_below else 'to'} {self.high:g}"

    def holds(self, value: Any) -> bool:
        """Say whether a value is in the range."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return False
        return value >= self.low and (value < self.high if self.is_below else value <= self.high)


_COUNT, _AMOUNT, _SHARE = _Range(1, is_whole=True), _Range(), _Range(0, 1, is_below=True)
_RANGES: dict[str, _Range] = {
    **dict.fromkeys((PER_DEVICE_BATCH_SIZE, GLOBAL_BATCH_SIZE, ACCUMULATION, "num_layers"), _COUNT),
    **dict.fromkeys(("learning_rate", "weight_decay", "max_grad_norm", "adam_epsilon", "warmup_steps", "num_epochs"), _AMOUNT),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "label_smoothing_factor"), _SHARE),
    **dict.fromkeys((WARM_UP_RATIO, "dropout"), _Range(0, 1)),
}
"""Canonical name -> what it takes."""


def check_values_of(space: Mapping[str, Any], args: object) -> None:
    """Check that every value of a space is one its field can have.

    Args:
        space: A well-formed space whose names are known.
        args: The training arguments.

    Raises:
        SpaceError: If a value is out of the field's range, no whole number where one is needed, or none of the words it knows; the
            message names the nearest of those.
    """
    for dimension in parse_space(space).values():
        known = getattr(args, dimension.raw_name, getattr(args, _field_of(dimension.name), None))
        if isinstance(known, Enum):
            _check_words(dimension, [str(item.value) for item in type(known)])
        elif dimension.name in _RANGES:
            _check_numbers(dimension, _RANGES[dimension.name])


def _field_of(name: str) -> str:
    return {"optimizer": "optim", "lr_scheduler": "lr_scheduler_type"}.get(name, name)


def _check_words(dimension: Dimension, words: list[str]) -> None:
    values: tuple[Any, ...] = (dimension.low, dimension.high) if dimension.choices is None else dimension.choices
    for value in values:
        word = plain_value(value)
        if word not in words:
            near = difflib.get_close_matches(str(word), words, n=3, cutoff=0.5)
            possible = f"nearest are {', '.join(map(repr, near))}" if near else f"possible are {', '.join(words)}"
            raise SpaceError(f"A value of {dimension.raw_name} must be one the host knows, but got {word!r}; {possible}. Take one of them.")


def _check_numbers(dimension: Dimension, allowed: _Range) -> None:
    values: tuple[Any, ...] = (dimension.low, dimension.high) if dimension.choices is None else dimension.choices
    # What is chosen from an interval is rounded where it has to be; a value of a list is what the user gets, or an error.
    must_be_whole = allowed.is_whole and dimension.choices is not None
    for value in values:
        if not allowed.holds(value) or (must_be_whole and value != int(value)):
            raise SpaceError(f"A value of {dimension.raw_name} must be {allowed}, but got {value!r}. Take it out of the space.")
