from __future__ import annotations

import functools
import json
import math
import operator
import types
from argparse import Namespace
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from store.values import REDACTED, Opaque, decode_value, encode_value, redact_text, same_value
from tests.contrary import Contrary

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=2**63, max_value=2**4096),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(),
    st.binary(),
    st.complex_numbers(),
    st.dates(),
    st.datetimes(),
    st.timedeltas(),
    st.decimals(allow_nan=False),
    st.fractions(),
)
hashable = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary())
plain_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(st.text(), inner, max_size=4),
        st.dictionaries(hashable, inner, max_size=4),
        st.sets(hashable, max_size=4),
        st.frozensets(hashable, max_size=4),
    ),
    max_leaves=12,
)


def is_same(left: Any, right: Any) -> bool:
    """Equality with types, where NaN equals NaN and 0.0 differs from -0.0."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (math.isnan(left) and math.isnan(right)) or (left == right and math.copysign(1, left) == math.copysign(1, right))
    if isinstance(left, complex):
        return is_same(left.real, right.real) and is_same(left.imag, right.imag)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(is_same, left, right))
    if isinstance(left, dict):
        return is_same(list(left), list(right)) and is_same(list(left.values()), list(right.values()))
    return bool(left == right)


def without_secrets(value: Any) -> bool:
    """Whether privacy leaves the value alone: generated keys may happen to be secret names, texts may look like URLs or places."""
    stored = encode_value(value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METAHP_RECORD_PATHS", "1")
        return REDACTED not in stored and encode_value(value) == stored


@given(plain_values.filter(without_secrets))
@settings(max_examples=150, deadline=None)
def test_plain_values_come_back_equal_and_of_the_same_type(value: Any) -> None:
    assert is_same(decode_value(encode_value(value)), value)


@given(plain_values)
@settings(max_examples=60, deadline=None)
def test_encoded_values_are_strict_ascii_json(value: Any) -> None:
    def refuse(token: str) -> None:
        raise AssertionError(f"{token} is no JSON")

    text = encode_value(value)
    assert text.isascii()
    json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        math.inf,
        -math.inf,
        -0.0,
        5e-324,
        2**64,
        -(2**200),
        10**5000,
        "",
        "\x00\ud800 ☃",
        "x" * 900_000,
        {"$type": "tuple", "value": [1]},
        {1: "a", "1": "b"},
        [[[[[]]]], ()],
        {"a": {"b": ({"c": [math.nan]},)}},
        Path("runs/one"),
        time(1, 2, 3),
        datetime(2025, 1, 2, tzinfo=UTC),
        range(1, 10, 2),
        b"\xff\x00",
    ],
    ids=lambda value: repr(value)[:30] if not isinstance(value, int) else f"int of {value.bit_length()} bits",
)
def test_awkward_values_come_back_equal(value: Any) -> None:
    assert is_same(decode_value(encode_value(value)), value)


def test_plain_values_are_readable_by_hand() -> None:
    assert [encode_value(value) for value in (0.001, 32, "adam", True, None, [1, 2])] == [
        "0.001",
        "32",
        '"adam"',
        "true",
        "null",
        "[1,2]",
    ]
    assert encode_value(math.nan) == '{"$type":"float","value":"nan"}'


@pytest.mark.parametrize(
    "value", [list(range(300_000)), "x" * 2_000_000, {str(key): key for key in range(100_000)}], ids=["list", "str", "dict"]
)
def test_a_huge_value_is_stored_as_what_it_was(value: Any) -> None:
    text = encode_value(value)
    back = decode_value(text)
    assert len(text) < 1000
    assert back.kind == "truncated"
    assert back.text.startswith(f"{type(value).__name__}, length {len(value)}, sha256 ")
    assert encode_value(value) == text
    longer = {**value, "more": 1} if isinstance(value, dict) else value + value[:1]
    assert encode_value(longer) != text


class Colour(Enum):
    RED = (1, 2)


class Level(IntEnum):
    HIGH = 3


class Strategy(StrEnum):
    STEPS = "steps"


@dataclass
class Config:
    lr: float
    api_key: str
    layers: tuple[int, ...] = (1, 2)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Colour.RED, (1, 2)),
        (Level.HIGH, 3),
        (Strategy.STEPS, "steps"),
        (Config(0.1, "k"), {"lr": 0.1, "api_key": REDACTED, "layers": (1, 2)}),
        (Namespace(lr=0.1, tags=["a"]), {"lr": 0.1, "tags": ["a"]}),
        (types.SimpleNamespace(lr=0.1), {"lr": 0.1}),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), math.nan),
        (np.int64(2**62), 2**62),
        (np.bool_(True), True),
        (np.str_("adam"), "adam"),
        (np.array(0.25), 0.25),
        (torch.Size([2, 3]), [2, 3]),
        (torch.device("cpu"), "cpu"),
        (bytearray(b"ab"), b"ab"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_foreign_values_become_their_plain_counterparts(value: Any, expected: Any) -> None:
    back = decode_value(encode_value(value))
    if isinstance(value, torch.Size):
        back = list(back)
    assert is_same(back, expected)


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (torch.nn.functional.relu, "function", "torch.nn.functional.relu"),
        (functools.partial(operator.add, 1), "function", "partial(_operator.add, ((1,), {}))"),
        (torch.nn.ReLU, "class", "torch.nn.modules.activation.ReLU"),
        (torch.nn.Linear(2, 3), "module", "torch.nn.modules.linear.Linear"),
        (math, "module", "math"),
        (torch.ones(2, 3), "tensor", "torch.float32[2, 3]"),
        (torch.float16, "dtype", "torch.float16"),
        (np.dtype("int8"), "dtype", "int8"),
        (np.array([[1, 2]]), "array", "int64[1, 2] [[1, 2]]"),
    ],
)
def test_things_without_a_value_become_a_stable_text(value: Any, kind: str, text: str) -> None:
    back = decode_value(encode_value(value))
    assert back == Opaque(kind, text)
    assert str(back) == text
    assert decode_value(encode_value(back)) == back


def test_equal_objects_of_two_runs_look_equal() -> None:
    class Thing:
        pass

    assert encode_value(Thing()) == encode_value(Thing())
    assert "0x" not in encode_value([Thing()])


def test_nothing_that_can_be_passed_makes_encoding_fail() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError("no")

    cyclic: list[Any] = []
    cyclic.append(cyclic)
    mapping: dict[str, Any] = {}
    mapping["self"] = mapping
    for value in (Hostile(), cyclic, mapping, {Hostile(): 1}, iter([1]), lambda: 1, object(), np.array([object()])):
        assert json.loads(encode_value(value)) is not None


@pytest.mark.parametrize("name", ["hf_token", "apiKey", "model.secret", "DB_PASSWORD", "aws_access_key"])
def test_values_under_secret_names_are_redacted(name: str) -> None:
    assert decode_value(encode_value("hunter2", name)) == REDACTED
    assert decode_value(encode_value({"a": [{name: "hunter2"}]})) == {"a": [{name: REDACTED}]}
    assert "hunter2" not in encode_value(("hunter2",), name)
    assert "hunter2" not in encode_value({"inner": "hunter2"}, name)


def test_switches_and_absent_credentials_are_not_redacted() -> None:
    assert decode_value(encode_value(True, "use_auth_token")) is True
    assert decode_value(encode_value(None, "hub_token")) is None
    assert decode_value(encode_value(0, "pad_token_id")) == 0


def test_credentials_in_urls_are_redacted() -> None:
    url = "s3 at https://me:hunter2@host/x?api_key=hunter2&page=3 and postgres://u:hunter2@h/db"
    assert redact_text(url) == f"s3 at https://{REDACTED}@host/x?api_key={REDACTED}&page=3 and postgres://{REDACTED}@h/db"
    assert "hunter2" not in encode_value({"url": [url]})
    assert redact_text("https://host/path?page=3") == "https://host/path?page=3"


def test_dates_and_exact_numbers_keep_their_types() -> None:
    values = [date(2025, 1, 2), timedelta(days=-1, microseconds=3), Decimal("0.1"), Fraction(1, 3)]
    assert decode_value(encode_value(values)) == values


def test_absent_text_is_none_and_an_unknown_tag_is_kept_as_text() -> None:
    assert decode_value(None) is None
    assert decode_value('{"$type":"hologram","value":"x"}') == Opaque("hologram", "x")


class Vague:
    """An object whose comparison is no truth."""

    def __eq__(self, other: object) -> object:  # type: ignore[override]
        return Contrary()

    __hash__ = None  # type: ignore[assignment]


def _pairs() -> dict[str, tuple[Any, Any, bool]]:
    itself: list[Any] = []
    itself += [itself, itself]
    other: list[Any] = []
    other += [other, other]
    contrary, frame = Contrary(), pd.DataFrame({"a": [1, 2]})
    adam = functools.partial(torch.optim.Adam, lr=0.1)
    return {
        "tensors": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 2.0]), True),
        "other tensors": (torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), False),
        "tensors of other shapes": (torch.zeros(2), torch.zeros(2, 2), False),
        "an empty array and a number": (np.zeros(0), 0.0, False),
        "arrays in a list": ([np.ones(3), 1], [np.ones(3), 1], True),
        "arrays in a dictionary": ({"a": np.ones(3)}, {"a": np.zeros(3)}, False),
        "pandas": (frame, frame.copy(), True),
        "other columns": (frame, pd.DataFrame({"b": [1, 2]}), False),
        "partials": (adam, functools.partial(torch.optim.Adam, lr=0.1), True),
        "other partials": (adam, functools.partial(torch.optim.Adam, lr=0.2), False),
        "contrary": (contrary, contrary, True),
        "two contrary ones": (Contrary(), Contrary(), False),
        "contrary and a number": (1.0, Contrary(), False),
        "in a list": ([Contrary()], [Contrary()], False),
        "vague": (Vague(), Vague(), False),
        "lists that hold themselves": (itself, other, False),
        "numbers too large for a float": (10**400, 10**400, True),
        "classes": (torch.optim.Adam, torch.optim.Adam, True),
    }


@pytest.mark.parametrize("name", _pairs())
def test_any_two_values_can_be_compared(name: str) -> None:
    a, b, expected = _pairs()[name]
    assert same_value(a, b) is expected


def test_an_entry_that_cannot_be_read_costs_that_entry() -> None:
    config = pytest.importorskip("omegaconf").OmegaConf.create(
        {"lr": 0.1, "gone": "???", "wrong": "${nowhere.at.all}", "layers": [1, "???", 3], "inner": {"x": "${y}", "z": 2}}
    )
    assert same_value(config, config.copy())
    back = decode_value(encode_value(config))
    assert (back["lr"], back["inner"]["z"], back["layers"][0], back["layers"][2]) == (0.1, 2, 1, 3)
    assert (str(back["gone"]), str(back["wrong"])) == ("unreadable: MissingMandatoryValue", "unreadable: InterpolationKeyError")


def test_a_list_that_holds_itself_twice_is_written_in_no_time() -> None:
    itself: list[Any] = [1]
    itself += [itself, itself]
    assert encode_value(itself).count("that holds itself") == 4


@pytest.mark.parametrize("value", [Contrary(), [Contrary()], {"a": Contrary()}, {1: Contrary()}, Vague()])
def test_an_object_that_answers_no_question_is_written_by_its_class(value: Any) -> None:
    assert "Contrary" in encode_value(value) or "Vague" in encode_value(value)
