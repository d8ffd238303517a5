"""A small Lightning module and data module on the digits of scikit-learn, as one would write them without us."""

from __future__ import annotations

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split


class DigitsData(L.LightningDataModule):
    """1797 images of handwritten digits, 8 x 8 pixels."""

    def __init__(self, batch_size: int = 32):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage: str) -> None:
        """Load and split the images; the split does not depend on the seed of a run."""
        pixels, labels = load_digits(return_X_y=True)
        images = TensorDataset(torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(labels))
        self.parts = random_split(images, [0.8, 0.2], torch.Generator().manual_seed(0))

    def loader(self, part: Dataset, shuffle: bool) -> DataLoader:
        """Return a loader with the batch size of this moment, so that it can still be changed before training."""
        return DataLoader(part, batch_size=self.hparams["batch_size"], shuffle=shuffle)

    def train_dataloader(self) -> DataLoader:
        """Return the training images."""
        return self.loader(self.parts[0], shuffle=True)

    def val_dataloader(self) -> DataLoader:
        """Return the validation images."""
        return self.loader(self.parts[1], shuffle=False)


class DigitsModel(L.LightningModule):
    """A network with two hidden layers."""

    def __init__(self, lr: float = 1e-3, dropout: float = 0.1):
        super().__init__()
        self.save_hyperparameters()
        hidden = [nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout), nn.Linear(64, 64), nn.ReLU(), nn.Dropout(dropout)]
        self.net = nn.Sequential(*hidden, nn.Linear(64, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the share of images recognised."""
        self.log("val_acc", (self.net(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam with the learning rate of this moment."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
