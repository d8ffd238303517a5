"""The hyperparameters a run would have, or has, and who set them: module, datamodule, trainer, optimizer, schedule and loader."""

from __future__ import annotations

import inspect
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_metahp.nested_values import MAX_LEAVES, REST, leaves
from lightning_metahp.source_reads import Reads, is_framework_class, later_reads
from metahp_tuning.optimizer_description import (
    group_values,
    optimizer_name,
    read_optimizer,
    read_scheduler,
    value_in_force,
)
from metahp_tuning.precedence import Setting
from store.hyperparameters import GLOBAL_BATCH_SIZE, LIGHTNING, PER_DEVICE_BATCH_SIZE, has_row, trainer_fields
from store.names import canonical_name
from store.statuses import Source
from store.values import read_item, same_value

_log = logging.getLogger(__name__)

_MAX_EPOCHS_DEFAULT = 1000
"""What Lightning trains for where neither epochs nor steps are given."""


class EffectiveHParams:
    """What is in force after the start.

    Attributes:
        values: Raw name -> value.
        sources: Raw name -> who decided it.
        observed: What was read back, by canonical name.
        requested: Raw name -> what the user's code asked for, where that is known to differ.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, Source] = {}
        self.observed: dict[str, Any] = {}
        self.requested: dict[str, Any] = {}

    def add(self, name: str, value: Any, source: Source) -> None:
        """Add a value unless the name is taken: what the user's own code calls it comes first."""
        if name not in self.values:
            self.values[name], self.sources[name] = value, source

    def has(self, canonical: str) -> bool:
        """Say whether a hyperparameter of this canonical name is known."""
        return any(canonical_name(name) == canonical for name in self.values)


def own_settings(module: LightningModule, datamodule: LightningDataModule | None) -> dict[str, Setting]:
    """Return the hyperparameters of the user's own code by raw name.

    These are the ``hparams`` of module and datamodule, defaults included, and arguments of ``__init__`` that were kept as plain
    attributes instead. What one of them holds by name (a dictionary, OmegaConf, a dataclass) stands in its place; an optimizer counts by
    its name, and what a partial or dictionary of it holds is there, too. Of a name that both have, a batch size is the datamodule's and
    anything else the module's; the other one is called ``data.<name>`` or ``model.<name>`` if it differs.
    """
    found = _settings_of(module)
    if datamodule is None:
        return found
    for raw, setting in _settings_of(datamodule).items():
        other = found.get(raw)
        if other is None or same_value(other.value, setting.value):
            # A shared default that was set on one side only was set.
            is_users = other is not None and other.source is Source.USER
            found[raw] = other if other is not None and is_users else setting
        elif canonical_name(raw) == PER_DEVICE_BATCH_SIZE:
            found[f"model.{raw}"], found[raw] = Setting(f"model.{raw}", other.value, other.source), setting
        else:
            found[f"data.{raw}"] = Setting(f"data.{raw}", setting.value, setting.source)
    return found


def _settings_of(holder: LightningModule | LightningDataModule) -> dict[str, Setting]:
    parameters = _init_parameters(type(holder))
    defaults = {name: item.default for name, item in parameters.items() if item.default is not inspect.Parameter.empty}
    found: dict[str, Setting] = {}
    for raw, value in hparams_of(holder).items():
        if not raw.startswith("_") and not isinstance(value, torch.nn.Module):
            found[raw] = Setting(raw, _recorded(value), _source(raw, value, defaults))
    for raw, attribute in _kept_arguments(holder, parameters):
        value = vars(holder).get(attribute)
        if raw not in found and isinstance(_recorded(value), bool | int | float | str):
            found[raw] = Setting(raw, _recorded(value), _source(raw, value, defaults))
    for name, place in nested_places(holder).items():
        source = found[place.holder].source if place.holder in found else Source.USER
        if not place.is_in_optimizer:
            found.pop(place.holder, None)
        found.setdefault(name, Setting(name, _recorded(place.value), source))
    return found


