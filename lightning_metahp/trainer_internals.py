"""The few private corners of Lightning that we need, in one place: each has a test, and each failure has a harmless answer."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

import lightning
from lightning.pytorch import Callback, LightningModule, Trainer

_log = logging.getLogger(__name__)

# ``lightning.pytorch`` and ``pytorch_lightning`` are one framework installed twice: equal sources, different classes. A callback of ours
# works under both, so it must not ask for a class of one of them.
_PACKAGES = ("lightning.pytorch", "pytorch_lightning")

_NO_RESULTS: Mapping[str, Any] = {}

_HOOKS_OF_A_STEP = ("on_train_batch_start", "on_before_zero_grad", "on_before_backward", "on_after_backward", "on_before_optimizer_step")
_ASKS_FIRST = {(2, 5), (2, 6)}
"""Releases known to call a hook of a callback only where it is callable."""


def base_of(cls: type, *names: str) -> type | None:
    """Return the class of Lightning with one of these names that a class is or derives from, None if there is none."""
    return next((base for base in cls.__mro__ if base.__name__ in names and base.__module__.startswith(_PACKAGES)), None)


def is_kind(item: object, *names: str) -> bool:
    """Say whether an object is an instance of Lightning's class of one of these names."""
    return base_of(type(item), *names) is not None


def overrides(item: Any, method: str) -> bool:
    """Say whether a module or datamodule has its own version of a hook, on its class or on itself."""
    base = base_of(type(item), "LightningModule", "LightningDataModule")
    return method in vars(item) or (base is not None and getattr(type(item), method, None) is not getattr(base, method, None))


def is_tuner_probe(trainer: Trainer) -> bool:
    """Say whether this fit only serves ``Tuner.lr_find`` or ``Tuner.scale_batch_size`` and ends before training."""
    finders = [callback for callback in trainer.callbacks if is_kind(callback, "BatchSizeFinder", "LearningRateFinder")]  # type: ignore[attr-defined]
    return any(getattr(finder, "_early_exit", False) for finder in finders)


def why_no_run(trainer: Trainer) -> str | None:
    """Say why a fit is no training whose outcome means anything, or None where it is one."""
    if trainer.fast_dev_run:  # type: ignore[attr-defined]
        return "fast_dev_run"
    if is_tuner_probe(trainer):
        return "a probe of the tuner"
    if trainer.overfit_batches:  # type: ignore[attr-defined]
        return "overfit_batches"
    return "barebones" if getattr(trainer, "barebones", False) else None


def fields_of_others(trainer: Trainer, module: LightningModule) -> dict[str, str]:
    """Return the raw names that other callbacks will set, with the name of the callback."""
    fields: dict[str, str] = {}
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if is_kind(callback, "LearningRateFinder") and getattr(callback, "_update_attr", True):
            fields[getattr(callback, "_attr_name", "") or "learning_rate"] = "LearningRateFinder"
        elif is_kind(callback, "BatchSizeFinder"):
            fields[getattr(callback, "_batch_arg_name", "batch_size")] = "BatchSizeFinder"
        elif is_kind(callback, "GradientAccumulationScheduler"):
            fields["accumulate_grad_batches"] = "GradientAccumulationScheduler"
    return fields


def methods_out_of_reach(trainer: Trainer, module: LightningModule, me: object) -> tuple[str, ...]:
    """Return the module's hooks that run later in an ordinary fit, but have run or are replaced in this one."""
    found = ["configure_optimizers"] if optimizer_is_replaced(module) else []
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    before = callbacks[: callbacks.index(me)] if me in callbacks else []
    if any(is_kind(callback, "WeightAveraging") for callback in before):
        found.append("configure_model")  # it makes the layers in its own setup, to copy them
    return tuple(found)


def optimizer_is_replaced(module: LightningModule) -> bool:
    """Say whether LightningCLI has built the optimizer itself and put it in place of ``configure_optimizers``."""
    return "configure_optimizers" in vars(module)


def loaders_passed_to_fit(trainer: Trainer) -> Any | None:
    """Return what was passed as ``fit(train_dataloaders=...)``, None where a module or datamodule makes the loaders."""
    source = getattr(getattr(trainer.fit_loop, "_data_source", None), "instance", None)
    return None if is_kind(source, "LightningModule", "LightningDataModule") else source


@dataclass(frozen=True, slots=True)
class Resume:
    """What is known of a resume before the Trainer says it.

    Attributes:
        path: The checkpoint, None where the run starts afresh.
        is_known: Whether the running call was found at all.
        weights_only: As the call was given it, None where it was not.
    """

    path: str | None = None
    is_known: bool = True
    weights_only: bool | None = None


