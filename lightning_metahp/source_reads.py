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
from dataclasses import dataclass, field
from functools import lru_cache

from lightning.pytorch import LightningDataModule, LightningModule

from lightning_metahp.trainer_internals import is_kind
from metahp_tuning.class_source import class_tree, is_standard_class

_log = logging.getLogger(__name__)

_ALREADY_RUN_MODULE = ("__init__", "prepare_data")
_ALREADY_RUN_DATA = ("__init__", "prepare_data", "setup")
"""Methods that ran before any ``Callback.setup``."""


@dataclass(frozen=True, slots=True)
class Reads:
    """What is read by methods that are still to run.

    Attributes:
        names: Attributes of ``self`` and names of ``self.hparams`` that are read.
        paths: The same with what is read of them: ``cfg.optim.lr`` where a method has ``self.cfg.optim["lr"]``.
        aliases: Parameter of ``__init__``, or a path inside of one -> attributes it is stored under unchanged, e.g. ``lr`` ->
            ``learning_rate`` and ``cfg.optim.lr`` -> ``lr``.
        is_opaque: Whether there may be reads that we do not see.
        where: The methods that have run, for the message.
        used: Parameters of ``__init__`` that methods which have run did more with than keep them: what they made of them stays.
        has_source: Whether the source of every class could be read.
    """

    names: frozenset[str] = frozenset()
    paths: frozenset[str] = frozenset()
    aliases: Mapping[str, frozenset[str]] = field(default_factory=dict)
    is_opaque: bool = False
    where: str = ""
    used: frozenset[str] = frozenset()
    has_source: bool = True

    def may_have_made(self, name: str) -> bool:
        """Say whether methods that have run made, or may have made, something of a hyperparameter."""
        return name in self.used or not self.has_source

    def reads(self, name: str) -> bool:
        """Say whether a hyperparameter is, or may be, read later."""
        return self.is_opaque or name in self.names or bool(self.aliases.get(name, frozenset()) & self.names)

    def keeps(self, path: str) -> set[tuple[str, str]]:
        """Return the attributes that may hold a value at a path of an argument, each with the rest of the path."""
        name, _, rest = path.partition(".")
        found = {(name, rest)}
        for kept, attributes in self.aliases.items():
            if f"{path}.".startswith(f"{kept}."):
                found |= {(attribute, path[len(kept) + 1 :]) for attribute in attributes}
        return found

    def reads_path(self, path: str) -> bool:
        """Say whether a value at a path of an argument, or something that holds it, is or may be read later."""
        kept = {f"{attribute}.{rest}.".replace("..", ".") for attribute, rest in self.keeps(path)}
        return self.is_opaque or any(full.startswith(f"{read}.") or f"{read}.".startswith(full) for full in kept for read in self.paths)


def later_reads(holder: LightningModule | LightningDataModule, also_finished: tuple[str, ...] = ()) -> Reads:
    """Return what a module or datamodule reads after ``Callback.setup``.

    Args:
        holder: The module or datamodule.
        also_finished: Further methods that have run by now, or that nobody will call.
    """
    finished = _ALREADY_RUN_DATA if is_kind(holder, "LightningDataModule") else _ALREADY_RUN_MODULE
    return _reads_of(type(holder), (*finished, *also_finished))  # type: ignore[arg-type]


def is_framework_class(cls: type) -> bool:
    """Say whether a class is a base of every module or datamodule; any other one may be what a user reads hyperparameters in."""
    return cls.__module__.startswith(_BASES) or is_standard_class(cls)


_BASES = ("lightning.pytorch.core.", "pytorch_lightning.core.", "lightning.fabric.", "lightning_fabric.", "torch.")


