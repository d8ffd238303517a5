"""``metahp import KIND``: the same options for every kind, questions instead of guesses, and nothing written by a look."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from store import History

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "importers"


def test_importing_says_what_came_in_and_what_did_not(call, tmp_path: Path) -> None:
    words = ("import", "hyperparameterhunter", FIXTURES / "HyperparameterHunterAssets", "--history", tmp_path / "h.db")
    answer = call(*words, "--objective", "oof_roc_auc_score")
    assert answer.code == 0, answer.err
    assert "3: 3 new, 0 updated, 0 known" in answer.out
    assert "is in the leaderboard only" in answer.out
    again = json.loads(call(*words, "--objective", "oof_roc_auc_score", "--format", "json").out)
    assert (again["n_new"], again["n_known"], again["is_written"]) == (0, 3, True)


def test_an_open_question_is_one_line_and_names_the_option(call, tmp_path: Path) -> None:
    answer = call("import", "lightning", FIXTURES / "csv_logs", "--history", tmp_path / "h.db")
    assert answer.code == 1
    assert "pass --objective with the one that decides" in answer.err
    assert len(answer.err.strip().splitlines()) == 1
    assert not History(tmp_path / "h.db").runs()


@pytest.mark.parametrize("look", ["--dry-run", "--explain"])
def test_a_look_leaves_nothing_behind_and_asks_its_questions(call, tmp_path: Path, look: str) -> None:
    answer = call("import", "lightning", FIXTURES / "csv_logs", "--history", tmp_path / "h.db", look)
    assert answer.code == 0, answer.err
    assert "Question: task 'tiny' has" in answer.err
    assert "Nothing was written. The questions come first." in answer.err
    assert not (tmp_path / "h.db").exists()


def test_explaining_prints_how_every_name_is_read(call, tmp_path: Path) -> None:
    words = ("import", "hf", FIXTURES / "hf_out", "--explain", "--history", tmp_path / "h.db")
    answer = call(*words)
    lines = [line.split() for line in answer.out.splitlines()]
    assert ["per_device_train_batch_size", "hyperparameter", "batch_size", "16", "a", "known", "spelling", "2"] in lines
    assert "unit of 'hf_out'" in answer.out
    found = json.loads(call(*words, "--format", "json").out)
    assert {"name": "learning_rate", "becomes": "learning_rate"}.items() <= found["readings"][1].items()


def test_a_look_at_a_history_that_knows_the_runs_says_so(call, tmp_path: Path) -> None:
    words = ("import", "hf", FIXTURES / "hf_out", "--history", tmp_path / "h.db")
    call(*words)
    before = (tmp_path / "h.db").read_bytes()
    assert "2: 0 new, 0 updated, 2 known" in call(*words, "--dry-run").out
    assert (tmp_path / "h.db").read_bytes() == before


def test_names_units_and_tasks_can_be_said(call, tmp_path: Path) -> None:
    words = ("import", "lightning", FIXTURES / "csv_logs", "--objective", "val_acc", "--task", "mine", "--unit", "val_acc=fraction")
    answer = call(*words, "--name", "options.dropout=dropout", "--batch", "global", "--history", tmp_path / "h.db")
    assert answer.code == 0, answer.err
    with History(tmp_path / "h.db") as history:
        found = history.runs("mine")[0].hparams
    assert (found["dropout"], found["global_batch_size"]) == (0.1, 16)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--name", "lr0"), "NAME=VALUE"),
        (("--unit", "val_acc=promille"), "percent, fraction or keep"),
        (("--batch", "each"), "per-device or global"),
        (("--direction", "up"), "'min' or 'max'"),
        (("--name", "rate=learning_rate"), "it has no 'rate'"),
    ],
)
def test_bad_options_are_one_line(call, tmp_path: Path, extra: tuple[str, ...], message: str) -> None:
    answer = call("import", "lightning", FIXTURES / "csv_logs", "--objective", "val_acc", *extra, "--history", tmp_path / "h.db")
    assert answer.code == 1
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_showing_an_imported_run_says_where_it_comes_from(call, tmp_path: Path) -> None:
    call("import", "hf", FIXTURES / "hf_out", "--history", tmp_path / "h.db")
    with History(tmp_path / "h.db") as history:
        run = history.runs()[0].id
    answer = call("show", run, "--history", tmp_path / "h.db")
    assert "imported from" in answer.out
    assert "folder=run-" in answer.out


def test_ids_of_flows_are_whole_numbers(call, tmp_path: Path) -> None:
    answer = call("import", "openml", "task:31", "--flow", "x", "--history", tmp_path / "h.db")
    assert "Ids must be whole numbers" in answer.err


@pytest.mark.parametrize(
    ("kind", "place", "extra"),
    [
        ("mlflow", "mlflow.db.gz", ("--objective", "val/acc")),
        ("optuna", "optuna.db.gz", ("--study", "digits,unnamed")),
        ("tensorboard", "writer_logs", ("--objective", "val/accuracy")),
        ("lightning", "csv_logs", ("--objective", "val_acc")),
        ("hf", "hf_out", ()),
        ("trackio", "trackio.db.gz", ("--objective", "val_acc")),
        ("hyperparameterhunter", "HyperparameterHunterAssets", ("--objective", "oof_roc_auc_score")),
        ("openml", "runs.csv", ("--objective", "predictive_accuracy", "--qualities", "{place}")),
    ],
)
def test_every_kind_has_its_command(call, tmp_path: Path, kind: str, place: str, extra: tuple[str, ...]) -> None:
    if kind == "tensorboard":
        pytest.importorskip("tensorboard")
    source = FIXTURES / place
    if place.endswith(".gz"):
        source = tmp_path / place.removesuffix(".gz")
        source.write_bytes(gzip.decompress((FIXTURES / place).read_bytes()))
    elif not source.exists():
        source = tmp_path / place
        source.write_text("task_id,C,predictive_accuracy\n31,0.1,0.7\n31,1,0.8\n")
    words = [word.format(place=source) for word in extra]
    answer = call("import", kind, source, *words, "--history", tmp_path / "h.db", "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert (found["kind"], found["n_bad"], found["is_written"]) == (kind, 0, True)
    assert found["n_new"] >= 2
