"""Writing recommended values into a module and datamodule, and reading back what came of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_metahp.host import set_initial_hparam
from lightning_metahp.settings import loaded_batch_size
from lightning_metahp.source_reads import later_reads
from metamodel.explanation import format_value
from metamodel.precedence import Change, same_value


@dataclass(frozen=True)
class Place:
    """One place that holds a hyperparameter, and what was written there: an attribute, or an entry of ``hparams``."""

    holder: LightningModule | LightningDataModule
    name: str
    is_hparam: bool
    old: Any
    new: Any

    def read(self) -> Any:
        """Return the value that the place holds now."""
        return self.holder.hparams[self.name] if self.is_hparam else getattr(self.holder, self.name)

    def write(self, value: Any) -> None:
        """Write a value; the copy that loggers receive follows."""
        if self.is_hparam:
            self.holder.hparams[self.name] = value
            set_initial_hparam(self.holder, self.name, value)
        else:
            setattr(self.holder, self.name, value)


def apply_changes(changes: Sequence[Change], module: LightningModule, datamodule: LightningDataModule | None) -> list[Place]:
    """Write the new values wherever the old ones are held, or nowhere: an error in between puts everything back.

    A place that holds another value than the old one (an attribute derived from it) is left alone.

    Returns:
        The places written, for ``undo``.
    """
    written: list[Place] = []
    try:
        for change in changes:
            for place in _places_of(change, module, datamodule):
                place.write(change.new)
                written.append(place)
    except Exception:
        undo(written)
        raise
    return written


def undo(places: Sequence[Place]) -> None:
    """Put the old values back where the new ones still are."""
    for place in reversed(places):
        if same_value(place.read(), place.new):
            place.write(place.old)


def _places_of(change: Change, module: LightningModule, datamodule: LightningDataModule | None) -> Iterator[Place]:
    for holder in (module, datamodule):
        if holder is None:
            continue
        aliases = later_reads(holder).aliases.get(change.raw_name, frozenset())
        for name in sorted({change.raw_name} | aliases):
            own = getattr(type(holder), name, None)
            is_settable = name in vars(holder) or (isinstance(own, property) and own.fset is not None)
            if is_settable and _holds(getattr(holder, name, None), change.old):
                yield Place(holder, name, False, change.old, change.new)
        if change.raw_name in holder.hparams and _holds(holder.hparams[change.raw_name], change.old):
            yield Place(holder, change.raw_name, True, change.old, change.new)


def _holds(value: Any, old: Any) -> bool:
    return isinstance(value, bool | int | float | str | None) and same_value(value, old)


@dataclass(frozen=True)
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
    groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
    optimizer = type(trainer.optimizers[0]).__name__ if trainer.optimizers else ""
    if change.name == "learning_rate" and groups:
        # The value before any schedule, or the peak of a schedule that has one of its own.
        values = [group.get(key) for key in ("initial_lr", "max_lr") for group in groups]
        values += [rate for config in trainer.lr_scheduler_configs for rate in getattr(config.scheduler, "base_lrs", [])]
        values += [group["lr"] for group in groups if "initial_lr" not in group]
        return _numbers(values), optimizer
    if change.name == "weight_decay" and groups:
        return _numbers([group.get("weight_decay") for group in groups]), optimizer
    if change.name == "momentum" and groups:
        betas = [group["betas"][0] for group in groups if "betas" in group]
        return _numbers([*(group.get("momentum") for group in groups), *betas]), optimizer
    if change.name == "batch_size":
        size = loaded_batch_size(trainer.train_dataloader)
        return ([] if size is None else [size]), "the training loader"
    if change.name == "dropout":
        rates = [layer.p for layer in module.modules() if isinstance(layer, torch.nn.modules.dropout._DropoutNd)]
        # Layers with neither value belong to something else; without any, dropout is a function and shows nothing.
        told = any(same_value(rate, value) for rate in rates for value in (change.old, change.new))
        return (rates if told else []), "the dropout layers"
    if change.raw_name in module.hparams:
        return [module.hparams[change.raw_name]], f"{type(module).__name__}.hparams"
    return [], ""


def _numbers(values: Sequence[Any]) -> list[float]:
    return [float(value) for value in values if value is not None]
