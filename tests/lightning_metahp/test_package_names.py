"""``pytorch_lightning`` is the same framework under another name, with classes of its own."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from lightning_metahp import MetaHParams, MetaHPCallback
from store import History, RunStatus, Source
from tests.lightning_metahp.pinning import newest, pin
from tests.lightning_metahp.tiny_training import corners

pl = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")


class Model(pl.LightningModule):
    def __init__(self, lr: float = 1e-3, dropout: float = 0.1, breadth: int = 4) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.drop = nn.Dropout(dropout)

    def configure_model(self) -> None:
        self.net = nn.Sequential(nn.Linear(4, self.hparams.breadth), nn.Linear(self.hparams.breadth, 3))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return nn.functional.cross_entropy(self.net(self.drop(batch[0])), batch[1])

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Data(pl.LightningDataModule):
    def __init__(self, batch_size: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(corners(), batch_size=self.hparams.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(corners(), batch_size=64)


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_trainer_of_pytorch_lightning_is_tuned_and_recorded(
    history: History, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, is_alone: bool
) -> None:
    pin(history, monkeypatch, lr=0.03, batch_size=32, dropout=0.3, breadth=16)
    space = {"lr": [0.03], "batch_size": [16, 32], "dropout": [0.3], "breadth": [4, 16]}
    checkpoint = pl.callbacks.ModelCheckpoint(monitor="val_loss", dirpath=tmp_path, save_last=True)
    ours: list[Any] = [MetaHParams(space, history=history), *([] if is_alone else [MetaHPCallback(history=history)])]
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "max_epochs": 2}
    trainer = pl.Trainer(callbacks=[*ours, checkpoint], **quiet)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Model(), datamodule=Data())
    model = trainer.lightning_module
    assert (trainer.optimizers[0].param_groups[0]["lr"], trainer.train_dataloader.batch_size) == (0.03, 32)
    assert (model.drop.p, model.net[0].out_features) == (0.3, 16)
    run = newest(history)
    assert (run.status, run.objective, run.provenance["learning_rate"].source) == (RunStatus.COMPLETED, "val_loss", Source.METAHP)
    assert torch.load(tmp_path / "last.ckpt", weights_only=False)["hyper_parameters"]["lr"] == 0.03
