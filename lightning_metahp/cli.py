"""``MetaHPCLI``: a ``LightningCLI`` whose runs are logged."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningCLI

from lightning_metahp.callback import MetaHPCallback


class MetaHPCLI(LightningCLI):
    """A ``LightningCLI`` that adds a ``MetaHPCallback`` to its Trainer, unless the configuration has one already.

    It takes the arguments of ``LightningCLI``, and needs jsonargparse as that does. A ``MetaHParams`` listed among the callbacks
    works as everywhere, and an optimizer that the CLI itself configures is out of its reach.

    Example:
        >>> MetaHPCLI(LitModel, LitData)  # doctest: +SKIP
    """

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the Trainer with the callback in it.

        Args:
            **kwargs: Further arguments of the Trainer.
        """
        trainer = super().instantiate_trainer(**kwargs)
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if not any(isinstance(callback, MetaHPCallback) for callback in callbacks):
            # First, since Lightning wants checkpoints last.
            callbacks.insert(0, MetaHPCallback())
        return trainer
