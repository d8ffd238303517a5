"""Families of models in the second space: learning rate, batch size, number of layers and dropout, through Lightning.

A convolutional network on handwritten digits, a recurrent one that tells weekends from workdays by their hourly load (imbalanced, so F1
chooses), a transformer on tumours, and a regression of how diabetes goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import TensorDataset
from torchmetrics import MeanAbsoluteError, MeanSquaredError, MetricCollection
from torchmetrics.classification import BinaryF1Score, MulticlassAccuracy

from compare_baselines.live.data import load_electricity, standardised
from compare_baselines.live.families import CNN, MLP, RNN, FamilyModule, Transformer
from compare_baselines.live.sklearn_data import DataSet, load_dataset
from compare_baselines.live.tasks.base import LiveTask, Training
from compare_baselines.live.tasks.lightning_fit import fit_with_lightning

EPOCHS = {"tiny": 4, "small": 15, "full": 60}
SAMPLES = {"tiny": 1000, "small": 2000, "full": 100_000}
HOURS = 24


class Measured(FamilyModule):
    """A family whose metrics torchmetrics computes: accuracy, or F1 of class 1, or errors for regression.

    Args:
        metric: Objective: ``accuracy``, ``f1`` or ``mse``.
        input_shape: As in ``FamilyModule``, with all further arguments.
        n_classes: Likewise.
        **values: Likewise.
    """

    def __init__(self, metric: str, input_shape: tuple[int, ...], n_classes: int | None, **values: Any) -> None:
        super().__init__(input_shape, n_classes, **values)
        found = _measures(metric, n_classes)
        self.val_found = found.clone(prefix="val_")
        self.test_found = found.clone(prefix="test_")

    def _see(self, batch: tuple[Tensor, Tensor], found: MetricCollection) -> None:
        inputs, targets = batch
        outputs = self(inputs)
        guess = outputs.squeeze(1) if self.hparams["n_classes"] is None else outputs.argmax(dim=1)
        found.update(guess, targets)
        self.log_dict(found, batch_size=len(targets))

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the validation metrics, and the loss, which shows whether training diverged."""
        self._see(batch, self.val_found)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the test metrics."""
        self._see(batch, self.test_found)


def _measures(metric: str, n_classes: int | None) -> MetricCollection:
    if metric == "mse" or n_classes is None:
        return MetricCollection({"mse": MeanSquaredError(), "mae": MeanAbsoluteError()})
    accuracy = MulticlassAccuracy(n_classes, average="micro")
    return MetricCollection({"f1": BinaryF1Score(), "accuracy": accuracy} if metric == "f1" else {"accuracy": accuracy})


class MeasuredCNN(Measured, CNN):
    """Convolutions, measured."""


class MeasuredRNN(Measured, RNN):
    """An LSTM, measured."""


class MeasuredTransformer(Measured, Transformer):
    """Self-attention, measured."""


class MeasuredMLP(Measured, MLP):
    """Fully connected layers, measured."""


class FamilyTask(LiveTask):
    """A family of models on one data set.

    Attributes:
        module: The family.
        dataset: Name of its data set.
    """

    objective = "accuracy"
    direction = "max"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)
    logged_objective = "val_accuracy"
    grid = {  # noqa: RUF012  # fixed
        "learning_rate": (1e-5, 1e-1, "log"),
        "batch_size": (16, 32, 64, 128),
        "num_layers": (2, 5, "int"),
        "dropout": (0.1, 0.5, "linear"),
    }
    # Adam's own step size; the rest is what examples write down.
    defaults = {"learning_rate": 1e-3, "batch_size": 32, "num_layers": 2, "dropout": 0.1}  # noqa: RUF012  # fixed
    optimizer = "Adam"
    module: ClassVar[type[Measured]]
    dataset: ClassVar[str]

    def prepare(self, training: Training) -> None:
        """Split and standardise."""
        _prepared(self.dataset, training.folder, training.size, training.seed)

    def train(self, config: Mapping[str, Any], training: Training) -> None:
        """Train."""
        data, shape, n_classes = _prepared(self.dataset, training.folder, training.size, training.seed)
        values = {name: value for name, value in config.items() if name != "batch_size"}
        fit_with_lightning(
            self,
            training,
            make_module=lambda: self.module(self.objective, shape, n_classes, **values),
            data=data,
            batch_size=config["batch_size"],
            epochs=EPOCHS[training.size],
        )


class CNNTask(FamilyTask):
    """Convolutions on digits."""

    name = "cnn"
    about = "handwritten digits, convolutional network"
    module = MeasuredCNN
    model_family = "cnn"
    dataset = "digits"
    same_data = ("digits", "mnist", "live cnn")


class RNNTask(FamilyTask):
    """An LSTM on the load of a day."""

    name = "rnn"
    about = "weekend or workday by hourly load (imbalanced), LSTM"
    objective = "f1"
    metrics = ("f1", "accuracy")
    logged_objective = "val_f1"
    module = MeasuredRNN
    model_family = "rnn"
    dataset = "weekend"
    same_data = ("electricity", "pjm", "weekend", "live series", "live rnn")


class TransformerTask(FamilyTask):
    """Self-attention over the columns of a table."""

    name = "transformer"
    about = "breast cancer table, transformer"
    module = MeasuredTransformer
    model_family = "transformer"
    dataset = "breast_cancer"
    same_data = ("breast", "live transformer")


class RegressionTask(FamilyTask):
    """Regression of disease progression."""

    name = "regression"
    about = "diabetes progression, fully connected network"
    objective = "mse"
    direction = "min"
    metrics = ("mse", "mae")
    logged_objective = "val_mse"
    module = MeasuredMLP
    model_family = "mlp"
    dataset = "diabetes"
    same_data = ("diabetes", "live regression")


@lru_cache(maxsize=8)
def _prepared(
    dataset: str, folder: Path | None, size: str, seed: int
) -> tuple[tuple[TensorDataset, TensorDataset, TensorDataset], tuple[int, ...], int | None]:
    """Return training, validation and test part (60, 20 and 20 %), the shape of a sample, and the number of classes."""
    data = _weekends(folder) if dataset == "weekend" else load_dataset(dataset)
    labels = None if data.n_classes is None else data.targets
    rest, test = train_test_split(np.arange(len(data.targets)), test_size=0.2, random_state=0, stratify=labels)
    train, val = train_test_split(rest, test_size=0.25, random_state=seed, stratify=None if labels is None else labels[rest])
    train = train[: SAMPLES[size]]
    inputs = torch.from_numpy(standardised(data.inputs, train))
    targets = torch.from_numpy(data.targets) if data.n_classes is not None else torch.from_numpy(standardised(data.targets, train))
    parts = [TensorDataset(inputs[part], targets[part]) for part in (train, val[: SAMPLES[size]], test[: SAMPLES[size]])]
    return (parts[0], parts[1], parts[2]), data.input_shape, data.n_classes


def _weekends(folder: Path | None) -> DataSet:
    """Return days of hourly load, each relative to its own mean; class 1 is the two of every seven days with the lowest load.

    The files give dates in different ways or not at all, so the phase of the week is read from the load itself: of the seven phases that
    a pair of neighbouring days can have, the one with the least load over the whole series is the weekend.
    """
    load = load_electricity(folder)
    days = load[: len(load) // HOURS * HOURS].reshape(-1, HOURS)
    weekday = np.arange(len(days)) % 7
    mean = np.array([days[weekday == phase].mean() for phase in range(7)])
    saturday = int(np.argmin(mean + np.roll(mean, -1)))
    is_weekend = (weekday == saturday) | (weekday == (saturday + 1) % 7)
    inputs = (days / np.maximum(days.mean(axis=1, keepdims=True), 1e-9)).astype(np.float32)
    return DataSet("weekend", inputs, is_weekend.astype(np.int64), 2)
