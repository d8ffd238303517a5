"""Whatever else shapes a training beside us: each pair in a real fit."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna
import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateFinder, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.tuner import Tuner

from lightning_metahp import MetaHParams, MetaHPCallback
from store import History, RunStatus, Source
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.test_cells import BuiltInModel
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit, make_trainer

NEW = 0.03
ROOT = Path(__file__).parents[2]


def params(history: History, **space: Any) -> MetaHParams:
    return MetaHParams(space or {"lr": [1e-3, NEW], "batch_size": [16, 32]}, objective="val_acc", history=history)


@pytest.fixture
def pinned(history: History, monkeypatch: pytest.MonkeyPatch) -> str:
    return pin(history, monkeypatch, lr=NEW, batch_size=32)


def is_tuned(trainer: Any) -> bool:
    return (trainer.lightning_module.hparams.lr, trainer.train_dataloader.batch_size) == (NEW, 32)


def test_the_other_field_of_a_learning_rate_finder_is_still_tuned(
    history: History, pinned: str, capsys: pytest.CaptureFixture[str]
) -> None:
    finder = LearningRateFinder(num_training_steps=20, early_stop_threshold=None, attr_name="lr")
    trainer = fit(params(history), finder, enable_checkpointing=True, max_epochs=9)
    assert "lr stays 0.001: LearningRateFinder sets it" in capsys.readouterr().err
    assert (trainer.train_dataloader.batch_size, newest(history).provenance["batch_size"].source) == (32, Source.METAHP)


def test_what_the_tuner_found_before_is_the_users_own_value(history: History, pinned: str, capsys: pytest.CaptureFixture[str]) -> None:
    callback = MetaHParams(objective="val_acc", history=history)
    trainer, model, data = make_trainer(callback, enable_checkpointing=True, max_epochs=9), TinyModel(), TinyData()
    Tuner(trainer).lr_find(model, datamodule=data, num_training=40, early_stop_threshold=None)
    found = model.hparams.lr
    trainer.fit(model, datamodule=data)
    assert model.hparams.lr == found != NEW
    assert "set by you; list it in space to have it tuned" in capsys.readouterr().err


def test_early_stopping_and_checkpoints(history: History, pinned: str, tmp_path: Any) -> None:
    stopping = EarlyStopping("val_loss", patience=1, min_delta=100.0)
    checkpoint = ModelCheckpoint(monitor="val_acc", mode="max", dirpath=tmp_path, save_last=True)
    trainer = fit(params(history), stopping, checkpoint, enable_checkpointing=True, max_epochs=9)
    assert is_tuned(trainer)
    assert newest(history).status is RunStatus.STOPPED
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["hyper_parameters"]["lr"] == NEW


@pytest.mark.parametrize("is_first", [True, False])
def test_stochastic_weight_averaging(history: History, pinned: str, is_first: bool) -> None:
    averaging = StochasticWeightAveraging(swa_lrs=1e-2, swa_epoch_start=2)
    pair = (params(history), averaging) if is_first else (averaging, params(history))
    trainer = fit(*pair, max_epochs=3)
    assert is_tuned(trainer)
    assert newest(history).provenance["learning_rate"].observed == NEW


@pytest.mark.parametrize("is_first", [True, False])
def test_weight_averaging_builds_the_layers_in_its_own_setup(
    history: History, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_first: bool
) -> None:
    callbacks = pytest.importorskip("lightning.pytorch.callbacks")
    if not hasattr(callbacks, "WeightAveraging"):
        pytest.skip("this release of Lightning has no WeightAveraging")
    pin(history, monkeypatch, breadth=16, lr=NEW)
    ours, averaging = params(history, breadth=[4, 16], lr=[NEW]), callbacks.WeightAveraging()
    model = BuiltInModel()
    fit(*((ours, averaging) if is_first else (averaging, ours)), model=model)
    assert model.net[0].out_features == model.hparams.breadth == (16 if is_first else 4)
    assert ("breadth stays 4" in capsys.readouterr().err) is not is_first
    assert model.hparams.lr == NEW


def test_a_sanity_check_and_a_part_of_the_data(history: History, pinned: str) -> None:
    trainer = fit(params(history), num_sanity_val_steps=2, limit_train_batches=2)
    assert (is_tuned(trainer), trainer.global_step) == (True, 4)
    assert newest(history).hparams["limit_train_batches"] == 2


@pytest.mark.parametrize("options", [{"fast_dev_run": True}, {"overfit_batches": 1}], ids=["fast_dev_run", "overfit_batches"])
def test_debugging_fits_are_neither_tuned_nor_recorded(
    history: History, pinned: str, capsys: pytest.CaptureFixture[str], options: dict[str, Any]
) -> None:
    trainer = fit(params(history), MetaHPCallback("val_acc", history=history), **options)
    assert trainer.lightning_module.hparams.lr == 1e-3
    assert history.runs() == []
    assert "metahp" not in capsys.readouterr().err


def test_barebones_measures_speed_and_is_left_alone(history: History, pinned: str) -> None:
    trainer = make_trainer(params(history), barebones=True, logger=None, enable_checkpointing=None, enable_progress_bar=None,
                           enable_model_summary=None, log_every_n_steps=None)  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(TinyModel(), datamodule=TinyData())
    assert trainer.lightning_module.hparams.lr == 1e-3
    assert history.runs() == []


def test_mere_validation_rewrites_nothing(history: History, pinned: str) -> None:
    model = TinyModel()
    make_trainer(params(history)).validate(model, datamodule=TinyData(), verbose=False)
    assert (model.hparams.lr, history.runs()) == (1e-3, [])


def test_several_fits_with_one_trainer_each_start_from_the_users_values(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(history, monkeypatch, lr=NEW, batch_size=32)
    callback, model, data = params(history), TinyModel(), TinyData()
    trainer = make_trainer(callback)
    trainer.fit(model, datamodule=data)
    pin(history, monkeypatch, lr=0.01)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, datamodule=data)
    first, second = history.runs()
    assert (first.hparams["learning_rate"], second.hparams["learning_rate"], model.hparams.lr) == (NEW, 0.01, 0.01)
    assert second.provenance["learning_rate"].requested == 1e-3
    assert second.hparams["batch_size"] == 16


def test_several_trainers_in_one_process(history: History, pinned: str) -> None:
    trainers = [fit(params(history)) for _ in range(2)]
    assert all(is_tuned(trainer) for trainer in trainers)
    assert [run.status for run in history.runs()] == [RunStatus.COMPLETED] * 2


def test_a_cell_of_a_notebook_that_is_interrupted_and_run_again_with_the_same_model(history: History, pinned: str) -> None:
    class Interrupt(Callback):
        def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
            raise KeyboardInterrupt

    model = TinyModel()
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(params(history), Interrupt(), model=model)
    trainer = fit(params(history), model=model)
    first, second = history.runs()
    assert (first.status, second.status, is_tuned(trainer)) == (RunStatus.INTERRUPTED, RunStatus.COMPLETED, True)
    assert second.provenance["learning_rate"].requested == 1e-3, "not the value that the first cell had written"


def test_a_trial_of_an_optuna_study_is_recorded_and_left_alone(history: History, pinned: str, capsys: pytest.CaptureFixture[str]) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def trial(found: optuna.Trial) -> float:
        model = TinyModel(lr=found.suggest_float("lr", 1e-3, 1e-2))
        trainer = fit(params(history), model=model)
        assert model.hparams.lr == found.params["lr"]
        return float(trainer.callback_metrics["val_acc"])

    optuna.create_study(direction="maximize").optimize(trial, n_trials=1)
    assert "metahp: nothing changed; an Optuna study chooses the hyperparameters of this run" in capsys.readouterr().err
    assert newest(history).status is RunStatus.COMPLETED


def test_a_run_of_a_sweep_of_weights_and_biases_is_left_alone(
    history: History, pinned: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    assert fit(params(history)).lightning_module.hparams.lr == 1e-3
    assert "a W&B sweep chooses the hyperparameters" in capsys.readouterr().err
    assert len(history.runs()) == 1


def test_a_trial_of_ray_is_told_by_its_session(
    history: History, pinned: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Context:
        def get_trial_id(self) -> str:
            return "trial_1"

    tune: Any = ModuleType("ray.tune")
    tune.get_context = Context
    monkeypatch.setitem(sys.modules, "ray.tune", tune)
    assert fit(params(history)).lightning_module.hparams.lr == 1e-3
    assert "Ray Tune chooses the hyperparameters" in capsys.readouterr().err


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
def test_a_trial_of_ray_tune_in_a_process_of_its_own_is_recorded_and_left_alone(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import ray
    from ray import tune

    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the workers import this very module
    path = str(history.path)

    def trial(config: dict[str, Any]) -> dict[str, float]:
        with History(path) as own:
            trainer = fit(params(own), model=TinyModel(lr=config["lr"]))
        return {"val_acc": float(trainer.callback_metrics["val_acc"]), "used": trainer.lightning_module.hparams.lr}

    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        found = tune.Tuner(
            trial,
            param_space={"lr": tune.grid_search([2e-3, 5e-3])},
            run_config=tune.RunConfig(storage_path=str(tmp_path), verbose=0),
        ).fit()
    finally:
        ray.shutdown()
    assert [result.metrics["used"] for result in found] == [2e-3, 5e-3], found.errors
    assert {run.hparams["learning_rate"] for run in history.runs()} == {2e-3, 5e-3}
    assert all(run.status is RunStatus.COMPLETED for run in history.runs())
