"""Whatever a user logs or passes is stored and read back equal, or as a stated, typed representation."""

from __future__ import annotations

import math
import sqlite3
import string
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from store import History
from store.values import Opaque

AWKWARD_NAMES = [
    "Robert'); DROP TABLE runs;--",
    '" OR 1=1 --',
    "select",
    "%s%d{}",
    "学习率",
    "معدل_التعلم",
    "naïve\u0301 ☃ 🧨",
    "tab\tnew\nline",
    "nul\x00inside",
    " ",
    "",
    "val/acc",
    "a" * 5_000,
    "$type",
    "__class__",
]


def test_names_in_any_script_and_names_that_look_like_sql_are_names(history: History) -> None:
    values = {name: float(number) for number, name in enumerate(AWKWARD_NAMES)}
    with history.start_run(task=AWKWARD_NAMES[0], hparams=values, objective="acc") as run:
        run.log(values, acc=1.0)
    record = history.run(run.id)
    assert {param.raw_name: param.value for param in record.provenance.values()} == values
    assert {item.name: item.value for item in history.metrics(run.id) if item.name != "acc"} == values
    assert history.task(AWKWARD_NAMES[0]).n_runs == 1
    for name in AWKWARD_NAMES:
        assert [item.value for item in history.metrics(run.id, name)] == [values[name]]


def test_a_lone_surrogate_in_a_name_is_written_out(history: History) -> None:
    with history.start_run(task="t\ud800", hparams={"n\udfff": "v\udfff"}) as run:
        run.log({"m\ud800": 1.0})
    assert history.metric_names(run.id) == ["m\\ud800"]
    assert history.run(run.id).hparams == {"n\\udfff": "v\udfff"}


def test_a_thousand_hyperparameters_and_long_texts_come_back(history: History) -> None:
    hparams: dict[str, Any] = {f"p{number}": number for number in range(1_000)}
    hparams |= {"text": "x" * 900_000, "huge": "y" * 1_000_001}
    with history.start_run(task="t", hparams=hparams) as run:
        pass
    back = history.run(run.id).hparams
    huge = back.pop("huge")
    assert back == {name: value for name, value in hparams.items() if name != "huge"}
    assert isinstance(huge, Opaque)
    assert huge.text.startswith("str, length 1000001, sha256 ")


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (2**63, float(2**63)),
        (-(2**64), float(-(2**64))),
        (10**400, math.inf),
        (-(10**400), -math.inf),
        (math.nan, math.nan),
        (math.inf, math.inf),
        (True, 1.0),
        (5e-324, 5e-324),
        (-0.0, 0.0),  # SQLite knows no negative zero
    ],
)
def test_a_metric_is_a_float_whatever_number_it_was(history: History, value: Any, stored: float) -> None:
    with history.start_run(task="t") as run:
        run.log(m=value, step=2**70)
    (item,) = history.metrics(run.id)
    assert str(item.value) == str(stored)
    assert item.step == 2**62  # as far as a step counts


def test_what_is_no_number_is_left_out_and_said_once(history: History, caplog: pytest.LogCaptureFixture) -> None:
    with history.start_run(task="t") as run:
        for _ in range(3):
            run.log(good=1.0, bad="text", worse=[1], none=None)
    assert history.metric_names(run.id) == ["good"]
    assert sum("is no number and is left out" in record.message for record in caplog.records) == 3


class Hostile:
    """An object that fails however it is looked at."""

    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __reduce__(self) -> Any:
        raise RuntimeError("no")

    def __len__(self) -> int:
        raise RuntimeError("no")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no")

    __hash__ = None  # type: ignore[assignment]


def test_hostile_cyclic_and_bottomless_values_are_stored_as_what_they_are(history: History) -> None:
    cycle: dict[str, Any] = {"a": 1}
    cycle["self"] = [cycle]
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    with history.start_run(task="t", hparams={"hostile": Hostile(), "cycle": cycle, "deep": deep, "fine": 1}) as run:
        pass
    back = history.run(run.id).hparams
    assert back["fine"] == back["cycle"]["a"] == back["cycle"]["self"][0]["a"] == 1
    assert isinstance(back["hostile"], Opaque)
    assert "Hostile" in back["hostile"].text
    inner = back["deep"]
    for _ in range(30):
        inner = inner[0]
    assert isinstance(inner, list)


anything = st.one_of(st.floats(), st.integers(), st.booleans())


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), anything, min_size=1, max_size=6), st.integers())
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_logged_values_come_back_under_their_names(history: History, values: dict[str, Any], step: int) -> None:
    with history.start_run(task="t") as run:
        run.log(values, step=step)
    found = {item.name: item.value for item in history.metrics(run.id)}
    assert list(found) == sorted(values, key=lambda name: name.encode())
    for name, value in values.items():
        expected = float(value)
        assert found[name] == expected or (math.isnan(found[name]) and math.isnan(expected))


def test_what_is_stored_can_be_queried_by_hand(history: History) -> None:
    with history.start_run(task="t", hparams={"lr": 0.001, string.ascii_letters: "☃"}) as run:
        run.log(loss=math.nan)
    with sqlite3.connect(history.path) as raw:
        assert raw.execute("SELECT value_json FROM hparams WHERE name = 'learning_rate'").fetchone()[0] == "0.001"
        assert raw.execute("SELECT value, kind FROM metrics").fetchone() == (None, "nan")
    raw.close()
