from __future__ import annotations

import math

import pytest

from metahp_report.wording import clean, count, listed, moment, show_config, show_duration, show_energy, show_number, show_share


def test_a_foreign_text_becomes_one_short_visible_line() -> None:
    assert clean("a\n\tb") == "a b"
    assert clean("\u202eexe.gnp\u0000\u200b") == "exe.gnp"
    assert clean("x" * 100, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.000123456, "0.0001235"), (3.0, "3"), (1e9, "1e+09"), (math.nan, "\u2013"), (None, "\u2013"), (math.inf, "∞"), (-0.5, "-0.5")],
)
def test_numbers_have_four_digits_and_no_number_is_a_dash(value: float | None, text: str) -> None:
    assert show_number(value) == text


def test_only_nothing_is_0_percent_and_only_everything_100() -> None:
    assert [show_share(value) for value in (0.0, 0.001, 0.424, 0.999, 1.0)] == ["0 %", "< 1 %", "42 %", "> 99 %", "100 %"]


def test_durations_and_energies_have_units_that_fit() -> None:
    assert [show_duration(value) for value in (0.84, 90.0, 600.0, 7300.0, 5e5)] == ["0.8 s", "90 s", "10 min", "2.0 h", "5.8 days"]
    assert [show_energy(value) for value in (None, 12.0, 4500.0, 3.6e6)] == ["not measured", "12 J", "4.5 kJ", "1 kWh"]


def test_a_time_is_read_in_utc_and_what_is_none_is_left_out() -> None:
    assert moment("2026-01-02T03:04:05.678901Z") == "2026-01-02T03:04:05"
    assert moment("2026-01-02T03:04:05+02:00") == "2026-01-02T01:04:05"
    assert [moment(text) for text in (None, "", "yesterday", "2026-01-02T03:04:05.1.2Z")] == [None] * 4


def test_a_configuration_names_the_first_and_counts_the_others() -> None:
    assert show_config({"a": 0.5, "b": "sgd", "c": True}, ["b", "a", "missing", "c"], most=2) == "b sgd, a 0.5 and 1 more"


def test_counts_and_lists_read_as_sentences() -> None:
    assert [count(1, "run"), count(2000, "run")] == ["1 run", "2,000 runs"]
    assert [listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdefg"))] == ["a", "a, b and c", "a, b, c, d, e and 2 more"]
