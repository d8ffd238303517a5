"""A convolutional network whose depth, dropout, learning rate and batch size are tuned: ``python -m examples.lightning.image_classifier``.

Without a flag it trains on the digits that come with scikit-learn. ``--data`` takes larger images: a NumPy archive of packed JPEGs
(``train_bytes``, ``train_offsets``, ``y_train``, the same for ``test``, ``classes``). Run it a few times: each run starts from what
the runs before it taught. ``--explore`` tries what would teach most, which is how the first few runs are best made.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from optuna.distributions import FloatDistribution
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_metahp import MetaHParams, MetaHPCallback

SPACE: dict[str, Any] = {
    "lr": FloatDistribution(1e-4, 3e-2, log=True),
    "batch_size": [16, 32, 64, 128],
    "dropout": [0.0, 0.1, 0.2, 0.4],
    "num_layers": [1, 2, 3],
}


class Images(L.LightningDataModule):
    """Images with a label each, split into a part to train on and one to judge by."""

    def __init__(self, data_file: str | None = None, samples: int = 2000, batch_size: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Read the images; they come as ``(channels, height, width)`` around zero."""
        samples = self.hparams["samples"]
        if self.hparams["data_file"] is None:
            self.train, self.val = digits(samples)
        else:
            archive = np.load(self.hparams["data_file"])
            self.train, self.val = unpacked(archive, "train", samples), unpacked(archive, "test", samples // 4)

    def train_dataloader(self) -> DataLoader:
        """Return the training images in batches of what ``batch_size`` is now, so that it can still be changed before training."""
        return DataLoader(self.train, batch_size=self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return the validation images."""
        return DataLoader(self.val, batch_size=256)


def digits(samples: int) -> tuple[TensorDataset, TensorDataset]:
    """Return up to 1797 handwritten digits of 8 x 8 pixels, a fifth of them for validation."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))[:samples]
    images = torch.tensor(pixels[order] / 8 - 1, dtype=torch.float32).reshape(-1, 1, 8, 8)
    targets = torch.tensor(labels[order])
    n_val = len(order) // 5
    return TensorDataset(images[n_val:], targets[n_val:]), TensorDataset(images[:n_val], targets[:n_val])


def unpacked(archive: Any, part: str, samples: int) -> TensorDataset:
    """Return images of an archive of packed JPEGs."""
    from PIL import Image

    packed, offsets, labels = archive[f"{part}_bytes"], archive[f"{part}_offsets"], archive[f"y_{part}"]
    chosen = np.random.default_rng(0).permutation(len(labels))[:samples]
    files = (packed[offsets[i] : offsets[i + 1]].tobytes() for i in chosen)
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])
    return TensorDataset(torch.tensor(pixels / 128 - 1, dtype=torch.float32).permute(0, 3, 1, 2), torch.tensor(labels[chosen]).long())


class ConvNet(L.LightningModule):
    """``num_layers`` convolutions. They are built in ``configure_model``, which runs late enough for their number to be tuned."""

    def __init__(self, channels: int = 1, n_classes: int = 10, lr: float = 1e-3, dropout: float = 0.1, num_layers: int = 1) -> None:
        super().__init__()
        self.save_hyperparameters()

    def configure_model(self) -> None:
        """Build the layers, once."""
        if hasattr(self, "net"):
            return
        sizes = self.hparams
        parts: list[nn.Module] = []
        for index in range(sizes["num_layers"]):
            parts += [nn.Conv2d(32 if index else sizes["channels"], 32, 3, padding=1), nn.ReLU(), nn.Dropout(sizes["dropout"])]
        self.net = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * 16, sizes["n_classes"]))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the share of images recognised."""
        self.log("val_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Return Adam with a one-cycle schedule, both with the learning rate of this moment."""
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=self.hparams["lr"], total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def main(arguments: Sequence[str] | None = None) -> L.Trainer:
    """Train once and return the Trainer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="NumPy archive of packed JPEGs; default: scikit-learn's digits")
    parser.add_argument("--samples", type=int, default=2000, help="images to train on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--history", type=Path, help="default: that of METAHP_HISTORY, or of the user")
    parser.add_argument("--explore", action="store_true", help="try what would teach most instead of what is expected to be best")
    options = parser.parse_args(arguments)
    log = MetaHPCallback("val_acc", history=options.history)
    tune = MetaHParams(SPACE, mode="explore" if options.explore else "best")
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=options.epochs, log_every_n_steps=10, callbacks=[log, tune], **quiet)
    model = ConvNet(channels=1 if options.data is None else 3)
    data = Images(None if options.data is None else str(options.data), options.samples)
    trainer.fit(model, datamodule=data)
    print(f"val_acc {float(trainer.callback_metrics['val_acc']):.3f}; details: metahp show {log.run_id}")
    return trainer


if __name__ == "__main__":
    main()
