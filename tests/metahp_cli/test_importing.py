from __future__ import annotations

import json
from pathlib import Path

import pytest

from store import History

ROWS = "dataset,run,lr,val_acc\n" + "".join(f"wine,{i},{10**-i!r},{0.1 * i}\n" for i in range(1, 6))
OPTIONS = ("--task-col", "dataset", "--run-col", "run", "--hparams", "lr", "--objective", "val_acc")


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "runs.csv"
    path.write_text(ROWS)
    return path


def test_importing_says_what_came_in_and_on_which_scale(call, table: Path, tmp_path: Path) -> None:
    answer = call("import", "table", table, *OPTIONS, "--history", tmp_path / "h.db")
    assert answer.code == 0, answer.err
    assert "5, 5 of them new" in answer.out
    assert "learning_rate" in answer.out
    assert "log" in answer.out
    assert "spread of the values" in answer.out
    with History(tmp_path / "h.db") as history:
        assert len(history.runs("wine")) == 5


def test_importing_again_adds_nothing(call, table: Path, tmp_path: Path) -> None:
    words = ("import", "table", table, *OPTIONS, "--history", tmp_path / "h.db", "--format", "json")
    assert json.loads(call(*words).out)["n_new"] == 5
    assert json.loads(call(*words).out)["n_new"] == 0


def test_a_space_file_says_the_scale(call, table: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text(json.dumps({"lr": {"name": "FloatDistribution", "attributes": {"low": 1e-6, "high": 1.0, "log": False}}}))
    answer = call("import", "table", table, *OPTIONS, "--space", space, "--history", tmp_path / "h.db", "--format", "json")
    (row,) = json.loads(answer.out)["hyperparameters"]
    assert row == {"name": "learning_rate", "scale": "linear", "range": "1e-06 to 1", "from": "space file", "outside": 0}


def test_values_outside_the_bounds_of_a_space_file_are_kept_and_counted(call, table: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text(json.dumps({"lr": {"name": "FloatDistribution", "attributes": {"low": 1e-3, "high": 1.0, "log": True}}}))
    answer = call("import", "table", table, *OPTIONS, "--space", space, "--history", tmp_path / "h.db")
    assert "2 values lie outside the space file's bounds; they were kept" in answer.err
    with History(tmp_path / "h.db") as history:
        assert len(history.runs("wine")) == 5


def test_a_space_file_that_speaks_of_no_column_is_refused(call, table: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text(json.dumps({"depth": [1, 2]}))
    answer = call("import", "table", table, *OPTIONS, "--space", space, "--history", tmp_path / "h.db")
    assert answer.code == 1
    assert "has 'depth'; --hparams names: lr" in answer.err


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--join", "configs.csv"), "FILE:COL"),
        (("--step-col", "epoch"), "has no 'epoch'"),
        (("--direction", "up"), "'min' or 'max'"),
        (("--space", "missing.json"), "missing.json"),
    ],
)
def test_bad_input_is_one_line(call, table: Path, tmp_path: Path, extra: tuple[str, ...], message: str) -> None:
    answer = call("import", "table", table, *OPTIONS, *extra, "--history", tmp_path / "h.db")
    assert answer.code == 1
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1
