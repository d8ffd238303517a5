"""What of a module a hyperparameter made: its class is built again with two values, without weights, and compared.

Nobody is to notice: random states are given back, arguments are copies, what is printed is dropped, and the building is given up before it
touches a file, a process or a network, or takes long.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import functools
import inspect
import io
import itertools
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import FrameType, FunctionType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_metahp.nested_values import with_leaf
from lightning_metahp.settings import hparams_of, nested_places, paths_of
from lightning_metahp.source_reads import is_framework_class, later_reads
from metahp_tuning.class_source import class_tree, is_library_class
from metahp_tuning.random_states import preserved_rng
from metahp_tuning.task_description import parameter_count
from store.values import same_value

MAX_BUILDING_S = 0.5
"""Processor time for one building; a module that takes longer is not built again."""
_EVENTS_PER_LOOK = 64
"""Function calls after which the clock is looked at."""
_MAX_PARAMETERS_WITH_WEIGHTS = 1_000_000
"""A module that cannot be built on the ``meta`` device (it looks at a weight) is built with weights up to this size."""

Place = tuple[str, str]
"""Path of a layer, name of its attribute."""


class UnrepeatableError(Exception):
    """The module cannot be built again; the text says why, as half a sentence."""


class _GivenUp(BaseException):
    """Ends a building. No ``Exception``, since a module may catch those."""


def driven_numbers(module: LightningModule, name: str, old: Any, new: Any, *, is_built: bool = False) -> dict[Place, tuple[float, float]]:
    """Return every number in a module's layers that follows from an argument of its ``__init__``, as it is and as it would be.

    Args:
        module: The module.
        name: Name of the argument.
        old: Its present value.
        new: Another value.
        is_built: Whether ``configure_model`` has run, too.

    Raises:
        UnrepeatableError: If that cannot be known.
    """
    before, after = (_snapshot(module, name, value, is_built=is_built) for value in (old, new))
    if before.kinds != after.kinds:
        raise UnrepeatableError(f"with {name}={new:g} other layers are made")
    reads = later_reads(module)
    written = {("", attribute) for path in paths_of(module, name) for attribute, _ in reads.keeps(path)}
    hidden = next((place for place, kept in before.kept.items() if kept != after.kept.get(place) and place not in written), None)
    if hidden is not None:
        raise UnrepeatableError(f"{'.'.join(filter(None, hidden))} keeps what was made of it, and cannot be written")
    found = {
        place: (value, after.numbers[place])
        for place, value in before.numbers.items()
        if place in after.numbers and not same_value(value, after.numbers[place])
    }
    live = dict(module.named_modules())
    for (path, attribute), (value, _) in found.items():
        if path not in live or not same_value(getattr(live[path], attribute, None), value):
            raise UnrepeatableError(f"{'.'.join(filter(None, (path, attribute)))} is not as __init__ makes it")
    return found


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What the layers of a building hold.

    Attributes:
        kinds: Path of a layer -> its class.
        numbers: Numbers.
        kept: Numbers inside lists, partials and functions.
    """

    kinds: Mapping[str, type]
    numbers: Mapping[Place, float]
    kept: Mapping[Place, list[float]]


_snapshots: WeakKeyDictionary[nn.Module, dict[Any, _Snapshot]] = WeakKeyDictionary()
"""What was built since the last ``forget``: deciding and writing ask for the same buildings."""


def forget(module: nn.Module) -> None:
    """Build a module anew when next asked: its other hyperparameters may have changed."""
    _snapshots.pop(module, None)


def _snapshot(module: LightningModule, name: str, value: Any, *, is_built: bool) -> _Snapshot:
    known = _snapshots.setdefault(module, {})
    if (name, value, is_built) not in known:
        made = dict(_build(module, name, value, is_built=is_built).named_modules())
        held = [((path, raw), item) for path, layer in made.items() for raw, item in vars(layer).items() if not raw.startswith("_")]
        known[name, value, is_built] = _Snapshot(
            {path: type(layer) for path, layer in made.items()},
            {place: float(item) for place, item in held if _is_number(item)},
            {place: list(_numbers_in(item)) for place, item in held if not _is_number(item)},
        )
    return known[name, value, is_built]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers_in(value: Any, depth: int = 3) -> Iterator[float]:
    """Yield the numbers that a list, a partial or a function keeps."""
    if _is_number(value):
        yield value
    elif depth and isinstance(value, list | tuple | Mapping):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers_in(item, depth - 1)
    elif depth and isinstance(value, functools.partial):
        yield from _numbers_in([*value.args, *value.keywords.values()], depth - 1)
    elif depth and isinstance(value, FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if cell != type(cell)()]
        yield from _numbers_in([*cells, *(value.__defaults__ or ())], depth - 1)


