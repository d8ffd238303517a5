"""Several runs in one folder or one file come in as several runs, each with its own values and hyperparameters."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from store import History
from store.importers.foreign import ForeignRun
from store.importers.lightning_csv import LightningSource
from store.importers.mapping import ImportOptions
from store.importers.pipeline import import_source, run_id
from store.importers.sessions import SessionSplitter
from store.importers.tensorboard_events import TensorBoardSource

pytest.importorskip("tensorboard")
pytest.importorskip("lightning")
import lightning
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.utils.tensorboard import SummaryWriter

RUNS = ((0.1, 0.9), (0.01, 0.8), (0.001, 0.7))
"""Learning rates and the accuracies reached."""


def sessions_of(values: list[tuple[str, int]]) -> list[int]:
    splitter: SessionSplitter[int] = SessionSplitter()
    found = [pair for index, (name, step) in enumerate(values) for pair in splitter.add(name, step, index)]
    return [number for number, index in sorted([*found, *splitter.rest()], key=lambda pair: pair[1])]


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ([("a", 0), ("a", 1), ("a", 2)], [0, 0, 0]),
        ([("a", 0), ("a", 1), ("a", 0), ("a", 1), ("a", 0)], [0, 0, 1, 1, 2]),
        ([("a", 3), ("a", 7), ("b", 0), ("a", 3)], [0, 0, 0, 1]),  # an evaluation of another kind in between
        ([("a", 0), ("a", 9), ("a", 5), ("a", 12)], [0, 0, 0, 0]),  # resumed from a checkpoint
        ([("lr", 0), ("a", 0), ("a", 1), ("lr", 0), ("a", 0), ("a", 1)], [0, 0, 0, 1, 1, 1]),  # what is logged once, before the rest
        ([("a", 0), ("a", 1), ("t", 0), ("a", 0), ("a", 1), ("t", 0)], [0, 0, 0, 1, 1, 1]),  # what is logged once, after the rest
        ([("a", 0), ("a", 0), ("a", 1)], [0, 0, 0]),  # written twice
        ([("a", 0)] * 5, [0] * 5),
    ],
)
def test_another_run_begins_where_steps_begin_anew(values: list[tuple[str, int]], numbers: list[int]) -> None:
    assert sessions_of(values) == numbers


def write(folder: Path, rate: float, accuracy: float, **hparams: Any) -> None:
    """Write what a script writes: a curve, and its hyperparameters at the end."""
    with SummaryWriter(folder) as writer:
        for epoch in range(5):
            writer.add_scalar("val/acc", accuracy - 0.01 * (4 - epoch), epoch)
        writer.add_hparams({"lr": rate}, {"hp/acc": accuracy}, **hparams)


def imported(history: History, place: Path) -> list[tuple[float, float]]:
    """Return learning rate and outcome of each run, checked to be the same after a second import."""
    source, options = TensorBoardSource(str(place)), ImportOptions(objective="val/acc")
    report = import_source(history, source, options)
    again = import_source(history, source, options)
    assert (again.n_new, again.n_updated, again.n_known) == (0, 0, report.n_new + report.n_updated + report.n_known)
    return sorted(((run.hparams.get("learning_rate"), round(run.objective_best or 0.0, 4)) for run in history.runs()), reverse=True)


@pytest.mark.parametrize("where", [{}, {"run_name": "."}], ids=["below", "beside"])
def test_writers_of_one_folder_are_runs_with_their_own_hyperparameters(history: History, tmp_path: Path, where: dict[str, str]) -> None:
    for rate, accuracy in RUNS:
        write(tmp_path / "logs", rate, accuracy, **where)
        time.sleep(1.01)  # names of event files count in seconds
    assert imported(history, tmp_path / "logs") == list(RUNS)
    # the run that earlier versions made of all of them is the first one now
    known = run_id("tensorboard", ForeignRun(("logs", min(path.name for path in (tmp_path / "logs").glob("*tfevents*"))), "logs"))
    assert [run.hparams["learning_rate"] for run in history.runs() if run.id[-12:] == known[-12:]] == [0.1]


def test_one_writer_that_is_used_again_gives_a_run_for_each_use(history: History, tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "logs") as writer:
        for rate, accuracy in RUNS:
            writer.add_scalar("seed", 1, 0)
            for epoch in range(5):
                writer.add_scalar("val/acc", accuracy - 0.01 * (4 - epoch), epoch)
            writer.add_hparams({"lr": rate}, {"hp/acc": accuracy})
            time.sleep(0.01)  # the folders of add_hparams are named by the time
    assert imported(history, tmp_path / "logs") == list(RUNS)


def test_steps_that_count_the_batches_of_an_epoch_make_no_runs(history: History, tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "logs") as writer:
        for epoch in range(4):
            for batch in range(3):
                writer.add_scalar("train/loss", 1.0 / (1 + epoch), batch)
            writer.add_scalar("val/acc", 0.1 * epoch, epoch)
        writer.add_hparams({"lr": 0.1}, {"hp/acc": 0.3})
    assert imported(history, tmp_path / "logs") == [(0.1, 0.3)]


def test_a_metric_of_the_whole_search_does_not_join_its_runs(history: History, tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "logs") as writer:
        for trial, (rate, accuracy) in enumerate(RUNS):
            for epoch in range(5):
                writer.add_scalar("val/acc", accuracy - 0.01 * (4 - epoch), epoch)
            writer.add_scalar("search/acc", accuracy, trial)
            writer.add_hparams({"lr": rate}, {"hp/acc": accuracy})
            time.sleep(0.01)
    assert imported(history, tmp_path / "logs") == list(RUNS)


PROCESS = """
import sys, time
from torch.utils.tensorboard import SummaryWriter
folder, rate, accuracy = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
writer = SummaryWriter(folder)
for epoch in range(3):
    writer.add_scalar("val/acc", accuracy - 0.01 * (2 - epoch), epoch)
    time.sleep(0.3)
