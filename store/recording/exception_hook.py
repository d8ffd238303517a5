"""An exception that ends the program, or was shown last, for a host that has no event for it."""

from __future__ import annotations

import logging
import sys
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

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
