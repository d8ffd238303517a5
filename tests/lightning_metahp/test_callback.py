"""``MetaHPCallback`` in real fits: what a row holds, and when there is none."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_metahp import MetaHPCallback
from store import History, InvalidArgumentError, MetaHPWarning, ObjectiveError, ObjectiveWarning, RunStatus, Source
from tests.lightning_metahp.tiny_training import Gan, TinyData, TinyModel, corners, fit, make_trainer, only_run, values_of

ROOT = Path(__file__).resolve().parents[2]


class Raise(Callback):
    """Raises in the middle of the second epoch."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 3:
            raise self.error


def test_the_default_history_is_used_by_a_bare_callback(isolated_history: Path) -> None:
    fit(MetaHPCallback())
    with History(isolated_history) as history:
        assert only_run(history).status is RunStatus.COMPLETED


def test_every_hyperparameter_in_force_is_logged_with_who_set_it(history: History) -> None:
    L.seed_everything(5, verbose=False)
    model = TinyModel(lr=0.02, hidden=8)
    fit(MetaHPCallback(history=history), model=model, data=TinyData(batch_size=24), accumulate_grad_batches=2, gradient_clip_val=0.5)
    run = only_run(history)
    found = {name: (param.raw_name, param.value, param.source) for name, param in run.provenance.items()}
    expected = {
        "learning_rate": ("lr", 0.02, Source.USER),
        "hidden_size": ("hidden", 8, Source.DEFAULT),
        "dropout": ("dropout", 0.1, Source.DEFAULT),
        "weight_decay": ("weight_decay", 0.0, Source.DEFAULT),
        "per_device_batch_size": ("batch_size", 24, Source.USER),
        "global_batch_size": ("global_batch_size", 48, Source.USER),
        "name": ("name", "corners", Source.DEFAULT),
        "num_epochs": ("max_epochs", 2, Source.USER),
        "gradient_accumulation_steps": ("accumulate_grad_batches", 2, Source.USER),
        "max_grad_norm": ("gradient_clip_val", 0.5, Source.USER),
        "precision": ("precision", "32-true", Source.DEFAULT),
        "devices": ("devices", 1, Source.DEFAULT),
        "seed": ("seed", 5, Source.USER),
        "optimizer": ("optimizer", "AdamW", Source.USER),
        "optimizer.lr": ("optimizer.lr", 0.02, Source.USER),
        "optimizer.betas": ("optimizer.betas", (0.9, 0.999), Source.DEFAULT),
    }
    assert {name: found.get(name) for name in expected} == expected
    assert run.provenance["learning_rate"].observed == 0.02
    assert run.provenance["batch_size"].observed == 24


def test_without_hparams_the_knobs_are_read_from_optimizer_schedule_and_loader(history: History) -> None:
    class Bare(TinyModel):
        def __init__(self) -> None:
            super().__init__()
            self.hparams.clear()

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.3, momentum=0.8)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.3, total_steps=100)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    fit(MetaHPCallback("train_loss", history=history), model=Bare(), data=DataLoader(corners(), batch_size=12))
    hparams = only_run(history).hparams
    assert hparams["learning_rate"] == 0.3, "the peak of the schedule, not the fraction it starts from"
    assert hparams["lr_scheduler"] == "OneCycleLR"
    assert hparams["lr_scheduler.total_steps"] == 100
    assert hparams["batch_size"] == 12
    assert hparams["optimizer"] == "SGD"


def test_arguments_kept_as_attributes_count_as_hyperparameters(history: History) -> None:
    class Plain(TinyModel):
        def __init__(self, lr: float = 0.01, label_smoothing: float = 0.0) -> None:
            super().__init__()
            self.hparams.clear()
            self.learning_rate = lr
            self.label_smoothing = label_smoothing

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    fit(MetaHPCallback(history=history), model=Plain(label_smoothing=0.2))
    run = only_run(history)
    assert (run.provenance["learning_rate"].raw_name, run.hparams["learning_rate"]) == ("lr", 0.01)
    assert run.provenance["learning_rate"].source is Source.DEFAULT
    assert (run.hparams["label_smoothing"], run.provenance["label_smoothing"].source) == (0.2, Source.USER)


