"""Time series: the load of the next day, hour by hour, forecast by an LSTM (Hochreiter & Schmidhuber 1997), through Lightning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection

from compare_baselines.live.data import load_electricity
from compare_baselines.live.tasks.base import LiveTask, Training
from compare_baselines.live.tasks.lightning_fit import fit_with_lightning
from store.errors import InvalidArgumentError

HORIZON = 24
"""Hours that are forecast."""


@dataclass(frozen=True, slots=True)
class SeriesScale:
    """What a size means: windows of each split, hours seen before the forecast, units and layers of the LSTM."""

    n_train: int
    n_val: int
    n_test: int
    window: int
    width: int
    layers: int = 1


SERIES_SCALES = {
    "tiny": SeriesScale(1500, 500, 500, 48, 32),
    "small": SeriesScale(4000, 1500, 2000, 72, 64),
    "full": SeriesScale(100_000, 10_000, 20_000, 168, 128, 2),
}


class Forecaster(L.LightningModule):
    """An LSTM that reads the hours so far and a linear layer that writes the next ``HORIZON`` of them.

    Logs ``train_loss``, and for validation and test the mean squared and the mean absolute error, all in standard deviations.

    Args:
        width: Units of each layer.
        layers: Number of layers.
        learning_rate: Step size of Adam.
    """

    def __init__(self, width: int, layers: int = 1, learning_rate: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.recurrent = nn.LSTM(1, width, layers, batch_first=True)
        self.head = nn.Linear(width, HORIZON)
        errors = MetricCollection({"mse": MeanSquaredError(), "mae": MeanAbsoluteError()})
        self.val_errors = errors.clone(prefix="val_")
        self.test_errors = errors.clone(prefix="test_")

    def forward(self, inputs: Tensor) -> Tensor:
        """Map hours ``(batch, window)`` to the next ones ``(batch, HORIZON)``, as change from the last one."""
        states, _ = self.recurrent(inputs.unsqueeze(2))
        outputs: Tensor = self.head(states[:, -1]) + inputs[:, -1:]
        return outputs

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the mean squared error of one batch."""
        loss = nn.functional.mse_loss(self(batch[0]), batch[1])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[1]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the validation errors."""
        self.val_errors.update(self(batch[0]).contiguous(), batch[1].contiguous())
        self.log_dict(self.val_errors, batch_size=len(batch[1]))

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the test errors."""
        self.test_errors.update(self(batch[0]).contiguous(), batch[1].contiguous())
        self.log_dict(self.test_errors, batch_size=len(batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return Adam."""
        return torch.optim.Adam(self.parameters(), lr=self.hparams["learning_rate"])


class SeriesTask(LiveTask):
    """LSTM forecasting of hourly electricity."""

    name = "series"
    about = "hourly electricity load, LSTM forecasting 24 hours"
    objective = "mse"
    direction = "min"
    metrics = ("mse", "mae")
    logged_objective = "val_mse"
    grid = {"learning_rate": (0.001, 0.005, 0.01), "batch_size": (16, 32, 64), "epochs": (20, 50, 100)}  # noqa: RUF012  # fixed
    # Adam's own step size; for batch and epochs, which PyTorch and Lightning leave open, what examples write down and the least epochs.
    defaults = {"learning_rate": 0.001, "batch_size": 32, "epochs": 20}  # noqa: RUF012  # fixed
    same_data = ("electricity", "pjm", "live series", "live rnn")
    model_family = "rnn"
    optimizer = "Adam"
    epoch_shares = {"tiny": 0.05, "small": 0.15}  # noqa: RUF012  # fixed

    def prepare(self, training: Training) -> None:
        """Cut the windows."""
        _prepared(training.folder, training.size, training.seed)

    def train(self, config: Mapping[str, Any], training: Training) -> None:
        """Train."""
        scale = SERIES_SCALES[training.size]
        fit_with_lightning(
            self,
            training,
            make_module=lambda: Forecaster(scale.width, scale.layers, config["learning_rate"]),
            data=_prepared(training.folder, training.size, training.seed),
            batch_size=config["batch_size"],
            epochs=self.trained_epochs(config["epochs"], training.size),
        )


@lru_cache(maxsize=4)
def _prepared(folder: Path | None, size: str, seed: int) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return windows of the first 60 % of the time to train, the next 20 % to validate, the last 20 % to test, drawn with the seed."""
    scale = SERIES_SCALES[size]
    load = load_electricity(folder)
    ends = [0, int(0.6 * len(load)), int(0.8 * len(load)), len(load)]
    mean, deviation = load[: ends[1]].mean(), load[: ends[1]].std()
    scaled = ((load - mean) / max(deviation, 1e-9)).astype(np.float32)
    length = scale.window + HORIZON
    parts = []
    for number, (start, end, wanted) in enumerate(zip(ends, ends[1:], (scale.n_train, scale.n_val, scale.n_test), strict=False)):
        n_possible = end - start - length + 1
        if n_possible < 1:
            raise InvalidArgumentError(f"A series must hold at least {5 * length} hours for size {size}, but it has {len(load)}.")
        rng = np.random.default_rng([number, 0 if number == 2 else seed])
        starts = start + np.sort(rng.choice(n_possible, min(wanted, n_possible), replace=False))
        windows = torch.from_numpy(np.stack([scaled[i : i + length] for i in starts]))
        parts.append(TensorDataset(windows[:, : scale.window], windows[:, scale.window :]))
    return parts[0], parts[1], parts[2]
