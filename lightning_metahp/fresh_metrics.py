"""Which of the Trainer's metrics are new since we last looked: it keeps old values beside new ones."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from lightning.pytorch import Trainer


class FreshMetrics:
    """Tells new values from those that were already taken, without reading a number from the device.

    The Trainer shows the same value as a new tensor object each time it is asked, but the memory behind it stays. We keep what
    we have seen, so that memory cannot be used again for a new value while we compare.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}

    def take(self, trainer: Trainer, only: Collection[str] | None = None, wanted: str | None = None) -> dict[str, Any]:
        """Return the new values and remember them as seen.

        Args:
            trainer: The running trainer.
            only: Take these names alone; the others stay new.
            wanted: A name to take also where it is an alias: ``val_loss`` of ``val_loss_epoch``.

        Returns:
            Name -> scalar tensor or number, as the module logged it.
        """
        logged, monitored = dict(trainer.logged_metrics), dict(trainer.callback_metrics)
        fresh: dict[str, Any] = {}
        for name, value in {**monitored, **logged}.items():
            is_alias = name not in logged and name != wanted and any(f"{name}_{fork}" in logged for fork in ("step", "epoch"))
            if is_alias or (only is not None and name not in only) or not _is_scalar(value):
                continue
            if name not in self._seen or not _is_same(self._seen[name], value):
                fresh[name] = self._seen[name] = value
        return fresh


def _is_scalar(value: Any) -> bool:
    return value.numel() == 1 if isinstance(value, torch.Tensor) else isinstance(value, int | float)


def _is_same(old: Any, new: Any) -> bool:
    if old is new:
        return True
    if not (isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor)):
        return False
    try:
        return old.device == new.device and old.data_ptr() == new.data_ptr()
    except RuntimeError:  # tensors without memory of their own
        return False
