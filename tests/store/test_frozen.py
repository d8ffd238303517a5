"""``Frozen`` behaves like the frozen dataclass it stands for."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import pprint
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamodel import Recommendation, TaskDescription
from store.frozen import Frozen


class Point(Frozen):
    """A point with a label."""

    kind: ClassVar[str] = "point"

    x: int
    y: float = 0.5
    notes: Mapping[str, Any] = {}

    @property
    def total(self) -> float:
        return self.x + self.y


class Named(Point):
    name: str = "a"


class Label(Frozen):
    text: str


@dataclasses.dataclass(frozen=True)
class Reference:
    x: int
    y: float = 0.5
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@given(st.integers(), st.floats(allow_nan=False), st.dictionaries(st.text(), st.integers()))
def test_every_use_of_a_dataclass_gives_what_a_dataclass_gives(x: int, y: float, notes: dict[str, int]) -> None:
    made, reference = Point(x, y, notes), Reference(x, y, notes)
    assert dataclasses.asdict(made) == dataclasses.asdict(reference)
    assert dataclasses.astuple(made) == dataclasses.astuple(reference)
    assert repr(made) == repr(reference).replace("Reference", "Point")
    assert dataclasses.replace(made, x=1) == Point(1, y, notes)
    of_made, of_reference = (
        [(item.name, item.type, item.default, item.default_factory is dataclasses.MISSING) for item in dataclasses.fields(record)]
        for record in (made, reference)
    )
    assert of_made == of_reference
    assert pickle.loads(pickle.dumps(made)) == copy.deepcopy(made) == copy.copy(made) == made


def test_fields_have_the_order_of_the_annotations_and_those_of_the_base_come_first() -> None:
    assert Named(1, 2.0, {}, "b") == Named(name="b", notes={}, y=2.0, x=1)
    assert [item.name for item in dataclasses.fields(Named)] == ["x", "y", "notes", "name"]
    assert [item.name for item in dataclasses.fields(Point)] == ["x", "y", "notes"]
    assert list(inspect.signature(Named).parameters) == ["x", "y", "notes", "name"]
    match Named(1, name="c"):
        case Point(x, name=name):
            assert (x, name) == (1, "c")


def test_a_class_variable_is_no_field() -> None:
    assert Point.kind == "point"
    with pytest.raises(TypeError, match="kind"):
        Point(1, kind="other")  # type: ignore[call-arg]


def test_only_instances_of_one_class_are_equal_and_equal_ones_have_one_hash() -> None:
    assert Point(1) != Named(1)
    assert Point(1) != (1, 0.5, {})
    assert hash(Label("a")) == hash(Label("a"))
    assert len({Label("a"), Label("a"), Label("b")}) == 2
    with pytest.raises(TypeError, match="unhashable"):
        hash(Point(1))


def test_a_field_can_be_neither_set_nor_deleted() -> None:
    point = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match=r"cannot assign to field 'x'; dataclasses.replace\(\)"):
        point.x = 2  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert point == Point(1)


def test_no_instance_shares_its_default_with_another() -> None:
    first, second = Point(1), Point(1)
    assert isinstance(first.notes, dict)
    first.notes["seen"] = True
    assert second.notes == {}
    assert dataclasses.replace(second, x=2).notes == {}


@pytest.mark.parametrize(
    ("given", "named"),
    [((), {}), ((1, 2.0, {}, 4), {}), ((1,), {"x": 2}), ((1,), {"z": 2})],
    ids=["missing", "too many", "twice", "unknown"],
)
def test_fields_that_do_not_fit_are_refused_with_those_there_are(given: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"Point takes each of its fields once, but got .* in brackets: x, \[y\], \[notes\]\."):
        Point(*given, **named)


def test_what_users_hold_is_still_a_dataclass() -> None:
    for cls in (TaskDescription, Recommendation):
        assert dataclasses.is_dataclass(cls)
    described = TaskDescription("mine", n_train=3)
    assert TaskDescription.from_dict(described.to_dict()) == described
    assert dataclasses.replace(described, n_train=4).n_train == 4


def test_a_dataclass_can_be_made_of_it_and_it_is_printed_prettily() -> None:
    @dataclasses.dataclass(frozen=True)
    class Mine(TaskDescription):
        extra: int = 0

    mine = Mine("a", data_hparams={"dataset": "x" * 60, "split": "y" * 60}, extra=3)
    assert dataclasses.replace(mine, extra=4).to_dict() == {**mine.to_dict(), "extra": 4}
    for long in (mine, TaskDescription("a", data_hparams=mine.data_hparams)):
        assert "dataset" in pprint.pformat(long)


def test_annotations_that_are_no_texts_and_bases_of_other_kinds_are_read_as_well() -> None:
    seen = []

    class Noting:
        def __init_subclass__(cls, **options: Any) -> None:
            seen.append((cls.__name__, options))
            super().__init_subclass__()

    class Other(Frozen):
        other: int = 7

    annotations = {"kind": ClassVar[str], "more": list[int]}
    both = type("Both", (Point, Other, Noting), {"__annotations__": annotations, "kind": "x", "more": []}, tag=1)
    assert seen == [("Both", {"tag": 1})]
    # in the order of a dataclass of the same bases
    assert [item.name for item in dataclasses.fields(both)] == ["other", "x", "y", "notes", "more"]
    first, second = both(x=1), both(8, 1)
    assert (first.other, second.other) == (7, 8)
    assert first.more is not second.more
