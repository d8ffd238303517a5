"""Runs without an end: those that may go on wait, those whose process is long gone are what the user makes of them."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from store import Curve, History, InvalidArgumentError, RunStatus
from store.importers.endings import status_of_word
from store.importers.foreign import ForeignRun, utc_text
from store.importers.mapping import ImportOptions
from store.importers.mlflow_tracking import MlflowSource
from store.importers.optuna_storage import OptunaSource
from store.importers.pipeline import import_source
from tests.store.importers.test_pipeline import Listed, run

NOTE = "1 run has no end: if the process is gone, --unfinished interrupted (or failed) imports what was recorded"


SOURCES = [("optuna.db.gz", OptunaSource), ("mlflow.db.gz", MlflowSource), ("mlruns.tar.gz", MlflowSource)]


@pytest.mark.parametrize(("name", "make"), SOURCES)
@pytest.mark.parametrize("unfinished", ["interrupted", "failed"])
def test_a_run_that_ended_long_ago_without_saying_so_is_left_out_until_its_status_is_set(
    history: History, fixture: Callable[[str], Path], name: str, make: Callable[..., OptunaSource | MlflowSource], unfinished: str
) -> None:
    place = fixture(name)
    if make is OptunaSource:  # it was started when the fixture was made
        with closing(sqlite3.connect(place)) as connection, connection:
            connection.execute("UPDATE trials SET datetime_start = '2025-01-01 00:00:00.000000' WHERE state = 'RUNNING'")
    source = make(str(place), ("digits",))
    options = {"objective": "val_acc" if make is OptunaSource else "val/acc"}
    report = import_source(history, source, ImportOptions(**options))
    assert ("did not end, and wrote nothing for a day or more", 1) in [(reason, count) for reason, count, _ in report.left_out]
    assert NOTE in report.notes
    before = {found.id for found in history.runs()}
    report = import_source(history, source, ImportOptions(**options, unfinished=unfinished))
    assert (report.n_new, report.n_updated, report.notes) == (1, 0, [])
    (new,) = [found for found in history.runs() if found.id not in before]
    assert new.status == unfinished


def going_on(hours: float) -> ForeignRun:
    found = run(1)
    found.status, found.started_utc = RunStatus.RUNNING, utc_text(time.time() - 3600 * hours)
    return found


def test_a_run_that_wrote_something_today_may_go_on_and_is_always_left_out(history: History) -> None:
    report = import_source(history, Listed([going_on(2)]), ImportOptions(unfinished="failed"))
    assert (report.n_new, report.left_out[0][0], report.notes) == (0, "is still running; import it again once it has ended", [])
    late = going_on(100)
    late.curves = {"val_acc": Curve([0, 1], [0.5, 0.6], [1.0, 3600 * 99.0])}  # started days ago, its last value is an hour old
    assert import_source(history, Listed([late]), ImportOptions(unfinished="failed")).n_new == 0


def test_a_run_that_ended_after_all_replaces_the_one_that_was_given_up(history: History) -> None:
    import_source(history, Listed([going_on(100)]), ImportOptions(unfinished="interrupted"))
    report = import_source(history, Listed([run(1, 0.9)]))
    assert (report.n_new, report.n_updated) == (0, 1)
    assert [(found.status, found.objective_best) for found in history.runs()] == [(RunStatus.COMPLETED, 0.9)]


def test_another_word_for_unfinished_runs_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="skip, interrupted, failed, but got 'kill'"):
        ImportOptions(unfinished="kill")


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("finished", "completed"), ("COMPLETE", "completed"), ("TrialState.COMPLETE", "completed"), ("TERMINATED", "completed"),
        ("crashed", "failed"), ("Failed", "failed"), ("ERROR", "failed"), ("killed", "interrupted"), ("CANCELLED", "interrupted"),
        ("TIMEOUT", "interrupted"), ("PRUNED", "stopped"), ("Out of memory", "oom"), ("OUT_OF_MEMORY", "oom"), ("diverged", "diverged"),
        ("running", "running"), ("In Progress", "running"), ("inProgress", "running"), ("Utah", None), ("", None), (None, None), (3, None),
    ],
)  # fmt: skip
def test_the_words_of_trackers_and_schedulers_are_statuses(word: object, status: str | None) -> None:
    assert status_of_word(word) == status
