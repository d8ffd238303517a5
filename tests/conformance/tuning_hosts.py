"""Whatever tunes a training, driven for real: the same small training, asked for in each host's own way."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

import hf_callbacks
import lightning_metahp
from metahp_tuning import suggest
from store import History, RunRecord, UnknownRecommendationError
from tests.conformance.scenarios import N_EVAL, N_TRAIN, Points

OBJECTIVE = "eval_loss"
DEFAULTS: dict[str, Any] = {"learning_rate": 5e-5, "weight_decay": 0.0, "batch_size": 8}
"""Those of transformers, so that every host starts from the same."""
LOW_PRECISION = "bf16-mixed"


@dataclass(frozen=True)
class Training:
    """One training, and what is asked of the tuning.

    Attributes:
        history: Path of the history.
        explicit: Values of ``DEFAULTS`` that the user sets; the others are defaults.
        space: What may be chosen; None for what is safe.
        keep: Names never to touch.
        mode: ``best`` or ``dry-run``.
        task: Name of the task, None to recognise it.
        is_low_precision: Whether numbers are held in 16 bits.
        is_changed: Whether the source of the model is another one.
        n_epochs: How long it is.
        is_interrupted: Whether the first epoch is saved and Ctrl-C comes in the second.
        checkpoint: What is resumed, None for a fresh start.
    """

    history: Path
    explicit: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, Any] | None = None
    keep: tuple[str, ...] = ()
    mode: str = "best"
    task: str | None = "points"
    is_low_precision: bool = False
    is_changed: bool = False
    n_epochs: int = 1
    is_interrupted: bool = False
    checkpoint: Path | None = None

    @property
    def tuning(self) -> dict[str, Any]:
        """The arguments that every host takes under these names."""
        return {
            "space": self.space,
            "keep": self.keep,
            "mode": self.mode,
            "task": self.task,
            "objective": OBJECTIVE,
            "history": self.history,
        }


@dataclass(frozen=True)
class Tuned:
    """What came of it.

    Attributes:
        values: What was in force: learning rate and weight decay of the optimizer, size of the first batch.
        message: What was printed.
        was_made_early: Whether the history existed when the decision was made and the training had not begun.
        run: The run as recorded, None where it was not.
        recommendation: The recommendation named in the message, or followed by the run, as the history has it, None where there is none.
        warned: Texts of our warnings.
    """

    values: dict[str, Any]
    message: str
    was_made_early: bool
    run: RunRecord | None
    recommendation: dict[str, Any] | None
    warned: tuple[str, ...]


class Body(nn.Module):
    """Two layers; remembers the size of the first batch it was trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.first_batch: int | None = None

    def loss(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the loss of a batch."""
        if self.training and self.first_batch is None:
            self.first_batch = len(x)
        return nn.functional.cross_entropy(self.layers(x), labels)


class LightningNet(L.LightningModule):
    def __init__(self, learning_rate: float = 5e-5, weight_decay: float = 0.0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = Body()

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.body.loss(batch["x"], batch["labels"])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log(OBJECTIVE, self.body.loss(batch["x"], batch["labels"]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), self.hparams.learning_rate, weight_decay=self.hparams.weight_decay)


class ChangedLightningNet(LightningNet):
    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        return self.body.loss(batch["x"], batch["labels"]) * 2.0


class LightningPoints(L.LightningDataModule):
    def __init__(self, batch_size: int = 8) -> None:
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self) -> DataLoader:
        return DataLoader(Points(N_TRAIN), self.hparams.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(Points(N_EVAL), N_EVAL)


class TorchNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Body()

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.body.loss(x, labels), "logits": self.body.layers(x)}


class ChangedTorchNet(TorchNet):
    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.body.loss(x, labels) * 2.0, "logits": self.body.layers(x)}


class LightningProbe(L.Callback):
    """Looks after every other ``setup`` whether there is a history, and in training what is in force."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.was_made_early = False
        self.values: dict[str, Any] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.was_made_early = self.path.exists()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *batch: Any) -> None:
        self.values = in_force(trainer.optimizers[0], pl_module.body)


class LightningInterruption(L.Callback):
    """Ctrl-C in the second epoch."""

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt


class HFInterruption(TrainerCallback):
    """Ctrl-C in the second epoch."""

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.epoch > 1:
            raise KeyboardInterrupt


def saving(folder: Path, *, is_interrupted: bool) -> list[L.Callback]:
    """Return the callbacks that save the first epoch as ``lightning_checkpoint`` says, and interrupt the second."""
    checkpoints = ModelCheckpoint(dirpath=folder / "saved", filename="{epoch}", save_top_k=-1)
    return [checkpoints, *([LightningInterruption()] if is_interrupted else [])]


def lightning_checkpoint(folder: Path) -> Path:
    """Return where Lightning saves the first epoch."""
    return folder / "saved" / "epoch=0.ckpt"


def hf_checkpoint(folder: Path) -> Path:
    """Return where transformers saves the first epoch, of two batches."""
    return folder / "out" / "checkpoint-2"


