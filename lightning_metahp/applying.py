"""Writing recommended values where they are used, and reading back what came of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn

from lightning_metahp import dropout
from lightning_metahp.host import set_initial_hparam
from lightning_metahp.settings import TRAINER_FIELDS, loaded_batch_size, read_trainer_field, write_trainer_field
from lightning_metahp.source_reads import later_reads
from metamodel.explanation import format_value
from metamodel.precedence import Change, same_value
from store.frozen import Frozen
from store.names import canonical_name

SAFE_NAMES = frozenset(
    {"learning_rate", "weight_decay", "dropout", "momentum", "warmup_ratio", "warmup_steps", "batch_size", "global_batch_size"}
    | {"num_epochs", "max_steps", "gradient_accumulation_steps", "max_grad_norm"}
)
"""Names that never change a shape, so that a value can be taken back: weights of either value fit the same model."""

_MARK = "_metahp_written"
"""Attribute in which an object keeps what was written into it, for the next fit; a module goes through many of them."""


class Place(Frozen):
    """One place that holds a hyperparameter, and what was written there.

    Attributes:
        holder: Module, datamodule, trainer, or a layer.
        name: Attribute, key of ``hparams``, or argument of the Trainer.
        kind: ``attribute``, ``hparam`` or ``trainer``.
        knob: Canonical name of the hyperparameter.
        old: What it held.
        new: What was written.
    """

    holder: Any
    name: str
    kind: str
    knob: str
    old: Any
    new: Any

    def read(self) -> Any:
        """Return the value that the place holds now."""
        if self.kind == "hparam":
            return self.holder.hparams[self.name]
        return read_trainer_field(self.holder, self.name) if self.kind == "trainer" else getattr(self.holder, self.name)

    def write(self, value: Any) -> None:
        """Write a value; the copy that loggers receive follows."""
        if self.kind == "hparam":
            self.holder.hparams[self.name] = value
            set_initial_hparam(self.holder, self.name, value)
        elif self.kind == "trainer":
            write_trainer_field(self.holder, self.name, value)
        else:
            setattr(self.holder, self.name, value)


def apply_changes(
    changes: Sequence[Change], module: LightningModule, datamodule: LightningDataModule | None, trainer: Trainer
) -> list[Place]:
    """Write the new values wherever the old ones are held, or nowhere: an error in between puts everything back.

    A place that holds another value than the old one (an attribute derived from it) is left alone.

    Returns:
        The places written, for ``undo``.
    """
    written: list[Place] = []
    try:
        for change in changes:
            for place in list(_places_of(change, module, datamodule, trainer)):
                place.write(change.new)
                written.append(place)
    except Exception:
        undo(written)
        raise
    for place in written:
        vars(place.holder).setdefault(_MARK, []).append((place.name, place.kind, place.knob, place.old, place.new))
    return written


def undo(places: Sequence[Place]) -> None:
    """Put the old values back where the new ones still are."""
    for place in reversed(places):
        if same_value(place.read(), place.new):
            place.write(place.old)


def take_back(module: LightningModule, datamodule: LightningDataModule | None, trainer: Trainer) -> None:
    """Give a module that was fitted before the user's own values again, whichever callback of ours rewrote them.

    What changed a shape stays: the layers were made with it.
    """
    for holder in [trainer, datamodule, *module.modules()]:
        marks = [] if holder is None else vars(holder).pop(_MARK, [])
        places = [Place(holder, *mark) for mark in marks]
        undo([place for place in places if place.knob in SAFE_NAMES or dropout.is_rate_name(place.knob)])


def fingerprint(places: Sequence[Place]) -> str:
    """Return a text that is equal on two processes if the same values were written in the same places."""
    written = [(type(place.holder).__name__, place.kind, place.name, repr(place.read())) for place in places]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()


def _places_of(change: Change, module: LightningModule, datamodule: LightningDataModule | None, trainer: Trainer) -> Iterator[Place]:
    if change.name in TRAINER_FIELDS:
        yield Place(trainer, TRAINER_FIELDS[change.name], "trainer", change.name, change.old, change.new)
    if dropout.is_rate_name(change.raw_name):
        for layer, attribute in dropout.layers_at(module, change.old):
            yield Place(layer, attribute, "attribute", change.name, change.old, float(change.new))
    for holder in (module, datamodule):
        if holder is None:
            continue
        spellings = {change.raw_name}
        if change.name in TRAINER_FIELDS:  # a copy that the user's own code keeps follows the Trainer
            spellings = {raw for raw in holder.hparams if canonical_name(raw) == change.name}
        for raw in sorted(spellings):
            yield from _places_in(holder, raw, change)


def _places_in(holder: LightningModule | LightningDataModule, raw: str, change: Change) -> Iterator[Place]:
    for name in sorted({raw, *later_reads(holder).aliases.get(raw, ())}):
        own = getattr(type(holder), name, None)
        is_settable = name in vars(holder) or (isinstance(own, property) and own.fset is not None)
        if is_settable and _holds(getattr(holder, name, None), change.old):
            yield Place(holder, name, "attribute", change.name, change.old, change.new)
    if raw in holder.hparams and _holds(holder.hparams[raw], change.old):
        yield Place(holder, raw, "hparam", change.name, change.old, change.new)


def _holds(value: Any, old: Any) -> bool:
    return isinstance(value, bool | int | float | str | None) and same_value(value, old)


class ReadBack(Frozen):
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
    if change.name == "batch_size":
        size = loaded_batch_size(trainer.train_dataloader)
        return ([] if size is None else [size]), "the training loader"
    if dropout.is_rate_name(change.raw_name):
        held = dropout.rates(module)
        # Layers with neither value belong to something else; without any, dropout is a function and shows nothing.
        told = any(same_value(rate, value) for rate in held for value in (change.old, change.new))
        stale = [rate for rate in held if same_value(rate, change.old)]
        return (stale or held if told else []), "the dropout layers"
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


def has_layers(module: nn.Module) -> bool:
    """Say whether a module has weights already."""
    return next(module.parameters(), None) is not None
