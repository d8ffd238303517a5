"""EffectiveHParams back what became of the recommended values: loaded once training has started with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp import dropout
from lightning_metahp.settings import TRAINER_FIELDS, loaded_batch_size, read_trainer_field
from metahp_tuning.precedence import Change
from metamodel.explanation import format_value
from store.hyperparameters import PER_DEVICE_BATCH_SIZE
from store.values import same_value


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What one rewritten value turned out to be.

    Attributes:
        change: What was rewritten.
        observed: What is in force; the new value where that is so, None if nothing shows it.
        where: What it was read from.
    """

    change: Change
    observed: Any
    where: str

    @property
    def is_applied(self) -> bool:
        """Whether the new value is in force, as far as anybody can see."""
        return self.observed is None or same_value(self.observed, self.change.new)

    @property
    def is_ignored(self) -> bool:
        """Whether the old value is in force as if nothing had been rewritten."""
        return not self.is_applied and same_value(self.observed, self.change.old)

    def describe(self) -> str:
        """Say what is wrong and what to do."""
        name, new = self.change.raw_name, format_value(self.change.new)
        return (
            f"metahp: a recommended value must be in force after the start, but {name} is {format_value(self.observed)} in "
            f"{self.where} instead of {new}. The run is recorded with what was observed. Read self.hparams.{name} where the value "
            f"is used, or pass keep=({name!r},) to have it left alone."
        )


def read_back(changes: Sequence[Change], trainer: Trainer, module: LightningModule) -> list[ReadBack]:
    """Read every rewritten value back from what really uses it. To be called when training has started."""
    result = []
    for change in changes:
        candidates, where = _in_force(change, trainer, module)
        matching = [value for value in candidates if same_value(value, change.new)]
        observed = matching[0] if matching else (candidates[0] if candidates else None)
        result.append(ReadBack(change, observed, where))
    return result


def _in_force(change: Change, trainer: Trainer, module: LightningModule) -> tuple[list[Any], str]:
    """Return the values one of which must be the new one, the likeliest first, and where they were found."""
    if change.name in TRAINER_FIELDS:
        return [read_trainer_field(trainer, TRAINER_FIELDS[change.name])], "the Trainer"
    if change.name == PER_DEVICE_BATCH_SIZE:
        size = loaded_batch_size(trainer.train_dataloader)
        return ([] if size is None else [size]), "the training loader"
    if dropout.is_rate_name(change.raw_name):
        held = dropout.rates(module)
        # Layers with neither value belong to something else; without any, dropout is a function and shows nothing.
        is_shown = any(same_value(rate, value) for rate in held for value in (change.old, change.new))
        stale = [rate for rate in held if same_value(rate, change.old)]
        return (stale or held if is_shown else []), "the dropout layers"
    found, where = _in_optimizers(change, trainer)
    if found:
        return found, where
    if change.raw_name in module.hparams:
        return [module.hparams[change.raw_name]], f"{type(module).__name__}.hparams"
    return [], ""


def _in_optimizers(change: Change, trainer: Trainer) -> tuple[list[float], str]:
    """Look for a value in optimizers and schedules; of a name that need not be there, only the new value says anything."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    where = type(trainer.optimizers[0]).__name__ if trainer.optimizers else ""
    if not groups:
        return [], where
    if change.name == "learning_rate":
        # The value before any schedule, or the peak of a schedule that has one of its own.
        values = [group.get(key) for key in ("initial_lr", "max_lr") for group in groups]
        values += [rate for config in trainer.lr_scheduler_configs for rate in _rates_of(config.scheduler)]
        values += [group["lr"] for group in groups if "initial_lr" not in group]
        return _numbers(values), where
    if change.name == "weight_decay":
        return _numbers([group.get("weight_decay") for group in groups]), where
    if change.name == "momentum":
        betas = [group["betas"][0] for group in groups if "betas" in group]
        return _numbers([*(group.get("max_momentum", group.get("momentum")) for group in groups), *betas]), where
    anywhere = _numbers([value for group in groups for value in group.values()])
    anywhere += [rate for config in trainer.lr_scheduler_configs for rate in _rates_of(config.scheduler)]
    is_number = isinstance(change.new, int | float) and not isinstance(change.new, bool)
    return [value for value in anywhere if is_number and same_value(value, change.new)][:1], where


def _rates_of(schedule: Any) -> list[float]:
    """Return the learning rates a schedule starts from or rises to, its parts' included."""
    parts = getattr(schedule, "_schedulers", [])
    own = [*getattr(schedule, "base_lrs", []), *getattr(schedule, "max_lrs", [])]
    return _numbers([*own, *(rate for part in parts for rate in _rates_of(part))])


def _numbers(values: Sequence[Any]) -> list[float]:
    return [float(value) for value in values if isinstance(value, int | float) or (hasattr(value, "numel") and value.numel() == 1)]
