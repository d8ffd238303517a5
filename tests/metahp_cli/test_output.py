"""Printing: JSON that every parser reads, tables that lose nothing in a pipe."""

from __future__ import annotations

import json
import math
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metahp_cli import output
from store.records import MetricRecord, TaskRecord


class Colour(StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
        (1.5, 1.5),
        (True, True),
        (None, None),
        (10**30, 10**30),
        (Colour.RED, "red"),
        ((1, 2.0), [1, 2.0]),
        ({"a": (math.nan,)}, {"a": ["nan"]}),
        ({1: 2}, {"1": 2}),
        (Path("a") / "b", str(Path("a") / "b")),
    ],
)
def test_a_value_becomes_what_json_can_hold(value: object, expected: object) -> None:
    assert output.to_json(value) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=20,
    )
)
def test_whatever_is_in_a_history_is_printed_as_valid_json(value: object) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(json.dumps(output.to_json(value), allow_nan=False), parse_constant=refuse)


def test_a_record_becomes_a_dictionary_of_its_fields() -> None:
    assert output.record_dict(MetricRecord("loss", 3, 0.5), leave_out=["elapsed_s", "epoch"]) == {
        "name": "loss",
        "step": 3,
        "value": 0.5,
        "attempt": 0,
    }
    assert output.to_json(output.record_dict(TaskRecord("t1", "digits", True)))["merged_ids"] == []


def test_a_table_in_a_pipe_has_one_line_per_row_and_cuts_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 300
    output.print_table(("id", "text"), [("a", long), ("b", "[redacted]"), ("c", None)])
    lines = capsys.readouterr().out.splitlines()
    assert sum(long in line for line in lines) == 1
    assert any("[redacted]" in line for line in lines)
    assert len(lines) == 2 + 3


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"task": "digits", "error": None, "best": 0.123456})
    assert capsys.readouterr().out.split() == ["task", "digits", "best", "0.1235"]


def test_fields_in_a_pipe_have_one_line_each_and_end_where_their_value_does(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_fields({"task": "digits", "started (UTC)": "", "reason": "[redacted]\nin two lines"})
    assert capsys.readouterr().out == "task           digits\nstarted (UTC)\nreason         [redacted] in two lines\n"


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, None),
        (math.nan, None),
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (119.4, "119 s"),
        (600, "10.0 min"),
        (7200, "2.0 h"),
        (200_000, "2.3 d"),
    ],
)
def test_a_duration_reads_well(seconds: float | None, expected: str | None) -> None:
    assert output.show_duration(seconds) == expected


def test_progress_reports_in_a_pipe_are_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("learning") as report:
        report(0.5, "half")
        report(1.0, "done")
    captured = capsys.readouterr()
    assert captured.out + captured.err == ""


def test_a_remark_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    output.note("more")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "more\n")
