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


def test_importing_shows_what_was_imported_and_on_which_scale(call, table: Path, tmp_path: Path) -> None:
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


def test_a_space_file_shows_the_scale(call, table: Path, tmp_path: Path) -> None:
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


def test_a_space_file_that_names_no_column_is_refused(call, table: Path, tmp_path: Path) -> None:
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


def test_options_can_be_saved_and_used_again_with_one_of_them_changed(call, table: Path, tmp_path: Path) -> None:
    saved, history = tmp_path / "runs.mapping.json", tmp_path / "h.db"
    first = call(
        "import", "table", table, *OPTIONS, "--name", "lr=weight_decay", "--save-mapping", saved, "--dry-run", "--history", history
    )
    assert first.code == 0, first.err
    assert json.loads(saved.read_text())["name"] == {"lr": "weight_decay"}
    assert not history.exists()
    call("import", "table", table, "--mapping", saved, "--history", history)
    with History(history) as opened:
        assert {tuple(run.hparams) for run in opened.runs()} == {("weight_decay",)}
    call("import", "table", table, "--mapping", saved, "--direction", "min", "--name", "lr=learning_rate", "--history", tmp_path / "2.db")
    with History(tmp_path / "2.db") as opened:
        assert {(tuple(run.hparams), run.direction) for run in opened.runs()} == {(("learning_rate",), "min")}


@pytest.mark.parametrize("content", ["[]", "{broken", '{"task_col": 5}', '{"columns": "a"}', '{"hparams": [1]}', "<html></html>"])
def test_a_mapping_that_is_none_is_one_line(call, table: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    answer = call("import", "table", table, *OPTIONS, "--mapping", tmp_path / "m.json", "--history", tmp_path / "h.db")
    assert answer.code == 1
    assert answer.err.startswith("Error: A mapping must")
    assert len(answer.err.strip().splitlines()) == 1


def test_columns_that_every_table_needs_are_asked_for(call, table: Path, tmp_path: Path) -> None:
    answer = call("import", "table", table, "--task-col", "dataset", "--history", tmp_path / "h.db")
    assert "--run-col, --hparams, --objective is missing; the table has: dataset, run, lr, val_acc." in answer.err


def test_an_objective_that_is_no_column_is_refused_with_all_columns(call, table: Path, tmp_path: Path) -> None:
    answer = call("import", "table", table, *OPTIONS[:-1], "accuracy", "--direction", "max", "--history", tmp_path / "h.db")
    assert "has no 'accuracy'; it has: dataset, run, lr, val_acc." in answer.err


def test_how_a_table_is_written_can_be_set_and_saved(call, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(
        "dataset~run~lr~steps~val_acc~how\na~1~0,1~1.234~0,5~ok\na~2~0,2~2.500~0,6~error\na~3~0,2~9~0,7~running\n"
    )
    words = ("import", "table", tmp_path / "t.csv", *OPTIONS, "--hparams", "lr,steps", "--status-col", "how", "--delimiter", "~")
    answer = call(*words, "--history", tmp_path / "h.db")
    assert "Pass --decimal steps=point if that is 1.234, or --decimal steps=comma if it is 1234." in answer.err
    saved = tmp_path / "t.json"
    extra = ("--decimal", "steps=comma", "--encoding", "latin-1", "--unfinished", "failed", "--save-mapping", saved)
    answer = call(*words, *extra, "--history", tmp_path / "h.db")
    assert "1 completed, 2 failed" in answer.out
    with History(tmp_path / "h.db") as history:
        assert sorted(run.hparams["steps"] for run in history.runs()) == [9, 1234, 2500]
    assert {"decimal": "steps=comma", "delimiter": "~", "encoding": "latin-1", "status_col": "how"}.items() <= json.loads(
        saved.read_text()
    ).items()
    answer = call("import", "table", tmp_path / "t.csv", "--mapping", saved, "--history", tmp_path / "h.db")
    assert "2, 0 of them new" in answer.out
    assert "1 that did not end" in answer.out


def test_explaining_a_table_shows_the_mapping_and_writes_nothing(call, table: Path, tmp_path: Path) -> None:
    answer = call("import", "table", table, *OPTIONS, "--explain", "--history", tmp_path / "h.db")
    assert "a known spelling" in answer.out
    assert "Nothing was written" in answer.err
    assert not (tmp_path / "h.db").exists()


def test_a_share_in_percent_is_asked_about_in_tables_too(call, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("dataset,run,dropout,val_acc\na,1,50,0.5\na,2,10,0.6\n")
    words = ("import", "table", path, "--task-col", "dataset", "--run-col", "run", "--hparams", "dropout", "--objective", "val_acc")
    answer = call(*words, "--history", tmp_path / "h.db")
    assert answer.code == 1
    assert "pass --unit dropout=percent" in answer.err
    assert call(*words, "--unit", "dropout=percent", "--history", tmp_path / "h.db").code == 0
    with History(tmp_path / "h.db") as opened:
        assert sorted(run.hparams["dropout"] for run in opened.runs()) == [0.1, 0.5]


def test_a_table_of_one_task_needs_no_column_for_it(call, table: Path, tmp_path: Path) -> None:
    words = ("import", "table", table, "--run-col", "run", "--hparams", "lr", "--objective", "val_acc", "--history", tmp_path / "h.db")
    assert call(*words, "--task", "vintages").code == 0
    with History(tmp_path / "h.db") as opened:
        assert len(opened.runs("vintages")) == 5
    assert "both --task and --task-col" in call(*words, "--task", "a", "--task-col", "dataset").err