@dataclass(frozen=True, slots=True)
class NestedPlace:
    """Where a value stands that is held by a hyperparameter.

    Attributes:
        holder: Raw name of the hyperparameter that holds it.
        path: Dotted path in it.
        value: The value.
        whole: What the hyperparameter is.
        is_in_optimizer: Whether the hyperparameter stands for an optimizer.
    """

    holder: str
    path: str
    value: Any
    whole: Any
    is_in_optimizer: bool


def nested_places(holder: LightningModule | LightningDataModule) -> dict[str, NestedPlace]:
    """Return what hyperparameters and kept arguments hold, by name.

    ``optim.lr`` is called ``lr`` where that is a hyperparameter by itself and nothing else means the same; so is every argument of an
    optimizer. Anything else is called by its whole path, copies of what the Trainer has among them: the Trainer's are in force.
    """
    saved = hparams_of(holder)
    kept = {raw: vars(holder)[attribute] for raw, attribute in _kept_arguments(holder, _init_parameters(type(holder)))}
    if _whole_argument(holder) is not None:
        kept.pop(str(_whole_argument(holder)), None)  # what it holds is saved one by one
    places = [
        NestedPlace(raw, path, value, whole, optimizer_name(whole) is not None)
        for raw, whole in {**kept, **saved}.items()
        if not raw.startswith("_")
        for path, value in leaves(whole).items()
    ]
    meanings = Counter(canonical_name(place.path.rpartition(".")[2]) for place in places)
    taken = {canonical_name(raw) for raw in (*saved, *kept)}
    found = {}
    for place in places:
        last = place.path.rpartition(".")[2]
        meaning = canonical_name(last)
        is_clear = (
            meanings[meaning] == 1
            and meaning not in taken
            and (place.is_in_optimizer or (has_row(meaning) and meaning not in TRAINER_FIELDS))
        )
        path = f"{place.holder}.{place.path}"
        # What is read of the optimizer itself is called so, and is the truth.
        full = f"hparams.{path}" if path.startswith(("optimizer", "lr_scheduler")) and not place.is_in_optimizer else path
        found[last if is_clear else full] = place
    return found


def paths_of(holder: LightningModule | LightningDataModule, raw: str) -> list[str]:
    """Return under which paths the source has a hyperparameter: ``cfg.optim.lr``, also ``args.lr`` after ``save_hyperparameters(args)``."""
    place = nested_places(holder).get(raw)
    path = raw if place is None else f"{place.holder}.{place.path}"
    whole = _whole_argument(holder)
    return [path] if whole is None else [path, f"{whole}.{path}"]


def _whole_argument(holder: LightningModule | LightningDataModule) -> str | None:
    """Return the argument whose items are the hyperparameters, None where the arguments themselves are."""
    name = getattr(holder, "_hparams_name", None)
    return name if isinstance(name, str) and name != "kwargs" and name not in holder.hparams else None


def is_read(reads: Reads, holder: LightningModule | LightningDataModule, raw: str) -> bool:
    """Say whether a hyperparameter of a module or datamodule, or what holds it, is or may be read later."""
    is_flat = raw not in nested_places(holder)
    return (is_flat and reads.reads(raw)) or any(map(reads.reads_path, paths_of(holder, raw)))


def _recorded(value: Any) -> Any:
    """Return the name of an optimizer that is given as an object; a text is kept as it is written, since a space has the same."""
    return value if isinstance(value, str) else optimizer_name(value) or value


def hparams_of(holder: LightningModule | LightningDataModule) -> dict[str, Any]:
    """Return what a module or datamodule has saved; an entry that cannot be read (OmegaConf's ``???``) comes as the reason."""
    saved = holder.hparams
    return {raw: read_item(saved, raw) for raw in saved if isinstance(raw, str)}


