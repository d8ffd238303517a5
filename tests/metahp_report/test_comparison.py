from __future__ import annotations

from pathlib import Path

import pytest

from metahp_report import comparison_report
from metahp_report.comparison.curves import mean_and_band
from metahp_report.comparison.reader import load_comparison
from metahp_report.comparison.records import Spread
from metahp_report.comparison.tables import show_spread
from metahp_report.parts import Prose, Report, Table
from store import History, InvalidArgumentError
from tests.metahp_report.recorded_comparison import ID, write_comparison


def tables(report: Report) -> dict[str, Table]:
    return {part.title: part for section in report.sections for part in section.parts if isinstance(part, Table)}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("compared") / "h.db"
    with History(path) as history:
        write_comparison(history)
    return path


def test_the_report_names_the_winner_the_weakest_task_and_the_time(compared: Path) -> None:
    with History(compared, create=False) as history:
        report = comparison_report(history, ID)
    assert report.title == "Tuning methods compared on text and series"
    assert report.findings[0].startswith("After 4 evaluations metahp is closest to the best")
    assert any(text.startswith("metahp is clearly ") and "so few tasks" in text for text in report.findings)
    assert any("ahead of metahp" in text or "metahp is weakest on" in text for text in report.findings)


def test_the_lines_are_the_figures_of_the_comparison(compared: Path) -> None:
    with History(compared, create=False) as history:
        report, result = comparison_report(history, ID), load_comparison(history, ID)
    plots = {plot.name: plot for plot in report.plots()}
    ours = next(item for item in result.standings if item.method == "metahp")
    (line,) = (series for series in plots["regret"].series if series.name == "metahp")
    assert (tuple(line.y), tuple(zip(line.low, line.high, strict=True))) == (ours.regret, ours.ci95)
    seconds = next(series for series in plots["seconds-text"].series if series.name == "metahp")
    searches = [result.search("text", "metahp", seed) for seed in range(2)]
    bests = [search.best_so_far("max")[-1] for search in searches if search is not None]
    assert seconds.y[-1] == pytest.approx(sum(value for value in bests if value is not None) / 2)
    (start,) = {
        place
        for place, value in zip(seconds.x, seconds.y, strict=True)
        if value is not None and place == min(x for x, y in zip(seconds.x, seconds.y, strict=True) if y is not None)
    }
    assert start == max(search.evaluations[0].elapsed_s for search in searches if search is not None)


def test_the_tables_hold_quality_effort_and_distance_of_every_method(compared: Path) -> None:
    with History(compared, create=False) as history:
        found = tables(comparison_report(history, ID))
    for task in ("text", "series"):
        for what in ("what was found", "what it took", "how close to the best hyperparameters"):
            assert [row[0] for row in found[f"{task}: {what}"].rows] == ["default", "random", "metahp"]
    effort = found["text: what it took"]
    assert {row[effort.columns.index("energy")] for row in effort.rows} == {"not measured"}
    assert "Energy was not measured" in effort.note
    assert [row[1] for row in effort.rows] == ["1", "4 (0.5 failed)", "4"]


def test_the_first_recommendation_is_compared_with_the_defaults(compared: Path) -> None:
    with History(compared, create=False) as history:
        (plot,) = (plot for plot in comparison_report(history, ID).plots() if plot.name == "recommended")
    values = {series.name: series.x for series in plot.series}
    for default, first, last in zip(values["default"], values["first recommendation"], values["best of 4 recommendations"], strict=True):
        assert last <= first < default


def test_predictions_are_counted_against_what_came_out(compared: Path) -> None:
    with History(compared, create=False) as history:
        texts = [part.text for section in comparison_report(history, ID).sections for part in section.parts if isinstance(part, Prose)]
    assert any(text.startswith("metahp, in units of the objective: 12 of 12 outcomes inside") for text in texts)


def test_an_unfinished_comparison_says_so_first(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        write_comparison(history, skipped=[("series", "metahp", 1), ("text", "metahp", 0)])
        report = comparison_report(history)
    assert report.findings[0].startswith("Not finished: 2 of 12 searches missing")
    assert "regret and ranks leave out metahp" in report.findings[0]


def test_a_comparison_that_has_only_begun_is_no_obstacle(tmp_path: Path) -> None:
    everything = [(task, method, seed) for task in ("text", "series") for method in ("default", "random", "metahp") for seed in range(2)]
    with History(tmp_path / "h.db") as history:
        write_comparison(history, skipped=everything)
        report = comparison_report(history)
    assert report.findings[0].startswith("Not finished: 12 of 12 searches")
    assert not list(report.plots())


def test_an_unknown_comparison_is_answered_with_those_there_are(compared: Path) -> None:
    with History(compared, create=False) as history, pytest.raises(InvalidArgumentError, match=f"'nope' fits 0; there are: {ID}"):
        comparison_report(history, "nope")


def test_a_spread_has_the_decimals_that_are_known() -> None:
    assert show_spread(Spread(0.123456, 0.00321, 3)) == "0.1235 ± 0.0032"
    assert show_spread(Spread(12.3456, 3.21, 3)) == "12.3 ± 3.2"
    assert [show_spread(Spread(0.5, 0.0, 1)), show_spread(Spread(0.5, 1e-17, 3)), show_spread(Spread(None, None, 0))] == [
        "0.5",
        "0.5",
        "\u2013",
    ]


def test_a_band_needs_every_seed_and_is_students_interval_from_three_on() -> None:
    assert mean_and_band([0.1, None]) == (None, None, None)
    assert mean_and_band([0.1, 0.3]) == (pytest.approx(0.2), 0.1, 0.3)
    mean, low, high = mean_and_band([1.0, 2.0, 3.0])
    assert (mean, low, high) == (2.0, pytest.approx(2 - 4.30265 / 3**0.5, abs=1e-4), pytest.approx(2 + 4.30265 / 3**0.5, abs=1e-4))
