"""What the Trainer has no event for: ``train()`` itself, what it is called with and the exception that leaves it.

Callbacks are not given the Trainer, and it has no event for an exception. When our callback meets its Trainer for the first time, that
object's class becomes a subclass of the same name whose ``train()`` reports exceptions to the callback, and does what it did before.
Nothing is kept alive by that, ``isinstance`` and ``super()`` work, and pickles name the user's own class.

A callback that is added later meets its Trainer inside ``train()``, which then cannot be wrapped any more. What the loop still calls by
name on the Trainer can: loading batches, the step and the evaluation, where nearly every exception of a training comes from.
"""

from __future__ import annotations

import copyreg
import functools
import inspect
import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from transformers import Trainer

logger = logging.getLogger(__name__)

_WATCHED_CLASSES: dict[type[Trainer], type[Trainer]] = {}
"""A user's class -> the one whose ``train`` reports."""
_LATE_CLASSES: dict[type[Trainer], type[Trainer]] = {}
"""One of those -> the one for the rest of a ``train()`` that began without us."""
_CALLED_BY_LOOP = ("get_batch_samples", "training_step", "evaluate")


class TrainWatcher:
    """A callback that is called around ``train()``."""

    def before_train(self, trainer: Trainer, resume_from_checkpoint: Any, trial: Any) -> None:
        """Take note that training is about to begin, with what ``train`` was given; nothing of it has happened yet."""

    def train_failed(self, trainer: Trainer, error: BaseException) -> None:
        """Take note of the exception that is about to leave ``train()``, whose loop may not have begun."""

    def phases_begin(self) -> None:
        """Take note that the next ``train()`` is the first phase of a longer training."""

    def phases_end(self, trainer: Trainer, error: BaseException | None) -> None:
        """Take note that all phases are over, or which exception is about to leave them."""

    def evaluated(self, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
        """Take note of what was evaluated outside of the Trainer, after its training."""


def calling_trainer() -> Trainer | None:
    """Return the Trainer whose event is being handled right now, None where no Trainer is on the stack."""
    frame = inspect.currentframe()
    while frame is not None:
        owner = frame.f_locals.get("self") if frame.f_code.co_varnames[:1] == ("self",) else None
        if isinstance(owner, Trainer):
            return owner
        frame = frame.f_back
    return None


def watch(trainer: Trainer, *, is_training: bool = False) -> None:
    """Have a Trainer report its ``train()`` to its callbacks; a second call does nothing.

    Args:
        trainer: The Trainer.
        is_training: Whether it is inside a ``train()`` that could not be watched from its beginning.
    """
    cls = type(trainer)
    if is_watched(cls):
        return
    watched = _WATCHED_CLASSES.setdefault(cls, _watched_class(cls))
    try:
        trainer.__class__ = _LATE_CLASSES.setdefault(watched, _late_class(watched)) if is_training else watched
    except TypeError as error:  # a class with its own memory layout: its exceptions are recorded less exactly
        logger.debug("train() of %s cannot be watched: %s", cls.__name__, error)


def is_watched(cls: type[Trainer]) -> bool:
    """Say whether a class is one of ours."""
    return cls in _WATCHED_CLASSES.values() or cls in _LATE_CLASSES.values()


def _watched_class(base: type[Trainer]) -> type[Trainer]:
    @functools.wraps(base.train)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        resume = args[0] if args else kwargs.get("resume_from_checkpoint")
        trial = args[1] if len(args) > 1 else kwargs.get("trial")
        for watcher in watchers_of(self):
            watcher.before_train(self, resume, trial)
        try:
            return base.train(self, *args, **kwargs)
        except BaseException as error:
            for watcher in watchers_of(self):  # asked again: a resumed training may have restored its callbacks
                watcher.train_failed(self, error)
            raise

    return like(base, {"__reduce_ex__": reduced_as(base), "train": train})


def reduced_as(base: type[Any]) -> Callable[..., Any]:
    """Return a ``__reduce_ex__`` for a subclass of ours, so that pickles name the user's own class."""
    reduce_base: Any = base.__reduce_ex__

    def reduce(self: Any, protocol: Any) -> Any:
        reduced = reduce_base(self, protocol)
        if not isinstance(reduced, tuple):
            return reduced
        make, arguments, *rest = reduced
        # By its usual maker pickle insists on the object's own class, which nobody could import.
        make = object.__new__ if make is copyreg.__newobj__ else make  # type: ignore[attr-defined]
        return (make, tuple(base if item is type(self) else item for item in arguments), *rest)

    return reduce


def _late_class(watched: type[Trainer]) -> type[Trainer]:
    """Return the class of a Trainer that our callback met inside ``train()``; the next ``train()`` is watched as any other."""

    @functools.wraps(watched.train)
    def train(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.__class__ = watched
        return self.train(*args, **kwargs)

    methods = {name: getattr(watched, name) for name in _CALLED_BY_LOOP if hasattr(watched, name)}
    return like(watched, {"train": train, **{name: _reporting(method) for name, method in methods.items()}})


def _reporting(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return method(self, *args, **kwargs)
        except BaseException as error:
            # Between the host's own loop and the caller of train() nothing catches; who calls from elsewhere may. An evaluation of
            # several data sets calls itself: who called the outer one decides.
            caller = sys._getframe(1)
            if caller.f_globals.get("__name__") == Trainer.__module__ and caller.f_code.co_name != method.__name__:
                for watcher in watchers_of(self):
                    watcher.train_failed(self, error)
            raise

    return call


def like(base: type[Any], namespace: dict[str, Any]) -> type[Any]:
    """Return a subclass that looks like its base."""
    looks = {"__doc__": base.__doc__, "__module__": base.__module__, "__qualname__": base.__qualname__}
    made: type[Any] = type(base.__name__, (base,), {**looks, **namespace})
    return made


def watchers_of(trainer: Any) -> list[TrainWatcher]:
    """Return those of a Trainer's callbacks that are called around ``train()``."""
    return [callback for callback in trainer.callback_handler.callbacks if isinstance(callback, TrainWatcher)]
