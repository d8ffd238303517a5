"""A run that resumes another follows what that one followed, in whatever way it is started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_metahp import MetaHParams, MetaHPCallback
from store import History, RunStatus, Source
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.test_cells import BuiltInModel
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit

ROOT = Path(__file__).resolve().parents[2]
SPACE = {"lr": [1e-3, 0.03], "batch_size": [16, 32]}


class Stop(Callback):
    """Ends the second epoch with Ctrl-C."""

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


def saving(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(dirpath=folder, save_last=True)


def interrupted(history: History, folder: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    """Follow a recommendation for one epoch and be interrupted; nothing is pinned afterwards."""
    pin(history, monkeypatch, lr=0.03, batch_size=32)
    params = MetaHParams(SPACE, objective="val_acc", history=history)
    with pytest.raises((SystemExit, KeyboardInterrupt)):
        fit(params, saving(folder), Stop(), enable_checkpointing=True, max_epochs=3, **options)
    monkeypatch.delenv("METAHP_PIN")


@pytest.mark.parametrize("is_last", [False, True], ids=["a path", "last"])
def test_what_was_recommended_is_applied_again_and_the_row_goes_on(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_last: bool
) -> None:
    interrupted(history, tmp_path, monkeypatch)
    first = newest(history)
    n_recommendations = len(list(history.runs()))
    capsys.readouterr()
    path = "last" if is_last else tmp_path / "last.ckpt"
    params = MetaHParams(SPACE, objective="val_acc", history=history)
    trainer = fit(params, saving(tmp_path), enable_checkpointing=True, ckpt_path=path, max_epochs=3)
    said = capsys.readouterr().err
    assert "metahp: lr 0.001 -> 0.03, batch_size 16 -> 32, as in the run that is resumed from " in said
    assert f"(it followed recommendation {first.recommendation_id})" in said
    assert (trainer.train_dataloader.batch_size, trainer.optimizers[0].param_groups[0]["lr"]) == (32, 0.03)
    resumed = newest(history)
    assert (resumed.id, resumed.attempt, resumed.status) == (first.id, 1, RunStatus.COMPLETED)
    assert len(history.runs()) == n_recommendations
    assert resumed.recommendation_id == first.recommendation_id
    param = resumed.provenance["batch_size"]
    assert (param.source, param.requested, param.observed) == (Source.RESUME, 16, 32)


def test_layers_are_shaped_as_they_were_before_the_checkpoint_is_loaded(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(history, monkeypatch, breadth=16, num_layers=2)
    space = {"breadth": [4, 16], "num_layers": [1, 2]}
    fit(MetaHParams(space, objective="val_acc", history=history), saving(tmp_path), model=BuiltInModel(), enable_checkpointing=True)
    monkeypatch.delenv("METAHP_PIN")
    model = BuiltInModel()
    params = MetaHParams(space, objective="val_acc", history=history)
    fit(params, model=model, ckpt_path=tmp_path / "last.ckpt", max_epochs=3)
    assert [layer.out_features for layer in model.net] == [16, 16, 3]
    runs = history.runs()
    assert (len(runs), runs[-1].parent_run_id) == (2, runs[0].id), "a run that was complete and trains on is linked"


def test_a_conflict_is_named_once_and_the_run_goes_on_with_what_it_had(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    interrupted(history, tmp_path, monkeypatch)
    monkeypatch.setenv("METAHP_PIN", "another")
    capsys.readouterr()
    model = TinyModel(lr=0.5)
    fit(MetaHParams(SPACE, objective="val_acc", history=history), model=model, ckpt_path=tmp_path / "last.ckpt", max_epochs=4)
    said = capsys.readouterr().err
    assert said.count("lr=0.5 of this call is not used: the run goes on with 0.03") == 1
    assert "METAHP_PIN is not used on a resumed run" in said
    assert model.hparams.lr == 0.03


def test_a_learning_rate_that_the_optimizers_state_overrules_is_named_and_recorded_as_it_is(
    history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(MetaHPCallback("val_acc", history=history), saving(tmp_path), model=TinyModel(lr=0.1), enable_checkpointing=True, max_epochs=1)
    params = MetaHParams(objective="val_acc", history=history)
    trainer = fit(params, model=TinyModel(lr=0.01), ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.1
    said = "lr is 0.01 in this call and 0.1 in the checkpoint, whose optimizer state is loaded: training goes on with the latter"
    assert capsys.readouterr().err.count(said) == 1
    param = newest(history).provenance["learning_rate"]
    assert (param.value, param.requested, param.source) == (0.1, 0.01, Source.RESUME)


def test_where_the_path_cannot_be_found_shapes_stay_and_the_rest_follows_the_checkpoint(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lightning_metahp.trainer_internals import Resume

    interrupted(history, tmp_path, monkeypatch)
    monkeypatch.setattr("lightning_metahp.meta_hparams.find_resume", lambda trainer: Resume(None, is_known=False))
    params = MetaHParams(SPACE, objective="val_acc", history=history)
    trainer = fit(params, ckpt_path=tmp_path / "last.ckpt", max_epochs=3)
    assert (trainer.train_dataloader.batch_size, trainer.lightning_module.hparams.lr) == (32, 0.03)
    assert newest(history).attempt == 1
    capsys.readouterr()
    pin(history, monkeypatch, breadth=16, lr=0.03)
    model = BuiltInModel()
    fit(MetaHParams({"breadth": [4, 16], "lr": [0.03]}, objective="val_acc", history=history), model=model)
    assert (model.hparams.breadth, model.hparams.lr) == (4, 0.03)
    assert "breadth stays 4: whether this run resumes another cannot be known" in capsys.readouterr().err


def test_values_that_only_python_can_load_are_followed_as_well(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(TinyModel):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["odd"] = Path("an object")

    interrupted(history, tmp_path, monkeypatch, model=Odd())
    trainer = fit(MetaHParams(SPACE, objective="val_acc", history=history), model=Odd(), ckpt_path=tmp_path / "last.ckpt", max_epochs=3)
    assert trainer.train_dataloader.batch_size == 32


def test_a_checkpoint_without_us_leaves_the_run_alone(history: History, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(saving(tmp_path), enable_checkpointing=True, max_epochs=1)
    fit(MetaHParams(SPACE, objective="val_acc", history=history), ckpt_path=tmp_path / "last.ckpt", max_epochs=2)
    assert "metahp: nothing changed; the run resumes from " in capsys.readouterr().err
    assert newest(history).parent_run_id is None


JOB = """
import os, signal, sys
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning_metahp import MetaHParams
from tests.lightning_metahp.tiny_training import fit