class _Method:
    """A method's syntax tree, walked once.

    Attributes:
        node: Its definition.
        me: What it calls ``self``.
        parts: Every node of it.
        attributes: Those that are attributes.
        others: Names of attributes that are not of ``self``: ``super().name`` is among them.
    """

    def __init__(self, node: ast.FunctionDef) -> None:
        arguments = [*node.args.posonlyargs, *node.args.args]
        self.node = node
        self.me = arguments[0].arg if arguments else ""
        self.parts = list(ast.walk(node))
        self.attributes = [part for part in self.parts if isinstance(part, ast.Attribute)]
        self.others = {part.attr for part in self.attributes if not _is_name(part.value, self.me)}

    @property
    def parameters(self) -> set[str]:
        """Names of its parameters."""
        given = self.node.args
        return {argument.arg for argument in (*given.posonlyargs, *given.args, *given.kwonlyargs)}


_Methods = Mapping[str, list[_Method]]


@lru_cache(maxsize=128)
def _reads_of(cls: type, finished: tuple[str, ...]) -> Reads:
    methods: dict[str, list[_Method]] = {}
    is_opaque = False
    has_source = True
    for base in cls.__mro__:
        if is_framework_class(base):
            continue
        try:
            tree = class_tree(base)
        except (OSError, TypeError, SyntaxError, ValueError) as error:
            _log.debug("no source for %s: %s", base.__qualname__, error)
            is_opaque, has_source = True, False
            continue
        # `super().name` or `Base.name` anywhere lets what a method overrides run as well.
        called = {name for listed in methods.values() for method in listed for name in method.others}
        overridden = methods.keys() - called
        for node in tree.body:
            if isinstance(node, ast.FunctionDef) and node.name not in overridden:
                methods.setdefault(node.name, []).append(_Method(node))
    called_early = _reachable(methods, [name for name in finished if name in methods])
    later = _reachable(methods, [name for name in methods if name not in finished and (_is_hook(name) or name not in called_early)])
    names: set[str] = set()
    paths: set[str] = set()
    for name in later - set(finished):
        for method in methods.get(name, []):
            found, is_clever = _names_read(method)
            names |= found
            paths |= _paths_read(method)
            is_opaque |= is_clever
    aliases = _aliases(methods.get("__init__", []))
    ran = [name for name in finished if name in methods and name not in ("__init__", "prepare_data", "configure_optimizers")]
    where = " or ".join([f"{cls.__name__}.__init__", *ran])
    used = _used(methods, [name for name in (*finished, *called_early) if name in methods], aliases)
    return Reads(frozenset(names), frozenset(paths), aliases, is_opaque, where, used, has_source)


def _is_hook(name: str) -> bool:
    """Say whether Lightning may call a method later, whoever else calls it as well."""
    return not name.startswith("__") and (hasattr(LightningModule, name) or hasattr(LightningDataModule, name))


def _reachable(methods: _Methods, roots: Iterable[str]) -> set[str]:
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in found or name not in methods:
            continue
        found.add(name)
        for method in methods[name]:
            waiting += [item.attr for item in method.attributes if _is_name(item.value, method.me)]
    return found


def _names_read(method: _Method) -> tuple[set[str], bool]:
    """Return the attributes and hyperparameters a method reads, and whether it may read others."""
    me = method.me
    names: set[str] = set()
    understood: set[int] = set()
    for node in method.parts:
        if isinstance(node, ast.Call):
            if _is_name(node.func, me):
                understood.add(id(node.func))  # self(x) is forward
            elif isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
                key = _text(node.args[0])
                if key is not None and isinstance(node.func.value, ast.Attribute) and node.func.value.attr == "hparams":
                    names.add(key)
                    understood.add(id(node.func.value))
        if not isinstance(node, _PARTS_OF_ANOTHER):
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
    is_clever = any(item.attr == "hparams" and id(item) not in understood for item in method.attributes) or any(
        isinstance(node, ast.Name) and node.id == me and id(node) not in understood for node in method.parts
    )
    return names - {"hparams"}, is_clever