def held_optimizers(module: LightningModule) -> dict[str, Any]:
    """Return the hyperparameters and kept arguments of a module that stand for an optimizer: raw name -> class, partial, dictionary."""
    kept = {raw: vars(module)[attribute] for raw, attribute in _kept_arguments(module, _init_parameters(type(module)))}
    inside = {name: place.value for name, place in nested_places(module).items() if not place.is_in_optimizer}
    known = {**inside, **kept, **hparams_of(module)}
    return {raw: value for raw, value in known.items() if not raw.startswith("_") and optimizer_name(value)}


def plain_hparams(holder: LightningModule | LightningDataModule) -> dict[str, Any]:
    """Return the hyperparameters of a module or datamodule, and the arguments that it kept as attributes, by raw name."""
    found = {raw: setting.value for raw, setting in _settings_of(holder).items()}
    for raw, attribute in _kept_arguments(holder, _init_parameters(type(holder))):
        if isinstance(vars(holder)[attribute], PurePath | Enum | list | tuple):
            found.setdefault(raw, vars(holder)[attribute])
    return found


def unchanged_hparams(cls: type) -> dict[str, Any]:
    """Return the defaults of the arguments of a class's ``__init__``."""
    parameters = _init_parameters(cls).items()
    return {name: item.default for name, item in parameters if item.default is not inspect.Parameter.empty}


