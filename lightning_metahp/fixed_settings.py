"""Decides which hyperparameters can no longer be changed at fit start, why, and what to do instead."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_metahp import dropout
from lightning_metahp.nested_values import leaves
from lightning_metahp.settings import (
    TRAINER_FIELDS,
    NestedPlace,
    datamodule_of,
    is_read,
    nested_places,
    own_settings,
    paths_of,
    trainer_settings,
)
from lightning_metahp.source_reads import Reads, later_reads
from lightning_metahp.trainer_internals import fields_of_others, loaders_passed_to_fit, optimizer_is_replaced
from metahp_tuning.precedence import Setting
from store.hyperparameters import PER_DEVICE_BATCH_SIZE, Role, names_that_keep_shapes, names_with_role
from store.names import canonical_name
from store.values import same_value

_BUILT = "_metahp_built"
"""Attribute by which a module says that a stage of some Trainer has gone through its ``setup`` and ``configure_model``."""


@dataclass(frozen=True)
class FitContext:
    """What decides whether a value can still be changed.

    Attributes:
        trainer: The trainer, in its ``setup``.
        module: The module.
        out_of_reach: Hooks of the module that have run already, or that nobody will call.
        is_resume_known: Whether it is known if this run resumes another.
    """

    trainer: Trainer
    module: LightningModule
    out_of_reach: tuple[str, ...] = ()
    is_resume_known: bool = True

    @cached_property
    def own(self) -> dict[str, Setting]:
        """Hyperparameters of the user's own code, as they were when first asked for."""
        return own_settings(self.module, datamodule_of(self.trainer))

    @cached_property
    def trainer_settings(self) -> dict[str, Setting]:
        """Arguments of the Trainer, likewise."""
        return trainer_settings(self.trainer)

    @cached_property
    def set_by_others(self) -> dict[str, str]:
        """What other callbacks set themselves, and who."""
        return fields_of_others(self.trainer, self.module)

    @property
    def holders(self) -> list[LightningModule | LightningDataModule]:
        """Module and, where there is one, datamodule."""
        datamodule = datamodule_of(self.trainer)
        return [self.module] if datamodule is None else [self.module, datamodule]

    def reads(self) -> list[Reads]:
        """Return what each of the holders still reads."""
        found = [later_reads(self.module, self.out_of_reach)]
        return found + [later_reads(holder) for holder in self.holders[1:]]


def mark_built(module: LightningModule) -> None:
    """Note that a module's layers will exist after this stage, so that no later fit believes it could still shape them."""
    object.__setattr__(module, _BUILT, True)


def is_built(module: LightningModule) -> bool:
    """Say whether an earlier stage of some Trainer has made a module's layers."""
    return bool(getattr(module, _BUILT, False))


def why_fixed(context: FitContext, name: str, setting: Setting) -> str | None:
    """Say why one value cannot be changed now, or None where it can."""
    for field, owner in context.set_by_others.items():
        if setting.raw_name == field or canonical_name(field) == name:
            return f"{owner} sets it"
    if name in TRAINER_FIELDS:
        return _why_trainer_fixed(context, name)
    if name == PER_DEVICE_BATCH_SIZE and loaders_passed_to_fit(context.trainer) is not None:
        return "the loaders were passed to fit() and are fixed; a LightningDataModule with a batch_size can be tuned"
    spellings = sorted(raw for raw in context.own if canonical_name(raw) == name)
    if len(spellings) > 1:
        return f"{' and '.join(spellings)} both mean {name}, and it is unclear which one a recommendation is for; rename one"
    place = next((found for holder in context.holders if (found := nested_places(holder).get(setting.raw_name))), None)
    if place is not None:
        reason = _why_nested_fixed(context, place, setting)
        if reason is not None:
            return reason
    if dropout.is_rate_name(setting.raw_name):
        return _why_rate_fixed(context, setting)
    return _why_unread(context, name, setting)