writer.add_hparams({"lr": rate}, {"hp/acc": accuracy})
writer.close()
"""


def test_processes_that_write_at_the_same_time_are_told_apart(history: History, tmp_path: Path) -> None:
    words = [[str(tmp_path / "logs"), str(rate), str(accuracy)] for rate, accuracy in RUNS[:2]]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    for process in [subprocess.Popen([sys.executable, "-c", PROCESS, *given], env=environment) for given in words]:
        assert process.wait(60) == 0
    assert imported(history, tmp_path / "logs") == list(RUNS[:2])


def test_a_run_that_was_resumed_stays_one_run(history: History, tmp_path: Path) -> None:
    for start in (0, 5):
        with SummaryWriter(tmp_path / "logs") as writer:
            writer.add_scalar("hp_metric", -1, 0)
            writer.add_scalar("n_parameters", 10, 0)
            for epoch in range(start, start + 6):
                writer.add_scalar("val/acc", 0.1 * epoch, epoch)
        time.sleep(1.01)
    assert imported(history, tmp_path / "logs") == [(None, 1.0)]
    assert len(history.metrics(history.runs()[0].id, "val/acc")) == 11


def test_writers_with_other_metrics_are_of_one_run(history: History, tmp_path: Path) -> None:
    for name in ("train/loss", "val/acc"):
        with SummaryWriter(tmp_path / "logs", filename_suffix="." + name[:3]) as writer:
            for epoch in range(3):
                writer.add_scalar(name, 0.5, epoch)
    assert len(imported(history, tmp_path / "logs")) == 1
    assert history.metric_names() == ["train/loss", "val/acc"]


def test_a_run_whose_hyperparameters_are_lost_does_not_get_those_of_another(history: History, tmp_path: Path) -> None:
    with SummaryWriter(tmp_path / "logs") as writer:
        for rate, accuracy in RUNS:
            for epoch in range(5):
                writer.add_scalar("val/acc", accuracy - 0.01 * (4 - epoch), epoch)
            if rate != 0.01:
                writer.add_hparams({"lr": rate}, {"hp/acc": accuracy})
                time.sleep(0.01)
    report = import_source(history, TensorBoardSource(str(tmp_path / "logs")), ImportOptions(objective="val/acc"))
    assert [run.hparams.get("learning_rate") for run in history.runs()] == [None, None, None]
    assert [reason for reason, _, _ in report.left_out] == ["has no value of 'val/acc'"]


def test_parts_of_several_runs_are_matched_and_those_that_cannot_be_are_left_out(history: History, tmp_path: Path) -> None:
    for accuracy in (0.9, 0.8):
        for part in ("train", "validation"):
            with SummaryWriter(tmp_path / "logs" / part) as writer:
                for epoch in range(3):
                    writer.add_scalar("epoch_accuracy", accuracy - (part == "validation") / 10, epoch)
        time.sleep(1.01)
    options = ImportOptions(objective="validation/epoch_accuracy")
    import_source(history, TensorBoardSource(str(tmp_path / "logs")), options)
    assert sorted(round(run.objective_best or 0.0, 2) for run in history.runs()) == [0.7, 0.8]
    next((tmp_path / "logs" / "train").glob("*tfevents*")).unlink()
    report = import_source(history, TensorBoardSource(str(tmp_path / "logs")), ImportOptions(objective="train/epoch_accuracy"))
    assert report.left_out[0][0] == "has curves of several runs, which cannot be matched with the runs of the folder above"


class Model(BoringModel):
    """Logs its own learning rate as what it reaches."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.save_hyperparameters()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val/acc", torch.tensor(self.hparams["lr"]))

    def test_step(self, batch: Any, index: int) -> None:
        self.log("test/acc", 0.5)