def _kept_arguments(holder: LightningModule | LightningDataModule, parameters: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield arguments of ``__init__`` with the attribute they are kept in."""
    aliases = later_reads(holder).aliases
    for raw in parameters:
        yield from ((raw, attribute) for attribute in sorted({raw} | set(aliases.get(raw, ()))) if attribute in vars(holder))


def _init_parameters(cls: type) -> Mapping[str, inspect.Parameter]:
    found: dict[str, inspect.Parameter] = {}
    for base in cls.__mro__:
        if is_framework_class(base):
            break
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(base.__init__).parameters.items():  # type: ignore[misc]
                if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) and name != "self":
                    found.setdefault(name, parameter)
    return found


def _source(name: str, value: Any, defaults: Mapping[str, Any]) -> Source:
    """A value that equals the default may have been typed, but nobody can tell."""
    if name not in defaults:
        return Source.USER
    is_default = type(value) is type(defaults[name]) and same_value(value, defaults[name])
    return Source.DEFAULT if is_default else Source.USER


def trainer_settings(trainer: Trainer) -> dict[str, Setting]:
    """Return the arguments of the Trainer, by its own names, and the seed."""
    defaults = {
        **_trainer_defaults(),
        "max_epochs": _MAX_EPOCHS_DEFAULT,
        "precision": "32-true",
        "devices": 1,
        "gradient_clip_algorithm": "norm",
        "limit_train_batches": 1.0,
    }
    values: dict[str, Any] = {
        "max_epochs": trainer.max_epochs if trainer.max_epochs is not None else _MAX_EPOCHS_DEFAULT,
        "max_steps": trainer.max_steps,
        "accumulate_grad_batches": trainer.accumulate_grad_batches,
        "gradient_clip_val": trainer.gradient_clip_val,
        "precision": str(trainer.precision),
        "devices": trainer.num_devices,
        "limit_train_batches": trainer.limit_train_batches,
    }
    if trainer.gradient_clip_val is not None:
        values["gradient_clip_algorithm"] = str(trainer.gradient_clip_algorithm or "norm")
    if trainer.num_nodes > 1:
        values["num_nodes"] = trainer.num_nodes
    found = {name: Setting(name, value, _source(name, value, defaults)) for name, value in values.items()}
    found["accelerator"] = Setting("accelerator", trainer.strategy.root_device.type, Source.DEFAULT)
    found["strategy"] = Setting("strategy", type(trainer.strategy).__name__, Source.DEFAULT)
    seed = os.environ.get("PL_GLOBAL_SEED", "")
    if seed.lstrip("-").isdigit():
        found["seed"] = Setting("seed", int(seed), Source.USER)
    return found


@cache
def _trainer_defaults() -> Mapping[str, Any]:
    """Return the defaults of the Trainer's arguments; ``inspect.signature`` takes a millisecond to describe all of them."""
    made = inspect.unwrap(Trainer.__init__)
    by_position = made.__code__.co_varnames[: made.__code__.co_argcount]
    defaults = made.__defaults__ or ()
    return {**dict(zip(by_position[len(by_position) - len(defaults) :], defaults, strict=True)), **(made.__kwdefaults__ or {})}


TRAINER_FIELDS = trainer_fields(LIGHTNING)
"""Arguments of the Trainer that can still be changed in ``setup``, by canonical name. Touched only where a space names it."""


def read_trainer_field(trainer: Trainer, field: str) -> Any:
    """Return what one of ``TRAINER_FIELDS`` is now."""
    return getattr(trainer, field)


def write_trainer_field(trainer: Trainer, field: str, value: Any) -> None:
    """Set one of ``TRAINER_FIELDS``; epochs and steps are kept by the loops."""
    if field == "max_epochs":
        trainer.fit_loop.max_epochs = value
    elif field == "max_steps":
        trainer.fit_loop.epoch_loop.max_steps = value
    else:
        setattr(trainer, field, value)


def read_in_force(trainer: Trainer, module: LightningModule, loaded: Mapping[str, Any] | None = None) -> EffectiveHParams:
    """Read every hyperparameter really in force. To be called once optimizers and loaders exist.

    Args:
        trainer: The trainer.
        module: The module.
        loaded: Hyperparameters of the run that this one resumes, whose optimizer state was loaded.
    """
    reading = EffectiveHParams()
    for setting in own_settings(module, datamodule_of(trainer)).values():
        reading.add(setting.raw_name, setting.value, setting.source)
        if setting.raw_name.endswith(f".{REST}"):
            whole = setting.raw_name.removesuffix(f".{REST}")
            _log.warning("metahp: %s holds more than %d values; the others are recorded as one, %s", whole, MAX_LEAVES, setting.raw_name)
    for setting in trainer_settings(trainer).values():
        if not reading.has(setting.name):
            reading.add(setting.raw_name, setting.value, setting.source)
    _read_optimizers(trainer, module, reading, loaded or {})
    _read_loader(trainer, reading)
    return reading


def datamodule_of(trainer: Trainer) -> LightningDataModule | None:
    """Return the datamodule of this fit; the attribute exists only once one was passed."""
    return getattr(trainer, "datamodule", None)


def _read_optimizers(trainer: Trainer, module: LightningModule, reading: EffectiveHParams, loaded: Mapping[str, Any]) -> None:
    for index, optimizer in enumerate(trainer.optimizers):
        defaults = {name: item.default for name, item in inspect.signature(type(optimizer).__init__).parameters.items()}
        for name, value in read_optimizer(optimizer).items():
            known_default = name.startswith("optimizer.") and _source(name.rpartition(".")[2], value, defaults) is Source.DEFAULT
            # A user's own "optimizer" argument keeps its name; the class then stands beside it.
            name = "optimizer.class" if name == "optimizer" and reading.has("optimizer") and index == 0 else name
            name = name if index == 0 else name.replace("optimizer", f"optimizer_{index}", 1)
            reading.add(name, value, Source.DEFAULT if known_default else Source.USER)
    for index, config in enumerate(trainer.lr_scheduler_configs):
        for name, value in read_scheduler(config.scheduler).items():
            name = "lr_scheduler.class" if name == "lr_scheduler" and reading.has("lr_scheduler") and index == 0 else name
            reading.add(name if index == 0 else name.replace("lr_scheduler", f"lr_scheduler_{index}", 1), value, Source.USER)
    peak = reading.values.get("lr_scheduler.max_lr")
    for canonical, key in (("learning_rate", "lr"), ("weight_decay", "weight_decay"), ("momentum", "momentum")):
        value = reading.values.get(f"optimizer.{key}")
        # A schedule with a peak of its own makes the optimizer start at a fraction of it: the peak is what the user sets.
        value = peak if canonical == "learning_rate" and peak is not None else value
        if value is None:
            continue
        source = Source.USER if value == peak else reading.sources[f"optimizer.{key}"]
        setting = next(((raw, held) for raw, held in reading.values.items() if canonical_name(raw) == canonical), None)
        if setting is None:
            reading.add(canonical, value, source)
            reading.observed[canonical] = value
            continue
        raw, held = setting
        held = loaded.get(raw, held)  # the optimizer's state came with the checkpoint, whatever this call says
        reading.observed[canonical] = _setting_in_force(trainer, module, canonical, (raw, held), value)


def _setting_in_force(trainer: Trainer, module: LightningModule, canonical: str, setting: tuple[str, Any], found: Any) -> Any:
    """Return the user's setting where the groups have it or follow from it, else what was found in the first one."""
    raw, value = setting
    if isinstance(value, bool) or not isinstance(value, int | float):
        return found
    values = [found, *values_in_optimizers(trainer, canonical)]
    if any(same_value(item, value) for item in values):
        return value
    return value_in_force(values, value) if is_read(later_reads(module), module, raw) else found


def values_in_optimizers(trainer: Trainer, canonical: str) -> list[float]:
    """Return the values of a hyperparameter in the parameter groups of all optimizers, a learning rate's in the schedules as well."""
    values = group_values((group for optimizer in trainer.optimizers for group in optimizer.param_groups), canonical)
    if values and canonical == "learning_rate":
        starts = [group.get("initial_lr") for optimizer in trainer.optimizers for group in optimizer.param_groups]
        values += numbers([*starts, *(rate for config in trainer.lr_scheduler_configs for rate in rates_of(config.scheduler))])
    return values


def rates_of(schedule: Any) -> list[float]:
    """Return the learning rates a schedule starts from or rises to, its parts' included."""
    parts = getattr(schedule, "_schedulers", [])
    own = [*getattr(schedule, "base_lrs", []), *getattr(schedule, "max_lrs", [])]
    return numbers([*own, *(rate for part in parts for rate in rates_of(part))])


def numbers(values: Iterable[Any]) -> list[float]:
    """Return those of some values that are one number, as floats."""
    return [float(value) for value in values if isinstance(value, int | float) or (hasattr(value, "numel") and value.numel() == 1)]


def _read_loader(trainer: Trainer, reading: EffectiveHParams) -> None:
    size = loaded_batch_size(trainer.train_dataloader)
    if size is None:
        return
    if not reading.has(PER_DEVICE_BATCH_SIZE):
        reading.add(PER_DEVICE_BATCH_SIZE, size, Source.USER)
    reading.observed[PER_DEVICE_BATCH_SIZE] = size
    accumulation = trainer.accumulate_grad_batches
    if not reading.has(GLOBAL_BATCH_SIZE):
        reading.add(GLOBAL_BATCH_SIZE, size * accumulation * trainer.world_size, Source.USER)


def loaders_in(loaders: Any) -> list[Any]:
    """Return the loaders in whatever collection Lightning accepts, flat; a plain list of batches counts as one loader."""
    iterables = getattr(loaders, "iterables", loaders)
    if isinstance(iterables, Mapping):
        return [loader for item in iterables.values() for loader in loaders_in(item)]
    if isinstance(iterables, list | tuple) and any(isinstance(item, torch.utils.data.DataLoader) for item in iterables):
        return [loader for item in iterables for loader in loaders_in(item)]
    return [] if iterables is None else [iterables]


def loaded_batch_size(loaders: Any) -> int | None:
    """Return the batch size of the first loader that has one."""
    for loader in loaders_in(loaders):
        for size in (getattr(loader, "batch_size", None), getattr(getattr(loader, "batch_sampler", None), "batch_size", None)):
            if isinstance(size, int):
                return size
    return None
