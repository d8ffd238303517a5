"""Which optimizer a module will use, before it makes one: what its ``configure_optimizers`` says in plain words.

A good learning rate for SGD is no good one for Adam. The optimizer itself exists only after ``setup``; its name mostly stands in the
source. Where it does not, or there are several, nothing is said.
"""

from __future__ import annotations

import ast
import inspect
import logging
import textwrap
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any

import torch
from lightning.pytorch import LightningModule

from lightning_metahp.settings import held_optimizers
from metahp_tuning.class_source import class_tree, covers
from metahp_tuning.optimizer_description import optimizer_name

_log = logging.getLogger(__name__)


def written_optimizer(module: LightningModule) -> dict[str, Any]:
    """Return ``optimizer``, the name of its class, and the ``momentum`` of SGD where that is written down; empty where it is not clear."""
    held = {optimizer_name(value) for value in held_optimizers(module).values()}
    if held:
        return {"optimizer": held.pop()} if len(held) == 1 else {}
    return dict(_written(type(module), type(module).configure_optimizers))  # type: ignore[arg-type]


@lru_cache(maxsize=128)
def _written(cls: type, method: Callable[..., Any]) -> tuple[tuple[str, Any], ...]:
    try:
        tree = _tree_of(cls, method)
    except (OSError, TypeError, SyntaxError, ValueError) as error:
        _log.debug("no source for %s: %s", method.__qualname__, error)
        return ()
    scope = getattr(method, "__globals__", {})
    calls = {node: name for node in ast.walk(tree) if isinstance(node, ast.Call) and (name := _optimizer_name(node.func, scope))}
    if len(set(calls.values())) != 1:
        return ()
    name = next(iter(calls.values()))
    found: list[tuple[str, Any]] = [("optimizer", name)]
    if name == "SGD" and len(calls) == 1:
        written = [keyword.value for keyword in next(iter(calls)).keywords if keyword.arg in ("momentum", None)]
        if not written:
            found.append(("momentum", 0.0))
        elif isinstance(written[0], ast.Constant) and isinstance(written[0].value, int | float):
            found.append(("momentum", float(written[0].value)))
    return tuple(found)


def _tree_of(cls: type, method: Callable[..., Any]) -> ast.AST:
    """Return the definition of a method, from the tree of its class, which is there already, where it stands in one."""
    own = f"{method.__module__}:{method.__qualname__}"
    home = next((base for base in cls.__mro__ if own == f"{base.__module__}:{base.__qualname__}.{method.__name__}"), None)
    if home is not None and hasattr(method, "__code__"):
        first = method.__code__.co_firstlineno
        with suppress(OSError, TypeError, SyntaxError, ValueError):  # a class of a notebook has no file, but its methods have source
            for node in class_tree(home).body:
                if isinstance(node, ast.FunctionDef) and node.name == method.__name__ and covers(node, first):
                    return node
    return ast.parse(textwrap.dedent(inspect.getsource(method)))


def _optimizer_name(function: ast.expr, scope: dict[str, Any]) -> str | None:
    """Return the name of the optimizer class that a call makes, None where it makes something else."""
    if isinstance(function, ast.Attribute):
        home = _dotted(function.value) or ast.unparse(function.value)
        if home.split(".")[-1] != "optim" and not inspect.ismodule(scope.get(home)):
            return None
        name, made = function.attr, getattr(scope.get(home), function.attr, getattr(torch.optim, function.attr, None))
    elif isinstance(function, ast.Name):
        name, made = function.id, scope.get(function.id)
    else:
        return None
    return name if inspect.isclass(made) and issubclass(made, torch.optim.Optimizer) else None


def _dotted(node: ast.expr) -> str:
    """Return ``torch.optim`` as it is written; empty where it is more than names. ``ast.unparse`` sets up a whole writer for it."""
    if isinstance(node, ast.Name):
        return node.id
    base = _dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{base}.{node.attr}" if base and isinstance(node, ast.Attribute) else ""
