"""The validation that a run is judged by: whether there is one, and what of it makes runs comparable only in order."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.objective import Objective
from lightning_metahp.settings import loaders_in
from lightning_metahp.trainer_internals import overrides, validation_source
from metahp_tuning.random_states import preserved_generators, preserved_rng
from metamodel.data.task import TaskDescription

_log = logging.getLogger(__name__)


def validates(trainer: Trainer) -> bool:
    """Say whether a fit comes to a validation, as far as its epochs say."""
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if trainer.limit_val_batches == 0 or (every and epochs is not None and 0 <= epochs < every):
        return False
    if trainer.num_val_batches:
        return any(trainer.num_val_batches)
    source = validation_source(trainer)  # the loaders are made with the first validation, which may be epochs away
    return source is not None and source.is_defined() and overrides(trainer.lightning_module, "validation_step")


def comparable(description: TaskDescription, limit: str | None, objective: Objective | None) -> TaskDescription:
    """Note in a description how its objective is measured, where that is not by the whole of the first validation loader.

    Args:
        description: The task.
        limit: The limit of the validation.
        objective: The objective, None as long as it is not known.
    """
    of_objective = None if objective is None else objective.further_loader
    found = {"validation": limit, "evaluation_set": of_objective}
    known = {name: value for name, value in description.comparability.items() if name not in found}
    return replace(description, comparability={**known, **{name: value for name, value in found.items() if value is not None}})


def limit_in_force(trainer: Trainer) -> str | None:
    """Return the limit of the validation of a running fit, in words; None where it is whole."""
    return describe_limit(trainer.limit_val_batches, loaders_in(trainer.val_dataloaders))


def planned_limit(trainer: Trainer, module: LightningModule) -> str | None:
    """Return the limit that the validation of a fit will have, before there are loaders."""
    limit = trainer.limit_val_batches
    source = validation_source(trainer)
    loaders: Any = None
    if isinstance(limit, int) and limit and source is not None and source.is_defined():
        try:
            if source.is_module():
                with preserved_rng(), preserved_generators(source.instance):
                    loaders = getattr(source.instance, source.name)()
            else:
                loaders = source.instance
        except Exception as error:  # e.g. it needs what the module's own setup() makes, which runs after us
            _log.debug("the validation data could not be seen before the start: %s", error)
    return describe_limit(limit, loaders_in(loaders))


def describe_limit(limit: int | float | None, loaders: Collection[Any] = ()) -> str | None:
    """Return a limit of the validation in words, None where the whole is used.

    Args:
        limit: A number of batches (a whole number, which a command line may give as a float), or their share.
        loaders: The validation loaders, as far as they are known: a limit above their length is none.
    """
    if limit is None or limit == 0:
        return None
    if isinstance(limit, float) and limit <= 1:
        return None if limit == 1.0 else f"{100 * limit:g} %"
    if loaders and all(_has_at_most(loader, limit) for loader in loaders):
        return None
    return f"{limit:g} batch{'es' if limit > 1 else ''}"


def _has_at_most(loader: Any, limit: float) -> bool:
    try:
        return len(loader) <= limit
    except Exception:  # a stream has no length, and a user's own __len__ may fail in any way
        return False
