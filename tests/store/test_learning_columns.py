"""What learning reads: flat, from a cache where hyperparameters did not change."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from store import History, RunRecord, learning_columns
from store.learning_columns import ENDED, HPARAMS_CACHE, learning_runs
from store.sqlite.bulk import Curve, FinishedRun

N_RUNS = 8
AWKWARD = {
    "betas": (0.9, 0.999),
    "layers": [64, 32],
    "nothing": None,
    "inf": float("inf"),
    "flag": True,
    "folder": Path("a/b"),
    "big": 10**30,
}


@pytest.fixture(autouse=True)
def _small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_columns, "MIN_CACHED_RUNS", 1)


@pytest.fixture
def filled(history: History) -> History:
    history.add_finished_runs([finished(index) for index in range(N_RUNS)])
    return history


def finished(index: int, rate: float | None = None) -> FinishedRun:
    hparams = {"lr": 10.0 ** -(index + 1) if rate is None else rate, "opt": "adam", **AWKWARD, **({"extra": index} if index % 2 else {})}
    return FinishedRun(f"run{index}", f"task{index % 2}", hparams, "acc", "max", {"acc": Curve((0,), (0.1 * index,))})


def recorded(history: History) -> list[RunRecord]:
    return [run for run in history.runs() if run.status in ENDED]


def same(found: list[learning_columns.LearningRun], runs: list[RunRecord]) -> bool:
    fields = [name for name in learning_columns.LearningRun.__dataclass_fields__ if name != "hparams"]
    assert [[getattr(run, name) for name in fields] for run in found] == [[getattr(run, name) for name in fields] for run in runs]
    assert [{name: repr(v) for name, v in run.hparams.items()} for run in found] == [
        {name: repr(v) for name, v in run.hparams.items()} for run in runs
    ]
    return True


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Note which runs' hyperparameters are read from the database from now on."""
    asked: list[list[str]] = []
    read = learning_columns._read_hparams

    def noted(connection, run_ids, *, is_most):
        asked.append(list(run_ids))
        return read(connection, run_ids, is_most=is_most)

    monkeypatch.setattr(learning_columns, "_read_hparams", noted)
    return asked


def test_the_flat_reading_tells_what_the_records_tell(filled: History) -> None:
    assert same(learning_runs(filled), recorded(filled))
    assert same(learning_runs(filled), recorded(filled))  # the second time from the cache
    only = filled.task("task1").id
    assert same(learning_runs(filled, [only]), [run for run in recorded(filled) if run.task_id == only])


def test_what_is_cached_is_not_read_again(filled: History, monkeypatch: pytest.MonkeyPatch) -> None:
    learning_runs(filled)
    asked = forbid_reading(monkeypatch)
    learning_runs(filled)
    with filled.start_run(task="task0", hparams={"lr": 7.0}, objective="acc", direction="max") as run:
        run.log(acc=1.0)
    assert {found.id: found for found in learning_runs(filled)}[run.id].hparams["learning_rate"] == 7.0
    assert asked == [[], [run.id]]


def test_a_run_whose_hyperparameters_were_replaced_is_read_again(filled: History) -> None:
    learning_runs(filled)
    with sqlite3.connect(filled.path) as raw:  # as a merge of two histories does it
        raw.execute("UPDATE hparams SET value_json = '0.5' WHERE run_id = 'run3' AND name = 'learning_rate'")
        raw.execute("UPDATE runs SET hparams_revision = hparams_revision + 1 WHERE id = 'run3'")
    assert same(learning_runs(filled), recorded(filled))
    assert {run.id: run for run in learning_runs(filled)}["run3"].hparams["learning_rate"] == 0.5


def test_merged_and_split_tasks_and_changed_outcomes_come_from_the_history_itself(filled: History) -> None:
    learning_runs(filled)
    filled.merge_tasks("task0", "task1")
    filled.split_task(["run5"], "apart")
    assert same(learning_runs(filled), recorded(filled))


def test_another_process_writing_in_between_is_seen(filled: History) -> None:
    learning_runs(filled)
    with History(filled.path) as other, other.start_run(task="task1", hparams={"lr": 3.0}, objective="acc", direction="max") as run:
        run.log(acc=0.5)
    assert same(learning_runs(filled), recorded(filled))


def test_a_history_made_anew_at_the_same_path_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "h.db"
    with History(path) as history:
        history.add_finished_runs([finished(index) for index in range(N_RUNS)])
        learning_runs(history)
    for file in tmp_path.glob("h.db*"):
        if file.is_file():
            file.unlink()
    with History(path) as history:
        history.add_finished_runs([finished(index, rate=0.25) for index in range(N_RUNS)])  # the same ids and revisions
        assert {run.hparams["learning_rate"] for run in learning_runs(history)} == {0.25}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 99, "origin": "", "blocks": []}'])
def test_a_damaged_cache_is_made_anew(filled: History, content: str) -> None:
    learning_runs(filled)
    cache = filled.models_path / HPARAMS_CACHE
    cache.write_text(content)
    assert same(learning_runs(filled), recorded(filled))
    assert json.loads(cache.read_text())["format"] == learning_columns.HPARAMS_FORMAT


def test_a_cache_with_columns_that_do_not_fit_is_made_anew(filled: History) -> None:
    learning_runs(filled)
    cache = filled.models_path / HPARAMS_CACHE
    content = json.loads(cache.read_text())
    content["blocks"][0]["ids"].pop()
    cache.write_text(json.dumps(content))
    assert same(learning_runs(filled), recorded(filled))


def test_the_cache_is_private_and_leaves_nothing_beside_it(filled: History) -> None:
    learning_runs(filled)
    assert [path.name for path in filled.models_path.iterdir()] == [HPARAMS_CACHE]
    assert (filled.models_path / HPARAMS_CACHE).stat().st_mode & 0o077 == 0


def test_a_place_that_cannot_be_written_costs_only_time(filled: History) -> None:
    filled.models_path.write_text("in the way")
    assert same(learning_runs(filled), recorded(filled))


def test_a_small_history_has_no_cache(filled: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_columns, "MIN_CACHED_RUNS", N_RUNS + 1)
    assert same(learning_runs(filled), recorded(filled))
    assert not filled.models_path.exists()