def test_the_task_is_described(history: History) -> None:
    fit(MetaHPCallback(history=history))
    run = only_run(history)
    description = {key: run.description[key] for key in ("dataset_class", "n_train", "n_val", "n_classes", "model_class")}
    assert description == {"dataset_class": "TensorDataset", "n_train": 96, "n_val": 96, "n_classes": 3, "model_class": "TinyModel"}
    assert (list(run.description["input_shape"]), run.description["input_dtype"]) == ([4], "float32")
    assert run.description["data_names"] == {"name": "corners"}
    assert (run.model_class, run.model_family, run.n_parameters) == ("TinyModel", "mlp", 67)
    assert run.variant
    assert run.versions["lightning"]
    assert run.framework == "lightning"


def test_cost_and_progress_are_recorded(history: History) -> None:
    fit(MetaHPCallback(history=history))
    run = only_run(history)
    assert run.wall_s is not None
    assert run.wall_s > 0
    assert run.cpu_s is not None
    assert run.cpu_s > 0
    assert run.peak_memory_bytes is not None
    assert run.peak_memory_bytes > 10**6
    assert (run.epochs_reached, run.steps_reached) == (2.0, 12)


def test_a_tuned_value_keeps_the_task_and_other_data_starts_one(history: History) -> None:
    callback = MetaHPCallback(history=history)
    fit(callback)
    fit(callback, model=TinyModel(lr=0.1, hidden=16, dropout=0.5), data=TinyData(batch_size=32), max_epochs=1)
    assert len(history.tasks()) == 1
    fit(callback, data=TinyData(n=80))
    fit(callback, data=TinyData(name="other"))
    assert len(history.tasks()) == 3


def test_an_explicit_task_is_the_identity(history: History) -> None:
    fit(MetaHPCallback(history=history, task="mine"))
    fit(MetaHPCallback(history=history, task="mine"), data=TinyData(n=80))
    assert [(task.name, task.n_runs) for task in history.tasks()] == [("mine", 2)]


def test_step_metrics_follow_the_trainers_interval_and_validation_comes_once(history: History) -> None:
    fit(MetaHPCallback(history=history), log_every_n_steps=4)
    assert [step for step, _ in values_of(history, "train_loss")] == [4, 6, 8, 12], "every fourth step, and each epoch's last"
    assert [step for step, _ in values_of(history, "val_acc")] == [6, 12]
    epochs = {item.step: item.epoch for item in history.metrics(only_run(history).id)}
    assert epochs == {4: pytest.approx(4 / 6), 6: 1.0, 8: pytest.approx(8 / 6), 12: 2.0}


def test_metrics_equal_what_a_logger_of_lightning_writes(history: History, tmp_path: Path) -> None:
    from lightning.pytorch.loggers import CSVLogger

    class Forked(TinyModel):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("loss", loss, on_step=True, on_epoch=True)
            return loss

        def on_train_epoch_end(self) -> None:
            self.log("late", float(self.current_epoch))

    logger = CSVLogger(tmp_path)
    fit(MetaHPCallback(history=history), model=Forked(), logger=logger)
    theirs = {
        (name, int(row["step"])): float(value)
        for row in _csv(Path(logger.log_dir) / "metrics.csv")
        for name, value in row.items()
        if value and name not in ("epoch", "step")
    }
    # Lightning counts steps from 0 in its loggers; what it holds, we hold one step later.
    ours = {(item.name, item.step - 1): item.value for item in history.metrics(only_run(history).id)}
    assert {key: pytest.approx(ours.get(key)) for key in theirs} == theirs
    assert {name for name, _ in ours} == {"train_loss", "loss_step", "loss_epoch", "late", "val_acc", "val_loss"}


def _csv(path: Path) -> list[dict[str, str]]:
    import csv

    with path.open() as file:
        return list(csv.DictReader(file))


def test_validation_inside_an_epoch_is_logged_where_it_happened(history: History) -> None:
    checkpoint = ModelCheckpoint(monitor="val_acc", mode="max", dirpath="somewhere")
    fit(MetaHPCallback(history=history), checkpoint, val_check_interval=0.5, enable_checkpointing=True, max_epochs=1)
    assert [step for step, _ in values_of(history, "val_acc")] == [3, 6]


def test_a_metric_of_another_callback_is_logged_too(history: History) -> None:
    from lightning.pytorch.loggers import CSVLogger

    fit(MetaHPCallback(history=history), LearningRateMonitor(), logger=CSVLogger("logs"))
    assert values_of(history, "lr-AdamW")[0][1] == pytest.approx(1e-3)