def _why_nested_fixed(context: FitContext, place: NestedPlace, setting: Setting) -> str | None:
    """A value inside a partial or dictionary is in time where the module makes its optimizer of just that, later."""
    module, holder, last = context.module, place.holder, place.path.rpartition(".")[2]
    meaning = canonical_name(last)
    is_tunable = meaning in names_with_role(Role.OPTIMIZER) or meaning == PER_DEVICE_BATCH_SIZE or dropout.is_rate_name(last)
    if not is_tunable and not place.is_in_optimizer:
        return (
            f"it is a part of {holder}, of which only rates, batch size and values for the optimizer can be tuned; make {last} an argument"
        )
    reads = later_reads(module, context.out_of_reach)
    attributes = {holder, *reads.aliases.get(holder, ())} & vars(module).keys()
    if place.is_in_optimizer and any(place.path not in leaves(vars(module)[name]) for name in attributes):
        return "LightningCLI has made a function of the optimizer already; use MetaHPCLI, which rewrites the configuration"
    if place.is_in_optimizer and holder in reads.used and holder not in module.hparams and not attributes:
        return f"{reads.where} has already run and built with {holder}; read self.hparams.{holder} in configure_optimizers()"
    return None


def _why_trainer_fixed(context: FitContext, name: str) -> str | None:
    field = TRAINER_FIELDS[name]
    present = context.trainer_settings[field].value
    copies = {raw: item.value for raw, item in context.own.items() if canonical_name(raw) == name}
    other = next((raw for raw, value in copies.items() if not same_value(value, present)), None)
    if other is not None:
        return f"it is {present} in the Trainer and {copies[other]} as {other} of your code, and it is unclear which one is meant"
    if name in ("gradient_accumulation_steps", "max_grad_norm") and not context.module.automatic_optimization:
        return "this module optimizes manually, so the Trainer's value has no effect"
    return None


def _why_rate_fixed(context: FitContext, setting: Setting) -> str | None:
    module, raw = context.module, setting.raw_name
    if raw not in context.own:
        return dropout.why_several(module)
    reads = context.reads()[0]
    used = {path.partition(".")[0] for path in paths_of(module, raw)}
    if not any(map(reads.may_have_made, used)):
        return _why_unread(context, setting.name, setting)  # layers that are made later, or a function
    reason = dropout.why_unknown(module, raw, setting.value, is_built=is_built(module))
    if reason == "" and used.isdisjoint(reads.used):
        return _why_unread(context, setting.name, setting)
    if reason == "":
        return f"{reads.where} has already run and no layer shows what it made of it{_way(context, raw)}"
    return reason


def _why_unread(context: FitContext, name: str, setting: Setting) -> str | None:
    """Not tunable if only already-executed methods read it, or if they built with it."""
    reads = context.reads()
    raw = setting.raw_name
    if name not in names_that_keep_shapes():
        reason = _why_shaped(context, reads, raw)
        if reason is not None:
            return reason
    if any(is_read(found, holder, raw) for found, holder in zip(reads, context.holders, strict=True)):
        return None
    if name == PER_DEVICE_BATCH_SIZE and len(reads) == 2:
        return f"only {reads[1].where} reads it, which has already run; read self.hparams.{_path(context, raw)} in train_dataloader()"
    if optimizer_is_replaced(context.module) and name in names_with_role(Role.OPTIMIZER):
        return "LightningCLI builds the optimizer itself, before any callback; use MetaHPCLI, which rewrites the configuration"
    return f"only {reads[0].where} reads it, which has already run{_way(context, raw)}"


def _why_shaped(context: FitContext, reads: list[Reads], raw: str) -> str | None:
    if not context.is_resume_known:
        return "whether this run resumes another cannot be known in this release of Lightning, and it may change a shape"
    if is_built(context.module) and raw in context.module.hparams:
        return "an earlier fit() or validate() has built this module with it; make a new one to have it tuned"
    user = next((found for found in reads if raw in found.used), None)
    if user is not None:
        return f"{user.where} has already run and built with it{_way(context, raw)}"
    if not reads[0].has_source and _has_layers(context.module):
        return f"the source of {type(context.module).__name__} cannot be read and its layers exist already{_way(context, raw)}"
    return None


def _path(context: FitContext, raw: str) -> str:
    """Return a name as it is written behind ``self.hparams``."""
    return next((paths_of(holder, raw)[0] for holder in context.holders if raw in nested_places(holder)), raw)


def _way(context: FitContext, raw: str) -> str:
    if raw in nested_places(context.module):
        return f"; read self.hparams.{_path(context, raw)} where it is used, to have it tuned"
    is_modules = raw in context.module.hparams or raw in vars(context.module)
    return f"; build with self.hparams.{raw} in configure_model() or setup() to have it tuned" if is_modules else ""


def _has_layers(module: LightningModule) -> bool:
    """Say whether a module has weights already."""
    return next(module.parameters(), None) is not None
