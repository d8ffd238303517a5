"""A user's training script, as it was on the first day."""

import lightning as L
import torch
from sklearn.datasets import load_digits as load
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_metahp import MetaHPCallback


class Data(L.LightningDataModule):
    def __init__(self, batch_size=32):
        super().__init__()
        self.save_hyperparameters()

    def setup(self, stage):
        x, y = load(return_X_y=True)
        x = (x - x.mean(0)) / (x.std(0) + 1e-6)
        parts = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
        self.parts = [torch.as_tensor(part) for part in parts]

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.parts[0].float(), self.parts[2]), self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(self.parts[1].float(), self.parts[3]), 512)


class Net(L.LightningModule):
    def __init__(self, lr=1e-4, num_layers=1, n_inputs=64, n_classes=10):
        super().__init__()
        self.save_hyperparameters()
        sizes = [n_inputs] + [32] * num_layers
        layers = [module for a, b in zip(sizes, sizes[1:]) for module in (nn.Linear(a, b), nn.ReLU())]
        self.model = nn.Sequential(*layers, nn.Linear(sizes[-1], n_classes))

    def training_step(self, batch):
        loss = nn.functional.cross_entropy(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch):
        self.log("val_acc", (self.model(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


if __name__ == "__main__":
    L.seed_everything(0, verbose=False)
    net = Net(lr=1e-4)
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[MetaHPCallback("val_acc")],
    )
    trainer.fit(net, datamodule=Data())
    weights = torch.cat([parameter.flatten() for parameter in net.parameters()])
    print(f"val_acc {trainer.callback_metrics['val_acc']:.4f}  weights {weights.double().sum():.12f}")
