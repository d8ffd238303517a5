"""What a parsed LightningCLI configuration says: which values it holds, who gave them, and what it will train."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import nn

from lightning_metahp.objective import Objective, named_objective
from lightning_metahp.settings import TRAINER_FIELDS, plain_hparams, unchanged_hparams
from metahp_tuning.data_description import describe_dataset, named_by_hparams
from metahp_tuning.data_schema import model_schema
from metahp_tuning.objective_definition import objective_definition
from metahp_tuning.optimizer_description import optimizer_name
from metahp_tuning.precedence import Setting
from metahp_tuning.random_states import preserved_rng
from metahp_tuning.task_description import model_family, parameter_count
from metamodel.data.task import TaskDescription
from store.hyperparameters import names_in_optimizer_state
from store.names import canonical_name, infer_direction
from store.statuses import Source

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """One value of a configuration.

    Attributes:
        path: Dotted key, as it would be written on the command line.
        setting: Name, value and who gave it.
    """

    path: str
    setting: Setting


def flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every leaf of a namespace or mapping with its dotted key."""
    items = vars(values).items() if not isinstance(values, Mapping) else values.items()
    for name, value in items:
        if isinstance(value, Mapping) or type(value).__name__ == "Namespace":
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def settings_in(
    config: Any, given: Collection[str], targets: Collection[str], optimizers: Collection[str], wanted: Collection[str]
) -> dict[str, list[Found]]:
    """Return what a configuration lets us rewrite, by canonical name: one place each, or all that nobody could tell apart.

    Args:
        config: Configuration of the subcommand.
        given: Dotted keys that were written on the command line or in a config file.
        targets: Dotted keys that follow from others by a link.
        optimizers: Names of the groups of optimizers and schedules.
        wanted: Canonical names of the user's space; the Trainer's own values are there only where they are among these.
    """
    groups = [*optimizers, "data", "model"]
    found: dict[str, list[Found]] = {}
    for group in groups:
        namespace = config.get(group)
        if namespace is None or isinstance(namespace, str | list):
            continue
        optimizers_inside = _optimizers_in(namespace, group)
        for path, value in flat(namespace, f"{group}."):
            leaf = path.rpartition(".")[2]
            is_followed = any(path == target or path.startswith(f"{target}.") for target in targets)
            if leaf == "class_path" or leaf.startswith("_") or is_followed or not isinstance(value, bool | int | float | str | None):
                continue
            if path.count(".") - path.count(".init_args.") > 1 and path.rpartition(".init_args.")[0] not in optimizers_inside:
                continue  # an argument of an argument
            source = Source.USER if path in given else Source.DEFAULT
            found.setdefault(canonical_name(leaf), []).append(Found(path, Setting(leaf, value, source)))
    for name in TRAINER_FIELDS.keys() & set(wanted):
        path = f"trainer.{TRAINER_FIELDS[name]}"
        found[name] = [Found(path, Setting(TRAINER_FIELDS[name], config.get(path), Source.USER if path in given else Source.DEFAULT))]
    for name, places in found.items():
        if name in names_in_optimizer_state() and places[0].path.split(".")[0] in optimizers:
            found[name] = places[:1]  # where both a model and an optimizer have one, the optimizer's is what trains
    return found


def _optimizers_in(namespace: Any, group: str) -> dict[str, str]:
    """Return the dotted keys of a group under which an optimizer is configured, with the name of its class."""
    found = {}
    for path, value in flat(namespace, f"{group}."):
        name = optimizer_name({"class_path": value}) if path.endswith(".class_path") else None
        if name is not None:
            found[path.removesuffix(".class_path")] = name
    return found


def model_copy(config: Any, model_class: type) -> nn.Module | None:
    """Return a throw-away copy of the model on torch's ``meta`` device, without weights; None where it cannot be made."""
    cls, arguments = _resolved(config.get("model"), model_class)
    try:
        with preserved_rng(), torch.device("meta"):
            made = cls(**{name: _made(value) for name, value in arguments.items()})
    except Exception as error:  # a stranger's model may need more than its arguments, or a real device
        _log.debug("the model could not be looked at before the start: %s", error)
        return None
    return made if isinstance(made, nn.Module) else None


def optimizer_in(config: Any, parser: Any) -> str | None:
    """Return the class name of the optimizer that a configuration names, None where it names none or several."""
    groups = [config.get(group) for group in parser._optimizers]
    paths = [str(path) for group in groups if (path := _argument(group, "class_path"))]
    names = [path.rpartition(".")[2] for path in paths]
    model = config.get("model")
    names += [] if names or model is None else _optimizers_in(model, "model").values()
    return names[0] if len(names) == 1 else None


def precision_in(config: Any) -> str:
    """Return how numbers will be held, in the words that a run records."""
    given = str(config.get("trainer.precision") or "32-true")
    return {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}.get(given, given)


