from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metahp_report import comparison_report, history_report
from metahp_report.figures import coloured, figure, inert, plain
from metahp_report.parts import Kind, Plot, Series, Tone
from metahp_report.theme import DARK, LIGHT
from store import History
from tests.metahp_report.conftest import HOSTILE
from tests.metahp_report.recorded_comparison import write_comparison

graph_objects = pytest.importorskip("plotly.graph_objects", reason="plotly, the extra `report`, is not installed")


def test_plotly_reads_no_markup_in_a_foreign_text() -> None:
    assert inert("<a href='javascript:x'>b</a> & c") == "&lt;a href='javascript:x'&gt;b&lt;/a&gt; &amp; c"


def test_numbers_that_are_none_become_gaps_and_labels_inert() -> None:
    assert plain([1.0, math.nan, math.inf, None, "<b>", 0.123456789]) == [1, None, None, None, "&lt;b&gt;", 0.123457]


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_plotly_accepts_every_figure_of_a_history_in_both_themes(opened: Callable[[], History], colours: Any) -> None:
    with opened() as history:
        plots = list(history_report(history).plots())
    assert len({plot.name for plot in plots}) == len(plots) > 10
    for plot in plots:
        found = coloured(figure(plot), colours)
        assert "@" not in json.dumps(found), plot.name
        graph_objects.Figure(found)  # knows every name and every range of values


def test_plotly_accepts_every_figure_of_a_comparison(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        write_comparison(history, has_energy=True)
        plots = list(comparison_report(history).plots())
    assert {"regret", "ranks", "evaluations-text", "seconds-series", "recommended", "importance", "cost-energy"} <= {
        plot.name for plot in plots
    }
    for plot in plots:
        graph_objects.Figure(coloured(figure(plot), LIGHT))


def test_a_label_that_looks_like_a_number_or_a_colour_stays_a_label() -> None:
    plot = Plot("p", "t", (Series("@blue", ["1e3", "@red", "2024"], [1, 2, 3], Kind.BARS),))
    found = coloured(figure(plot), LIGHT)
    assert found["layout"]["xaxis"]["type"] == "category"
    assert found["data"][0]["x"] == ["1e3", "@red", "2024"]
    assert found["data"][0]["name"] == "@blue"


def test_a_template_of_plotly_never_holds_a_foreign_text() -> None:
    series = Series(HOSTILE[3], [1.0], [2.0], Kind.POINTS, hover=[HOSTILE[3]])
    text = json.dumps(figure(Plot("p", HOSTILE[3], (series,), x_title=HOSTILE[3])))
    assert "template" not in text
    assert "<b>" not in text


def test_a_band_and_whiskers_reach_from_low_to_high() -> None:
    line = Series("a", [1, 2], [5.0, 6.0], low=[4.0, None], high=[7.0, None])
    lower, upper, _ = figure(Plot("p", "t", (line,)))["data"]
    assert (lower["y"], upper["y"], upper["fill"]) == ([4, None], [7, None], "tonexty")
    points = Series("a", [1.0], [5.0], Kind.POINTS, low=[4.0], high=[7.0])
    (drawn,) = figure(Plot("p", "t", (points,)))["data"]
    assert (drawn["error_y"]["array"], drawn["error_y"]["arrayminus"]) == ([2], [1])


def test_every_tone_has_a_colour_in_both_themes() -> None:
    assert set(Tone) <= set(LIGHT)
    assert set(LIGHT) == set(DARK)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_lines_stand_out_from_the_ground_and_text_can_be_read(colours: Any) -> None:
    """Contrast as WCAG 2.1 defines it: 3 for what is drawn, 7 for text."""

    def luminance(colour: tuple[int, int, int]) -> float:
        red, green, blue = ((c / 255 / 12.92) if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    ground = luminance(colours["ground"])
    for name in (*set(Tone) - {Tone.FAINT}, "text"):
        light, dark = sorted((luminance(colours[name]), ground), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= (7 if name == "text" else 3), name
