"""What a Lightning run trains: one description before training, from a look at the data, and one after the start.

Both go through ``describe_task`` with the same data set, so that a recommendation and the run it is for belong to one task.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from lightning_metahp.objective import Objective
from lightning_metahp.settings import datamodule_of, loaders_in, plain_hparams, unchanged_hparams
from lightning_metahp.trainer_internals import loaders_passed_to_fit, overrides
from metahp_tuning.data_description import describe_dataset, named_by_hparams
from metahp_tuning.data_schema import model_schema
from metahp_tuning.objective_definition import objective_definition
from metahp_tuning.random_states import preserved_generators, preserved_rng
from metahp_tuning.task_description import describe_module
from metamodel.data.task import TaskDescription

_log = logging.getLogger(__name__)

_looks: WeakKeyDictionary[Trainer, dict[str, Any]] = WeakKeyDictionary()
"""What was seen of the training data before the start, by Trainer."""


def describe_task(
    trainer: Trainer,
    module: LightningModule,
    train_loaders: Any,
    *,
    task: str | TaskDescription | None = None,
    objective: Objective | None = None,
    tunable: Collection[str] = (),
    is_second_look: bool = False,
) -> TaskDescription:
    """Describe what is trained.

    Args:
        trainer: The trainer; its datamodule's hyperparameters tell data apart.
        module: The module.
        train_loaders: The training loaders, None if they could not be seen.
        task: Explicit name or description; its identity wins.
        objective: The objective, None if it is not known yet.
        tunable: Names that may be tuned and therefore tell nothing apart.
        is_second_look: Whether what was seen of the data before the start of this fit is taken again: a sample may take long to make.
    """
    name, direction = (None, None) if objective is None else (objective.name, objective.direction.value)
    if isinstance(task, TaskDescription):
        return task if task.objective is not None or name is None else task.with_objective(name, direction)
    datamodule = datamodule_of(trainer)
    module_hparams, data_hparams = _hparams(module), {} if datamodule is None else _hparams(datamodule)
    seen = _looks.pop(trainer, None) if is_second_look else None
    known = dict(seen or _describe_data(train_loaders, {**module_hparams, **data_hparams}, tunable))
    if not is_second_look:
        _looks[trainer] = dict(known)
    named = named_by_hparams(module_hparams, data_hparams, tunable, (module, datamodule))
    return TaskDescription(
        name=task,
        **{
            **known,
            "n_val": _size(trainer.val_dataloaders),
            "data_names": {**known.get("data_names", {}), **named["data_names"]},
            "schema": {**model_schema(module), **known.get("schema", {})},
            "fold": {**known.get("fold", {}), **named["fold"]},
        },
        comparability=objective_definition(name, module=module, hparams=module_hparams, unchanged=unchanged_hparams(type(module))),
        **describe_module(module),
        objective=name,
        direction=direction,
    )


def _hparams(holder: LightningModule | LightningDataModule) -> dict[str, Any]:
    try:
        return plain_hparams(holder)
    except Exception as error:  # a user's own mapping may fail in any way
        _log.debug("the hyperparameters tell nothing of the data: %s", error, exc_info=True)
        return {}


def forget_look(trainer: Trainer) -> None:
    """Forget what was seen of the data of a fit that is over, or never came to its start."""
    _looks.pop(trainer, None)


def _describe_data(train_loaders: Any, hparams: Mapping[str, Any], tunable: Collection[str]) -> dict[str, Any]:
    loaders = loaders_in(train_loaders)
    if not loaders:
        return {}
    return describe_dataset(getattr(loaders[0], "dataset", loaders[0]), hparams, tunable)


def _size(loaders: Any) -> int | None:
    datasets: list[Any] = [getattr(loader, "dataset", None) for loader in loaders_in(loaders)]
    with suppress(Exception):  # a stream has no length, and a user's __len__ may fail in any way
        sizes: list[int] = [len(dataset) for dataset in datasets]
        return sum(sizes) or None
    return None


def peek_at_loaders(trainer: Trainer, module: LightningModule) -> Any | None:
    """Return the training loaders before the Trainer asks for them, None if that is not possible.

    Random states are preserved, those of generators kept by the module or datamodule as well. The Trainer makes its own loaders
    later.
    """
    passed = loaders_passed_to_fit(trainer)
    if passed is not None:
        return passed
    datamodule = datamodule_of(trainer)
    for holder in (datamodule, module):
        if holder is not None and overrides(holder, "train_dataloader"):
            try:
                with preserved_rng(), preserved_generators(holder):
                    return holder.train_dataloader()
            except Exception as error:  # e.g. it needs what the module's own setup() makes, which runs after us
                _log.debug("the training data could not be seen before the start: %s", error, exc_info=True)
                return None
    return None
