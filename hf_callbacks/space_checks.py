"""What a space may name, and which values its fields take; found out before anything is asked or built.

The host itself checks little of it, and late: a negative learning rate fails when the optimizer is made, a batch of nothing in the
loader. Its one field for warm-up, ``warmup_steps``, means a share of the training below 1 and steps otherwise.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from enum import Enum
from typing import Any

from hf_callbacks.arguments import WARM_UP, plain_value
from hf_callbacks.provenance import plain_class
from metahp_tuning.space_values import check_numbers
from metamodel.space.dimensions import Dimension, parse_space
from store.errors import SpaceError, UnknownHyperparameterError
from store.hyperparameters import GLOBAL_BATCH_SIZE, TRANSFORMERS, trainer_fields
from store.names import canonical_name

WARM_UP_RATIO = "warmup_ratio"
WARM_UP_NAMES = frozenset({WARM_UP, WARM_UP_RATIO})

_N_NEAREST = 3


def with_warm_up_named(space: Mapping[str, Any]) -> dict[str, Any]:
    """Return a user's space with the warm-up under the name of what is meant: a share or steps.

    Raises:
        SpaceError: If it is malformed, or names the warm-up twice.
    """
    dimensions = parse_space(space)
    result: dict[str, Any] = {}
    for raw, values in space.items():
        name = raw
        if canonical_name(raw) == WARM_UP and (dimensions[canonical_name(raw)].high or 0.0) < 1:
            name = WARM_UP_RATIO
        if name in result or {canonical_name(other) for other in (*result, name)} >= WARM_UP_NAMES:
            raise SpaceError(f"A space must name a field once, but got {raw!r} beside another name of {WARM_UP}. Leave one of them out.")
        result[name] = values
    return result


def check_names(names: Collection[str], args: object, available: Collection[str], in_model: Collection[str] = ()) -> None:
    """Check that names can be rewritten.

    Args:
        names: Names the user wrote, raw or canonical.
        args: The training arguments.
        available: Raw names that can be rewritten.
        in_model: Names in the model's configuration; those that are not available cannot be rewritten from here.

    Raises:
        UnknownHyperparameterError: If a name is none of them; the message names the nearest.
    """
    known = {*available, *(canonical_name(raw) for raw in available), GLOBAL_BATCH_SIZE, WARM_UP_RATIO}
    rule = f"A name to rewrite must be a hyperparameter of {plain_class(type(args)).__name__}"  # type: ignore[arg-type]
    for name in names:
        if name in known or canonical_name(name) in known:
            continue
        if canonical_name(name) in {canonical_name(raw) for raw in in_model}:
            raise UnknownHyperparameterError(
                f"{rule}, but {name!r} is one of the model's configuration. Build the Trainer, then call apply(trainer, space=...)."
            )
        if hasattr(args, name):
            raise UnknownHyperparameterError(
                f"{rule} that shapes the training, but {name!r} says where it runs, what is logged or saved. Leave it out."
            )
        close = difflib.get_close_matches(name, sorted(known), n=_N_NEAREST, cutoff=0.55)
        nearest = ", ".join(map(repr, close))
        possible = f"nearest are {nearest}. Did you mean {close[0]!r}?" if close else f"possible are {', '.join(sorted(known))}."
        raise UnknownHyperparameterError(f"{rule}, but got {name!r}; {possible}")


def check_values(space: Mapping[str, Any], args: object) -> None:
    """Check that every value of a space is one its field can have.

    Args:
        space: A well-formed space whose names are known.
        args: The training arguments.

    Raises:
        SpaceError: If a value is out of the field's range, no whole number where one is needed, or none of the words it knows; the
            message names the nearest of those.
    """
    for dimension in parse_space(space).values():
        values = (dimension.low, dimension.high) if dimension.choices is None else dimension.choices
        known = getattr(args, dimension.raw_name, getattr(args, trainer_fields(TRANSFORMERS).get(dimension.name, ""), None))
        if not isinstance(known, Enum):
            check_numbers(dimension)
            continue
        for value in values:
            _check_word(dimension, value, [str(item.value) for item in type(known)])


def _check_word(dimension: Dimension, value: Any, words: list[str]) -> None:
    word = plain_value(value)
    if word not in words:
        near = difflib.get_close_matches(str(word), words, n=_N_NEAREST, cutoff=0.5)
        possible = f"nearest are {', '.join(map(repr, near))}" if near else f"possible are {', '.join(words)}"
        raise SpaceError(f"A value of {dimension.raw_name} must be one the host knows, but got {word!r}; {possible}. Take one of them.")
