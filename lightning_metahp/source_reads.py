"""Which hyperparameters a module still reads after ``__init__``, from its source.

``Callback.setup`` comes after the user's module was built. A rewritten ``hparams.lr`` is in time where ``configure_optimizers``
reads it; a rewritten ``hparams.num_layers`` is too late where the layers were made in ``__init__``, and writing it would only make
the record false. Where the source cannot be read or is too clever for us, the answer is "perhaps", and the value is read back
after the start.
"""

from __future__ import annotations

import ast
import logging
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from lightning.pytorch import LightningDataModule, LightningModule

from lightning_metahp.kinds import is_kind
from metamodel.class_source import class_tree
from metamodel.model_source import is_library_class

_log = logging.getLogger(__name__)

_ALREADY_RUN_MODULE = ("__init__", "prepare_data")
_ALREADY_RUN_DATA = ("__init__", "prepare_data", "setup")
"""Methods that ran before any ``Callback.setup``."""

_HOOKS = frozenset(name for base in (LightningModule, LightningDataModule) for name in dir(base) if not name.startswith("__"))
"""What Lightning may call later, whoever else calls it as well."""


_NO_ALIASES: Mapping[str, frozenset[str]] = {}


class Reads(NamedTuple):
    """What is read by methods that are still to run.

    Attributes:
        names: Attributes of ``self`` and names of ``self.hparams`` that are read.
        aliases: Parameter of ``__init__`` -> attributes it is stored under unchanged, e.g. ``lr`` -> ``learning_rate``.
        is_opaque: Whether there may be reads that we do not see.
        where: The methods that have run, for the message.
        used: Parameters of ``__init__`` that methods which have run did more with than keep them: what they made of them stays.
        has_source: Whether the source of every class could be read.
    """

    names: frozenset[str] = frozenset()
    aliases: Mapping[str, frozenset[str]] = _NO_ALIASES
    is_opaque: bool = False
    where: str = ""
    used: frozenset[str] = frozenset()
    has_source: bool = True

    def reads(self, name: str) -> bool:
        """Say whether a hyperparameter is, or may be, read later."""
        return self.is_opaque or name in self.names or bool(self.aliases.get(name, frozenset()) & self.names)


def later_reads(holder: LightningModule | LightningDataModule, also_finished: tuple[str, ...] = ()) -> Reads:
    """Return what a module or datamodule reads after ``Callback.setup``.

    Args:
        holder: The module or datamodule.
        also_finished: Further methods that have run by now, or that nobody will call.
    """
    finished = _ALREADY_RUN_DATA if is_kind(holder, "LightningDataModule") else _ALREADY_RUN_MODULE
    return _reads_of(type(holder), (*finished, *also_finished))  # type: ignore[arg-type]


@lru_cache(maxsize=128)
def _reads_of(cls: type, finished: tuple[str, ...]) -> Reads:
    methods: dict[str, list[ast.FunctionDef]] = {}
    is_opaque = False
    has_source = True
    for base in cls.__mro__:
        if is_library_class(base):
            continue
        try:
            tree = class_tree(base)
        except (OSError, TypeError, SyntaxError, ValueError) as error:
            _log.debug("no source for %s: %s", base.__qualname__, error)
            is_opaque, has_source = True, False
            continue
        overridden = {name for name in methods if not _calls_base(methods, name)}
        for node in ast.iter_child_nodes(tree):
            if isinstance(node, ast.FunctionDef) and node.name not in overridden:
                methods.setdefault(node.name, []).append(node)
    called_early = _reachable(methods, [name for name in finished if name in methods])
    later = _reachable(methods, [name for name in methods if name not in finished and (name in _HOOKS or name not in called_early)])
    names: set[str] = set()
    for name in later - set(finished):
        for node in methods.get(name, []):
            found, is_clever = _names_read(node)
            names |= found
            is_opaque |= is_clever
    aliases = _aliases(methods.get("__init__", []))
    ran = [name for name in finished if name in methods and name not in ("__init__", "prepare_data", "configure_optimizers")]
    where = " or ".join([f"{cls.__name__}.__init__", *ran])
    used = _used(methods, [name for name in (*finished, *called_early) if name in methods], aliases)
    return Reads(frozenset(names), aliases, is_opaque, where, used, has_source)


