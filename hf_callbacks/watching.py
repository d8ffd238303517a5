"""What the Trainer has no event for: ``train()`` itself, what it is called with and the exception that leaves it.

Callbacks are not given the Trainer, and none of its events tells of an exception. When our callback meets its Trainer for the first
time, that object's class becomes a subclass of the same name whose ``train`` tells the callback, and does what it did before. Nothing
is kept alive by that, ``isinstance`` and ``super()`` work, and pickles name the user's own class.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import logging
from typing import Any

from transformers import Trainer

logger = logging.getLogger(__name__)

_CLASSES: dict[type[Trainer], type[Trainer]] = {}


class TrainWatcher:
    """A callback that wants to know about ``train()``."""

    def before_train(self, trainer: Trainer, resume_from_checkpoint: Any, trial: Any) -> None:
        """Hear that training is about to begin; nothing of it has happened yet.

        Args:
            trainer: The Trainer.
            resume_from_checkpoint: As ``train`` was given it.
            trial: The trial of a hyperparameter search, None outside of one.
        """

    def train_failed(self, error: BaseException) -> None:
        """Hear of the exception that is about to leave ``train()``."""


def calling_trainer() -> Trainer | None:
    """Return the Trainer whose event is being handled right now, None where no Trainer is on the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        if isinstance(owner, Trainer):
            return owner
        frame = frame.f_back
    return None


def watch(trainer: Trainer) -> None:
    """Have the callbacks of a Trainer told about its ``train()``; a second call does nothing."""
    cls = type(trainer)
    if is_watched(cls):
        return
    try:
        trainer.__class__ = _CLASSES.setdefault(cls, _watched_class(cls))
    except TypeError as error:  # a class with a layout of its own: its exceptions are recorded less exactly
        logger.debug("train() of %s cannot be watched: %s", cls.__name__, error)


def is_watched(cls: type[Trainer]) -> bool:
    """Say whether a class is one of ours."""
    return cls in _CLASSES.values()


def _watched_class(base: type[Trainer]) -> type[Trainer]:
    @functools.wraps(base.train)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        resume = args[0] if args else kwargs.get("resume_from_checkpoint")
        trial = args[1] if len(args) > 1 else kwargs.get("trial")
        for watcher in _watchers(self):
            watcher.before_train(self, resume, trial)
        try:
            return base.train(self, *args, **kwargs)
        except BaseException as error:
            for watcher in _watchers(self):  # asked again: a resumed training may have restored its callbacks
                watcher.train_failed(error)
            raise

    def reduce(self: Any, protocol: Any) -> Any:
        reduced = base.__reduce_ex__(self, protocol)
        if not isinstance(reduced, tuple):
            return reduced
        make, arguments, *rest = reduced
        # By its usual maker pickle insists on the object's own class, which nobody could import.
        make = object.__new__ if make is copyreg.__newobj__ else make  # type: ignore[attr-defined]
        return (make, tuple(base if item is made else item for item in arguments), *rest)

    namespace = {
        "__doc__": base.__doc__,
        "__module__": base.__module__,
        "__qualname__": base.__qualname__,
        "__reduce_ex__": reduce,
        "train": train,
    }
    made: type[Trainer] = type(base.__name__, (base,), namespace)
    return made


def _watchers(trainer: Any) -> list[TrainWatcher]:
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, TrainWatcher)]
