"""What came of a fit: its outcome under a limited validation, how long it was, and what is said where the objective is missing."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from lightning_metahp import MetaHPCallback
from lightning_metahp.fit_host import FitHost
from lightning_metahp.objective import objective_before_training
from lightning_metahp.trainer_internals import Resume
from metahp_tuning.host import check_request
from store import History, ObjectiveWarning, RunRecord, RunStatus
from tests.lightning_metahp.tiny_training import Gan, TinyData, TinyModel, corners, fit, only_run, values_of

SIX = 6
"""Batches of a pass over ``TinyData``."""


class SmallValidation(TinyData):
    """Three batches of validation."""

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, batch_size=32)


class Stream(IterableDataset):
    """Four batches of 8 whose number nobody knows."""

    def __iter__(self) -> Any:
        return iter(list(corners(32)))


class Forked(TinyModel):
    """Every metric is logged for each step and for the epoch."""

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=True, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]), on_step=True, on_epoch=True)


class Moment(Callback):
    """Notes how many batches were trained when a warning came."""

    def __init__(self, caught: list[Any]) -> None:
        self.caught = caught
        self.first: int | None = None

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if self.caught and self.first is None:
            self.first = trainer.global_step


def newest(history: History) -> RunRecord:
    return history.runs()[-1]


# --- a limited validation


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(2, "2 batches"), (1, "1 batch"), (0.4, "40 %"), (3, None), (50, None), (1.0, None)],
)
def test_a_limited_validation_is_an_outcome_and_its_limit_is_noted(history: History, limit: float, expected: str | None) -> None:
    fit(MetaHPCallback("val_loss", history=history), data=SmallValidation(), limit_val_batches=limit)
    run = only_run(history)
    assert run.objective_best is not None
    assert run.description.get("comparability", {}).get("validation") == expected


def test_two_limits_leave_one_task(history: History) -> None:
    for limit in (1, 2, 1.0):
        fit(MetaHPCallback("val_loss", history=history), data=SmallValidation(), limit_val_batches=limit)
    assert len({run.task_id for run in history.runs()}) == 1


def test_before_the_start_the_limit_is_known_as_after_it(history: History) -> None:
    for limit in (2, 50, 0.4):
        before = seen_before_start(SmallValidation(), limit_val_batches=limit).comparability
        fit(MetaHPCallback("val_loss", history=history), data=SmallValidation(), limit_val_batches=limit)
        assert before == newest(history).description.get("comparability", {})


# --- the length


class SeenError(Exception):
    """Ends a fit in its ``setup``."""


class Peek(Callback):
    """Asks what the tuning decision asks, when it asks."""

    def __init__(self) -> None:
        self.comparability: Any = None
        self.planned_epochs: float | None = None

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        found = objective_before_training(trainer, "val_loss", None)
        host = FitHost(self, trainer, pl_module, check_request(), objective=found, resume=Resume(), out_of_reach=())
        description = host.describe()
        self.comparability, self.planned_epochs = description.comparability, host.planned_epochs(description)
        raise SeenError


def seen_before_start(data: Any, **options: Any) -> Peek:
    peek = Peek()
    with pytest.raises(SeenError):
        fit(peek, data=data, **options)
    return peek


def pair_of(mode: str) -> CombinedLoader:
    return CombinedLoader({"a": DataLoader(corners(64), batch_size=16), "b": DataLoader(corners(96), batch_size=16)}, mode)


class Pairs(TinyModel):
    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step(next(part for part in batch.values() if part is not None), batch_idx)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 2.0),
        ({"limit_train_batches": 2}, 4 / SIX),
        ({"limit_train_batches": 0.5}, 1.0),
        ({"limit_train_batches": 100}, 2.0),
        ({"max_epochs": -1, "max_steps": 9}, 1.5),
        ({"max_epochs": -1, "max_steps": 3, "accumulate_grad_batches": 2}, 1.0),
        ({"max_epochs": -1, "max_steps": 3, "limit_train_batches": 2}, 0.5),
        ({"max_epochs": 1, "max_steps": 100}, 1.0),
    ],
)
def test_a_run_is_as_long_as_its_full_passes_over_the_training_data(history: History, options: dict[str, Any], expected: float) -> None:
    assert seen_before_start(TinyData(), **options).planned_epochs == pytest.approx(expected)
    fit(MetaHPCallback("val_loss", history=history), **options)
    assert only_run(history).epochs_reached == pytest.approx(expected)
    epochs = [item.epoch for name in ("val_loss", "train_loss") for item in history.metrics(only_run(history).id, name)]
    assert max(epoch for epoch in epochs if epoch is not None) <= expected + 1e-9, "the values stand at the passes, too"


@pytest.mark.parametrize(("mode", "n_batches"), [("max_size_cycle", 6), ("max_size", 6), ("min_size", 4)])
def test_loaders_together_are_a_pass_long_as_their_mode_says(history: History, mode: str, n_batches: int) -> None:
    options: dict[str, Any] = {"max_epochs": 1, "limit_train_batches": 2, "limit_val_batches": 0}
    fit(MetaHPCallback("train_loss", history=history), model=Pairs(), data=pair_of(mode), **options)
    assert only_run(history).epochs_reached == pytest.approx(2 / n_batches)
    assert seen_before_start(pair_of(mode), **options).planned_epochs == pytest.approx(2 / n_batches)


def test_two_optimizers_make_no_two_passes(history: History) -> None:
    fit(MetaHPCallback("train_loss", history=history), model=Gan(), limit_val_batches=0)
    run = only_run(history)
    assert (run.epochs_reached, run.steps_reached) == (2.0, 24)


def test_a_run_that_early_stopping_ends_is_as_long_as_it_was(history: History) -> None:
    stop = EarlyStopping("val_loss", patience=0, min_delta=100.0)
    fit(MetaHPCallback("val_loss", history=history), stop, max_epochs=9, limit_train_batches=3)
    run = only_run(history)
    assert (run.status, run.epochs_reached) == (RunStatus.STOPPED, 1.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_epochs": 2}, 2.0),
        ({"max_epochs": -1, "max_steps": 6}, 1.5),  # its first pass says how long a pass is
        ({"max_epochs": -1, "max_steps": 3}, None),
        ({"max_epochs": 2, "limit_train_batches": 2}, None),
    ],
)
def test_of_a_stream_no_pass_is_claimed_that_was_not_seen(history: History, options: dict[str, Any], expected: float | None) -> None:
    data = DataLoader(Stream(), batch_size=8)
    fit(MetaHPCallback("train_loss", history=history), data=data, limit_val_batches=0, **options)
    assert only_run(history).epochs_reached == expected


def test_a_resumed_run_counts_what_was_trained_before_it_under_whatever_limit(history: History, tmp_path: Any) -> None:
    checkpoint = ModelCheckpoint(dirpath=tmp_path, save_last=True)
    fit(MetaHPCallback("val_loss", history=history), checkpoint, enable_checkpointing=True, max_epochs=1, limit_train_batches=3)
    fit(MetaHPCallback("val_loss", history=history), ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert [run.epochs_reached for run in history.runs()] == [0.5, 1.5]


# --- one metric under several names


def test_the_forks_of_one_metric_are_one_objective(history: History) -> None:
    fit(MetaHPCallback(history=history), model=Forked(), limit_val_batches=0)
    run = only_run(history)
    assert (run.objective, run.objective_last_step) == ("train_loss", 12)
    epochs = [value for _, value in values_of(history, "train_loss_epoch")]
    assert (run.objective_last, run.objective_best) == (epochs[-1], min(epochs)), "the mean of an epoch, not one batch"
    assert {"train_loss", "train_loss_epoch", "train_loss_step"} <= set(history.metric_names(run.id)), "rows keep their names"


@pytest.mark.parametrize("objective", [None, "val_loss", "val_loss_epoch"])
def test_found_and_named_in_any_spelling_it_is_one_task(history: History, objective: str | None) -> None:
    fit(MetaHPCallback(history=history), model=Forked())
    fit(MetaHPCallback(objective, history=history), model=Forked())
    first, second = history.runs()
    assert (first.objective, second.objective, second.task_id) == ("val_loss", "val_loss", first.task_id)
    assert second.objective_last == history.metrics(second.id, "val_loss_epoch")[-1].value


def test_a_monitor_in_another_spelling_is_the_same_task(history: History, tmp_path: Any) -> None:
    fit(MetaHPCallback("val_loss", history=history), model=Forked())
    fit(MetaHPCallback(history=history), EarlyStopping("val_loss_epoch"), model=Forked())
    assert len({run.task_id for run in history.runs()}) == 1
    assert newest(history).objective_best is not None


def test_the_mean_that_a_module_logs_itself_comes_before_its_last_batch(history: History) -> None:
    class ByHand(TinyModel):
        def on_train_epoch_end(self) -> None:
            self.log("train_loss_epoch", 0.25)

    fit(MetaHPCallback("train_loss", history=history), model=ByHand(), limit_val_batches=0)
    run = only_run(history)
    assert (run.objective, run.objective_best, run.objective_last) == ("train_loss", 0.25, 0.25)


# --- when the objective comes late, or not at all


MISSING = "was not logged by the first validation; unless it is logged later, this run will have no outcome. Logged so far: "


@pytest.mark.parametrize(
    ("callbacks", "model", "expected"),
    [
        (lambda: [MetaHPCallback("val_accuracy")], TinyModel, f"'val_accuracy' {MISSING}val_acc, "),
        (lambda: [MetaHPCallback("val_f1")], Forked, f"'val_f1' {MISSING}val_loss, train_loss. "),
        (
            lambda: [MetaHPCallback(), EarlyStopping("val_ac", strict=False)],
            TinyModel,
            "monitor='val_acc' for EarlyStopping, or objective=",
        ),
    ],
)
def test_a_missing_objective_is_said_with_the_first_validation(isolated_history: Any, callbacks: Any, model: type, expected: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ObjectiveWarning)
        moment = Moment(caught)
        fit(*callbacks(), moment, model=model(), max_epochs=3)
    assert moment.first == SIX, "before the second epoch"
    messages = [str(item.message) for item in caught if issubclass(item.category, ObjectiveWarning)]
    assert len(messages) == 1
    assert expected in messages[0]


def test_a_checkpoint_that_fails_for_its_monitor_is_explained_before(history: History, tmp_path: Any) -> None:
    checkpoint = ModelCheckpoint(monitor="val_los", mode="min", dirpath=tmp_path)
    with (
        pytest.warns(ObjectiveWarning, match="'val_los' was not logged .* monitor='val_loss' for ModelCheckpoint"),
        pytest.raises(MisconfigurationException),
    ):
        fit(MetaHPCallback(history=history), checkpoint, enable_checkpointing=True)


class Late(TinyModel):
    """Logs its objective where few look for it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = super().training_step(batch, batch_idx)
        if self.where == "step":
            self.log("score", 1.0 + batch_idx)
        if self.where == "epoch of steps":
            self.log("score", 1.0 + batch_idx, on_step=False, on_epoch=True)
        return loss

    def on_train_epoch_end(self) -> None:
        if self.where == "train epoch end":
            self.log("score", 7.0)

    def on_validation_epoch_end(self) -> None:
        if self.where == "validation epoch end" or (self.where == "nan first" and self.current_epoch):
            self.log("score", torch.tensor(7.0, dtype=torch.float64))
        elif self.where == "nan first":
            self.log("score", torch.tensor(float("nan")))