def trainer_with(logger: Any, folder: Path, epochs: int = 2) -> lightning.Trainer:
    return lightning.Trainer(
        default_root_dir=folder,
        max_epochs=epochs,
        limit_train_batches=2,
        limit_val_batches=1,
        limit_test_batches=1,
        logger=logger,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_model_summary=False,
        accelerator="cpu",
    )


@pytest.mark.parametrize("rates", [(0.5, 0.25), (0.5, 0.5)], ids=["other hyperparameters", "folds"])
@pytest.mark.parametrize("is_one_logger", [True, False], ids=["one logger", "one folder"])
def test_a_tensorboard_logger_that_was_used_again_gives_a_run_for_each_fit_with_its_hyperparameters(
    history: History, tmp_path: Path, rates: tuple[float, float], is_one_logger: bool
) -> None:
    def new_logger() -> TensorBoardLogger:
        return TensorBoardLogger(tmp_path, "digits", version=0)

    logger = new_logger()
    for rate in rates:
        logger = logger if is_one_logger else new_logger()
        trainer, model = trainer_with(logger, tmp_path), Model(rate)
        trainer.fit(model)
        trainer.test(model)
        if not is_one_logger:
            time.sleep(1.01)  # names of event files count in seconds
    assert imported(history, tmp_path / "digits") == [(rate, rate) for rate in rates]
    assert [run.epochs_reached for run in history.runs()] == [2.0, 2.0]


def test_a_fit_that_goes_on_from_a_checkpoint_in_its_folder_stays_one_run(history: History, tmp_path: Path) -> None:
    for epochs in (2, 4):
        trainer = trainer_with(TensorBoardLogger(tmp_path, "digits", version=0), tmp_path, epochs)
        trainer.fit(Model(0.5), ckpt_path=None if epochs == 2 else tmp_path / "last.ckpt")
        trainer.save_checkpoint(tmp_path / "last.ckpt")
        time.sleep(1.01)
    assert imported(history, tmp_path / "digits") == [(0.5, 0.5)]
    assert history.runs()[0].epochs_reached == 4.0


def test_a_trainer_that_trains_twice_into_one_log_folder_gives_two_runs(history: History, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")

    from tests.store.importers.tiny_transformer import TinyTransformer, rows

    os.environ["TENSORBOARD_LOGGING_DIR"] = str(tmp_path / "logs")
    try:
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"), max_steps=3, logging_steps=1, use_cpu=True, report_to=["tensorboard"], disable_tqdm=True
        )
        for _ in range(2):
            transformers.Trainer(TinyTransformer(), arguments, train_dataset=rows()).train()
            time.sleep(1.01)
    finally:
        del os.environ["TENSORBOARD_LOGGING_DIR"]
    report = import_source(history, TensorBoardSource(str(tmp_path / "logs")), ImportOptions(objective="train/loss"))
    assert (report.n_new, report.n_left_out) == (2, 0)


def test_a_csv_logger_that_was_used_again_gives_a_run_for_each_fit(history: History, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path, "twice")
    for rate in (0.5, 0.25):
        trainer_with(logger, tmp_path).fit(Model(rate))
    source, options = LightningSource(str(tmp_path / "twice")), ImportOptions(objective="val/acc")
    report = import_source(history, source, options)
    found = sorted((run.objective_best, run.hparams.get("learning_rate"), run.epochs_reached) for run in history.runs())
    assert found == [(0.25, 0.25, 2.0), (0.5, None, 2.0)]
    assert report.notes == ["'twice/version_0' holds 2 runs, but hyperparameters of the last one only: the others come without any"]
    assert import_source(history, source, options).n_known == 2