def test_best_and_last_objective_are_kept_with_their_steps(history: History) -> None:
    fit(MetaHPCallback("val_loss", history=history), model=TinyModel(lr=0.05))
    run = only_run(history)
    values = values_of(history, "val_loss")
    assert (run.objective_last_step, run.objective_last) == (12, pytest.approx(values[-1][1]))
    assert run.objective_best == pytest.approx(min(value for _, value in values))


def test_nothing_is_logged_for_fast_dev_run_and_mere_validation(history: History) -> None:
    fit(MetaHPCallback(history=history), fast_dev_run=True)
    trainer = make_trainer(MetaHPCallback(history=history))
    trainer.validate(TinyModel(), datamodule=TinyData(), verbose=False)
    assert history.runs() == []


def test_nothing_is_logged_for_tuner_probes(history: History) -> None:
    trainer = make_trainer(MetaHPCallback(history=history), enable_checkpointing=True, max_epochs=9)
    model, data = TinyModel(), TinyData()
    tuner = Tuner(trainer)
    tuner.lr_find(model, datamodule=data, num_training=40, early_stop_threshold=None)
    tuner.scale_batch_size(model, datamodule=data, max_trials=2, init_val=4)
    assert history.runs() == []
    trainer.fit(model, datamodule=data)
    run = only_run(history)
    assert run.hparams["learning_rate"] == model.hparams.lr != 1e-3
    assert run.provenance["learning_rate"].observed == model.hparams.lr


def test_a_learning_rate_finder_inside_the_fit_leaves_one_run_with_its_value(history: History) -> None:
    torch.manual_seed(0)  # of some weights the finder suggests nothing
    finder = LearningRateFinder(num_training_steps=40, early_stop_threshold=None, attr_name="lr")
    trainer = fit(MetaHPCallback(history=history), finder, enable_checkpointing=True, max_epochs=9)
    run = only_run(history)
    assert run.hparams["learning_rate"] == trainer.lightning_module.hparams.lr != 1e-3
    # Nine epochs of six steps; 2.5.0 itself forgets a few of them after a search.
    assert (run.steps_reached, run.parent_run_id) == (trainer.global_step, None)
    assert 50 <= trainer.global_step <= 54


def test_sanity_checking_logs_nothing(history: History) -> None:
    fit(MetaHPCallback(history=history), num_sanity_val_steps=2)
    assert [step for step, _ in values_of(history, "val_loss")] == [6, 12]


