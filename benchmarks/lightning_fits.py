"""A real ``Trainer.fit`` of a tiny model with five logged metrics, beside any of several loggers."""

from __future__ import annotations

import csv
import gc
import logging
import os
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger
from torch.utils.data import DataLoader, TensorDataset

METRICS = ("train_loss", "accuracy", "grad_scale", "weight_norm", "progress")
"""What every step logs, whoever listens: Lightning's own ``self.log`` is in everybody's time."""


class TinyModel(L.LightningModule):
    """One linear layer: nothing hides what logging costs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(8, 2)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Return the loss and log five metrics."""
        inputs, labels = batch
        outputs = self.layer(inputs)
        loss = torch.nn.functional.cross_entropy(outputs, labels)
        found = loss.detach()
        self.log_dict(
            {"train_loss": found, "accuracy": found + 1, "grad_scale": found + 2, "weight_norm": found + 3, "progress": batch_idx / 100},
            on_step=True,
            on_epoch=False,
        )
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return plain gradient descent."""
        return torch.optim.SGD(self.parameters(), lr=0.01)


@dataclass(frozen=True)
class Recording:
    """One way to record a fit.

    Attributes:
        attach: From an empty folder to what the Trainer gets.
        count: From that folder to the number of logged values in the file; None where nothing is kept.
    """

    attach: Callable[[Path], dict[str, Any]]
    count: Callable[[Path], int] | None = None


IDLE = "a callback that does nothing"


def idle() -> Recording:
    """Return a way to record that only has the Trainer call a callback."""
    return Recording(lambda folder: {"logger": False, "callbacks": [L.Callback()]})


def recordings() -> dict[str, Recording | str]:
    """Return every way to record by its name; where its package is missing, what is missing."""
    ways: dict[str, Recording | str] = {
        "no logger": Recording(lambda folder: {"logger": False}),
        "metahp": Recording(_with_metahp, _values_of_metahp),
        "CSVLogger": Recording(_with_logger(lambda folder: CSVLogger(folder)), _values_of_csv),
        "TensorBoardLogger": Recording(_with_logger(lambda folder: TensorBoardLogger(folder)), _values_of_tensorboard),
        "MLFlowLogger (SQLite)": Recording(_with_logger(_mlflow), _values_of_mlflow),
    }
    for name, package in (("TensorBoardLogger", "tensorboard"), ("MLFlowLogger (SQLite)", "mlflow")):
        try:
            __import__(package)
        except ImportError:
            ways[name] = f"not measured: {package} is not installed"
    return ways


class Tick(L.Callback):
    """Calls a function after each step.

    Args:
        function: What to call.
    """

    def __init__(self, function: Callable[[], None]) -> None:
        self._function = function

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Call it."""
        self._function()


def fit(recording: Recording, folder: Path, *, steps: int, every: int, tick: Callable[[], None] = lambda: None) -> None:
    """Train.

    Args:
        recording: Who listens.
        folder: Empty folder for its files.
        steps: Training steps, all in one epoch.
        every: ``log_every_n_steps``.
        tick: Called after each step.

    Raises:
        AssertionError: If a logged value is missing from the file when ``fit`` returns.
    """
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(steps, 8), torch.randint(0, 2, (steps,)))
    loader = DataLoader(data, batch_size=1)
    attached = recording.attach(folder)
    attached["callbacks"] = [*attached.get("callbacks", ()), Tick(tick)]
    with _quiet():
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            log_every_n_steps=every,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **attached,
        )
        gc.collect()
        trainer.fit(TinyModel(), loader)
    if recording.count is not None:
        found, expected = recording.count(folder), len(METRICS) * (steps // every)
        if found < expected:  # the last step of an epoch is logged as well where it is none of these
            raise AssertionError(f"every logged value must be in the file when fit returns, but {found} of {expected} are")


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the hosts' remarks on loaders and hardware off the screen; who prints them would pay for it."""
    names = ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero", "mlflow", "alembic")
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def _with_logger(make: Callable[[Path], Logger]) -> Callable[[Path], dict[str, Any]]:
    return lambda folder: {"logger": make(folder)}


def _with_metahp(folder: Path) -> dict[str, Any]:
    from lightning_metahp import MetaHPCallback

    return {"logger": False, "callbacks": [MetaHPCallback("train_loss", history=folder / "history.db")]}


def _mlflow(folder: Path) -> MLFlowLogger:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    return MLFlowLogger("benchmark", tracking_uri=f"sqlite:///{folder / 'mlflow.db'}", artifact_location=str(folder))


def _values_of_metahp(folder: Path) -> int:
    return _count_rows(folder / "history.db")


def _values_of_mlflow(folder: Path) -> int:
    return _count_rows(folder / "mlflow.db", " WHERE key <> 'epoch'")


def _count_rows(path: Path, clause: str = "") -> int:
    column = "key" if clause else "name"
    connection = sqlite3.connect(path)
    try:
        found = connection.execute(f"SELECT {column}, count(*) FROM metrics{clause} GROUP BY 1").fetchall()
    finally:
        connection.close()
    return sum(count for name, count in found if name in METRICS)


def _values_of_csv(folder: Path) -> int:
    (path,) = folder.rglob("metrics.csv")
    with path.open(newline="") as file:
        return sum(bool(row.get(name)) for row in csv.DictReader(file) for name in METRICS)


def _values_of_tensorboard(folder: Path) -> int:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (path,) = folder.rglob("events.out.*")
    events = EventAccumulator(str(path), size_guidance={"scalars": 0})
    events.Reload()
    return sum(len(events.Scalars(name)) for name in METRICS)
