"""Logging without a line of code: the callback that ``METAHP_AUTOLOG=1`` adds to every Trainer."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer

from lightning_metahp.callback import RecordingCallback


class AutoLogCallback(RecordingCallback):
    """Logs every fit into the default history, and stands down where the user's own code has a callback of ours."""

    def __init__(self) -> None:
        super().__init__(None, None, None, None)

    @property
    def state_key(self) -> str:
        """A name of its own: two callbacks that keep state may not share one."""
        return "MetaHPAutoLog"

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Get ready for a fit, unless somebody else does."""
        others = [callback for callback in trainer.callbacks if isinstance(callback, RecordingCallback)]  # type: ignore[attr-defined]
        self._records = others == [self]
        super().setup(trainer, pl_module, stage)
