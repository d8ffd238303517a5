"""Every importer on what the real tool wrote: what came in, how it ended, and that doing it twice adds nothing."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from store import History, InvalidArgumentError, Source
from store.importers.foreign import ForeignRun, RunSource
from store.importers.hf_trainer import HuggingFaceSource
from store.importers.hyperparameterhunter import HyperparameterHunterSource
from store.importers.lightning_csv import LightningSource
from store.importers.mapping import ImportOptions
from store.importers.mlflow_tracking import MlflowSource
from store.importers.optuna_storage import OptunaSource
from store.importers.pipeline import import_source
from store.importers.tensorboard_events import TensorBoardSource
from store.importers.trackio_sqlite import TrackioSource

Unpack = Callable[[str], Path]


@dataclass(frozen=True)
class Case:
    """A fixture, how it is read, and what it holds."""

    name: str
    make: Callable[[str], RunSource]
    options: ImportOptions
    n_found: int
    statuses: dict[str, int]
    learning_rates: tuple[float, ...]


CASES = [
    Case(
        "optuna.db.gz",
        lambda place: OptunaSource(place, ("digits", "unnamed")),
        ImportOptions(),
        14,
        {"completed": 10, "failed": 1, "stopped": 2},
        (),
    ),
    Case("optuna-4.0.db.gz", OptunaSource, ImportOptions(), 11, {"completed": 7, "failed": 1, "stopped": 2}, ()),
    Case("optuna.journal.log.gz", OptunaSource, ImportOptions(), 11, {"completed": 7, "failed": 1, "stopped": 2}, ()),
    Case(
        "mlruns.tar.gz",
        MlflowSource,
        ImportOptions(objective="val/acc"),
        6,
        {"completed": 1, "diverged": 1, "interrupted": 1, "failed": 1},
        (0.001, 0.01, 0.1, 1.0),
    ),
    Case(
        "mlflow.db.gz",
        MlflowSource,
        ImportOptions(objective="val/acc"),
        6,
        {"completed": 1, "diverged": 1, "interrupted": 1, "failed": 1},
        (0.001, 0.01, 0.1, 1.0),
    ),
    Case("csv_logs", LightningSource, ImportOptions(objective="val_acc"), 2, {"completed": 2}, (0.1, 1.0)),
    Case("tensorboard_logs", TensorBoardSource, ImportOptions(objective="val_acc"), 2, {"completed": 2}, (0.1, 1.0)),
    Case("writer_logs", TensorBoardSource, ImportOptions(objective="val/accuracy"), 2, {"completed": 2}, (0.01, 0.1)),
    Case("hf_out", HuggingFaceSource, ImportOptions(), 2, {"completed": 2}, (5e-5, 1e-2)),
    Case("trackio.db.gz", TrackioSource, ImportOptions(objective="val_acc"), 3, {"completed": 3}, (0.001, 0.01, 0.1)),
    Case(
        "HyperparameterHunterAssets",
        HyperparameterHunterSource,
        ImportOptions(objective="oof_roc_auc_score"),
        4,
        {"completed": 3},
        (0.01, 0.1, 0.5),
    ),
]

FIRST_IDS = json.loads((Path(__file__).resolve().parents[2] / "fixtures" / "importers" / "ids.json").read_text())
"""Fixture -> the ids its runs got from the first version: a source imported by it is known, and never imported a second time."""


def needs(case: Case) -> None:
    if case.make is TensorBoardSource:
        pytest.importorskip("tensorboard")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_source_is_imported_as_it_ended_and_twice_adds_nothing(history: History, fixture: Unpack, case: Case) -> None:
    needs(case)
    source = case.make(str(fixture(case.name)))
    report = import_source(history, source, case.options)
    assert (report.n_found, report.statuses, report.n_bad) == (case.n_found, case.statuses, 0)
    assert report.n_new == sum(case.statuses.values()) == len(history.runs())
    assert report.n_left_out == report.n_found - report.n_new
    if case.learning_rates:
        assert sorted(run.hparams["learning_rate"] for run in history.runs()) == list(case.learning_rates)
    before = (history.state(), repr(history.runs()))
    assert sorted(run.id for run in history.runs()) == FIRST_IDS[case.name]
    again = import_source(history, source, case.options)
    assert (again.n_new, again.n_updated, again.n_known, again.n_values) == (0, 0, report.n_new, 0)
    assert (history.state(), repr(history.runs())) == before


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_imported_run_keeps_its_origin_and_the_source_is_left_as_it_was(history: History, fixture: Unpack, case: Case) -> None:
    needs(case)
    place = fixture(case.name)
    before = contents(place)
    source = case.make(str(place))
    import_source(history, source, case.options)
    for run in history.runs():
        assert run.framework == run.description["origin"]["importer"] == source.kind
        assert run.description["origin"]["run"]
    assert contents(place) == before


def contents(place: Path) -> dict[str, bytes]:
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return {str(path.relative_to(place.parent)): path.read_bytes() for path in files} | {
        "beside": b",".join(sorted(path.name.encode() for path in place.parent.iterdir()))
    }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_source_that_was_moved_is_still_the_same(history: History, fixture: Unpack, tmp_path: Path, case: Case) -> None:
    needs(case)
    place = fixture(case.name)
    import_source(history, case.make(str(place)), case.options)
    (tmp_path / "elsewhere").mkdir()
    moved = place.rename(tmp_path / "elsewhere" / place.name)
    assert import_source(history, case.make(str(moved)), case.options).n_new == 0


def of(history: History, **wanted: Any) -> Any:
    (run,) = [run for run in history.runs() if all(run.description["origin"].get(name) == value for name, value in wanted.items())]
    return run


def test_optuna_trials_keep_their_state_curve_distributions_and_direction(history: History, fixture: Unpack) -> None:
    import_source(history, OptunaSource(f"sqlite:///{fixture('optuna.db.gz')}", ("digits",)))
    pruned, failed, done = (of(history, study="digits", trial=number) for number in (5, 4, 0))
    assert [str(run.status) for run in (pruned, failed, done)] == ["stopped", "failed", "completed"]
    assert [value.step for value in history.metrics(pruned.id, "val_acc")] == [0, 1]
    assert [value.step for value in history.metrics(done.id, "val_acc")] == [0, 1, 2, 3]
    assert (done.objective, done.direction) == ("val_acc", "max")
    assert failed.objective_best is None
    known = history.task("digits").description["distributions"]
    assert known["lr"] == {"name": "FloatDistribution", "attributes": {"step": None, "low": 1e-5, "high": 0.1, "log": True}}
    assert done.provenance["num_layers"].raw_name == "n_layers"


def test_a_study_that_grew_brings_only_what_is_new(history: History, fixture: Unpack) -> None:
    import optuna

    path = fixture("optuna.db.gz")
    source = OptunaSource(str(path), ("unnamed",))
    assert import_source(history, source).n_new == 3
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(study_name="unnamed", storage=f"sqlite:///{path}")
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-4, 1e-1, log=True), n_trials=2)
    report = import_source(history, source)
    assert (report.n_new, report.n_updated, report.n_known) == (2, 0, 3)


def test_of_several_objectives_one_has_to_be_named(history: History, fixture: Unpack) -> None:
    source = OptunaSource(str(fixture("optuna.db.gz")), ("two",))
    with pytest.raises(InvalidArgumentError, match=r"has 'val_acc' \(3 runs\), 'latency_s' \(3 runs\): pass --objective"):
        import_source(history, source)
    assert history.runs() == []
    import_source(history, source, ImportOptions(objective="latency_s", direction="min"))
    assert {(run.objective, run.direction) for run in history.runs()} == {("latency_s", "min")}


def test_an_unknown_study_is_an_error_with_the_possible_ones(history: History, fixture: Unpack) -> None:
    with pytest.raises(InvalidArgumentError, match="there is no 'digit'; it has: digits, unnamed, two"):
        import_source(history, OptunaSource(str(fixture("optuna.db.gz")), ("digit",)))


def test_what_was_returned_is_no_end_of_a_curve_of_something_else(history: History, tmp_path: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(trial: optuna.Trial) -> float:
        trial.suggest_float("lr", 0.1, 1.0)
        trial.report(2.0, 0)
        trial.report(1.5, 1)
        return 0.1

    study = optuna.create_study(storage=f"sqlite:///{tmp_path / 's.db'}", study_name="s", direction="minimize")
    study.optimize(objective, n_trials=3)
    import_source(history, OptunaSource(str(tmp_path / "s.db")))
    run = history.runs()[0]
    assert (run.objective, run.objective_best) == ("objective", 0.1)
    assert [value.value for value in history.metrics(run.id, "intermediate")] == [2.0, 1.5]


@pytest.mark.parametrize("name", ["mlruns.tar.gz", "mlflow.db.gz"])
def test_mlflow_parameters_get_their_types_and_credentials_stay_outside(history: History, fixture: Unpack, name: str) -> None:
    report = import_source(history, MlflowSource(str(fixture(name))), ImportOptions(objective="val/acc"))
    run = of(history, run_name="run-0")
    assert run.hparams["learning_rate"] == 0.1
    assert (run.hparams["batch_size"], run.hparams["use_bias"], run.hparams["clip"]) == (16, True, None)
    assert run.hparams["optimizer/name"] == "adam"
    assert run.hparams["api_token"] == "[redacted]"
    assert [(value.step, value.value, value.elapsed_s) for value in history.metrics(run.id, "val/acc")] == [
        (0, 90.0, 0.0),
        (1, 91.0, 1.0),
        (2, 92.0, 2.0),
    ]
    assert (run.started_utc, run.wall_s) == ("2025-10-09T08:53:20.000000Z", 10.0)
    assert math.isnan(history.metrics(of(history, run_name="run-1").id, "val/acc")[-1].value)
    assert math.isinf(history.metrics(of(history, run_name="run-3").id, "train_loss")[-1].value)
    assert sorted(reason for reason, _, _ in report.left_out) == [
        "did not end, and wrote nothing for a day or more",
        "was deleted in MLflow",
    ]


def test_lightning_folders_give_curves_with_epochs_and_nested_hyperparameters(history: History, fixture: Unpack) -> None:
    import_source(history, LightningSource(str(fixture("csv_logs"))), ImportOptions(objective="val_acc"))
    run = of(history, folder="tiny/version_0")
    assert run.task_name == "tiny"
    assert {"learning_rate": 0.1, "per_device_batch_size": 16, "sizes": [4, 2], "options.dropout": 0.1}.items() <= run.hparams.items()
    assert [(value.step, value.epoch) for value in history.metrics(run.id, "val_acc")] == [(3, 0.0), (7, 1.0), (11, 2.0)]
    assert run.epochs_reached == 3.0


def test_a_folder_that_grew_is_written_anew(history: History, fixture: Unpack) -> None:
    place = fixture("csv_logs")
    source, options = LightningSource(str(place)), ImportOptions(objective="val_acc")
    import_source(history, source, options)
    path = place / "tiny" / "version_0" / "metrics.csv"
    names = path.read_text().splitlines()[0].split(",")
    row = {"epoch": "3", "step": "15", "val_acc": "0.99"}
    path.write_text(path.read_text() + ",".join(row.get(name, "") for name in names) + "\n")
    report = import_source(history, source, options)
    assert (report.n_new, report.n_updated, report.n_known) == (0, 1, 1)
    assert of(history, folder="tiny/version_0").objective_last == 0.99
    assert len(history.runs()) == 2


def test_tensorboard_reads_the_hparams_plugin_and_percent_stays_what_it_is(history: History, fixture: Unpack) -> None:
    pytest.importorskip("tensorboard")
    report = import_source(history, TensorBoardSource(str(fixture("writer_logs"))), ImportOptions(objective="val/accuracy"))
    run = of(history, folder="writer_logs/lr-0.1")
    assert run.hparams == {"learning_rate": 0.1, "bsize": 32, "optimizer": "adam", "nesterov": True}
    assert [value.value for value in history.metrics(run.id, "val/accuracy")] == pytest.approx([50, 60, 70, 80])
    assert "hparam/accuracy" in history.metric_names(run.id)
    assert [entry.becomes for entry in report.names if entry.kind.startswith("unit")] == ["percent"]
    assert run.task_name == "writer_logs"


def test_a_trainer_folder_is_one_run_with_its_arguments_and_its_own_objective(history: History, fixture: Unpack) -> None:
    import_source(history, HuggingFaceSource(str(fixture("hf_out"))))
    run = of(history, folder="run-0")
    assert (run.objective, run.direction, run.epochs_reached, run.task_name) == ("eval_accuracy", "max", 4.0, "hf_out")
    assert (run.hparams["batch_size"], run.hparams["gradient_accumulation_steps"], run.hparams["global_batch_size"]) == (16, 2, 32)
    assert run.provenance["learning_rate"].source is Source.DEFAULT
    assert run.provenance["batch_size"].source is Source.USER
    assert (run.hparams["optimizer"], run.hparams["lr_scheduler"]) == ("adamw_torch_fused", "linear")
    assert len(history.metrics(run.id, "eval_accuracy")) == 4


def test_trainer_arguments_that_cannot_be_read_leave_the_curve(history: History, fixture: Unpack) -> None:
    place = fixture("hf_out")
    for path in place.rglob("training_args.bin"):
        path.write_bytes(b"<html>not found</html>")
    import_source(history, HuggingFaceSource(str(place)), ImportOptions(objective="eval_accuracy"))
    run = of(history, folder="run-0")
    assert run.description["origin"]["training_args"] == "a file was not written by torch.save"
    assert "learning_rate" not in run.hparams
    assert len(history.metrics(run.id, "eval_accuracy")) == 4


def test_trackio_runs_have_nested_configurations_and_nan(history: History, fixture: Unpack) -> None:
    import_source(history, TrackioSource(str(fixture("trackio.db.gz"))), ImportOptions(objective="loss"))
    run = of(history, run_name="run-0")
    assert run.hparams == {"learning_rate": 0.1, "per_device_batch_size": 32, "model.dropout": 0.1, "api_key": "[redacted]"}
    assert str(run.status) == "diverged"
    assert run.started_utc.startswith("20")


def test_a_trackio_file_of_the_first_versions_knows_runs_by_name(history: History, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "old.db")) as connection, connection:
        connection.execute("CREATE TABLE metrics (id INTEGER PRIMARY KEY, timestamp TEXT, run_name TEXT, step INTEGER, metrics TEXT)")
        rows = [("2025-08-01T00:00:00", "a", 0, '{"val_acc": 0.5}'), ("2025-08-01T00:00:09", "a", 1, "{broken")]
        connection.executemany("INSERT INTO metrics (timestamp, run_name, step, metrics) VALUES (?, ?, ?, ?)", rows)
    import_source(history, TrackioSource(str(tmp_path / "old.db")))
    assert of(history, run_name="a").description["origin"]["damaged_rows"] == 1


def test_hyperparameterhunter_experiments_have_their_scores_and_the_leaderboard_alone_is_reported(
    history: History, fixture: Unpack
) -> None:
    source = HyperparameterHunterSource(str(fixture("HyperparameterHunterAssets").parent))
    report = import_source(history, source, ImportOptions(objective="oof_roc_auc_score"))
    run = max(history.runs(), key=lambda run: run.objective_best or 0.0)
    assert (run.objective_best, run.model_class, run.wall_s) == (0.93, "XGBClassifier", 9.5)
    assert {"learning_rate": 0.1, "max_depth": 3, "fit.early_stopping_rounds": 5}.items() <= run.hparams.items()
    assert run.task_name == "diagnosis (pVjYxyA4)"
    assert [reason for reason, _, _ in report.left_out] == ["is in the leaderboard only: without a description it has no hyperparameters"]


def test_a_tracking_uri_gives_what_its_file_gives(history: History, fixture: Unpack, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is an extra")
    from store.importers.mlflow_tracking import _Experiments, _server_runs

    path = fixture("mlflow.db.gz")
    records = _server_runs(f"sqlite:///{path}", _Experiments(()), lambda share, text: None)
    asked = {record.key: record for record in records if isinstance(record, ForeignRun)}
    read = {record.key: record for record in MlflowSource(str(path)).read(lambda share, text: None) if isinstance(record, ForeignRun)}
    assert len(read) == 5
    for key, record in read.items():
        assert asked[key].hparams == record.hparams
        assert repr(sorted(asked[key].curves.items())) == repr(sorted(record.curves.items()))  # as text: NaN differs from itself
        assert (asked[key].status, asked[key].task, asked[key].order) == (record.status, record.task, record.order)


def test_curves_on_each_part_of_the_data_are_of_one_run(history: History, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    for number in (1, 2):
        with SummaryWriter(tmp_path / "logs" / f"run-{number}") as whole:
            whole.add_hparams({"lr": 0.1 * number}, {}, run_name=".")
        for part in ("train", "validation"):  # as the callback of Keras writes them
            with SummaryWriter(tmp_path / "logs" / f"run-{number}" / part) as writer:
                writer.add_scalar("epoch_accuracy", 0.5, 0)
    import_source(history, TensorBoardSource(str(tmp_path / "logs")), ImportOptions(objective="validation/epoch_accuracy"))
    assert sorted(run.hparams["learning_rate"] for run in history.runs()) == [0.1, 0.2]
    assert history.metric_names() == ["train/epoch_accuracy", "validation/epoch_accuracy"]


def test_notes_of_a_trial_are_kept_with_the_run_and_not_learned_from(history: History, fixture: Unpack) -> None:
    import_source(history, OptunaSource(str(fixture("optuna.db.gz")), ("digits",)))
    run = history.runs()[0]
    assert set(run.hparams) == {"learning_rate", "num_layers", "optimizer"}
    assert run.description["origin"]["user_attrs"]["n_parameters_thousands"] >= 10
