"""One training with Lightning's Trainer, recorded by our callback: what the series and the families share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from torch.utils.data import DataLoader, Dataset

from compare_baselines.live.tasks.base import LiveTask, Training
from lightning_metahp import MetaHPCallback
from store import RunRecorder

LIGHTNING_EVAL_BATCH = 512


class EvaluationMark(L.Callback):
    """Marks the run that ``MetaHPCallback`` has opened as an evaluation of the comparison; stands after it."""

    def __init__(self, callback: MetaHPCallback, training: Training) -> None:
        self.callback = callback
        self.training = training
        self.recorder: RunRecorder | None = None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """EvaluationMark the run."""
        self.recorder = self.callback.run_log.recorder
        self.training.opened(self.recorder)


class SplitData(L.LightningDataModule):
    """Training, validation and test loader of data in memory.

    Args:
        data: The three parts.
        batch_size: Samples per training batch.
    """

    def __init__(self, data: tuple[Dataset[Any], Dataset[Any], Dataset[Any]], batch_size: int = 32) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["data"])
        self.data = data

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the shuffled training loader with the batch size now in ``hparams``."""
        return DataLoader(self.data[0], batch_size=self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> DataLoader[Any]:
        """Return the validation loader; no result depends on its batch size."""
        return DataLoader(self.data[1], batch_size=LIGHTNING_EVAL_BATCH)

    def test_dataloader(self) -> DataLoader[Any]:
        """Return the test loader."""
        return DataLoader(self.data[2], batch_size=LIGHTNING_EVAL_BATCH)


def fit_with_lightning(
    task: LiveTask,
    training: Training,
    *,
    make_module: Callable[[], L.LightningModule],
    data: tuple[Dataset[Any], Dataset[Any], Dataset[Any]],
    batch_size: int,
    epochs: int,
) -> None:
    """Fit with the real Trainer, validate every epoch, and measure the trained model on the test split.

    Args:
        task: The task.
        training: Where and how.
        make_module: Makes the module, after the seed is set.
        data: Training, validation and test data set.
        batch_size: Samples per training batch.
        epochs: Epochs.
    """
    L.seed_everything(training.seed, verbose=False)
    callback = MetaHPCallback(task.logged_objective, task.direction, task=task.history_name(training.size), history=training.history)
    mark = EvaluationMark(callback, training)
    trainer = L.Trainer(
        max_epochs=epochs,
        accelerator="auto",
        devices=1,
        callbacks=[callback, mark],
        default_root_dir=str(training.scratch),
        # All of this costs more than a tiny fit itself.
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    module, datamodule = make_module(), SplitData(data, batch_size)
    trainer.fit(module, datamodule=datamodule)
    found: list[Mapping[str, float]] = trainer.test(module, datamodule=datamodule, verbose=False)
    if mark.recorder is not None and found:
        mark.recorder.log_after_end(found[0], step=trainer.global_step)
