from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from metahp_report import history_report
from metahp_report.advice_section import contests, held_interval
from metahp_report.facts import read_facts
from metahp_report.parts import Gallery, Plot, Prose, Report, Table
from metahp_report.runs_section import MAX_MARKS, MAX_MARKS_OF_TASK, MAX_TASKS
from store import History, ObjectiveWarning
from store.sqlite.bulk import Curve, FinishedRun, write_finished_runs
from tests.metahp_report.conftest import HOSTILE


def tables(report: Report) -> dict[str, Table]:
    return {part.title: part for section in report.sections for part in section.parts if isinstance(part, Table)}


def test_headline_findings_come_first_and_say_what_happened(opened: Callable[[], History]) -> None:
    with opened() as history:
        report = history_report(history)
    assert report.subtitle.startswith("50 runs of 2 tasks in filled.db")
    worth, best, mattered, lost, newest = report.findings
    assert worth.startswith("Recommended runs beat ")
    assert worth.endswith("clearly better on 2 of 2 tasks, clearly worse on none.")
    assert "2 tasks that met recommendations" in best
    assert mattered.startswith("learning_rate mattered most: ")
    assert lost.startswith("4 runs diverged")
    assert newest.startswith("The newest record: val_acc 0.9")


def test_the_best_of_each_task_is_what_the_history_says(opened: Callable[[], History]) -> None:
    with opened() as history:
        report, records = history_report(history), {task.name: task for task in history.tasks()}
    rows = {row[0]: row for row in tables(report)["The best run of each task"].rows}
    assert set(rows) == set(records)
    for name, record in records.items():
        assert rows[name][5] == f"{record.best:.4g}"
        assert str(record.best_run_id).endswith(rows[name][-1])


def test_recommended_runs_are_compared_with_those_of_the_same_task(opened: Callable[[], History]) -> None:
    with opened() as history:
        found = contests(read_facts(history))
    assert [(item.n_own, item.n_recommended) for item in found] == [(20, 4), (20, 4)]
    assert all(item.gap_low > 0 and item.gap_low < item.gap < item.gap_high for item in found)


def test_outcomes_are_counted_against_the_interval_given_before(opened: Callable[[], History]) -> None:
    with opened() as history:
        texts = [part.text for section in history_report(history).sections for part in section.parts if isinstance(part, Prose)]
    (text,) = (text for text in texts if "inside the 80 % interval" in text)
    assert text.startswith("Of 8 recommended runs with a prediction in units of the objective, 8 ended inside")
    assert held_interval(8, 8)[1] == 1.0
    assert 0.6 < held_interval(8, 8)[0] < 0.7  # 0.025 ** (1 / 8), by hand


def test_an_empty_history_says_how_to_begin(history: History) -> None:
    report = history_report(history)
    assert "holds no training runs yet" in report.subtitle
    assert report.findings[-1].startswith("Record a run first")
    assert not list(report.plots())


def test_runs_without_an_objective_or_a_value_are_no_obstacle(history: History) -> None:
    with history.start_run(task="a", hparams={"lr": 0.1}):
        pass
    with pytest.warns(ObjectiveWarning), history.start_run(task="b", objective="val_acc"):
        pass
    history.start_run(task="c", objective="val_acc")
    report = history_report(history)
    assert report.subtitle.startswith("3 runs of 3 tasks")
    assert tables(report)["The best run of each task"].rows == ()


def test_energy_is_told_with_its_source_and_never_made_up(opened: Callable[[], History], tmp_path: Path) -> None:
    with opened() as history:
        assert "Energy was not measured" in tables(history_report(history))["What each task cost"].note
    with History(tmp_path / "h.db") as history:
        with history.start_run(task="a", hparams={"lr": 0.1}, objective="val_acc") as run:
            run.log(val_acc=0.5)
        with history._writing() as connection:
            connection.execute("INSERT INTO resources VALUES (?, 'energy_counter_j', 'gpu0', 5, 7200)", (run.id,))
        table = tables(history_report(history))["What each task cost"]
    assert table.rows[0][-1] == "7.2 kJ"
    assert "Energy from: counter of the device (gpu0)." in table.note


def test_a_comparison_in_the_history_is_pointed_at(history: History) -> None:
    history.start_run(task="live comparisons", framework="comparison").finish()
    assert any("1 live comparison; metahp report --comparison" in remark for remark in history_report(history).remarks)


@pytest.mark.slow
def test_ten_thousand_runs_are_thinned_and_the_page_says_so(tmp_path: Path) -> None:
    names = [f"task {index}" for index in range(20)]
    # the task with 6,000 runs improves just once in the middle: thinning must not lose it
    runs = (
        FinishedRun(
            id=f"r{index:05d}",
            task=names[0] if index < 6000 else names[index % 20],
            hparams={"lr": (index * 7919 % 1000 + 1) / 1000},
            objective="val_acc",
            direction="max",
            curves={"val_acc": Curve([0], [2.0 if index == 3001 else (index * 7919 % 1000) / 1000])},
            started_utc=f"2026-01-{1 + index % 28:02d}T00:00:00.000000Z",
        )
        for index in range(10_000)
    )
    with History(tmp_path / "h.db") as history:
        with history._writing() as connection:
            write_finished_runs(connection, runs, {})
        report = history_report(history)
    galleries = [part for section in report.sections for part in section.parts if isinstance(part, Gallery)]
    everything, first = (plot for _, plot in galleries[0].plots[:2])
    assert sum(len(series.x) for series in everything.series) == MAX_MARKS
    assert everything.note.startswith("8,000 of 10,000 runs are not drawn")
    marks = next(series for series in first.series if series.name == "your own choice")
    assert len(marks.x) == MAX_MARKS_OF_TASK
    assert max(marks.y) == 2.0
    assert galleries[0].note == f"The {MAX_TASKS} tasks with pictures of their own are those with the most runs; 8 more are in the table."
    assert all(sum(len(series.x) for series in plot.series) < 6000 for plot in report.plots() if isinstance(plot, Plot))


def test_hostile_names_are_only_text(hostile: Path) -> None:
    with History(hostile, create=False) as history:
        report = history_report(history)
    names = [plot.name for plot in report.plots()]
    assert len(set(names)) == len(names)
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in names)
    rows = tables(report)["The best run of each task"].rows
    assert {row[0] for row in rows} >= {HOSTILE[0], "gnp.exe"}
