"""EffectiveHParams back what became of the recommended values: loaded once training has started with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp import dropout
from lightning_metahp.settings import (
    TRAINER_FIELDS,
    loaded_batch_size,
    numbers,
    paths_of,
    rates_of,
    read_trainer_field,
    values_in_optimizers,
)
from lightning_metahp.write_targets import written_in_layers
from metahp_tuning.optimizer_description import value_in_force
from metahp_tuning.precedence import Change
from metamodel.explanation import format_value
from store.hyperparameters import PER_DEVICE_BATCH_SIZE, names_in_optimizer_state
from store.values import same_value


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What one rewritten value turned out to be.

    Attributes:
        change: What was rewritten.
        observed: What is in force; the new value where that is so, None if nothing shows it.
        where: What it was read from.
        path: Where ``hparams`` has it.
    """

    change: Change
    observed: Any
    where: str
    path: str

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
            f"{self.where} instead of {new}. The run is recorded with what was observed. Read self.hparams.{self.path} where the value "
            f"is used, or pass keep=({name!r},) to have it left alone."
        )


def read_back(changes: Sequence[Change], trainer: Trainer, module: LightningModule) -> list[ReadBack]:
    """Read every rewritten value back from what really uses it. To be called when training has started."""
    result = []
    for change in changes:
        candidates, where = _in_force(change, trainer, module)
        matching = [value for value in candidates if same_value(value, change.new)]
        observed = matching[0] if matching else (candidates[0] if candidates else None)
        result.append(ReadBack(change, observed, where, paths_of(module, change.raw_name)[0]))
    return result


def _in_force(change: Change, trainer: Trainer, module: LightningModule) -> tuple[list[Any], str]:
    """Return the values one of which must be the new one, the likeliest first, and where they were found."""
    if change.name in TRAINER_FIELDS:
        return [read_trainer_field(trainer, TRAINER_FIELDS[change.name])], "the Trainer"
    if change.name == PER_DEVICE_BATCH_SIZE:
        size = loaded_batch_size(trainer.train_dataloader)
        return ([] if size is None else [size]), "the training loader"
    if dropout.is_rate_name(change.raw_name):
        written = written_in_layers(module, change.name)
        if written:
            overwritten = [target.read() for target in written if not same_value(target.read(), target.new)]
            return (overwritten or [change.new]), "the dropout layers"
        held = dropout.rates(module)
        # Layers with neither value belong to something else; without any, dropout is a function and shows nothing.
        shown = [value for value in (change.new, change.old) if any(same_value(rate, value) for rate in held)]
        return shown[:1], "the dropout layers"
    found, where = _in_optimizers(change, trainer)
    if found:
        return found, where
    if change.raw_name in module.hparams:
        return [module.hparams[change.raw_name]], f"{type(module).__name__}.hparams"
    return [], ""


def _in_optimizers(change: Change, trainer: Trainer) -> tuple[list[Any], str]:
    """Look for a value in optimizers and schedules; of a name that need not be there, only the new value tells anything."""
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    where = type(trainer.optimizers[0]).__name__ if trainer.optimizers else ""
    is_number = isinstance(change.new, int | float) and not isinstance(change.new, bool)
    if change.name in names_in_optimizer_state() and is_number:
        old = change.old if isinstance(change.old, int | float) else None
        found = value_in_force(values_in_optimizers(trainer, change.name), change.new, instead_of=old)
        return ([] if found is None else [found]), where
    held = [group[change.raw_name] for group in groups if change.raw_name in group]
    if held:
        return held, where
    anywhere = numbers([value for group in groups for value in group.values()])
    anywhere += [rate for config in trainer.lr_scheduler_configs for rate in rates_of(config.scheduler)]
    return [value for value in anywhere if is_number and same_value(value, change.new)][:1], where
