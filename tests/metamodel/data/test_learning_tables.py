"""The learning table, read once: from the history, from this process, or from the file beside the models."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metamodel.data import learning_tables
from metamodel.data.learning_tables import CACHE_FILE, learning_table
from metamodel.data.observations import MAX_UNLOGGED, LearningTable, build_table
from store import Curve, FinishedRun, History


@pytest.fixture(autouse=True)
def _small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_tables, "MIN_CACHED_RUNS", 1)


@pytest.fixture
def filled(history: History) -> History:
    history.add_finished_runs(finished(task, i, float("nan") if i == 0 else 0.1 * i) for task in ("a", "b", "c") for i in range(5))
    history.start_run(task="a", hparams={"lr": 0.5}, objective="acc").finish("failed")
    history.start_run(task="b", hparams={"lr": 9.0}, objective="acc").finish("oom")
    return history


def finished(task: str, number: int, value: float) -> FinishedRun:
    hparams = {"lr": 0.1 * (number + 1), "betas": (0.9, 0.99), "layers": [8, number], **({"extra": None} if number % 2 else {})}
    description = {"n_train": 100 * (1 + number), "input_shape": (3, 4), "features": {"imbalance": 0.5}}
    return FinishedRun(f"{task}-{number}", task, hparams, "acc", "max", {"acc": Curve([0], [value])}, description=description)


def forget() -> None:
    """Be a new process."""
    learning_tables._cache.clear()
    learning_tables._parts.clear()


def note_reading(monkeypatch: pytest.MonkeyPatch) -> list[list[str] | None]:
    """Note which tasks' runs are read from the database from now on."""
    asked: list[list[str] | None] = []
    read = learning_tables.learning_runs

    def noted(history: History, task_ids: Any = None) -> Any:
        asked.append(None if task_ids is None else [history.task(task_id).name for task_id in task_ids])
        return read(history, task_ids)

    monkeypatch.setattr(learning_tables, "learning_runs", noted)
    return asked


def assert_as_recorded(history: History) -> LearningTable:
    """Compare the table with one that is built from the records of the history."""
    found = learning_table(history)
    expected = build_table(history.runs(), {task.id: task for task in history.tasks()})
    assert (dict(found.left_out), found.n_finished) == (dict(expected.left_out), expected.n_finished)
    for left, right in zip(found.tasks, expected.tasks, strict=True):
        for name in ("task_id", "name", "objective", "direction", "description", "run_ids", "variants", "task_order"):
            assert getattr(left, name) == getattr(right, name), name
        for name in ("values", "is_diverged", "is_oom", "filled"):
            np.testing.assert_array_equal(getattr(left, name), getattr(right, name))
        assert [{key: repr(value) for key, value in config.items()} for config in left.configs] == [
            {key: repr(config[key]) for key in config} for config in right.configs
        ]
    return found