def _reachable(methods: Mapping[str, list[ast.FunctionDef]], roots: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name not in methods:
            continue
        found.add(name)
        for node in methods[name]:
            waiting += [item.attr for item in ast.walk(node) if isinstance(item, ast.Attribute) and _is_name(item.value, _self_of(node))]
    return found


def _names_read(method: ast.FunctionDef) -> tuple[set[str], bool]:
    """Return the attributes and hyperparameters a method reads, and whether it may read others."""
    me = _self_of(method)
    names: set[str] = set()
    understood: set[int] = set()
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and _is_name(node.func, me):
            understood.add(id(node.func))  # self(x) is forward
        if not isinstance(node, ast.Attribute | ast.Subscript):
            continue
        base = node.value
        if isinstance(node, ast.Attribute) and _is_name(base, me):
            understood.add(id(base))
            if isinstance(node.ctx, ast.Load):
                names.add(node.attr)
        if isinstance(base, ast.Attribute) and base.attr == "hparams" and _is_name(base.value, me):
            key = node.attr if isinstance(node, ast.Attribute) else _text(node.slice)
            if key is not None and key not in {"get", "items", "values", "keys", "copy"}:
                names.add(key)
                understood.add(id(base))
    for node in ast.walk(method):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            key = _text(node.args[0])
            if key is not None and isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "hparams":
                names.add(key)
                understood.add(id(node.func.value))
    is_clever = any(
        id(node) not in understood
        and ((isinstance(node, ast.Attribute) and node.attr == "hparams") or (isinstance(node, ast.Name) and node.id == me))
        for node in ast.walk(method)
    )
    return names - {"hparams"}, is_clever


_CHECKS = frozenset({"print", "isinstance", "warn", "info", "debug", "save_hyperparameters", "__init__"})
"""Calls that make nothing of a value they are given; what a base class makes of it, its own source says."""


def _used(methods: Mapping[str, list[ast.FunctionDef]], names: Iterable[str], aliases: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the hyperparameters that methods which have run did more with than keep or check them."""
    kept_in = {attribute: raw for raw, attributes in aliases.items() for attribute in attributes}
    found: set[str] = set()
    for name in set(names):
        for node in methods[name]:
            parameters = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)} if name == "__init__" else set()
            for item in _walk_uses(node):
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load) and item.id in parameters:
                    found.add(item.id)
                elif isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load):
                    is_hparam = isinstance(item.value, ast.Attribute) and item.value.attr == "hparams"
                    if is_hparam or _is_name(item.value, _self_of(node)):
                        found.add(item.attr)
                elif isinstance(item, ast.Subscript) and isinstance(item.value, ast.Attribute) and item.value.attr == "hparams":
                    found.add(_text(item.slice) or "")
    return frozenset(found | {kept_in[name] for name in found if name in kept_in})


def _walk_uses(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what is made of values: checks, and assignments that only keep one, are passed over."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Assert | ast.Raise | ast.arguments):
            continue
        kept = child.targets[0] if isinstance(child, ast.Assign) else child.target if isinstance(child, ast.AnnAssign) else None
        if isinstance(kept, ast.Attribute) and isinstance(getattr(child, "value", None), ast.Name):
            continue
        if isinstance(child, ast.Call) and _called(child) in _CHECKS:
            continue
        yield child
        yield from _walk_uses(child)


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else call.func.id if isinstance(call.func, ast.Name) else ""


def _aliases(inits: Iterable[ast.FunctionDef]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for init in inits:
        me = _self_of(init)
        parameters = {argument.arg for argument in (*init.args.posonlyargs, *init.args.args, *init.args.kwonlyargs)}
        for node in ast.walk(init):
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Name) and node.value.id in parameters:
                for target in node.targets:
                    if isinstance(target, ast.Attribute) and _is_name(target.value, me):
                        found.setdefault(node.value.id, set()).add(target.attr)
    return {name: frozenset(attributes) for name, attributes in found.items()}


def _calls_base(methods: Mapping[str, list[ast.FunctionDef]], name: str) -> bool:
    """Say whether ``super().name`` or ``Base.name`` occurs, so that what a method overrides may run as well."""
    return any(
        isinstance(item, ast.Attribute) and item.attr == name and not _is_name(item.value, _self_of(node))
        for nodes in methods.values()
        for node in nodes
        for item in ast.walk(node)
    )


def _self_of(method: ast.FunctionDef) -> str:
    arguments = [*method.args.posonlyargs, *method.args.args]
    return arguments[0].arg if arguments else ""


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