@pytest.mark.parametrize(
    ("where", "expected"),
    [("step", 6.0), ("epoch of steps", 3.5), ("train epoch end", 7.0), ("validation epoch end", 7.0), ("nan first", 7.0)],
)
def test_wherever_the_objective_is_logged_there_is_an_outcome_and_no_complaint(history: History, where: str, expected: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ObjectiveWarning)
        fit(MetaHPCallback("score", "max", history=history), model=Late(where))
    run = only_run(history)
    assert (run.objective_best, run.objective_last, run.status) == (expected, expected, RunStatus.COMPLETED)


ENDED = "metahp: this training ended without an outcome, since 'val_f1' was not logged; trainer.validate() can still log it"


@pytest.mark.parametrize(("every", "n_epochs", "expected"), [(3, 3, 0.5), (3, 2, None), (1, 2, 0.5)])
def test_an_objective_that_may_still_come_is_missed_once_and_the_end_has_it_right(
    history: History, capsys: pytest.CaptureFixture[str], every: int, n_epochs: int, expected: float | None
) -> None:
    class Seldom(TinyModel):
        def on_validation_epoch_end(self) -> None:
            if (self.current_epoch + 1) % every == 0:
                self.log("val_f1", 0.5)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ObjectiveWarning)
        trainer = fit(MetaHPCallback("val_f1", history=history), model=Seldom(), max_epochs=n_epochs)
    messages = [str(item.message) for item in caught if issubclass(item.category, ObjectiveWarning)]
    assert len(messages) == (every > 1)
    assert all("unless it is logged later, this run will have no outcome" in message for message in messages)
    assert only_run(history).objective_best == expected
    assert capsys.readouterr().err.count("without an outcome") == (expected is None)
    assert trainer.state.finished


