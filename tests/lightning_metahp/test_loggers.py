"""The framework's own loggers record what is in force, once, with where it comes from."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_metahp import MetaHParams
from store import History
from tests.lightning_metahp.pinning import pin
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit, make_trainer

SPACE = {"lr": [1e-3, 0.01, 0.03], "batch_size": [16, 32], "dropout": [0.1, 0.3]}


def tuned(history: History, logger: Any, folder: Path) -> dict[str, Any]:
    """Fit with a logger; return the hyperparameters of the checkpoint."""
    checkpoint = ModelCheckpoint(dirpath=folder, save_last=True)
    fit(MetaHParams(SPACE, objective="val_acc", history=history), checkpoint, logger=logger, enable_checkpointing=True)
    saved = torch.load(folder / "last.ckpt", weights_only=False)
    return {**saved["hyper_parameters"], **saved["datamodule_hyper_parameters"]}


def test_the_csv_logger_agrees_with_the_checkpoint_and_says_who_chose(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = pin(history, monkeypatch, lr=0.03, batch_size=32, dropout=0.3)
    logger = CSVLogger(tmp_path)
    saved = tuned(history, logger, tmp_path)
    written = yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text())
    assert written == saved
    assert (written["lr"], written["batch_size"], written["dropout"]) == (0.03, 32, 0.3)
    tags = json.loads((Path(logger.log_dir) / "metahp.json").read_text())
    assert tags["metahp.lr"] == "lr 0.001 -> 0.03 (metahp)"
    assert tags["metahp.recommendation"] == identity


def test_the_tensorboard_logger_agrees_with_the_checkpoint_and_says_who_chose(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    pin(history, monkeypatch, lr=0.03, batch_size=32, dropout=0.3)
    logger = TensorBoardLogger(tmp_path)
    saved = tuned(history, logger, tmp_path)
    assert yaml.safe_load((Path(logger.log_dir) / "hparams.yaml").read_text()) == saved
    events = EventAccumulator(logger.log_dir)
    events.Reload()
    text = events.Tensors("metahp/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "metahp.lr: lr 0.001 -> 0.03 (metahp)" in text
    plugins = events.PluginTagToContent("hparams")
    assert "_hparams_/session_start_info" in plugins


def test_the_mlflow_logger_never_sees_a_changed_value(history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from lightning.pytorch.loggers import MLFlowLogger

    pin(history, monkeypatch, lr=0.03, batch_size=32)
    logger = MLFlowLogger("tiny", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_location=str(tmp_path / "artifacts"))
    callback, model, data = MetaHParams(SPACE, objective="val_acc", history=history), TinyModel(), TinyData()
    trainer = make_trainer(callback, logger=logger)
    trainer.fit(model, datamodule=data)
    recorded = logger.experiment.get_run(logger.run_id).data
    assert (recorded.params["lr"], recorded.params["batch_size"]) == ("0.03", "32")
    assert recorded.tags["metahp.lr"] == "lr 0.001 -> 0.03 (metahp)"
    # The same MLflow run again, with another value: MLflow would end the training.
    pin(history, monkeypatch, lr=0.01, batch_size=32)
    trainer.fit_loop.max_epochs = 4
    trainer.fit(model, datamodule=data)
    recorded = logger.experiment.get_run(logger.run_id).data
    assert (trainer.current_epoch, model.hparams.lr) == (4, 0.01)
    assert (recorded.params["lr"], recorded.tags["metahp.now.lr"]) == ("0.03", "0.01")
    assert len(history.runs()) == 2


class NestedModel(TinyModel):
    def __init__(self, cfg: Any) -> None:
        super().__init__()
        for kept in (self.hparams, self._hparams_initial):
            kept.clear()
        self.save_hyperparameters()

    def configure_optimizers(self) -> Any:
        cfg = self.hparams.cfg
        return torch.optim.SGD(self.parameters(), lr=cfg["optim"]["lr"] if "optim" in cfg else cfg["init_args"]["lr"])


@pytest.mark.parametrize(
    ("cfg", "name"),
    [
        ({"optim": {"lr": 1e-3}, "note": "first"}, "cfg/optim/lr"),
        ({"class_path": "torch.optim.SGD", "init_args": {"lr": 1e-3}}, "cfg/init_args/lr"),
    ],
)
def test_the_mlflow_logger_never_sees_a_changed_value_inside_of_another(
    cfg: dict[str, Any], name: str, history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("mlflow", reason="mlflow is not installed")
    from lightning.pytorch.loggers import MLFlowLogger

    logger = MLFlowLogger("tiny", tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}", artifact_location=str(tmp_path / "artifacts"))
    model = NestedModel(cfg)
    trainer = make_trainer(MetaHParams({"lr": [1e-3, 0.01, 0.03]}, objective="val_acc", history=history), logger=logger)
    for epochs, rate in ((2, 0.03), (4, 0.01)):
        pin(history, monkeypatch, lr=rate)
        trainer.fit_loop.max_epochs = epochs
        trainer.fit(model, datamodule=TinyData())
    recorded = logger.experiment.get_run(logger.run_id).data
    assert trainer.current_epoch == 4
    assert (recorded.params[name], recorded.tags[f"metahp.now.{name}"]) == ("0.03", "0.01")


def test_a_logger_that_fails_costs_nothing_but_a_warning(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(CSVLogger):
        @property
        def log_dir(self) -> Any:
            if "settle_loggers" in {frame.function for frame in inspect.stack()}:
                raise OSError("the disk is gone")
            return super().log_dir

    pin(history, monkeypatch, lr=0.03)
    trainer = fit(MetaHParams({"lr": [0.03]}, objective="val_acc", history=history), logger=Broken(tmp_path))
    assert trainer.current_epoch == 2
    assert "Broken did not get where its hyperparameters come from: the disk is gone" in caplog.text
