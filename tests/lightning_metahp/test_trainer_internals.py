"""The private corners of Lightning that we lean on: a release that moves one fails here first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint
from torch.utils.data import DataLoader

from lightning_metahp import MetaHPCallback
from lightning_metahp.trainer_internals import (
    Resume,
    fields_of_others,
    find_resume,
    is_finder_checkpoint,
    is_tuner_probe,
    loaders_passed_to_fit,
    logged_in_this_loop,
    set_initial_hparam,
    skip_idle_hooks,
    why_no_run,
)
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, corners, fit, make_trainer


class Look(Callback):
    """Keeps what a function of the trainer returns in one hook."""

    def __init__(self, hook: str, function: Any) -> None:
        self.found: list[Any] = []
        setattr(self, hook, lambda trainer, *args, **kwargs: self.found.append(function(trainer)))


def test_the_path_of_a_checkpoint_is_seen_in_setup(tmp_path: Path) -> None:
    fit(ModelCheckpoint(dirpath=tmp_path, save_last=True), enable_checkpointing=True, max_epochs=1)
    look = Look("setup", find_resume)
    fit(look)
    fit(look, ckpt_path=tmp_path / "last.ckpt")
    assert [(found.path, found.is_known) for found in look.found] == [(None, True), (str(tmp_path / "last.ckpt"), True)]


def test_the_path_is_found_behind_the_word_last(tmp_path: Path) -> None:
    def checkpoint() -> ModelCheckpoint:
        return ModelCheckpoint(dirpath=tmp_path, save_last=True)

    fit(checkpoint(), enable_checkpointing=True, max_epochs=1)
    look = Look("setup", find_resume)
    fit(look, checkpoint(), enable_checkpointing=True, ckpt_path="last", max_epochs=1)
    assert look.found[0].path == str(tmp_path / "last.ckpt")


def test_outside_a_running_call_nothing_is_claimed_to_be_known() -> None:
    assert find_resume(make_trainer()) == Resume(None, is_known=False)


def test_debugging_fits_are_told_from_training() -> None:
    assert why_no_run(make_trainer()) is None
    assert why_no_run(make_trainer(fast_dev_run=True)) == "fast_dev_run"
    assert why_no_run(make_trainer(overfit_batches=1)) == "overfit_batches"


def test_loaders_passed_to_fit_are_told_from_those_a_module_makes() -> None:
    loader = DataLoader(corners(), batch_size=8)
    look = Look("setup", loaders_passed_to_fit)
    fit(look, data=loader)
    fit(look, data=TinyData())
    assert look.found == [loader, None]


def test_a_validation_shows_its_names_with_the_metric_objects_behind_them() -> None:
    model = TinyModel()
    look = Look("on_validation_end", logged_in_this_loop)
    fit(look, model=model, num_sanity_val_steps=0)
    assert look.found[0] == {"val_acc": model.val_acc, "val_loss": None}


def test_the_checkpoints_of_finders_are_recognised() -> None:
    look = Look("on_load_checkpoint", is_finder_checkpoint)
    finder = LearningRateFinder(num_training_steps=5, attr_name="lr")
    fit(look, finder, enable_checkpointing=True)
    fit(look, BatchSizeFinder(max_trials=1, init_val=4), enable_checkpointing=True)
    assert look.found == [True, True]


def test_finders_say_which_field_they_set() -> None:
    trainer = make_trainer(LearningRateFinder(attr_name="lr"), BatchSizeFinder(batch_arg_name="bs"))
    assert fields_of_others(trainer, TinyModel()) == {"lr": "LearningRateFinder", "bs": "BatchSizeFinder"}
    assert not is_tuner_probe(trainer)


def test_the_copy_that_loggers_receive_can_be_kept_true() -> None:
    model = TinyModel()
    set_initial_hparam(model, "lr", 0.5)
    set_initial_hparam(model, "unknown", 0.5)
    assert model.hparams_initial["lr"] == 0.5
    assert "unknown" not in model.hparams_initial


def test_hooks_that_do_nothing_are_spared_while_training_runs_and_there_again_afterwards() -> None:
    ours = MetaHPCallback("val_loss")
    look = Look("on_train_batch_end", lambda trainer: [name for name, value in vars(ours).items() if value is None and name[:3] == "on_"])
    fit(ours, look, max_epochs=1)
    assert set(look.found[0]) == {
        "on_train_batch_start",
        "on_before_zero_grad",
        "on_before_backward",
        "on_after_backward",
        "on_before_optimizer_step",
    }
    assert not any(name.startswith("on_") for name in vars(ours))
    assert ours.run_id is not None


def test_hooks_are_there_again_after_an_exception() -> None:
    class Stop(Callback):
        def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("stop")

    ours = MetaHPCallback("val_loss")
    with pytest.raises(RuntimeError, match="stop"):
        fit(ours, Stop(), max_epochs=1)
    assert not any(name.startswith("on_") for name in vars(ours))


def test_hooks_that_a_user_overrides_are_called() -> None:
    class Mine(MetaHPCallback):
        n_calls = 0

        def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
            super().on_before_backward(trainer, pl_module, loss)
            self.n_calls += 1

    mine, seen = Mine("val_loss"), []
    vars(mine)["on_after_backward"] = lambda *args: seen.append(args)
    fit(mine, max_epochs=1)
    assert mine.n_calls == len(seen) > 0


def test_a_release_that_was_not_looked_at_gets_every_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = MetaHPCallback("val_loss")
    monkeypatch.setattr("lightning.__version__", "2.99.0")
    skip_idle_hooks(ours)
    assert not any(name.startswith("on_") for name in vars(ours))