def find_resume(trainer: Trainer) -> Resume:
    """Find the checkpoint that this fit will resume from.

    ``fit(ckpt_path=...)`` stays a local variable of the Trainer until after ``setup``, resolved already (``last``, a path, what a
    cluster saved), so it is looked up in the calling frames. Where a release has moved it, ``is_known`` is false.
    """
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "_run" and frame.f_locals.get("self") is trainer and "ckpt_path" in frame.f_locals:
            path = frame.f_locals["ckpt_path"]
            return Resume(None if path is None else str(path), True, frame.f_locals.get("weights_only"))
        frame = frame.f_back
    path = trainer.ckpt_path
    return Resume(None if path is None else str(path), path is not None)


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
        found: dict[str, Any] = {}
        present = results.dataloader_idx
        try:
            # With several loaders the results show those of one at a time.
            for index in {item.meta.dataloader_idx for item in results.values()}:
                results.dataloader_idx = index
                metrics = results.metrics(on_step=False)
                found |= dict.fromkeys([*metrics["log"], *metrics["callback"]])
                for _, item in results.valid_items():
                    for name in results._forked_name(item, on_step=False):
                        if name in found and not item.is_tensor:
                            found[name] = item.value
        finally:
            results.dataloader_idx = present
        return found
    except (AttributeError, KeyError, TypeError) as error:
        _log.debug("the results of the running loop could not be read: %s", error)
        return None


def names_in_training(trainer: Trainer) -> set[str]:
    """Return the names that training steps have logged in this epoch, also those whose value comes with its end."""
    try:
        return {item.meta.name for item in results_of_training(trainer).values()}
    except AttributeError as error:
        _log.debug("the results of the training loop could not be read: %s", error)
        return set()


def training_loader(trainer: Trainer) -> Any:
    """Return what holds the training loaders together, or where this release keeps it elsewhere the loaders themselves."""
    combined = getattr(trainer.fit_loop, "_combined_loader", None)
    return trainer.train_dataloader if combined is None else combined


def combination_mode(loaders: Any) -> str:
    """Return how several training loaders are combined; as Lightning does it by itself where nobody has said it."""
    return str(getattr(loaders, "_mode", "max_size_cycle"))


def batches_trained(trainer: Trainer) -> int:
    """Return how many batches this trainer has trained with so far, those before a checkpoint included."""
    try:
        total: Any = trainer.fit_loop.epoch_loop.batch_progress.total
        return int(total.processed)
    except AttributeError as error:
        _log.debug("the progress of the training loop could not be found: %s", error)
        return 0


def has_read_all(trainer: Trainer) -> bool:
    """Say whether the last batch trained with was the last one that the training loaders had, or that a limit left."""
    try:
        return bool(trainer.fit_loop.epoch_loop.batch_progress.is_last_batch)
    except AttributeError as error:
        _log.debug("the progress of the training loop could not be found: %s", error)
        return False


def ends_epoch(trainer: Trainer) -> bool:
    """Say whether a validation that runs now is followed by the end of its training epoch."""
    return has_read_all(trainer) or trainer.should_stop


def validation_source(trainer: Trainer) -> Any | None:
    """Return where the validation loaders come from (``is_defined()``, ``is_module()``, ``instance``, ``name``), None where unknown."""
    return getattr(getattr(trainer.fit_loop.epoch_loop, "val_loop", None), "_data_source", None)


def set_initial_hparam(holder: Any, name: str, value: Any) -> None:
    """Make the hyperparameters that loggers receive say what is in force: they get a copy made in ``__init__``."""
    initial = getattr(holder, "_hparams_initial", None)
    if isinstance(initial, Mapping) and name in initial:
        initial[name] = value  # type: ignore[index]


def results_of_training(trainer: Trainer) -> Mapping[str, Any]:
    """Return where the loop over training batches keeps what was logged, the same object until it ends; empty where there is none."""
    try:
        # not trainer._results, which asks each time which loop is running: that is a third of what a step's logging costs
        return trainer.fit_loop.epoch_loop._results
    except AttributeError as error:
        _log.debug("the results of the training loop could not be found: %s", error)
        return _NO_RESULTS


def step_items(results: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """Return what holds the values that training steps log: ``trainer.logged_metrics`` works them all out anew each time.

    Args:
        results: As ``results_of_loop`` returned it.

    Returns:
        Name and, for each, the object whose ``_forward_cache`` is the value of the last step that logged it. None where this release
        keeps the results elsewhere.
    """
    try:
        items = [item for item in results.values() if item.meta.on_step]
        for item in items:
            _ = item._forward_cache
        return [(f"{item.meta.name}_step" if item.meta.on_epoch else item.meta.name, item) for item in items]
    except AttributeError as error:
        _log.debug("the results of the running step could not be read: %s", error)
        return None


def skip_idle_hooks(callback: Callback) -> None:
    """Spare each training step the calls of hooks that a callback inherits unchanged, until ``call_all_hooks``.

    A call that does nothing costs a step a few microseconds, five of them more than our logging. A Trainer asks whether the attribute
    is callable before each call; a release that was not looked at may not, so there everything stays as it is.
    """
    if tuple(int(part) for part in lightning.__version__.split(".")[:2]) not in _ASKS_FIRST:
        return
    for name in _HOOKS_OF_A_STEP:
        if getattr(type(callback), name) is getattr(Callback, name):
            vars(callback).setdefault(name, None)


def call_all_hooks(callback: Callback) -> None:
    """Undo ``skip_idle_hooks``."""
    for name in _HOOKS_OF_A_STEP:
        if vars(callback).get(name, name) is None:
            del vars(callback)[name]
