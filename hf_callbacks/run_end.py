"""How a Trainer's run ends where no event shows it: an exception that ends the program, and NaN losses, which the Trainer hides."""

from __future__ import annotations

import logging
import math
import sys
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import torch
from torch import nn

logger = logging.getLogger(__name__)

_MAX_WEIGHTS_LOOKED_AT = 8
"""NaN gradients poison every weight they reach in one step, so a few small tensors are enough."""

T = TypeVar("T")
Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


class ExceptionHook:
    """Reports an exception that ends the program to an object, and passes it on to the hook before it.

    Installed while a run is open. If somebody else installs a hook on top of ours, ours stays in their chain and only passes on.
    The object is not kept alive: once a program has dropped it, its run is over anyway.

    Args:
        owner: The object.
        report: What to call with the object and the exception.
    """

    def __init__(self, owner: T, report: Callable[[T, BaseException], None]) -> None:
        reference = weakref.ref(owner)

        def report_to_owner(error: BaseException) -> None:
            alive = reference()
            if alive is not None:
                report(alive, error)

        self._report: Callable[[BaseException], None] | None = report_to_owner
        self._dropped = weakref.finalize(owner, self.remove)
        self._dropped.atexit = False
        self._previous: Hook = sys.excepthook
        # One object for installing and comparing: a bound method is a new object each time it is read.
        self._hook: Hook = self._call
        sys.excepthook = self._hook

    def remove(self) -> None:
        """Stop listening, and leave the chain where we are its last link."""
        self._report = None
        self._dropped.detach()
        if sys.excepthook is self._hook:
            sys.excepthook = self._previous

    def _call(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report = self._report
        try:
            if report is not None:
                report(error)
        except Exception as problem:  # the user's own traceback matters more than ours
            logger.debug("The run's end could not be recorded: %s", problem)
        finally:
            self._previous(kind, error, trace)


def last_caught_exception() -> BaseException | None:
    """Return the exception being handled now, else the last one a notebook or an interactive session showed."""
    current = sys.exc_info()[1]
    if current is not None:
        return current
    shown = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    return shown if isinstance(shown, BaseException) else None


class DivergenceWatch:
    """Notices NaN that ``logging_nan_inf_filter`` hides, from what is logged anyway: constant time, no synchronisation.

    The filter replaces a NaN loss by a mean of earlier ones. The gradient norm is not filtered. Under fp16 a single bad gradient
    is normal (the scaler skips that step), so a finite evaluation loss, or a finite gradient norm, afterwards clears it. Other
    metrics do not: an accuracy of NaN predictions is a number.

    Args:
        objective: Name of the objective, None if there is none.
    """

    def __init__(self, objective: str | None = None) -> None:
        self._objective = objective
        self._is_bad = False

    def see(self, logs: Mapping[str, Any]) -> None:
        """Look at one set of logged values."""
        for name, value in logs.items():
            if name == "grad_norm" or (name.startswith("eval_") and name.endswith("loss")):
                self._is_bad = not _is_finite(value)
            elif name == self._objective and not _is_finite(value):
                self._is_bad = True

    def is_diverged(self, model: nn.Module | None) -> bool:
        """Say whether the training ended in NaN.

        Args:
            model: The trained model; a few of its weights are looked at, for runs too short to have logged a gradient norm.
        """
        return self._is_bad or (model is not None and _has_bad_weights(model))


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except (TypeError, ValueError, OverflowError):
        return True  # not a number: no sign of divergence


def _has_bad_weights(model: nn.Module) -> bool:
    trained = sorted((p for p in model.parameters() if p.requires_grad and p.numel() > 0), key=torch.Tensor.numel)
    return any(not bool(torch.isfinite(p.detach()).all()) for p in trained[:_MAX_WEIGHTS_LOOKED_AT])
