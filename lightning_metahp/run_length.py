"""How long a fit is, in full passes over what its training loaders hold: how far it got, and how far it is going to get."""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.settings import loaders_in
from lightning_metahp.trainer_internals import batches_trained, combination_mode, has_read_all, training_loader
from metahp_tuning.run_length import planned_passes


class PassCounter:
    """Counts the batches of a fit and says how many full passes they are.

    A limit of the batches makes an epoch no pass, several optimizers make a batch no two. Of a stream without a length it is known once its
    first pass is over.
    """

    def __init__(self) -> None:
        self.n_batches = 0
        self._in_pass: int | None = None

    def start(self, trainer: Trainer) -> None:
        """Begin to count, from where a checkpoint left off."""
        self.n_batches = batches_trained(trainer)
        self._in_pass = batches_in_pass(training_loader(trainer))

    def end_epoch(self, trainer: Trainer, n_batches: int) -> None:
        """Take note of how many batches a stream had."""
        if self._in_pass is None and has_read_all(trainer) and n_batches < trainer.num_training_batches:
            self._in_pass = n_batches

    @property
    def passes(self) -> float | None:
        """Full passes so far, None where unknown."""
        return self.n_batches / self._in_pass if self._in_pass else None


def batches_in_pass(loaders: Any) -> int | None:
    """Return how many batches training loaders have together without a limit, None where one of them does not know."""
    try:
        lengths = [len(loader) for loader in loaders_in(loaders)]
    except Exception:  # a stream has no length, and a user's own __len__ may fail in any way
        return None
    if not lengths:
        return None
    return min(lengths) if combination_mode(loaders) == "min_size" else max(lengths)


def planned_epochs(trainer: Trainer, module: LightningModule, loaders: Any) -> float | None:
    """Return how many full passes a fit is going to make, None where unknown.

    Args:
        trainer: A trainer in its ``setup``.
        module: The module.
        loaders: The training loaders as a look before the start found them, None for none.
    """
    epochs = trainer.max_epochs if trainer.max_epochs is not None and trainer.max_epochs >= 0 else None
    steps = trainer.max_steps if trainer.max_steps >= 0 else None
    if steps is not None and not module.automatic_optimization:
        return None  # how many steps such a module makes of a batch is its own affair
    n_batches = batches_in_pass(loaders)
    if n_batches is not None:
        n_batches = math.ceil(n_batches / max(1, trainer.world_size))  # each process will load its share
    limit = None if trainer.limit_train_batches == 1.0 and isinstance(trainer.limit_train_batches, float) else trainer.limit_train_batches
    return planned_passes(epochs, steps, n_batches=n_batches, limit=limit, accumulation=max(1, trainer.accumulate_grad_batches))