LIGHTNING_OPTIONS: dict[str, Any] = {
    "max_epochs": 1,
    "accelerator": "cpu",
    "logger": False,
    "log_every_n_steps": 1,
    "num_sanity_val_steps": 0,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


def lightning_options(training: Training, folder: Path) -> dict[str, Any]:
    """Return the arguments of the Trainer but for its callbacks."""
    precision = LOW_PRECISION if training.is_low_precision else "32-true"
    length = {"max_epochs": training.n_epochs, "enable_checkpointing": training.is_interrupted}
    return {**LIGHTNING_OPTIONS, **length, "precision": precision, "default_root_dir": str(folder)}


def in_force(optimizer: Any, body: Body) -> dict[str, Any]:
    """Return what the training really used."""
    group = optimizer.param_groups[0]
    return {"learning_rate": group["lr"], "weight_decay": group["weight_decay"], "batch_size": body.first_batch}


def tune_with_metahparams(training: Training, folder: Path) -> tuple[dict[str, Any], bool]:
    """Train with ``MetaHParams`` beside a ``MetaHPCallback``."""
    given = {name: value for name, value in training.explicit.items() if name != "batch_size"}
    module = (ChangedLightningNet if training.is_changed else LightningNet)(**given)
    data = LightningPoints(**{name: value for name, value in training.explicit.items() if name == "batch_size"})
    probe = LightningProbe(training.history)
    recorder = lightning_metahp.MetaHPCallback(OBJECTIVE, task=training.task, history=training.history)
    callbacks: list[Any] = [recorder, lightning_metahp.MetaHParams(**training.tuning), probe]
    callbacks += saving(folder, is_interrupted=True) if training.is_interrupted else []
    trainer = L.Trainer(callbacks=callbacks, **lightning_options(training, folder))
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(module, datamodule=data, ckpt_path=training.checkpoint)
    return probe.values, probe.was_made_early


def tune_with_cli(training: Training, folder: Path) -> tuple[dict[str, Any], bool]:
    """Train with ``MetaHPCLI``, what is explicit on its command line."""
    probe = LightningProbe(training.history)
    arguments = [f"--{'data' if name == 'batch_size' else 'model'}.{name}={value}" for name, value in training.explicit.items()]
    arguments += [] if training.checkpoint is None else [f"--ckpt_path={training.checkpoint}"]
    callbacks = [probe, *(saving(folder, is_interrupted=True) if training.is_interrupted else [])]
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        lightning_metahp.MetaHPCLI(
            ChangedLightningNet if training.is_changed else LightningNet,
            LightningPoints,
            args=["fit", *arguments],
            trainer_defaults={**lightning_options(training, folder), "callbacks": callbacks},
            save_config_callback=None,
            **training.tuning,
        )
    return probe.values, probe.was_made_early


def hf_arguments(training: Training, folder: Path) -> TrainingArguments:
    """Return the arguments before they are tuned."""
    names = {"batch_size": "per_device_train_batch_size"}
    return TrainingArguments(
        **{names.get(name, name): value for name, value in training.explicit.items()},
        output_dir=str(folder / "out"),
        lr_scheduler_type="constant",
        bf16=training.is_low_precision,
        num_train_epochs=training.n_epochs,
        eval_strategy="epoch",
        save_strategy="epoch" if training.is_interrupted else "no",
        resume_from_checkpoint=None if training.checkpoint is None else str(training.checkpoint),
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )


def tune_with_autoconfig(training: Training, folder: Path) -> tuple[dict[str, Any], bool]:
    """Train with what ``autoconfig`` made of the arguments."""
    model, data = (ChangedTorchNet if training.is_changed else TorchNet)(), Points(N_TRAIN)
    args = hf_callbacks.autoconfig(hf_arguments(training, folder), model=model, train_dataset=data, **training.tuning)
    was_made_early = training.history.exists()
    callback = hf_callbacks.MetaHPCallback(OBJECTIVE, task=training.task, history=training.history)
    callbacks = [callback, *([HFInterruption()] if training.is_interrupted else [])]
    trainer = Trainer(model, args, train_dataset=data, eval_dataset=Points(N_EVAL), callbacks=callbacks)
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    return in_force(trainer.optimizer, model.body), was_made_early


def tune_with_apply(training: Training, folder: Path) -> tuple[dict[str, Any], bool]:
    """Train with a Trainer that ``apply`` has rewritten."""
    model = (ChangedTorchNet if training.is_changed else TorchNet)()
    callback = hf_callbacks.MetaHPCallback(OBJECTIVE, task=training.task, history=training.history)
    args = hf_arguments(training, folder)
    callbacks = [callback, *([HFInterruption()] if training.is_interrupted else [])]
    trainer = Trainer(model, args, train_dataset=Points(N_TRAIN), eval_dataset=Points(N_EVAL), callbacks=callbacks)
    hf_callbacks.apply(trainer, **training.tuning)
    was_made_early = training.history.exists()
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    return in_force(trainer.optimizer, model.body), was_made_early


def tune_with_suggest(training: Training, folder: Path) -> tuple[dict[str, Any], bool]:
    """Train in a bare loop. A value that must stay is named in ``keep`` there; listing it in ``space`` is permission again."""
    model, data = (ChangedTorchNet if training.is_changed else TorchNet)(), Points(N_TRAIN)
    precision = LOW_PRECISION if training.is_low_precision else "32-true"
    given = {**DEFAULTS, **training.explicit, "num_epochs": 1, "optimizer": "AdamW", "precision": precision}
    set_by_user = tuple(training.explicit) if training.space is None else ()
    tuning = {**training.tuning, "keep": (*training.keep, *set_by_user)}
    config = suggest(given, model=model, train_dataset=data, **tuning)
    was_made_early = training.history.exists()
    optimizer = torch.optim.AdamW(model.parameters(), config["learning_rate"], weight_decay=config["weight_decay"])
    with History(training.history) as history, history.start_run(hparams=config) as run:
        for batch in DataLoader(data, config["batch_size"]):
            optimizer.zero_grad()
            model(**batch)["loss"].backward()
            optimizer.step()
        model.eval()
        run.log({OBJECTIVE: float(model(**next(iter(DataLoader(Points(N_EVAL), N_EVAL))))["loss"])}, step=2, epoch=1)
    return in_force(optimizer, model.body), was_made_early


HOSTS: dict[str, Callable[[Training, Path], tuple[dict[str, Any], bool]]] = {
    "Lightning MetaHParams": tune_with_metahparams,
    "MetaHPCLI": tune_with_cli,
    "HF autoconfig": tune_with_autoconfig,
    "HF apply": tune_with_apply,
    "suggest": tune_with_suggest,
}
"""A host that is added here is held to every test of ``test_tuning.py``."""


def train(host: str, training: Training, folder: Path) -> Tuned:
    """Let a host tune and train; return what was in force, printed and recorded."""
    printed = io.StringIO()
    known = set() if not training.history.exists() else {run.id for run in runs_in(training.history)}
    with quiet(), warnings.catch_warnings(record=True) as caught, contextlib.redirect_stderr(printed):
        warnings.simplefilter("always")
        values, was_made_early = HOSTS[host](training, folder)
    ours = tuple(str(item.message) for item in caught if item.category.__module__.startswith("store"))
    message = "".join(line for line in printed.getvalue().splitlines(keepends=True) if line.startswith(("metahp:", "  ")))
    new = [run for run in runs_in(training.history) if run.id not in known]
    named = re.search(r"  recommendation (\S+) \(", message)
    recommendation = None
    followed = named[1] if named is not None else new[0].recommendation_id if new else None
    if followed is not None and training.history.exists():
        with History(training.history, create=False) as history, contextlib.suppress(UnknownRecommendationError):
            recommendation = dict(history.recommendation(followed))
    return Tuned(values, message, was_made_early, new[0] if new else None, recommendation, ours)


def runs_in(path: Path) -> list[RunRecord]:
    """Return the runs of a history, none where there is no file."""
    if not path.exists():
        return []
    with History(path, create=False) as history:
        return list(history.runs())


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """One thread, nothing of the hosts on the console, and the environment as it was."""
    torch.set_num_threads(1)
    kept, loggers = dict(os.environ), [logging.getLogger(name) for name in ("lightning.pytorch", "transformers", "accelerate")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        os.environ.clear()
        os.environ.update(kept)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def record_with_lightning(path: Path, folder: Path, n_epochs: int, checkpoint: Path | None, *, is_interrupted: bool) -> Path:
    """Train with a ``MetaHPCallback``; return the checkpoint of the first epoch."""
    callbacks = [lightning_metahp.MetaHPCallback(OBJECTIVE, history=path), *saving(folder, is_interrupted=is_interrupted)]
    options = {**lightning_options(Training(path, n_epochs=n_epochs), folder), "enable_checkpointing": True}
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        L.Trainer(callbacks=callbacks, **options).fit(LightningNet(), datamodule=LightningPoints(), ckpt_path=checkpoint)
    return lightning_checkpoint(folder)


def record_with_transformers(path: Path, folder: Path, n_epochs: int, checkpoint: Path | None, *, is_interrupted: bool) -> Path:
    """Train with a ``MetaHPCallback``; return the checkpoint of the first epoch."""
    args = hf_arguments(Training(path, n_epochs=n_epochs, is_interrupted=True), folder)
    callbacks = [hf_callbacks.MetaHPCallback(OBJECTIVE, history=path), *([HFInterruption()] if is_interrupted else [])]
    trainer = Trainer(TorchNet(), args, train_dataset=Points(N_TRAIN), eval_dataset=Points(N_EVAL), callbacks=callbacks)
    with contextlib.suppress(KeyboardInterrupt):
        trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
    return hf_checkpoint(folder)


RECORDERS: dict[str, Callable[..., Path]] = {"Lightning callback": record_with_lightning, "HF callback": record_with_transformers}
CHECKPOINTS: dict[str, Callable[[Path], Path]] = {
    **dict.fromkeys(("Lightning MetaHParams", "MetaHPCLI"), lightning_checkpoint),
    **dict.fromkeys(("HF autoconfig", "HF apply"), hf_checkpoint),
}
"""Where the tuning hosts that save anything save the first epoch of an interrupted training."""
