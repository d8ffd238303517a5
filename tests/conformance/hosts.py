"""The two hosts, driven for real: each plays a scenario through its own callback into a history."""

from __future__ import annotations

import contextlib
import logging
import warnings
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import EarlyStopping
from torch import nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainingArguments

import hf_callbacks
import lightning_metahp
from store import History
from tests.conformance.scenarios import N_EVAL, N_TRAIN, OBJECTIVE, Points, Scenario


class Script:
    """Counts a scenario's batches and evaluations, and raises where it says so."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.batch = 0
        self.epoch = 0

    def loss_factor(self) -> float:
        """Return the loss of the next batch."""
        scenario, batch = self.scenario, self.batch
        if scenario.error is not None and batch == scenario.error_at:
            raise scenario.error(f"in batch {batch}")
        self.batch += 1
        return scenario.loss(batch // scenario.accumulation)

    def accuracy(self) -> float:
        """Return the objective of the next evaluation."""
        self.epoch += 1
        return self.scenario.accuracies[self.epoch - 1]


def scripted_loss(layer: nn.Linear, x: torch.Tensor, value: float) -> torch.Tensor:
    """A loss of exactly this value that still depends on the weights."""
    return layer(x).sum() * 0.0 + value


def play_lightning(scenario: Scenario, history: History, folder: Path) -> str:
    """Play a scenario with Lightning; return the run's id."""
    script = Script(scenario)

    class Net(L.LightningModule):
        def __init__(self, learning_rate: float, weight_decay: float, batch_size: int) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = nn.Linear(4, 2)

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            loss = scripted_loss(self.layer, batch["x"], script.loss_factor())
            self.log("loss", loss)
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("eval_loss", scripted_loss(self.layer, batch["x"], 0.25))

        def on_validation_epoch_end(self) -> None:
            self.log(OBJECTIVE, script.accuracy())

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), self.hparams.learning_rate, weight_decay=self.hparams.weight_decay)

        def train_dataloader(self) -> DataLoader:
            return DataLoader(Points(N_TRAIN), self.hparams.batch_size, shuffle=True)

        def val_dataloader(self) -> DataLoader:
            return DataLoader(Points(N_EVAL), N_EVAL)

    Net.__qualname__ = "Net"
    callback = lightning_metahp.MetaHPCallback(OBJECTIVE, task=scenario.task, history=history)
    callbacks: list[Any] = [callback]
    if scenario.recommended is not None:
        callbacks.append(lightning_metahp.MetaHParams({"learning_rate": [scenario.recommended, 0.5]}))
    if scenario.is_stopped_early:
        callbacks.append(EarlyStopping(OBJECTIVE, mode="max", patience=2))
    trainer = L.Trainer(
        max_epochs=scenario.n_epochs,
        accumulate_grad_batches=scenario.accumulation,
        gradient_clip_val=scenario.clip,
        callbacks=callbacks,
        default_root_dir=folder,
        accelerator="cpu",
        logger=False,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with _ending_as(scenario):
        trainer.fit(Net(scenario.learning_rate, scenario.weight_decay, scenario.batch_size))
    return str(callback.run_id)


def play_transformers(scenario: Scenario, history: History, folder: Path) -> str:
    """Play a scenario with transformers; return the run's id."""
    script = Script(scenario)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            value = script.loss_factor() if self.training else 0.25
            return {"loss": scripted_loss(self.layer, x, value), "logits": self.layer(x)}

    Net.__qualname__ = "Net"
    args = TrainingArguments(
        output_dir=str(folder),
        learning_rate=scenario.learning_rate,
        weight_decay=scenario.weight_decay,
        lr_scheduler_type="constant",
        per_device_train_batch_size=scenario.batch_size,
        gradient_accumulation_steps=scenario.accumulation,
        max_grad_norm=scenario.clip,
        num_train_epochs=scenario.n_epochs,
        eval_strategy="epoch",
        save_strategy="epoch" if scenario.is_stopped_early else "no",
        load_best_model_at_end=scenario.is_stopped_early,
        metric_for_best_model="accuracy",
        logging_steps=1,
        logging_nan_inf_filter=False,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    model, data = Net(), Points(N_TRAIN)
    if scenario.recommended is not None:
        space = {"learning_rate": [scenario.recommended, 0.5]}
        args = hf_callbacks.autoconfig(args, model=model, train_dataset=data, task=scenario.task, space=space, history=history)
    callback = hf_callbacks.MetaHPCallback(OBJECTIVE, task=scenario.task, history=history)
    callbacks: list[Any] = [callback, *([EarlyStoppingCallback(2)] if scenario.is_stopped_early else [])]
    trainer = Trainer(
        model,
        args,
        train_dataset=data,
        eval_dataset=Points(N_EVAL),
        compute_metrics=lambda prediction: {"accuracy": script.accuracy()},
        callbacks=callbacks,
    )
    with _ending_as(scenario):
        trainer.train()
    return str(callback.run_id)


PLAYERS = {"lightning": play_lightning, "transformers": play_transformers}


@contextlib.contextmanager
def _ending_as(scenario: Scenario) -> Any:
    """Let the scenario's own exception, and nothing else, end a training; a host may leave the program over an interruption."""
    expected: tuple[type[BaseException], ...] = () if scenario.error is None else (scenario.error,)
    if KeyboardInterrupt in expected:
        expected = (*expected, SystemExit)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.suppress(*expected):
        warnings.simplefilter("ignore")
        yield
