"""The few private corners of Lightning that we need, in one place: each has a test, and each failure has a harmless answer."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder

_log = logging.getLogger(__name__)


def is_tuner_probe(trainer: Trainer) -> bool:
    """Say whether this fit only serves ``Tuner.lr_find`` or ``Tuner.scale_batch_size`` and ends before training."""
    finders = [callback for callback in trainer.callbacks if isinstance(callback, BatchSizeFinder | LearningRateFinder)]  # type: ignore[attr-defined]
    return any(getattr(finder, "_early_exit", False) for finder in finders)


def fields_of_finders(trainer: Trainer, module: LightningModule) -> dict[str, str]:
    """Return the raw names that Lightning's own finders will set, with the name of the finder."""
    fields: dict[str, str] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, LearningRateFinder) and getattr(callback, "_update_attr", True):
            fields[getattr(callback, "_attr_name", "") or "learning_rate"] = "LearningRateFinder"
        elif isinstance(callback, BatchSizeFinder):
            fields[getattr(callback, "_batch_arg_name", "batch_size")] = "BatchSizeFinder"
    return fields


def loaders_passed_to_fit(trainer: Trainer) -> Any | None:
    """Return what was passed as ``fit(train_dataloaders=...)``, None where a module or datamodule makes the loaders."""
    source = getattr(getattr(trainer.fit_loop, "_data_source", None), "instance", None)
    return None if isinstance(source, LightningModule | LightningDataModule) else source


def resume_path(trainer: Trainer) -> str | None:
    """Return the checkpoint that this fit will resume from, None if it starts afresh.

    ``fit(ckpt_path=...)`` stays a local variable of the Trainer until after ``setup``, so it is looked up in the calling frames.
    Where a release has moved it, a resumed run is noticed when the checkpoint is loaded, and rewritten values are put back then.
    """
    frame = sys._getframe()
    while True:
        if frame.f_code.co_name == "_run" and frame.f_locals.get("self") is trainer:
            path = frame.f_locals.get("ckpt_path")
            return None if path is None else str(path)
        if frame.f_back is None:
            break
        frame = frame.f_back
    path = trainer.ckpt_path
    return None if path is None else str(path)


def is_finder_checkpoint(trainer: Trainer) -> bool:
    """Say whether the checkpoint being loaded is the one that Lightning's finders save and put back around their probes."""
    return os.path.basename(str(trainer.ckpt_path)).startswith((".lr_find_", ".scale_batch_size_"))


def logged_in_this_loop(trainer: Trainer) -> dict[str, Any] | None:
    """Return the names that the running loop has logged, with the metric object behind each where one was logged.

    Returns:
        ``{name: torchmetrics object or None}``, or None where this release keeps the results elsewhere.
    """
    try:
        results = trainer._results
        if results is None:
            return None
        metrics = results.metrics(on_step=False)
        found: dict[str, Any] = dict.fromkeys([*metrics["log"], *metrics["callback"]])
        for _, item in results.valid_items():
            for name in results._forked_name(item, on_step=False):
                if name in found and not item.is_tensor:
                    found[name] = item.value
        return found
    except (AttributeError, KeyError, TypeError) as error:
        _log.debug("the results of the running loop could not be read: %s", error)
        return None


def set_initial_hparam(holder: Any, name: str, value: Any) -> None:
    """Make the hyperparameters that loggers receive say what is in force: they get a copy made in ``__init__``."""
    initial = getattr(holder, "_hparams_initial", None)
    if isinstance(initial, Mapping) and name in initial:
        initial[name] = value  # type: ignore[index]