class Preempt(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        if sys.argv[1] == "kill" and trainer.current_epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)

params = MetaHParams({"lr": [1e-3, 0.03], "batch_size": [16, 32]}, objective="val_acc")
saving = ModelCheckpoint(dirpath="saved", save_last=True)
trainer = fit(params, saving, Preempt(), enable_checkpointing=True, max_epochs=3, ckpt_path="last")
print(trainer.train_dataloader.batch_size, trainer.optimizers[0].param_groups[0]["lr"], trainer.global_step)
"""


@pytest.mark.slow
def test_a_preempted_job_that_restarts_with_the_same_script(
    isolated_history: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History(isolated_history) as history:
        pinned = pin(history, monkeypatch, lr=0.03, batch_size=32)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def start(how: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-c", JOB, how], capture_output=True, text=True, env=environment, cwd=tmp_path)

    assert start("kill").returncode == -signal.SIGKILL
    del environment["METAHP_PIN"]
    done = start("go on")
    assert done.stdout.split() == ["32", "0.03", "9"], done.stderr
    with History(isolated_history) as history:
        runs = history.runs()
        assert {run.recommendation_id for run in runs} == {pinned}
        assert (runs[-1].status, runs[-1].attempt) == (RunStatus.COMPLETED, 1)
        assert len(runs) == 1 or runs[-1].parent_run_id == runs[0].id
    assert torch.load(tmp_path / "saved" / "last.ckpt", weights_only=False)["hyper_parameters"]["lr"] == 0.03
    assert TinyData().hparams.batch_size == 16
