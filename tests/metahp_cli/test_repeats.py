"""What the commands show of runs that differ in the seed only."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metahp_report import history_report
from metahp_report.parts import Table
from store import History

OUTCOMES = {0.1: (0.9, 0.5, 0.4), 0.01: (0.8, 0.82)}


@pytest.fixture
def repeated(tmp_path: Path) -> Path:
    """One task: a lucky draw of a bad configuration, and two draws of the best one."""
    path = tmp_path / "repeated.db"
    with History(path) as history:
        for lr, outcomes in OUTCOMES.items():
            for seed, outcome in enumerate(outcomes):
                with history.start_run(task="t", hparams={"lr": lr, "random_state": seed, "depth_of_tree": 3}, objective="val_acc") as run:
                    run.log(val_acc=outcome)
    return path


def test_the_best_of_a_task_is_a_mean_with_its_spread(call: Callable[..., Any], repeated: Path) -> None:
    assert "0.81 ± 0.014 (2 draws)" in call("tasks", "--history", repeated).out
    (found,) = json.loads(call("tasks", "--history", repeated, "--format", "json").out)
    assert found["best"] == 0.9
    assert found["best_configuration"]["mean"] == pytest.approx(0.81)
    assert found["best_configuration"]["n_draws"] == 2


def test_runs_say_in_a_line_that_some_are_draws(call: Callable[..., Any], repeated: Path) -> None:
    answer = call("runs", "--history", repeated)
    assert "2 configurations were run more than once" in answer.err
    assert answer.out.count("learning_rate=") == 5


def test_runs_are_grouped_by_configuration(call: Callable[..., Any], repeated: Path) -> None:
    answer = call("runs", "--history", repeated, "--group-by", "config")
    assert answer.out.count("learning_rate=") == 2
    assert answer.err == ""
    first, second = json.loads(call("runs", "--history", repeated, "--group-by", "config", "--format", "json").out)
    assert (first["n_draws"], first["mean"]) == (2, pytest.approx(0.81))
    assert (second["n_draws"], second["spread"]) == (3, pytest.approx(0.2646, abs=1e-4))
    assert "There are more" in call("runs", "--history", repeated, "--group-by", "config", "--limit", "1").err


def test_runs_without_repeats_have_no_remark(call: Callable[..., Any], recorded: Path) -> None:
    assert "more than once" not in call("runs", "--history", recorded).err


@pytest.fixture
def repeated_exactly(tmp_path: Path) -> Path:
    """One task: the same run twice, and one with another rate; then two under a limited validation."""
    path = tmp_path / "exactly.db"
    with History(path) as history:
        runs = [(0.1, None, 0.8), (0.1, None, 0.8), (0.2, None, 0.7), (0.1, "2 batches", 0.9), (0.3, "2 batches", 0.95)]
        for lr, validation, outcome in runs:
            description = {} if validation is None else {"comparability": {"validation": validation}}
            with history.start_run(task="t", hparams={"lr": lr, "seed": 1}, objective="val_acc", description=description) as run:
                run.log(val_acc=outcome)
    return path


def test_the_same_run_twice_is_shown_as_such(call: Callable[..., Any], repeated_exactly: Path) -> None:
    answer = call("tasks", "--history", repeated_exactly)
    assert "0.8 (the same run twice)" in answer.out
    assert "The best of t is that of 3 runs with the usual objective; the other 2 compare with them only in order" in answer.err
    (found,) = json.loads(call("tasks", "--history", repeated_exactly, "--format", "json").out)
    assert (found["best"], found["best_configuration"]["n_draws"], len(found["best_configuration"]["run_ids"])) == (0.8, 1, 2)
    assert found["best_of"] == {"defined_by": "", "n_runs": 3, "n_others": 2}
    grouped = call("runs", "--group-by", "config", "--history", repeated_exactly)
    assert "are the same run again, and one draw" in grouped.err
    assert grouped.out.count("objective=validation=2 batches") == 2
    assert len(grouped.out.splitlines()) == 2 + 4


def test_the_report_has_a_row_for_each_group_that_can_be_compared(repeated_exactly: Path) -> None:
    with History(repeated_exactly) as history:
        report = history_report(history)
    (table,) = (part for section in report.sections for part in section.parts if isinstance(part, Table) and "best run" in part.title)
    assert [(row[0], row[5]) for row in table.rows] == [("t", "0.8 (the same run twice)"), ("t, validation=2 batches", "0.95")]
    assert "of 1 task" in report.subtitle


def test_what_a_task_tuned_is_shown_whatever_its_name(call: Callable[..., Any], tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        for depth in (1, 2, 3):
            with history.start_run(task="boosting", hparams={"max_depth": depth, "n_jobs": 4}, objective="val_acc") as run:
                run.log(val_acc=0.5)
    shown = call("runs", "--history", tmp_path / "h.db").out
    assert "max_depth=2" in shown
    assert "n_jobs" not in shown


def test_the_report_shows_the_mean_of_the_best_configuration(repeated: Path) -> None:
    with History(repeated) as history:
        report = history_report(history)
    (table,) = (part for section in report.sections for part in section.parts if isinstance(part, Table) and "best run" in part.title)
    assert table.rows[0][5] == "0.81 ± 0.014 (2 draws)"
    assert "best mean" in table.note
    assert report.findings[-1].endswith("the best of 3 draws.")