def _paths_read(method: _Method) -> set[str]:
    """Return what a method reads of ``self`` and ``self.hparams``, as far as it is written out; of ``self.cfg.items()`` all of ``cfg``."""
    calls = [node for node in method.parts if isinstance(node, ast.Call)]
    called = {id(node.func) for node in calls}
    inner = {id(part) for node in calls if _called(node) in _CHECKS for argument in node.args for part in ast.walk(argument)}
    found: set[str] = set()
    for node in method.parts:  # what holds others comes first
        if id(node) in inner or not (path := _path_of(node)) or path.names[0] != method.me:
            continue
        inner |= path.nodes
        names = path.names[2:] if path.names[1:2] == ["hparams"] else path.names[1:]
        names = names[:-1] if id(node) in called and len(names) > 1 else names
        if names and not isinstance(getattr(node, "ctx", None), ast.Store):
            found.add(".".join(names))
    return found


@dataclass(frozen=True, slots=True)
class _Path:
    """``self.cfg.optim["lr"]``.

    Attributes:
        names: The names in it, as far as they are written.
        nodes: Ids of the parts of the expression.
        is_whole: Whether all of it is names.
    """

    names: list[str]
    nodes: set[int]
    is_whole: bool


def _path_of(node: ast.AST) -> _Path | None:
    """Return an expression of names, attributes, items and ``get``."""
    names: list[str] = []
    is_whole = True
    nodes: set[int] = set()
    while not isinstance(node, ast.Name):
        nodes.add(id(node))
        if isinstance(node, ast.Attribute):
            names.append(node.attr)
        elif isinstance(node, ast.Subscript):
            key = _text(node.slice)
            names, is_whole = ([], False) if key is None else ([*names, key], is_whole)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get" and node.args:
            key = _text(node.args[0])
            names, is_whole = ([], False) if key is None else ([*names, key], is_whole)
            node = node.func
            nodes.add(id(node))
        else:
            return None
        node = node.value
    return _Path([node.id, *reversed(names)], nodes, is_whole)


_PARTS_OF_ANOTHER = (ast.Attribute, ast.Subscript)
_CHECKS = frozenset({"print", "isinstance", "warn", "info", "debug", "save_hyperparameters", "__init__"})
"""Calls that make nothing of a value they are given; what a base class makes of it, its own source says."""


def _used(methods: _Methods, names: Iterable[str], aliases: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Return the hyperparameters that methods which have run did more with than keep or check them."""
    kept_in = {attribute: raw for raw, attributes in aliases.items() for attribute in attributes}
    found: set[str] = set()
    for name in set(names):
        for method in methods[name]:
            parameters = method.parameters if name == "__init__" else set()
            for item in _walk_uses(method.node):
                if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Load) and item.id in parameters:
                    found.add(item.id)
                elif isinstance(item, ast.Attribute) and isinstance(item.ctx, ast.Load):
                    is_hparam = isinstance(item.value, ast.Attribute) and item.value.attr == "hparams"
                    if is_hparam or _is_name(item.value, method.me):
                        found.add(item.attr)
                elif isinstance(item, ast.Subscript) and isinstance(item.value, ast.Attribute) and item.value.attr == "hparams":
                    found.add(_text(item.slice) or "")
    return frozenset(found | {kept_in[name] for name in found if name in kept_in})


_MAKES_NOTHING = (ast.Assert, ast.Raise, ast.arguments)


def _walk_uses(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what is made of values: checks, and assignments that only keep one, are passed over."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, _MAKES_NOTHING):
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


def _aliases(inits: Iterable[_Method]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for init in inits:
        for node in init.parts:
            path = _path_of(node.value) if isinstance(node, ast.Assign) else None
            if not isinstance(node, ast.Assign) or path is None or not path.is_whole or path.names[0] not in {*init.parameters, init.me}:
                continue
            names = path.names
            if names[0] == init.me:  # self.cfg.lr is cfg.lr, and self.hparams.lr is lr
                names = names[2:] if names[1:2] == ["hparams"] else names[1:]
                names = [next((raw for raw, kept in found.items() if "." not in raw and kept & {*names[:1]}), *names[:1]), *names[1:]]
            for target in node.targets:
                if names and isinstance(target, ast.Attribute) and _is_name(target.value, init.me):
                    found.setdefault(".".join(names), set()).add(target.attr)
    return {name: frozenset(attributes) for name, attributes in found.items()}


def _is_name(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Name) and node.id == name


def _text(node: ast.AST) -> str | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