def describe_config(
    config: Any, model_class: type, data_class: type | None, model: nn.Module | None, task: Any, tunable: Collection[str]
) -> TaskDescription:
    """Describe what a configuration will train, as ``describe_task`` will when it runs.

    The datamodule is made and set up once for a look at its data, under preserved random states.

    Args:
        config: Configuration of the subcommand.
        model_class: Class of the model, where the configuration names none.
        data_class: Class of the datamodule, where the configuration names none; None without one.
        model: A copy of the model, None where there is none.
        task: Explicit name or description.
        tunable: Names of the user's space.
    """
    if isinstance(task, TaskDescription):
        return task
    model_class, model_hparams = _resolved(config.get("model"), model_class)
    model_hparams = plain_hparams(model) if isinstance(model, LightningModule) else model_hparams
    known: dict[str, Any] = {}
    data_hparams: dict[str, Any] = {}
    datamodule: Any = None
    namespace = config.get("data")
    if namespace is not None and data_class is not None:
        data_class, arguments = _resolved(namespace, data_class)
        with preserved_rng():
            datamodule = data_class(**{name: _made(value) for name, value in arguments.items()})
            datamodule.prepare_data()
            datamodule.setup("fit")
            loader = datamodule.train_dataloader()
        data_hparams = plain_hparams(datamodule)
        known = describe_dataset(getattr(loader, "dataset", loader), {**model_hparams, **data_hparams}, tunable)
    named = named_by_hparams(model_hparams, data_hparams, tunable, () if model is None else (model, datamodule))
    return TaskDescription(
        **{
            **known,
            "data_names": {**known.get("data_names", {}), **named["data_names"]},
            "schema": {**({} if model is None else model_schema(model)), **known.get("schema", {})},
            "fold": {**known.get("fold", {}), **named["fold"]},
        },
        name=task,
        comparability=objective_definition(None, module=model, hparams=model_hparams, unchanged=unchanged_hparams(model_class)),
        model_class=model_class.__qualname__,
        model_family=None if model is None else model_family(model),
        n_parameters=None if model is None else parameter_count(model),
    )


def _resolved(namespace: Any, default: type) -> tuple[type, dict[str, Any]]:
    """Return the class that a group stands for and its arguments."""
    values = {} if namespace is None else dict(vars(namespace))
    if "class_path" in values:
        return _class_at(values["class_path"]), dict(vars(values["init_args"])) if values.get("init_args") is not None else {}
    return default, values


def _class_at(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(import_module(module), name)
    return found


def _made(value: Any) -> Any:
    """Make an argument that is an object itself."""
    if type(value).__name__ == "Namespace" and "class_path" in value:
        cls, arguments = _resolved(value, object)
        if issubclass(cls, torch.optim.Optimizer | torch.optim.lr_scheduler.LRScheduler):
            return partial(cls, **arguments)  # made later, of what exists only then
        return cls(**{name: _made(item) for name, item in arguments.items()})
    return value


def monitored_in(config: Any) -> Objective | None:
    """Return what a checkpoint or early stopping of the configuration monitors, a checkpoint first."""
    callbacks = config.get("trainer.callbacks") or []
    found: dict[str, Objective] = {}
    for item in callbacks if isinstance(callbacks, list) else [callbacks]:
        kind = str(_argument(item, "class_path") or "").rpartition(".")[2]
        arguments = _argument(item, "init_args")
        monitor = _argument(arguments, "monitor")
        if kind in ("ModelCheckpoint", "EarlyStopping") and isinstance(monitor, str):
            found.setdefault(kind, named_objective(monitor, _argument(arguments, "mode")))
        objective = _argument(arguments, "objective")
        if kind == "MetaHPCallback" and isinstance(objective, str):
            direction = _argument(arguments, "direction")
            if direction is not None or infer_direction(objective) is not None:
                return named_objective(objective, direction)
    return found.get("ModelCheckpoint") or found.get("EarlyStopping")


def _argument(values: Any, name: str) -> Any:
    if isinstance(values, Mapping):
        return values.get(name)
    return getattr(values, name, None)


def has_callback(config: Any, name: str) -> bool:
    """Say whether a callback of this class is in the configuration."""
    callbacks = config.get("trainer.callbacks") or []
    listed = callbacks if isinstance(callbacks, list) else [callbacks]
    return any(str(_argument(item, "class_path") or "").rpartition(".")[2] == name for item in listed)


def world_size_of(config: Any) -> int:
    """Return how many processes a configuration will train with, as far as it says."""
    devices, nodes = config.get("trainer.devices", "auto"), config.get("trainer.num_nodes", 1)
    if isinstance(devices, list):
        count = len(devices)
    elif str(devices).isdigit():
        count = int(devices)
    else:
        is_on_gpu = config.get("trainer.accelerator", "auto") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        count = torch.cuda.device_count() if is_on_gpu else 1
    return max(1, count) * max(1, int(nodes or 1))


def why_ranks_cannot_agree() -> str | None:
    """Say why each process of a run would decide for itself, or None where one decides for all.

    The configuration is rewritten before there is a process group. Lightning starts the further processes of one machine with a copy
    of the environment, which carries the decision; other launchers start all at once.
    """
    if os.environ.get("TORCHELASTIC_RUN_ID") and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return "torchrun starts all processes at once"
    if int(os.environ.get("SLURM_NTASKS", "1") or 1) > 1 and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return "SLURM starts all processes at once"
    return None


def tunable_arguments(arguments: Sequence[str]) -> list[str]:
    """Leave out what the Trainer is given and nobody rewrites: without defaults, an argument of a logger cannot be parsed alone."""
    kept: list[str] = []
    is_left_out = is_value = False
    for argument in arguments:
        if argument.startswith("--"):
            name = argument[2:].partition("=")[0].rstrip("+")
            is_left_out = name.startswith("trainer.") and name.removeprefix("trainer.") not in TRAINER_FIELDS.values()
            is_value = "=" not in argument
        elif is_left_out and is_value:  # "--trainer.logger" "CSVLogger"
            is_value = False
            continue
        else:
            is_left_out = False
        if not is_left_out:
            kept.append(argument)
    return kept


def as_argument(path: str, value: Any) -> str:
    """Write a value as an argument of the command line."""
    return f"--{path}={value if isinstance(value, str) else json.dumps(value)}"
