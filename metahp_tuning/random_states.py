"""Random states: whatever is read of a user's objects, every generator is afterwards where it was before."""

from __future__ import annotations

import copy
import random
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FunctionType, ModuleType
from typing import Any

import torch

MAX_PARTS = 2000
"""Objects among which random generators are looked for."""

MAX_ENTRIES = 32
"""Entries looked at of one list, such as a chain of augmentations."""


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Give back every global random state on leaving: python, numpy, torch on the CPU and on each GPU in use."""
    python_state, torch_state = random.getstate(), torch.get_rng_state()
    numpy = sys.modules.get("numpy")  # whoever has not imported it draws no numbers from it
    numpy_state = None if numpy is None else numpy.random.get_state()
    is_cuda_used = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda_states = torch.cuda.get_rng_state_all() if is_cuda_used else None
    try:
        yield
    finally:
        random.setstate(python_state)
        torch.set_rng_state(torch_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)
        if cuda_states is not None:
            torch.cuda.set_rng_state_all(cuda_states)


@contextmanager
def preserved_generators(owner: object) -> Iterator[None]:
    """Give the random generators that an object keeps back their state: its attributes, and those of its parts."""
    kept = [(value, state) for value in parts(owner) if (state := _generator_state(value)) is not None]
    try:
        yield
    finally:
        for generator, state in kept:
            _restore_generator(generator, state)


@contextmanager
def preserved_counters(owner: object) -> Iterator[None]:
    """Give the plain numbers that an object keeps back their values: what counts its reads counts on from where it was."""
    kept = {name: value for name, value in getattr(owner, "__dict__", {}).items() if type(value) in (int, float, bool)}
    try:
        yield
    finally:
        for name, value in kept.items():
            if getattr(owner, name, None) is not value:
                with suppress(Exception):
                    setattr(owner, name, value)


def parts(owner: object) -> list[object]:
    """Return an object, its attributes, and theirs, through lists and wrapped data sets; each once, the nearest first."""
    found: dict[int, object] = {id(owner): owner}
    waiting = deque([owner])
    while waiting and len(found) < MAX_PARTS:
        for value in _attributes(waiting.popleft()):
            if id(value) not in found:
                found[id(value)] = value
                waiting.append(value)
    return list(found.values())


_LEADS_BACK = frozenset({"trainer", "_trainer", "fabric", "_fabric"})
"""Attributes that hold whoever runs a module or data module: all of a training is reached through them, and none of it is theirs."""
_OPAQUE = (type, ModuleType, FunctionType, torch.Tensor)
_PLAIN = frozenset({bool, int, float, str, bytes, type(None), dict, list, tuple, set, type, ModuleType, FunctionType})
"""Types of most of what objects hold, none of them a generator."""


def _attributes(item: object) -> list[object]:
    if isinstance(item, list | tuple):
        return list(item[:MAX_ENTRIES])
    held = getattr(item, "__dict__", None)
    return [] if not held or isinstance(item, _OPAQUE) else [value for name, value in held.items() if name not in _LEADS_BACK]


def _generator_state(value: Any) -> Any:
    if type(value) in _PLAIN:
        return None
    if isinstance(value, torch.Generator):
        return value.get_state()
    if isinstance(value, random.Random):
        return value.getstate()
    if not type(value).__module__.startswith("numpy.random"):
        return None
    if hasattr(value, "bit_generator"):
        return copy.deepcopy(value.bit_generator.state)
    return value.get_state() if hasattr(value, "get_state") else None


def _restore_generator(generator: Any, state: Any) -> None:
    if isinstance(generator, random.Random):
        generator.setstate(state)
    elif hasattr(generator, "bit_generator"):
        generator.bit_generator.state = state
    else:
        generator.set_state(state)
