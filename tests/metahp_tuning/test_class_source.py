"""The syntax tree of a class is the one ``inspect`` would lead to, and the right one where a name was defined twice."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
import transformers.models.bert.modeling_bert as bert

from metahp_tuning.class_source import class_tree


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], ModuleType]:
    monkeypatch.syspath_prepend(tmp_path)

    def loaded(name: str, source: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        return importlib.import_module(name)

    return loaded


Load = Callable[[str, str], ModuleType]


class Outer:
    class Inner:
        def method(self) -> str:
            return "inner"

    def method(self) -> str:
        return "outer"


def made_in_a_function() -> type:
    if Outer is not None:
        try:

            class Local:
                def method(self) -> str:
                    return "local"

        finally:
            pass
    return Local


@pytest.mark.parametrize(
    "cls",
    [Outer, Outer.Inner, made_in_a_function(), torch.nn.Linear, torch.nn.LSTM, pl.Trainer, bert.BertModel, ast.NodeVisitor, Path],
    ids=lambda cls: cls.__qualname__,
)
def test_the_tree_is_that_of_the_source_that_inspect_finds(cls: type) -> None:
    assert ast.dump(class_tree(cls)) == ast.dump(ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0])


def test_of_two_definitions_in_branches_it_is_the_one_that_was_taken(load: Load) -> None:
    source = """
        def make(flag):
            if flag:
                class Model:
                    def forward(self):
                        return 1
            else:
                class Model:
                    def forward(self):
                        return 2
            return Model
    """
    module = load("metahp_branches", source)
    for flag, number in ((True, "return 1"), (False, "return 2")):
        assert number in ast.unparse(class_tree(module.make(flag)))


def test_properties_and_decorated_methods_tell_two_definitions_apart(load: Load) -> None:
    source = """
        from functools import wraps
        def logged(function):
            @wraps(function)
            def wrapper(*args):
                return function(*args)
            return wrapper
        class A:
            @property
            def x(self):
                return 1
        First = A
        class A:
            @logged
            @logged
            def y(self):
                return 2
        Second = A
        class A:
            @classmethod
            def z(cls):
                return 3
    """
    module = load("metahp_twice", source)
    for cls, number in ((module.First, 1), (module.Second, 2), (module.A, 3)):
        assert f"return {number}" in ast.unparse(class_tree(cls))


def test_a_class_without_methods_has_the_last_definition_of_its_name(load: Load) -> None:
    module = load("metahp_plain", "class A:\n    x = 1\nclass A:\n    x = 2\n")
    assert "x = 2" in ast.unparse(class_tree(module.A))


def test_a_class_without_source_raises_what_inspect_raises(load: Load, tmp_path: Path) -> None:
    with pytest.raises((OSError, TypeError)):
        class_tree(type("Made", (), {}))
    with pytest.raises(TypeError):
        class_tree(int)
    module = load("metahp_gone", "class A:\n    pass\n")
    (tmp_path / "metahp_gone.py").write_text("class B:\n    pass\n")
    with pytest.raises(OSError, match="no source of A"):
        class_tree(module.A)


def test_a_decorator_from_another_file_does_not_choose_the_definition(load: Load) -> None:
    def foreign(function: Any) -> Any:
        @wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        del wrapper.__wrapped__  # type: ignore[attr-defined]
        return wrapper

    source = "class A:\n    def x(self):\n        return 1\n" + "\n" * 200 + "class A:\n    def x(self):\n        return 2\n"
    module = load("metahp_foreign", source)
    module.A.x = foreign(module.A.x)
    assert "return 2" in ast.unparse(class_tree(module.A))


AWKWARD = {
    "an example of itself in its text": """
        class A:
            \"\"\"Used as

            class A:
                def x(self):
                    return 0
            \"\"\"

            def x(self):
                return 1
    """,
    "a text that goes back to the margin": """
        class A:
            def x(self):
                return \'\'\'
        not indented
        \'\'\'
            def y(self):
                return 1
    """,
    "bases over several lines": """
        class A(
            object,
        ):
            def x(self):
                return 1
    """,
    "a comment at the margin": """
        class A:
            def x(self):
                return 1
        # of the margin
            def y(self):
                return 2
        x = 1
    """,
    "a decorator": """
        def mark(*_):
            return lambda cls: cls
        @mark(
            1,
        )
        # said of it
        class A:
            @property
            def x(self):
                return 1
    """,
    "a method under a condition": """
        class A:
            if True:
                def x(self):
                    return 1
            y = 2
    """,
    "a class of the same name inside": """
        class A:
            def z(self):
                return 0
            class A:
                def x(self):
                    return 1
    """,
    "a function that was moved in": """
        class B:
            def x(self):
                return 1
        class A:
            y = 1
        A.x = B.x
    """,
    "a method that another class lent": """
        class A:
            def x(self):
                return 1
        class B:
            z = lambda self: 1
            def y(self):
                return 2
        A.y = B.y
    """,
    "a decorator whose argument is at the margin": """
        v = 1
        def mark(*_):
            return lambda cls: cls
        @mark(
        v,
        )
        class A:
            def x(self):
                return 1
    """,
    "a decorator on two lines": """
        def mark(*_):
            return lambda cls: cls
        @mark\\
        (1)
        class A:
            def x(self):
                return 1
    """,
    "a class that took over a method of the one before": """
        class A:
            def x(self):
                return 1
        _old = A
        class A:
            x = _old.x
            y = lambda self: 2
    """,
    "a line that goes on": """
        class A:
            y = 1 + \\
        2
            async def x(self):
                return 1
    """,
}


@pytest.mark.parametrize("source", AWKWARD.values(), ids=list(AWKWARD))
def test_an_awkwardly_written_class_is_found(load: Load, source: str) -> None:
    module = load("metahp_awkward", source)
    text = textwrap.dedent(source)
    for name in ("A", "B"):
        if hasattr(module, name):
            whole = next(node for node in reversed(ast.parse(text).body) if isinstance(node, ast.ClassDef) and node.name == name)
            assert ast.dump(class_tree(getattr(module, name)), include_attributes=True) == ast.dump(whole, include_attributes=True)


def test_nodes_keep_their_places_in_the_file() -> None:
    for cls in (Outer.Inner, made_in_a_function(), torch.nn.LSTM):
        tree = class_tree(cls)
        lines = inspect.getsource(sys.modules[cls.__module__]).splitlines()
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                assert lines[node.lineno - 1][node.col_offset :].startswith(f"def {node.name}")
