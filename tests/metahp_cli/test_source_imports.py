"""``metahp import KIND``: the same options for every kind, questions instead of guesses, and nothing written by a look."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store import History
from store.importers.registry import IMPORTERS, options_of, source_class

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures" / "importers"


def test_importing_shows_what_was_imported_and_what_did_not(call, tmp_path: Path) -> None:
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
    assert ["per_device_train_batch_size", "hyperparameter", "per_device_batch_size", "16", "a", "known", "spelling", "2"] in lines
    assert "unit of 'hf_out'" in answer.out
    found = json.loads(call(*words, "--format", "json").out)
    assert {"name": "learning_rate", "becomes": "learning_rate"}.items() <= found["readings"][1].items()


def test_a_look_at_a_history_that_knows_the_runs_shows_it(call, tmp_path: Path) -> None:
    words = ("import", "hf", FIXTURES / "hf_out", "--history", tmp_path / "h.db")
    call(*words)
    before = (tmp_path / "h.db").read_bytes()
    assert "2: 0 new, 0 updated, 2 known" in call(*words, "--dry-run").out
    assert (tmp_path / "h.db").read_bytes() == before


def test_names_units_and_tasks_can_be_set(call, tmp_path: Path) -> None:
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
        (("--unfinished", "kill"), "skip, interrupted, failed, but got 'kill'"),
        (("--outcome", "mean"), "best or last, but got 'mean'"),
        (("--name", "rate=learning_rate"), "it has no 'rate'"),
    ],
)
def test_bad_options_are_one_line(call, tmp_path: Path, extra: tuple[str, ...], message: str) -> None:
    answer = call("import", "lightning", FIXTURES / "csv_logs", "--objective", "val_acc", *extra, "--history", tmp_path / "h.db")
    assert answer.code == 1
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_experiments_are_named_one_by_one_and_unfinished_runs_are_what_the_user_makes_of_them(call, tmp_path: Path) -> None:
    source = tmp_path / "mlflow.db"
    source.write_bytes(gzip.decompress((FIXTURES / "mlflow.db.gz").read_bytes()))
    words = ("import", "mlflow", source, "--objective", "digits=val/acc", "--history", tmp_path / "h.db")
    answer = call(*words, "--experiment", "digits", "--experiment", "a, b")
    assert "'a, b' has none in the store; others with runs: 'digits'" in answer.err
    answer = call(*words, "--experiment", "digits")
    assert "--unfinished interrupted (or failed) imports what was recorded" in answer.err
    answer = call(*words, "--experiment", "digits", "--unfinished", "failed", "--outcome", "last")
    assert "5: 1 new" in answer.out
    assert "2 failed" in answer.out


def test_a_missing_objective_is_answered_by_all_metrics_of_the_source(call, tmp_path: Path) -> None:
    for version in range(30):
        folder = tmp_path / "shop" / "logs" / f"version_{version}"
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"epoch,step,metric_{version}\n0,0,0.{version + 1}\n")
    answer = call("import", "lightning", tmp_path / "shop" / "logs", "--history", tmp_path / "h.db")
    assert all(f"'metric_{version}' (1 runs)" in answer.err for version in range(30))
    answer = call("import", "lightning", tmp_path / "shop" / "logs", "--objective", "val_acc", "--history", tmp_path / "h.db")
    assert all(f"metric_{version}" in answer.err for version in range(30))


def test_showing_an_imported_run_shows_where_it_comes_from(call, tmp_path: Path) -> None:
    call("import", "hf", FIXTURES / "hf_out", "--history", tmp_path / "h.db")
    with History(tmp_path / "h.db") as history:
        run = history.runs()[0].id
    answer = call("show", run, "--history", tmp_path / "h.db")
    assert "imported from" in answer.out
    assert "folder=run-" in answer.out


def test_ids_of_flows_are_whole_numbers(call, tmp_path: Path) -> None:
    answer = call("import", "openml", "task:31", "--flow", "x", "--history", tmp_path / "h.db")
    assert "Ids must be whole numbers" in answer.err
    answer = call("import", "openml", "task:31", "--size", "0", "--history", tmp_path / "h.db")
    assert "from 1 to 10000, but got '0'" in answer.err


EXAMPLES = {
    "mlflow": ("mlflow.db.gz", ("--objective", "val/acc")),
    "optuna": ("optuna.db.gz", ("--study", "digits,unnamed")),
    "tensorboard": ("writer_logs", ("--objective", "val/accuracy")),
    "lightning": ("csv_logs", ("--objective", "val_acc")),
    "hf": ("hf_out", ()),
    "trackio": ("trackio.db.gz", ("--objective", "val_acc")),
    "hyperparameterhunter": ("HyperparameterHunterAssets", ("--objective", "oof_roc_auc_score")),
    "openml": ("runs.csv", ("--objective", "predictive_accuracy", "--qualities", "{place}", "--size", "5")),
}
"""A fixture for each importer, and the options it needs."""


@pytest.mark.parametrize("kind", IMPORTERS)
def test_every_importer_has_its_command(call, tmp_path: Path, kind: str) -> None:
    if kind == "tensorboard":
        pytest.importorskip("tensorboard")
    place, extra = EXAMPLES[kind]
    source = FIXTURES / place
    if place.endswith(".gz"):
        source = tmp_path / place.removesuffix(".gz")
        source.write_bytes(gzip.decompress((FIXTURES / place).read_bytes()))
    elif not source.exists():
        source = tmp_path / place
        source.write_text("task_id,C,predictive_accuracy\n31,0.1,0.7\n31,1,0.8\n")
    given = [word.format(place=source) for word in extra]
    answer = call("import", kind, source, *given, "--history", tmp_path / "h.db", "--format", "json")
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    assert (found["kind"], found["n_bad"], found["is_written"]) == (kind, 0, True)
    assert found["n_new"] >= 2


@pytest.mark.parametrize("kind", IMPORTERS)
def test_the_help_of_an_importer_names_its_place_and_all_options(call, kind: str) -> None:
    source, answer = source_class(kind), call("import", kind, "--help")
    shared = ["--task", "--objective", "--unit", "--dry-run", "--explain", "--history", "--format", "--debug"]
    for text in (source.about.metavar, f"metahp import {kind} ", *shared, *(item.metadata["flag"] for item in options_of(source))):
        assert text in answer.out


TOY_MODULE = """
from dataclasses import dataclass
from typing import ClassVar

