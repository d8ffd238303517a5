"""Values inside of a hyperparameter: a dictionary, an OmegaConf, a namespace, a dataclass, or what is given to make an optimizer of."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import functools
import itertools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from metahp_tuning.optimizer_description import optimizer_arguments, optimizer_name, with_argument
from store.values import Opaque, read_item

MAX_LEAVES = 200
"""Of a hyperparameter that holds more the rest is recorded as one value, and so is a part with more items than that."""
REST = "(rest)"
"""Name of what is more than ``MAX_LEAVES``."""
_MAX_WALKED = 5_000
_MAX_DEPTH = 8
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)


def leaves(value: object) -> dict[str, Any]:
    """Return what a hyperparameter holds by dotted path; empty where it is a value by itself."""
    if optimizer_name(value) is not None:
        return _arguments(value)
    found = list(itertools.islice(_walk(value, ()), _MAX_WALKED))
    rest = dict(found[MAX_LEAVES:])
    return dict(found[:MAX_LEAVES]) | ({REST: rest} if rest else {})


def with_leaf(value: Any, path: str, new: Any) -> Any:
    """Return a hyperparameter with another value at a path; the given one, which others may share, stays as it is."""
    if optimizer_name(value) is not None:
        return with_argument(value, path, new)
    key, _, rest = path.partition(".")
    changed = new if not rest else with_leaf(items_of(value)[key], rest, new)
    if type(value).__module__.startswith("omegaconf."):
        omegaconf = sys.modules["omegaconf"]  # the user's, since the value is one of its
        twin = copy.deepcopy(value)
        with omegaconf.read_write(twin), omegaconf.open_dict(twin):
            twin[key] = changed
        return twin
    twin = copy.copy(value)  # the other values are the same objects: some cannot be copied, and nobody changes them here
    if dataclasses.is_dataclass(twin):
        object.__setattr__(twin, key, changed)  # frozen ones as well
    elif isinstance(twin, _NAMESPACES):
        setattr(twin, key, changed)
    else:
        twin[key] = changed
    return twin


def items_of(value: object) -> dict[str, Any]:
    """Return what a value holds by name; empty where it is none that holds others by name, or holds so many that they are data."""
    if isinstance(value, Opaque | type):  # the first is what could not be read
        return {}
    if isinstance(value, functools.partial):
        return _arguments(value)
    if isinstance(value, Mapping):
        keys = list(value) if len(value) <= MAX_LEAVES else []
        return {key: read_item(value, key) for key in keys} if all(isinstance(key, str) and "." not in key for key in keys) else {}
    if isinstance(value, _NAMESPACES):
        return dict(vars(value))
    if dataclasses.is_dataclass(value):
        return {field.name: read_item(_Fields(value), field.name) for field in dataclasses.fields(value)}
    return {}


class _Fields:
    """The fields of a dataclass as items: one that cannot be read costs itself only."""

    def __init__(self, value: object) -> None:
        self._value = value

    def __getitem__(self, name: str) -> Any:
        return getattr(self._value, name)


def _walk(value: object, within: tuple[int, ...]) -> Iterator[tuple[str, Any]]:
    within = (*within, id(value))
    for key, item in items_of(value).items():
        is_walked = len(within) <= _MAX_DEPTH and id(item) not in within
        inner = _walk(item, within) if is_walked else iter(())
        first = next(inner, None)
        if first is None:
            yield key, item
        for path, leaf in itertools.chain([] if first is None else [first], inner):
            yield f"{key}.{path}", leaf


def _arguments(optimizer: object) -> dict[str, Any]:
    """Return what a partial or dictionary holds for an optimizer, and could be tuned."""
    return {name: held for name, held in optimizer_arguments(optimizer).items() if _is_setting(name, held)}


def _is_setting(name: str, value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number or (isinstance(value, tuple | list) and name == "betas")