def _build(module: LightningModule, name: str, value: Any, *, is_built: bool) -> nn.Module:
    cls = type(module)
    _check_side_effects(module)
    given = _arguments(module, name, value)
    devices = ["meta", "cpu"] if parameter_count(module) <= _MAX_PARAMETERS_WITH_WEIGHTS else ["meta"]
    problem: BaseException | None = None
    for device in devices:
        try:
            with _unnoticed(), torch.device(device):
                made: LightningModule = cls(**given)
                if is_built:
                    made.configure_model()
                return made
        except _GivenUp as error:
            raise UnrepeatableError(f"{cls.__name__}.__init__ {error}") from None
        except Exception as error:  # a stranger's __init__ may need more than its arguments
            problem = problem or error
    raise UnrepeatableError(f"building {cls.__name__} again fails with {type(problem).__name__}")


def _arguments(module: LightningModule, name: str, value: Any) -> dict[str, Any]:
    """Return what a module was made with, one value replaced; everything else as copies, since ``__init__`` may change it."""
    parameters = dict(itertools.islice(inspect.signature(type(module).__init__).parameters.items(), 1, None))
    saved, whole = hparams_of(module), getattr(module, "_hparams_name", None)
    place = nested_places(module).get(name)
    if place is not None:
        name, value = place.holder, _copied(with_leaf(place.whole, place.path, value))
    given: dict[str, Any] = {}
    if whole in parameters and name not in parameters and name in saved:
        given[whole] = _copied(module.hparams)
        given[whole][name] = value
    takes_more = any(item.kind is item.VAR_KEYWORD for item in parameters.values())
    for raw in saved if takes_more else ():
        if raw not in parameters and not raw.startswith("_"):
            given[raw] = _copied(saved[raw])
    aliases = later_reads(module).aliases
    for raw, parameter in parameters.items():
        kept = [vars(module)[item] for item in aliases.get(raw, ()) if item in vars(module)]
        if raw in given or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if raw in saved or kept:
            given[raw] = _copied(saved[raw] if raw in saved else kept[0])
        elif parameter.default is parameter.empty:
            raise UnrepeatableError(f"{type(module).__name__} keeps no {raw}; call self.save_hyperparameters() with it")
    if name in parameters or (takes_more and whole not in given):
        given[name] = value
    elif whole not in given:
        raise UnrepeatableError(f"{name} is no argument of {type(module).__name__}.__init__")
    return given