def test_metahp_off_leaves_no_trace(isolated_history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP", "off")
    fit(MetaHPCallback())
    assert not isolated_history.parent.exists()


def test_an_exception_is_recorded_and_passes(history: History) -> None:
    with pytest.raises(ZeroDivisionError):
        fit(MetaHPCallback(history=history), Raise(ZeroDivisionError("by zero")))
    run = only_run(history)
    assert (run.status, run.error) == (RunStatus.FAILED, "ZeroDivisionError: by zero")
    assert run.epochs_reached == pytest.approx(1.5)
    assert run.steps_reached == 9


def test_out_of_memory_is_told_from_other_failures(history: History) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        fit(MetaHPCallback(history=history), Raise(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")))
    assert only_run(history).status is RunStatus.OOM


def test_ctrl_c_is_an_interruption(history: History) -> None:
    with pytest.raises(SystemExit):
        fit(MetaHPCallback(history=history), Raise(KeyboardInterrupt()))
    assert only_run(history).status is RunStatus.INTERRUPTED


def test_a_nan_loss_is_a_divergence_even_if_nothing_logs_it(history: History) -> None:
    class Diverging(TinyModel):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return self.net(batch[0]).sum() * float("nan")

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val_score", 1.0)

    fit(MetaHPCallback(history=history, objective="val_score"), model=Diverging())
    assert only_run(history).status is RunStatus.DIVERGED


def test_a_nan_objective_is_kept_and_is_a_divergence(history: History) -> None:
    fit(MetaHPCallback("val_loss", history=history), model=TinyModel(lr=float("inf")))
    run = only_run(history)
    assert run.status is RunStatus.DIVERGED
    assert math.isnan(values_of(history, "val_loss")[-1][1])


def test_early_stopping_is_a_run_that_was_stopped(history: History) -> None:
    stopping = EarlyStopping("val_loss", patience=1, min_delta=100.0)
    fit(MetaHPCallback(history=history), stopping, max_epochs=9)
    run = only_run(history)
    assert (run.status, run.epochs_reached) == (RunStatus.STOPPED, 2.0)


def test_early_stopping_because_of_nan_is_a_divergence(history: History) -> None:
    fit(MetaHPCallback(history=history), EarlyStopping("val_loss"), model=TinyModel(lr=float("inf")), max_epochs=9)
    assert only_run(history).status is RunStatus.DIVERGED


def test_a_run_that_reaches_its_steps_is_complete(history: History) -> None:
    fit(MetaHPCallback("val_loss", history=history), max_epochs=-1, max_steps=9)
    run = only_run(history)
    assert (run.status, run.steps_reached, run.epochs_reached) == (RunStatus.COMPLETED, 9, pytest.approx(1.5))


def test_two_fits_are_two_runs(history: History) -> None:
    callback = MetaHPCallback(history=history)
    fit(callback)
    first = callback.run_id
    fit(callback)
    assert [run.status for run in history.runs()] == [RunStatus.COMPLETED] * 2
    assert callback.run_id != first


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.slow
def test_a_signal_is_an_interruption(history: History, tmp_path: Path, sent: signal.Signals) -> None:
    ready = tmp_path / "ready"
    script = tmp_path / "train.py"
    script.write_text(
        "import time, pathlib\n"
        "from lightning.pytorch import Callback\n"
        "from lightning_metahp import MetaHPCallback\n"
        "from tests.lightning_metahp.tiny_training import fit\n"
        "class Slow(Callback):\n"
        "    def on_train_batch_end(self, *a):\n"
        f"        pathlib.Path({str(ready)!r}).touch(); time.sleep(0.02)\n"
        f"fit(MetaHPCallback(history={str(history.path)!r}), Slow(), max_epochs=1_000_000)\n"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    # A shell starts background jobs with Ctrl-C ignored, and children inherit that: the suite may run in one.
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env=env,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        while not ready.exists():  # however long a busy machine takes to begin
            assert process.poll() is None, "the training ended before it began"
            time.sleep(0.05)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=300)
    finally:
        process.kill()
    run = only_run(history)
    assert run.status is RunStatus.INTERRUPTED, errors.decode()[-2000:]
    assert run.steps_reached is not None
    assert run.steps_reached >= 1


@pytest.mark.parametrize("with_callback", [True, False])
def test_training_is_bit_identical_with_and_without_the_callback(history: History, with_callback: bool) -> None:
    def train(*callbacks: Any) -> list[torch.Tensor]:
        L.seed_everything(3, verbose=False)
        model = TinyModel()
        fit(*callbacks, model=model)
        return [p.detach().clone() for p in model.parameters()]

    expected = train()
    found = train(MetaHPCallback(history=history)) if with_callback else train()
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_a_resumed_run_names_its_parent(history: History, tmp_path: Path) -> None:
    checkpoint = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    fit(MetaHPCallback("val_loss", history=history), checkpoint, enable_checkpointing=True, max_epochs=1)
    first = only_run(history)
    fit(MetaHPCallback("val_loss", history=history), ckpt_path=tmp_path / "last.ckpt", max_epochs=3)
    resumed = history.runs()[-1]
    assert (resumed.parent_run_id, resumed.epochs_reached, resumed.steps_reached) == (first.id, 3.0, 18)
    assert {item.step for item in history.metrics(resumed.id, "val_loss")} == {12, 18}


def test_a_run_resumed_from_the_checkpoint_of_an_exception_goes_on_in_its_row(history: History, tmp_path: Path) -> None:
    from lightning.pytorch.callbacks import OnExceptionCheckpoint

    with pytest.raises(ZeroDivisionError):
        fit(
            MetaHPCallback("val_loss", history=history),
            OnExceptionCheckpoint(tmp_path),
            Raise(ZeroDivisionError()),
            enable_checkpointing=True,
        )
    first = only_run(history)
    fit(MetaHPCallback("val_loss", history=history), ckpt_path=tmp_path / "on_exception.ckpt")
    resumed = only_run(history)
    assert (resumed.id, resumed.attempt, resumed.status) == (first.id, 1, RunStatus.COMPLETED)


def test_an_iterable_data_set_is_trained_on_without_being_touched(history: History) -> None:
    class Stream(IterableDataset):
        n_iterations = 0

        def __iter__(self) -> Any:
            Stream.n_iterations += 1
            return iter(list(corners(32)))

    fit(MetaHPCallback("train_loss", history=history), data=DataLoader(Stream(), batch_size=8), max_epochs=1)
    run = only_run(history)
    assert (run.description["dataset_class"].endswith("Stream"), run.description.get("n_train")) == (True, None)
    assert Stream.n_iterations == 1
    assert run.epochs_reached == 1.0


def test_several_loaders_are_accepted(history: History) -> None:
    class Pairs(TinyModel):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return super().training_step(batch["a"], batch_idx)

    loaders = {"a": DataLoader(corners(32), batch_size=8), "b": DataLoader(corners(16), batch_size=4)}
    fit(MetaHPCallback("train_loss", history=history), model=Pairs(), data=loaders)
    run = only_run(history)
    assert (run.hparams["batch_size"], run.description["n_train"]) == (8, 32)
    assert run.objective_last == pytest.approx(values_of(history, "train_loss")[-1][1]), "without validation the epoch is the outcome"


def test_a_subset_is_described_by_what_it_is_a_subset_of(history: History) -> None:
    fit(MetaHPCallback("train_loss", history=history), data=DataLoader(Subset(corners(), range(50)), batch_size=10))
    description = only_run(history).description
    assert (description["dataset_class"], description["n_train"], description["n_classes"]) == ("TensorDataset", 50, 3)


def test_an_unusable_history_warns_once_and_training_goes_on(tmp_path: Path) -> None:
    with pytest.warns(MetaHPWarning, match="Training goes on") as caught:
        trainer = fit(MetaHPCallback(history=tmp_path))
    assert trainer.global_step == 12
    assert len([item for item in caught if issubclass(item.category, MetaHPWarning)]) == 1


def test_an_error_of_ours_cannot_stop_training_even_where_warnings_are_errors(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetaHPWarning)
        trainer = make_trainer(MetaHPCallback(history=tmp_path))
        trainer.fit(TinyModel(), datamodule=TinyData())
    assert trainer.global_step == 12


def test_a_model_whose_data_cannot_be_described_is_still_recorded(history: History) -> None:
    class Odd:
        def __len__(self) -> int:
            raise TypeError("no length today")

        def __iter__(self) -> Any:
            yield from DataLoader(corners(32), batch_size=8)

    fit(MetaHPCallback("train_loss", history=history), data=Odd(), max_epochs=1, limit_train_batches=2)
    assert only_run(history).status is RunStatus.COMPLETED


def test_several_optimizers_are_all_recorded(history: History) -> None:
    class Two(Gan):
        def configure_optimizers(self) -> Any:
            half = list(self.net[0].parameters()), list(self.net[3].parameters())
            return [torch.optim.SGD(half[0], lr=0.1), torch.optim.Adam(half[1], lr=0.2)]

    fit(MetaHPCallback("val_loss", history=history), model=Two())
    hparams = only_run(history).hparams
    assert (hparams["optimizer"], hparams["optimizer.lr"]) == ("SGD", 0.1)
    assert (hparams["optimizer_1"], hparams["optimizer_1.lr"]) == ("Adam", 0.2)


def test_bad_arguments_are_answered_at_once() -> None:
    with pytest.raises(ObjectiveError, match=r"^A direction must be 'min' or 'max', but got 'up'. Pass one of the two\.$"):
        MetaHPCallback("score", "up")
    with pytest.raises(InvalidArgumentError, match=r"^A task must be a name, a TaskDescription or None, but got int: 3\. "):
        MetaHPCallback(task=3)  # type: ignore[arg-type]


def test_an_objective_that_is_never_logged_is_answered_with_those_that_were(history: History) -> None:
    with pytest.warns(
        ObjectiveWarning,
        match=r"'val_accuracy' was not logged by .* Logged so far: val_acc, val_loss, train_loss\. .* objective='val_acc'",
    ):
        fit(MetaHPCallback("val_accuracy", history=history))
    assert only_run(history).status is RunStatus.COMPLETED


def test_a_run_whose_hyperparameters_cannot_be_read_is_recorded_without_them(history: History) -> None:
    class Missing(dict):
        def keys(self) -> Any:
            raise RuntimeError("a mandatory value is missing")

        def __iter__(self) -> Any:
            return self.keys()

    class Odd(TinyModel):
        def on_fit_start(self) -> None:
            self._hparams = Missing(self.hparams)

        def configure_optimizers(self) -> Any:
            return torch.optim.Adam(self.parameters())

    with pytest.warns(MetaHPWarning, match="reading the hyperparameters failed with RuntimeError: a mandatory value is missing"):
        fit(MetaHPCallback("val_acc", history=history), model=Odd())
    run = only_run(history)
    assert run.status is RunStatus.COMPLETED
    assert run.objective_best is not None
    assert run.description["n_train"] == 96
