"""The graph of our modules: no circle anywhere, lazy imports included, and sub-rooms import in one direction."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("store", "metamodel", "metahp_tuning", "lightning_metahp", "hf_callbacks", "metahp_report", "compare_baselines", "metahp_cli")
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in (*PACKAGES, "studies")
    for path in sorted((ROOT / package).rglob("*.py"))
}
# A room imports those before it. What stands beside the sub-rooms comes last, except for what imports none of them (below).
ROOMS_OF = {
    "store": ("sqlite", "recording", "upkeep"),
    "metamodel": ("space", "data", "gp", "networks", "search", "starter"),
}


def executed(node: ast.AST) -> Iterator[ast.AST]:
    """Everything below a node, but what stands under TYPE_CHECKING."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from executed(child)


def imported(module: str) -> set[str]:
    """Our modules that a module imports, at once or later."""
    found = set()
    for node in executed(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            below = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= below if below <= FILES.keys() else below & FILES.keys() | {node.module or ""}
    return (found & FILES.keys()) - {module}


GRAPH = {module: imported(module) for module in FILES}


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter(GRAPH).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


@cache
def level(module: str) -> int:
    """How far up in its package a module stands."""
    package, _, rest = module.partition(".")
    rooms, room = ROOMS_OF[package], rest.partition(".")[0]
    if room in rooms:
        return 1 + rooms.index(room)
    if room == "importers":
        return len(rooms) + 2
    is_base = not any(level(other) for other in GRAPH[module] if other.startswith(f"{package}."))
    return 0 if is_base else len(rooms) + 1


@pytest.mark.parametrize("module", [module for module in FILES if module.partition(".")[0] in ROOMS_OF])
def test_sub_rooms_import_in_one_direction(module: str) -> None:
    package = module.partition(".")[0]
    assert not {other for other in GRAPH[module] if other.startswith(f"{package}.") and level(other) > level(module)}