def _copied(value: Any) -> Any:
    """Return a copy without weights."""
    memo: dict[int, Any] = {}
    if isinstance(value, nn.Module):
        for tensor in itertools.chain(value.parameters(), value.buffers()):
            twin = torch.empty_like(tensor, device="meta")
            memo[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else twin
    try:
        return copy.deepcopy(value, memo)
    except Exception as error:
        raise UnrepeatableError(f"a {type(value).__name__} it was given cannot be copied") from error


_WEIGHTS = frozenset({torch.save.__code__, torch.load.__code__})
_OUTSIDE = frozenset({"_socket", "socket", "sqlite3", "_posixsubprocess", "_winapi"})
"""Modules whose functions reach the network, a database or another process."""
_TOUCHES = frozenset(
    {open, os.open, os.mkdir, os.remove, os.unlink, os.rename, os.replace, os.rmdir, os.link, os.symlink, os.system, os.putenv, os.chdir}
    | {time.sleep, threading._start_new_thread}  # type: ignore[attr-defined]
)


@contextlib.contextmanager
def _unnoticed() -> Iterator[None]:
    """Build as if nothing had been built; end with ``_GivenUp`` before anything outside is touched."""
    deadline, profile, ticks = time.thread_time() + MAX_BUILDING_S, sys.getprofile(), itertools.count()

    def watch(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            modules = {type(argument.__self__).__module__, argument.__module__}
            if (_is_in(argument, _TOUCHES) or not _OUTSIDE.isdisjoint(modules)) and not _is_importing(frame):
                raise _GivenUp(f"calls {argument.__name__}()")
        elif event == "call":
            if frame.f_code in _WEIGHTS:
                raise _GivenUp("reads or writes weights")
            if next(ticks) % _EVENTS_PER_LOOK == 0 and time.thread_time() > deadline:
                raise _GivenUp("takes too long to be repeated")

    if profile is not None:  # one at a time, and it is the user's
        raise UnrepeatableError("a profiler is running")
    with preserved_rng(), warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        sys.setprofile(watch)
        try:
            yield
        finally:
            sys.setprofile(None)


def _is_importing(frame: FrameType | None) -> bool:
    """Say whether Python looks for a module or a package's version: that reads files, and changes none of the user's."""
    while frame is not None:
        if "importlib" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def _is_in(argument: Any, known: frozenset[Any]) -> bool:
    try:
        return argument in known
    except Exception:  # a method of an object without a hash
        return False


def _check_side_effects(module: LightningModule) -> None:
    """Check that no ``__init__`` of the user's changes what outlives it.

    Raises:
        UnrepeatableError: If one seems to.
    """
    classes = {cls for cls in type(module).__mro__ if not is_framework_class(cls)}
    classes |= {type(layer) for layer in module.modules() if not is_library_class(type(layer))}
    for cls in sorted(classes, key=lambda item: item.__qualname__):
        if "__init__" in vars(cls) and _reaches_out(cls):
            raise UnrepeatableError(f"{cls.__name__}.__init__ changes what is not its own, so that it cannot be repeated")


_CHANGES = frozenset({"append", "extend", "add", "update", "insert", "setdefault", "pop", "remove", "clear", "register", "write"})


@functools.lru_cache(maxsize=128)
def _reaches_out(cls: type) -> bool:
    """Say whether the source of an ``__init__`` changes an object that it neither made nor was given."""
    try:
        body = class_tree(cls).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return False  # what it does is watched when it runs
    for init in (node for node in body if isinstance(node, ast.FunctionDef) and node.name == "__init__"):
        parts = list(ast.walk(init))
        inner = {argument.arg for part in parts if isinstance(part, ast.arguments) for argument in _all_arguments(part)}
        inner |= {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        inner |= {"super"}
        for part in parts:
            is_changed = isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store | ast.Del)
            is_call = isinstance(part, ast.Call) and isinstance(part.func, ast.Attribute) and part.func.attr in _CHANGES
            target = part.func.value if is_call else part if is_changed else None  # type: ignore[attr-defined]
            if isinstance(part, ast.Global) or (target is not None and (root := _root(target)) is not None and root not in inner):
                return True
            if isinstance(part, ast.Call) and _hands_out(part, init.args.args[0].arg if init.args.args else "", inner):
                return True
            if is_changed and "__class__" in {item.attr for item in ast.walk(part) if isinstance(item, ast.Attribute)}:
                return True
    return False


_LOOKS = frozenset(
    {"super", "isinstance", "issubclass", "hasattr", "getattr", "setattr", "type", "id", "len", "print", "vars", "dir", "repr", "str"}
)


def _hands_out(call: ast.Call, me: str, inner: set[str]) -> bool:
    """Say whether a call hands the module to a function, which may keep it, or draws from an iterator from outside."""
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
    given = [item for item in call.args if isinstance(item, ast.Name)]
    if name == "next":
        return any(item.id not in inner for item in given)
    return name not in _LOOKS and name != "__init__" and any(item.id == me for item in given)


def _all_arguments(arguments: ast.arguments) -> list[ast.arg]:
    rest = [item for item in (arguments.vararg, arguments.kwarg) if item is not None]
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *rest]


def _root(node: Any) -> str | None:
    """Return the name that an expression starts from: ``registry`` in ``registry.models[0].names``."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else None
