"""Writing recommended values where they are used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_metahp import dropout
from lightning_metahp.fixed_settings import is_built
from lightning_metahp.nested_values import leaves, with_leaf
from lightning_metahp.settings import TRAINER_FIELDS, nested_places, own_settings, paths_of, read_trainer_field, write_trainer_field
from lightning_metahp.source_reads import later_reads
from lightning_metahp.trainer_internals import set_initial_hparam
from metahp_tuning.precedence import Change
from store.hyperparameters import names_that_keep_shapes
from store.names import canonical_name
from store.values import read_item, same_value

_WRITTEN_ATTRIBUTE = "_metahp_written"
"""Attribute in which an object keeps what was written into it, for the next fit; a module goes through many of them."""


@dataclass(frozen=True, slots=True)
class WriteTarget:
    """One target that holds a hyperparameter, and what was written there.

    Attributes:
        holder: Module, datamodule, trainer, or a layer.
        name: Attribute, key of ``hparams``, or argument of the Trainer.
        kind: ``attribute``, ``hparam`` or ``trainer``.
        hyperparameter: Canonical name of the hyperparameter.
        old: What it held.
        new: What was written.
        path: Path to the value in what the target holds (a dictionary, a partial), None where it holds the value itself.
    """

    holder: Any
    name: str
    kind: str
    hyperparameter: str
    old: Any
    new: Any
    path: str | None = None

    def read(self) -> Any:
        """Return the value that the target holds now."""
        held = self._held
        return held if self.path is None else leaves(held).get(self.path)

    @property
    def _held(self) -> Any:
        if self.kind == "hparam":
            return self.holder.hparams[self.name]
        return read_trainer_field(self.holder, self.name) if self.kind == "trainer" else getattr(self.holder, self.name)

    def write(self, value: Any) -> None:
        """Write a value; the copy that loggers receive follows."""
        if self.path is not None:
            value = with_leaf(self._held, self.path, value)
        if self.kind == "hparam":
            self.holder.hparams[self.name] = value
            set_initial_hparam(self.holder, self.name, value)
        elif self.kind == "trainer":
            write_trainer_field(self.holder, self.name, value)
        else:
            setattr(self.holder, self.name, value)


def apply_changes(
    changes: Sequence[Change], module: LightningModule, datamodule: LightningDataModule | None, trainer: Trainer
) -> list[WriteTarget]:
    """Write the new values wherever the old ones are held, or nowhere: an error in between puts everything back.

    A target that holds another value than the old one (an attribute derived from it) is left alone.

    Returns:
        The targets written, for ``undo``.
    """
    written: list[WriteTarget] = []
    try:
        for change in changes:
            for target in list(_targets_of(change, module, datamodule, trainer)):
                target.write(target.new)
                written.append(target)
    except Exception:
        undo(written)
        raise
    for target in written:
        vars(target.holder).setdefault(_WRITTEN_ATTRIBUTE, []).append(
            (target.name, target.kind, target.hyperparameter, target.old, target.new, target.path)
        )
    return written


def undo(targets: Sequence[WriteTarget]) -> None:
    """Put the old values back where the new ones still are."""
    for target in reversed(targets):
        if same_value(target.read(), target.new):
            target.write(target.old)


def take_back(module: LightningModule, datamodule: LightningDataModule | None, trainer: Trainer) -> None:
    """Give a module that was fitted before the user's own values again, whichever callback of ours rewrote them.

    What changed a shape stays: the layers were made with it.
    """
    for holder in [trainer, datamodule, *module.modules()]:
        marks = [] if holder is None else vars(holder).pop(_WRITTEN_ATTRIBUTE, [])
        targets = [WriteTarget(holder, *mark) for mark in marks]
        undo(
            [
                target
                for target in targets
                if target.hyperparameter in names_that_keep_shapes() or dropout.is_rate_name(target.hyperparameter)
            ]
        )


def written_in_layers(module: LightningModule, hyperparameter: str) -> list[WriteTarget]:
    """Return what was written into the layers of a module for a hyperparameter."""
    marks = [(layer, *mark) for layer in module.modules() for mark in vars(layer).get(_WRITTEN_ATTRIBUTE, ())]
    targets = [WriteTarget(*mark) for mark in marks]
    return [target for target in targets if target.hyperparameter == hyperparameter and target.kind == "attribute"]


def fingerprint(targets: Sequence[WriteTarget]) -> str:
    """Return a text that is equal on two processes if the same values were written in the same targets."""
    written = [(type(target.holder).__name__, target.kind, target.name, repr(target.read())) for target in targets]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()


def _targets_of(change: Change, module: LightningModule, datamodule: LightningDataModule | None, trainer: Trainer) -> Iterator[WriteTarget]:
    if change.name in TRAINER_FIELDS:
        yield WriteTarget(trainer, TRAINER_FIELDS[change.name], "trainer", change.name, change.old, change.new)
    if dropout.is_rate_name(change.raw_name):
        yield from _rate_targets(change, module)
    for holder in (module, datamodule):
        if holder is None:
            continue
        spellings = {change.raw_name}
        if change.name in TRAINER_FIELDS:  # a copy that the user's own code keeps follows the Trainer
            spellings = {raw for raw in holder.hparams if canonical_name(raw) == change.name}
        for raw in sorted(spellings):
            yield from _targets_in(holder, raw, change)


def _rate_targets(change: Change, module: LightningModule) -> Iterator[WriteTarget]:
    """Yield the layers that a dropout rate made; where the module has no such hyperparameter, all that have the rate."""
    if change.raw_name not in own_settings(module, None):
        for layer, attribute in dropout.layers_at(module, change.old):
            yield WriteTarget(layer, attribute, "attribute", change.name, change.old, float(change.new))
        return
    reads = later_reads(module)
    paths = paths_of(module, change.raw_name)
    if not any(reads.may_have_made(path.partition(".")[0]) for path in paths):
        return
    kept = {name for path in paths for name, rest in reads.keeps(path) if not rest}
    found = dropout.driven_rates(module, change.raw_name, change.old, change.new, is_built=is_built(module))
    for (path, attribute), (old, new) in found.items():
        if path or attribute not in kept:
            yield WriteTarget(module.get_submodule(path), attribute, "attribute", change.name, old, float(new))


def _targets_in(holder: LightningModule | LightningDataModule, raw: str, change: Change) -> Iterator[WriteTarget]:
    place = nested_places(holder).get(raw)
    reads = later_reads(holder)
    for name, rest in sorted(set().union(*map(reads.keeps, paths_of(holder, raw)))):
        own = getattr(type(holder), name, None)
        is_settable = name in vars(holder) or (isinstance(own, property) and own.fset is not None)
        if is_settable and _holds(getattr(holder, name, None), change.old, rest or None):
            yield WriteTarget(holder, name, "attribute", change.name, change.old, change.new, rest or None)
    name, path = (raw, None) if place is None else (place.holder, place.path)
    if name in holder.hparams and _holds(read_item(holder.hparams, name), change.old, path):
        yield WriteTarget(holder, name, "hparam", change.name, change.old, change.new, path)


def _holds(value: Any, old: Any, path: str | None) -> bool:
    if path is not None:
        held = leaves(value)
        return path in held and same_value(held[path], old)
    return isinstance(value, bool | int | float | str | None) and same_value(value, old)
