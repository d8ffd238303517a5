"""The source of a user's classes: as a syntax tree, and whether two runs' models are made of the same."""

from __future__ import annotations

import ast
import copy
import hashlib
import inspect
import linecache
import logging
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType

from torch import nn

_log = logging.getLogger(__name__)

_LIBRARY_ROOTS = frozenset({"builtins", "torch", "lightning", "pytorch_lightning", "transformers", "torchmetrics", "torchvision"})
_LIBRARY_FOLDERS = ("site-packages", "dist-packages")
_STANDARD_LIBRARY = Path(ast.__file__).parent


def class_tree(cls: type) -> ast.ClassDef:
    """Return the definition of a class as it stands in its file.

    Args:
        cls: A class written in Python.

    Raises:
        OSError: If there is no such source: typed at a prompt, made by ``type(...)``, or compiled.
        TypeError: If the class is built in.
        SyntaxError: If the file cannot be parsed by now.
    """
    file = inspect.getsourcefile(cls)
    module = sys.modules.get(cls.__module__)
    lines = [] if file is None else linecache.getlines(file, None if module is None else vars(module))
    codes = [code for value in vars(cls).values() for code in _codes(value) if code.co_filename == file]
    found = _definitions("".join(lines)).get(cls.__qualname__)
    if not found:
        raise OSError(f"no source of {cls.__qualname__} was found in {file}")
    # One name may be defined more than once, as in the branches of an `if`: the methods show which of them this is.
    firsts = [code.co_firstlineno for code in codes]
    return next((node for node in reversed(found) if any(node.lineno <= first <= _last_line(node) for first in firsts)), found[-1])


def covers(node: ast.FunctionDef | ast.AsyncFunctionDef, line: int) -> bool:
    """Say whether a line of a file, as ``co_firstlineno`` gives it, belongs to a method or its decorators."""
    return _first_line(node) <= line <= (node.end_lineno or node.lineno)


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])


def _last_line(node: ast.ClassDef) -> int:
    return node.end_lineno or node.lineno


def _codes(value: object) -> Iterator[CodeType]:
    """Yield the code of a method, behind ``property``, ``staticmethod``, ``classmethod`` and decorators that keep what they wrap."""
    function = getattr(value, "fget", None) or getattr(value, "__func__", value)
    code = getattr(inspect.unwrap(function) if callable(function) else function, "__code__", None)
    if isinstance(code, CodeType):
        yield code


@lru_cache(maxsize=16)
def _definitions(source: str) -> dict[str, list[ast.ClassDef]]:
    """Return the classes of a file by qualified name, each name's in their order."""
    found: dict[str, list[ast.ClassDef]] = {}
    _collect(ast.parse(source).body, "", found)
    return found


def _collect(statements: Iterable[ast.stmt], scope: str, found: dict[str, list[ast.ClassDef]]) -> None:
    for node in statements:
        if isinstance(node, ast.ClassDef):
            found.setdefault(scope + node.name, []).append(node)
            _collect(node.body, f"{scope}{node.name}.", found)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            _collect(node.body, f"{scope}{node.name}.<locals>.", found)
        else:
            for part in (node, *getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                for block in ("body", "orelse", "finalbody"):
                    _collect(getattr(part, block, ()), scope, found)


def model_variant(module: nn.Module) -> str:
    """Return a fingerprint of the model code that the user wrote.

    It covers the classes of the module and its submodules together with their bases, as far as they are not part of an installed
    library. Comments, formatting, docstrings, default values in ``__init__`` and numbers in ``configure_optimizers`` do not
    enter: the last two are hyperparameters, which a run records by value. A class without readable source counts by its name.

    Args:
        module: The model.

    Returns:
        16 hexadecimal digits, equal on every machine for equal code.
    """
    classes = {cls for part in module.modules() for cls in type(part).__mro__ if not is_library_class(cls)}
    # Metric objects are code of the evaluation, but users' own ones still say what is measured, so they stay in.
    parts = sorted(_normalised_source(cls) for cls in classes) or [f"class {type(module).__qualname__}"]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def is_library_class(cls: type) -> bool:
    """Say whether a class belongs to an installed library rather than to the user."""
    root = cls.__module__.partition(".")[0]
    if root in _LIBRARY_ROOTS:
        return True
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return False
    return any(part in _LIBRARY_FOLDERS for part in Path(file).parts) or is_standard_class(cls)


def is_standard_class(cls: type) -> bool:
    """Say whether a class is built in or part of Python's standard library."""
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        return cls.__module__ in sys.builtin_module_names
    path = Path(file)
    return path.is_relative_to(_STANDARD_LIBRARY) and not any(part in _LIBRARY_FOLDERS for part in path.parts)


@lru_cache(maxsize=512)
def _normalised_source(cls: type) -> str:
    try:
        tree = class_tree(cls)
    except (OSError, TypeError, SyntaxError, ValueError) as error:
        # Typed at a prompt, built by type(...) or compiled: only the name is known.
        _log.debug("no source for %s: %s", cls.__qualname__, error)
        return f"class {cls.__qualname__}"
    # Fingerprints of earlier releases were made of a module with this class alone; the tree is shared, so a copy is changed.
    return ast.dump(_Normaliser().visit(ast.Module([copy.deepcopy(tree)], [])))


class _Normaliser(ast.NodeTransformer):
    """Removes what does not change what the code does, and what is recorded elsewhere as a hyperparameter."""

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = _without_docstring(node.body)
        return self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = _without_docstring(node.body)
        if node.name == "__init__":
            node.args.defaults = [_blank(default) for default in node.args.defaults]
            node.args.kw_defaults = [None if default is None else _blank(default) for default in node.args.kw_defaults]
        if node.name == "configure_optimizers":
            _NumberBlanker().visit(node)
        return self.generic_visit(node)


class _NumberBlanker(ast.NodeTransformer):
    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return _blank(node)


def _blank(node: ast.expr) -> ast.expr:
    is_number = isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool)
    return ast.Constant(value=0) if is_number else node


def _without_docstring(body: list[ast.stmt]) -> list[ast.stmt]:
    first = body[0] if body else None
    is_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return (body[1:] or [ast.Pass()]) if is_docstring else body