@pytest.mark.parametrize("every", [2, 3])
def test_a_validation_every_few_epochs_is_waited_for_without_a_word(
    history: History, capsys: pytest.CaptureFixture[str], every: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ObjectiveWarning)
        fit(MetaHPCallback("val_acc", history=history), max_epochs=3, check_val_every_n_epoch=every, num_sanity_val_steps=0)
    assert only_run(history).objective_best is not None
    assert "without an outcome" not in capsys.readouterr().err


def test_a_training_that_never_logged_its_objective_ends_with_a_line(history: History, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(ObjectiveWarning):
        fit(MetaHPCallback("val_f1", history=history))
    assert capsys.readouterr().err.count(ENDED) == 1


def test_a_run_too_short_for_its_validation_is_judged_by_its_training(history: History) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ObjectiveWarning)
        fit(MetaHPCallback(history=history), check_val_every_n_epoch=5, num_sanity_val_steps=0)
    run = only_run(history)
    assert (run.objective, run.objective_last_step) == ("train_loss", 12)


def test_a_validation_that_comes_later_is_waited_for(history: History) -> None:
    fit(MetaHPCallback(history=history), check_val_every_n_epoch=2, num_sanity_val_steps=0)
    assert (only_run(history).objective, only_run(history).objective_last_step) == ("val_acc", 12)