from store.importers.bounded_files import csv_rows, existing, read_text
from store.importers.foreign import ForeignRun
from store.importers.registry import About, option, words
from store.sqlite.bulk import Curve


@dataclass(frozen=True, slots=True)
class NotesSource:
    place: str
    owners: tuple = option("--owner", "LIST", "Only theirs.", parse=words, default=())
    kind: ClassVar[str] = "notes"
    about: ClassVar = About("notes", "a run a line", "FILE", "file of notes", "n.csv")

    def read(self, progress):
        for row in csv_rows(read_text(existing(self.place, "a file of notes"), 1000)):
            if not self.owners or row["owner"] in self.owners:
                yield ForeignRun((row["id"],), "notes", {"lr": float(row["lr"])}, {"val_acc": Curve([0], [float(row["val_acc"])])})
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file of an importer that is one module and one line of the registry; both are gone afterwards."""
    (tmp_path / "toy_notes.py").write_text(TOY_MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(IMPORTERS, "notes", "toy_notes:NotesSource")
    path = tmp_path / "n.csv"
    path.write_text("id,owner,lr,val_acc\n1,ann,0.1,0.5\n2,bob,0.01,0.7\n")
    yield path
    sys.modules.pop("toy_notes", None)


def test_an_importer_is_one_module_and_one_line(call, notes: Path, tmp_path: Path) -> None:
    assert "Import notes: a run a line." in call("import", "notes", "-h").out
    assert "notes" in call("import", "--help").out
    answer = call("import", "notes", notes, "--owner", "ann", "--history", tmp_path / "h.db")
    assert answer.code == 0, answer.err
    assert "1: 1 new" in answer.out
    assert "2: 1 new, 0 updated, 1 known" in call("import", "notes", notes, "--history", tmp_path / "h.db").out
    with History(tmp_path / "h.db") as history:
        assert {run.hparams["learning_rate"] for run in history.runs("notes")} == {0.1, 0.01}


def test_an_unknown_importer_is_wrong_usage(call, notes: Path) -> None:
    assert call("import", "memos", notes).code == 2
