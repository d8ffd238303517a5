"""Files beside a history that only spare work."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from store import History
from store.sqlite.cache import from_columns, origin_of_history, packed, read_cache, to_columns, unpacked, write_cache


@given(st.lists(st.floats()))
def test_packed_floats_come_back_bit_for_bit(numbers: list[float]) -> None:
    assert [value.hex() if math.isfinite(value) else repr(value) for value in unpacked(packed(numbers))] == [
        value.hex() if math.isfinite(value) else repr(value) for value in numbers
    ]


@pytest.mark.parametrize("text", ["?", "AAAA", "AAAAAAAAAA="])
def test_a_damaged_text_of_floats_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - base64's own, or ours
        unpacked(text)


@pytest.mark.parametrize("value", [None, True, 1, 0.5, "a", (1, 2.0), [1], {"a": 1}])
def test_a_value_that_all_share_is_kept_once_with_its_type(value: object) -> None:
    n, same, each = from_columns(json.loads(json.dumps(to_columns([{"a": value}, {"a": value}]))))
    assert (n, same, each) == (2, {"a": value}, {})
    assert type(same["a"]) is type(value)


@pytest.mark.parametrize(
    ("values", "is_shared"), [((1.0, 1.0), True), ((1.0, 1), False), ((0.0, -0.0), False), ((math.nan, math.nan), True)]
)
def test_values_are_shared_only_if_nothing_tells_them_apart(values: tuple[float, float], is_shared: bool) -> None:
    assert ("a" in to_columns([{"a": value} for value in values])["same"]) is is_shared


def test_a_cache_belongs_to_one_database_and_one_version(tmp_path: Path) -> None:
    path = tmp_path / "some.cache"
    write_cache(path, 3, "then", {"content": [1]})
    assert (read_cache(path, 3, "then") or {})["content"] == [1]
    assert read_cache(path, 4, "then") is None
    assert read_cache(path, 3, "now") is None
    assert read_cache(tmp_path / "none.cache", 3, "then") is None


def test_a_write_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    write_cache(tmp_path / "some.cache", 1, "then", {"content": 1})
    monkeypatch.setattr(os, "replace", full)
    write_cache(tmp_path / "some.cache", 1, "then", {"content": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["some.cache"]
    assert (read_cache(tmp_path / "some.cache", 1, "then") or {})["content"] == 1


def test_two_databases_have_different_origins(tmp_path: Path) -> None:
    origins = []
    for name in ("a.db", "b.db"):
        with History(tmp_path / name) as history:
            origins += [origin_of_history(history), origin_of_history(history)]
    assert origins[0] == origins[1] != origins[2] == origins[3]
