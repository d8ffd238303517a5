"""One training with ``transformers.Trainer``, recorded by our callback: what text and image share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from compare_baselines.live.tasks.base import LiveTask, Training
from hf_callbacks import MetaHPCallback

TRAINER_EVAL_BATCH = 128


class TrainerMark(TrainerCallback):
    """Marks the run that ``MetaHPCallback`` has opened as an evaluation of the comparison; stands after it."""

    def __init__(self, callback: MetaHPCallback, training: Training) -> None:
        self.callback = callback
        self.training = training

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """TrainerMark the run."""
        self.training.opened(self.callback.recorder)


def train_with_trainer(
    task: LiveTask,
    config: Mapping[str, Any],
    training: Training,
    *,
    make_model: Callable[[], nn.Module],
    data: tuple[Any, Any, Any],
    compute_metrics: Callable[[Any], dict[str, float]],
    data_collator: Any = None,
    **arguments: Any,
) -> None:
    """Train with the real Trainer, validate every epoch, and measure the trained model on the test split.

    Args:
        task: The task.
        config: ``learning_rate``, ``batch_size`` and ``epochs``.
        training: Where and how.
        make_model: Makes the model, after the seed is set.
        data: Training, validation and test data set.
        compute_metrics: As the Trainer takes it.
        data_collator: As the Trainer takes it.
        **arguments: Further training arguments.
    """
    set_seed(training.seed)
    model = make_model()
    args = TrainingArguments(
        output_dir=str(training.scratch),
        learning_rate=config["learning_rate"],
        per_device_train_batch_size=config["batch_size"],
        num_train_epochs=task.trained_epochs(config["epochs"], training.size),
        per_device_eval_batch_size=TRAINER_EVAL_BATCH,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=training.seed,
        **arguments,
    )
    callback = MetaHPCallback(task.objective, task.direction, task=task.history_name(training.size), history=training.history)
    train_data, val_data, test_data = data
    trainer = Trainer(
        model,
        args,
        train_dataset=train_data,
        eval_dataset=val_data,
        data_collator=data_collator,
        compute_metrics=compute_metrics,
        callbacks=[callback, TrainerMark(callback, training)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.predict(test_data, metric_key_prefix="test")  # logged by the callback, after the end of the run
