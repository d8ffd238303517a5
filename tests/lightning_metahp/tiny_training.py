"""A model of 67 parameters, 96 samples and Trainers that finish in a tenth of a second."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import lightning as L
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import Accuracy

from store import History, RunRecord


class TinyModel(L.LightningModule):
    def __init__(self, lr: float = 1e-3, hidden: int = 8, dropout: float = 0.1, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, 3))
        self.val_acc = Accuracy(task="multiclass", num_classes=3)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        x, y = batch
        loss = nn.functional.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        logits = self.net(x)
        self.val_acc(logits, y)
        self.log("val_acc", self.val_acc)
        self.log("val_loss", nn.functional.cross_entropy(logits, y))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=self.hparams.lr, weight_decay=self.hparams.weight_decay)


class Gan(TinyModel):
    """Two optimizers, each of which makes a step of every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.manual_backward(loss)
            optimizer.step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), lr=0.01) for _ in range(2)]


class TinyData(L.LightningDataModule):
    def __init__(self, batch_size: int = 16, name: str = "corners", n: int = 96) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        self.dataset = corners(self.hparams.n)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.dataset, batch_size=64)


def corners(n: int = 96) -> TensorDataset:
    x = torch.randn(n, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())


def make_trainer(*callbacks: Any, **options: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(**{"max_epochs": 2, "accelerator": "cpu", "log_every_n_steps": 2, **quiet, "callbacks": list(callbacks), **options})


def fit(*callbacks: Any, model: Any = None, data: Any = None, ckpt_path: Any = None, **options: Any) -> Trainer:
    """Train a tiny model; Lightning's own advice about workers is left out, ours is not."""
    trainer = make_trainer(*callbacks, **options)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", category=FutureWarning)
        given = TinyData() if data is None else data
        target = {"datamodule": given} if isinstance(given, L.LightningDataModule) else {"train_dataloaders": given}
        if "weights_only" in inspect.signature(trainer.fit).parameters:  # not in the oldest release
            target["weights_only"] = False
        trainer.fit(model if model is not None else TinyModel(), ckpt_path=ckpt_path, **target)
    return trainer


def only_run(history: History) -> RunRecord:
    runs = history.runs()
    assert len(runs) == 1, f"{len(runs)} runs"
    return runs[0]


def values_of(history: History, name: str) -> list[tuple[int, float]]:
    return [(item.step, item.value) for item in history.metrics(only_run(history).id, name)]