def test_the_file_tells_what_the_history_tells(filled: History, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_as_recorded(filled)
    forget()
    asked = note_reading(monkeypatch)
    assert_as_recorded(filled)
    assert asked == []


def test_a_new_process_reads_only_the_tasks_that_changed(filled: History, monkeypatch: pytest.MonkeyPatch) -> None:
    learning_table(filled)
    forget()
    filled.add_finished_runs([finished("c", 5, 0.9)])
    asked = note_reading(monkeypatch)
    assert_as_recorded(filled)
    assert asked == [["c"]]


@pytest.mark.parametrize(
    "change",
    [
        lambda history: history.merge_tasks("a", "b"),
        lambda history: history.split_task(["c-1"], "apart"),
        lambda history: history.start_run(task="new", hparams={"lr": 1.0}, objective="acc").finish("failed"),
    ],
    ids=["merged", "split", "new task"],
)
def test_what_was_changed_in_between_is_seen(filled: History, change: Any) -> None:
    learning_table(filled)
    forget()
    change(filled)
    assert_as_recorded(filled)
    forget()
    assert_as_recorded(filled)


def test_a_copy_that_was_put_back_and_went_on_is_not_taken_for_what_was_cached(tmp_path: Path) -> None:
    (tmp_path / "back").mkdir()
    path, back = tmp_path / "h.db", tmp_path / "back" / "h.db"
    with History(path) as history:
        history.add_finished_runs(finished(task, i, 0.1 * i) for task in ("a", "b") for i in range(5))
        with sqlite3.connect(path) as raw, sqlite3.connect(back) as copy:
            raw.backup(copy)
        history.add_finished_runs([finished("a", 5, 0.5)])
        assert_as_recorded(history)
        shutil.copytree(history.models_path, f"{back}.models")
    with History(back) as history:  # the same row number and revision, another run
        assert history.models_path.joinpath(CACHE_FILE).exists()
        history.add_finished_runs([finished("a", 6, 0.7)])
        assert_as_recorded(history)


def test_a_history_made_anew_in_the_same_process_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    found = []
    for value in (0.1, 0.9):
        for file in tmp_path.glob("h.db*"):
            shutil.rmtree(file) if file.is_dir() else file.unlink()
        with History(tmp_path / "h.db") as history:
            for _ in range(3):
                with history.start_run(task="a", hparams={"lr": 0.1}, objective="acc", direction="max") as run:
                    run.log(acc=value)
            found.append(assert_as_recorded(history).tasks[0].values.tolist())
    assert found == [[0.1] * 3, [0.9] * 3]


def test_a_task_that_only_grew_is_not_written_anew_and_many_new_runs_are(filled: History) -> None:
    learning_table(filled)
    written = (filled.models_path / CACHE_FILE).read_bytes()
    forget()
    filled.add_finished_runs([finished("c", 5, 0.9)])
    learning_table(filled)
    assert (filled.models_path / CACHE_FILE).read_bytes() == written
    forget()
    filled.add_finished_runs(finished("d", i, 0.1) for i in range(10))
    learning_table(filled)
    assert len(json.loads((filled.models_path / CACHE_FILE).read_text())["parts"]) == 4


@pytest.mark.parametrize("part", [{}, {"key": ["x"]}, {"key": ["x", "y"], "tasks": [{}], "left_out": {}, "n_finished": 1}, [], 7])
def test_a_damaged_file_is_made_anew(filled: History, part: object) -> None:
    learning_table(filled)
    forget()
    file = filled.models_path / CACHE_FILE
    content = json.loads(file.read_text())
    task_id = next(iter(content["parts"]))
    file.write_text(json.dumps({**content, "parts": {**content["parts"], task_id: part}}))
    assert_as_recorded(filled)
    assert json.loads(file.read_text()) == content


@pytest.mark.parametrize("change", ["", "?", "AAAAAAA="])
def test_a_file_whose_columns_do_not_fit_together_is_made_anew(filled: History, change: str) -> None:
    learning_table(filled)
    forget()
    file = filled.models_path / CACHE_FILE
    content = json.loads(file.read_text())
    task = next(iter(content["parts"].values()))["tasks"][0]
    task["values"] = task["values"][:-8] + change
    file.write_text(json.dumps(content))
    assert_as_recorded(filled)


def test_a_small_history_has_no_file(filled: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning_tables, "MIN_CACHED_RUNS", 500)
    assert_as_recorded(filled)
    assert not filled.models_path.exists()


def test_a_place_that_cannot_be_written_costs_only_time(filled: History) -> None:
    filled.models_path.write_text("in the way")
    assert_as_recorded(filled)


def test_what_the_newest_runs_without_their_objective_logged_instead_is_told_from_the_file_too(history: History) -> None:
    history.add_finished_runs(finished("a", i, 0.1 * i) for i in range(5))
    for name in ("older", "newer"):
        for _ in range(MAX_UNLOGGED):
            run = history.start_run(task="b", hparams={"lr": 0.1}, objective="val_acu", direction="max")
            run.log(**{f"loss_{name}": 0.5})
            with pytest.warns(UserWarning, match="never was"):
                run.finish()
    told = "runs left out: 10 x objective 'val_acu' without an outcome (logged were: loss_newer)"
    assert learning_table(history).describe_left_out() == told
    forget()
    assert learning_table(history).describe_left_out() == told
