"""Which of the Trainer's metrics are new since we last looked: it keeps old values beside new ones."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer

from lightning_metahp.trainer_internals import results_of_training, step_items


class FreshMetrics:
    """Tells new values from those that were already taken, without reading a number from the device.

    The Trainer shows the same value as a new tensor object each time it is asked, but the memory behind it stays. We keep what
    we have seen, so that memory cannot be used again for a new value while we compare.
    """

    def __init__(self) -> None:
        self._seen: dict[str, Any] = {}
        self._results: Mapping[str, Any] = {}
        self._n_results = -1
        self._items: list[tuple[str, Any]] = []

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

    def take_step(self, trainer: Trainer, wanted: str | None = None) -> dict[str, Any]:
        """Return the new values of the training step that just ended; a small part of the time of ``take``.

        Args:
            trainer: The running trainer.
            wanted: As for ``take``.

        Returns:
            As ``take``. Nobody changes these values any more: each step's are objects of their own.
        """
        results = results_of_training(trainer)
        if results is not self._results or len(results) != self._n_results:
            items = step_items(results)
            if items is None:
                return self.take(trainer, wanted=wanted)
            self._results, self._n_results, self._items = results, len(results), items
        fresh: dict[str, Any] = {}
        seen = self._seen
        for name, item in self._items:
            value = item._forward_cache
            # What we keep lives on, so that no later value can take its identity.
            if value is not seen.get(name) and value is not None:
                fresh[name] = seen[name] = value
        if wanted is not None and wanted not in fresh and f"{wanted}_step" in fresh:
            fresh[wanted] = self._seen[wanted] = fresh[f"{wanted}_step"]
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