def test_where_validation_logs_nothing_the_training_loss_decides(history: History) -> None:
    class Silent(TinyModel):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

    with warnings.catch_warnings():
        warnings.simplefilter("error", ObjectiveWarning)
        fit(MetaHPCallback(history=history), model=Silent())
    assert (only_run(history).objective, only_run(history).objective_last_step) == ("train_loss", 12)


def test_where_nothing_is_logged_it_is_said_once_which_call_does(history: History) -> None:
    class Mute(TinyModel):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            pass

    for objective in (None, "val_loss"):
        with pytest.warns(ObjectiveWarning, match=r"Call self\.log\('val_loss', loss\) in validation_step") as caught:
            fit(MetaHPCallback(objective, history=history), model=Mute())
        assert len([item for item in caught if issubclass(item.category, ObjectiveWarning)]) == 1


# --- after the fit


def test_a_validation_after_the_fit_is_the_outcome_of_a_training_without_one(isolated_history: Any) -> None:
    model, data = TinyModel(), TinyData()
    with pytest.warns(ObjectiveWarning, match=r"'val_loss' was not logged by the first epoch; unless it is logged later"):
        trainer = fit(MetaHPCallback("val_loss"), model=model, data=data, limit_val_batches=0)
    trainer.limit_val_batches = 1.0
    (found,) = trainer.validate(model, datamodule=data, verbose=False)
    with History(isolated_history) as history:
        run = only_run(history)
    assert (run.objective, run.objective_best) == ("val_loss", pytest.approx(found["val_loss"]))


def test_a_validation_after_a_validated_fit_changes_nothing(history: History) -> None:
    model, data = TinyModel(), TinyData()
    trainer = fit(MetaHPCallback("val_loss", history=history), model=model, data=data)
    before = only_run(history)
    trainer.validate(model, datamodule=data, verbose=False)
    assert only_run(history).objective_last == before.objective_last
    assert len(values_of(history, "val_loss")) == 2


def test_a_run_that_ends_before_its_first_validation_is_judged_by_its_training(history: History) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ObjectiveWarning)
        fit(MetaHPCallback(history=history), model=Forked(), max_epochs=-1, max_steps=4)
    run = only_run(history)
    assert (run.objective, run.epochs_reached) == ("train_loss", pytest.approx(4 / SIX))
    assert run.objective_last == history.metrics(run.id, "train_loss_epoch")[-1].value


def test_one_name_for_training_and_validation_is_judged_by_validation(history: History) -> None:
    class Same(TinyModel):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("loss", loss, on_step=False, on_epoch=True)
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("loss", 5.0 + self.current_epoch)

    fit(MetaHPCallback(history=history), model=Same())
    assert (only_run(history).objective, only_run(history).objective_last, only_run(history).objective_best) == ("loss", 6.0, 5.0)


def test_a_validation_loader_that_there_is_not_is_missed(history: History) -> None:
    with pytest.warns(ObjectiveWarning, match=r"'val_acc/dataloader_idx_3' was not logged .* objective='val_acc'"):
        fit(MetaHPCallback("val_acc/dataloader_idx_3", history=history))


def test_time_that_runs_out_leaves_the_passes_that_were_made(history: History) -> None:
    class Slow(TinyModel):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if batch_idx == 3:
                self.trainer.should_stop = True  # what a Timer does between two batches
            return super().training_step(batch, batch_idx)

    fit(MetaHPCallback("train_loss", history=history), model=Slow(), max_epochs=5, limit_val_batches=0)
    assert only_run(history).epochs_reached == pytest.approx(4 / SIX)
