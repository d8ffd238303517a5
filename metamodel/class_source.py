"""The source of a user's class as a syntax tree, each file parsed once.

``inspect.getsource`` parses a file anew for each of its classes, and then reads the class token by token: with a module, a datamodule
and their bases in one long script that is most of what starting a run costs.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import sys
from collections.abc import Iterable, Iterator
from functools import lru_cache
from types import CodeType


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
    found = _definitions("".join(lines)).get(cls.__qualname__)
    if not found:
        raise OSError(f"no source of {cls.__qualname__} was found in {file}")
    # One name may be defined more than once, as in the branches of an `if`: the methods say which of them this is.
    firsts = [code.co_firstlineno for value in vars(cls).values() for code in _codes(value) if code.co_filename == file]
    return next((node for node in reversed(found) if any(node.lineno <= first <= _last_line(node) for first in firsts)), found[-1])


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
