"""Values inside of a hyperparameter: a dictionary, an OmegaConf, a namespace, a dataclass, or what is given to make an optimizer of."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from metahp_tuning.optimizer_description import optimizer_arguments, optimizer_name, with_argument
from store.values import Opaque, read_item

MAX_LEAVES = 200
"""A hyperparameter that holds more is recorded as one value."""
_MAX_DEPTH = 8
_NAMESPACES = (argparse.Namespace, types.SimpleNamespace)


def leaves(value: object) -> dict[str, Any]:
    """Return what a hyperparameter holds by dotted path; empty where it is a value by itself, or holds too much."""
    if optimizer_name(value) is not None:
        return {name: held for name, held in optimizer_arguments(value).items() if _is_setting(name, held)}
    found = dict(_walk(value, 0))
    return {} if len(found) > MAX_LEAVES else found


def with_leaf(value: Any, path: str, new: Any) -> Any:
    """Return a copy of a hyperparameter with another value at a path; the given one, which others may share, stays as it is."""
    if optimizer_name(value) is not None:
        return with_argument(value, path, new)
    key, _, rest = path.partition(".")
    changed = new if not rest else with_leaf(_items(value)[key], rest, new)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **{key: changed})
    twin = copy.deepcopy(value)
    if isinstance(twin, _NAMESPACES):
        setattr(twin, key, changed)
    elif type(twin).__module__.startswith("omegaconf."):
        omegaconf = sys.modules["omegaconf"]  # the user's, since the value is one of its
        with omegaconf.read_write(twin), omegaconf.open_dict(twin):
            twin[key] = changed
    else:
        twin[key] = changed
    return twin


def _items(value: object) -> dict[str, Any]:
    """Return what a value holds by name; empty where it is none that holds others by name."""
    if isinstance(value, Opaque):  # what could not be read
        return {}
    if isinstance(value, Mapping):
        return {key: read_item(value, key) for key in value} if all(isinstance(key, str) for key in value) else {}
    if isinstance(value, _NAMESPACES):
        return dict(vars(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name, None) for field in dataclasses.fields(value)}
    return {}


def _walk(value: object, depth: int) -> Iterator[tuple[str, Any]]:
    for key, item in _items(value).items():
        inner = dict(_walk(item, depth + 1)) if depth < _MAX_DEPTH else {}
        if not inner:
            yield key, item
        for path, leaf in inner.items():
            yield f"{key}.{path}", leaf


def _is_setting(name: str, value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number or (isinstance(value, tuple | list) and name == "betas")
