"""The edge of our callbacks: an error of ours is caught here, warned about once with its cause, and never reaches training."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from store.user_warnings import warn_user

_log = logging.getLogger(__name__)

_Hook = TypeVar("_Hook", bound=Callable[..., Any])


def say(message: str) -> None:
    """Print a message where users see it by default. To be called on rank zero only."""
    print(message, file=sys.stderr, flush=True)


def report(owner: object, doing: str, error: BaseException) -> None:
    """Warn once per callback that something of ours failed."""
    _log.debug("%s failed", doing, exc_info=error)
    if getattr(owner, "_has_reported", False):
        return
    object.__setattr__(owner, "_has_reported", True)
    warn_user(
        f"metahp: {doing} failed with {type(error).__name__}: {str(error).rstrip('.')}. "
        "Training goes on; what is recorded of this run may be "
        "incomplete. Set METAHP=off to switch metahp off."
    )


def guarded(hook: _Hook) -> _Hook:
    """Wrap a hook of a callback so that no error of ours reaches the Trainer."""

    @functools.wraps(hook)
    def wrapper(self: object, *args: Any, **kwargs: Any) -> Any:
        try:
            return hook(self, *args, **kwargs)
        except Exception as error:
            report(self, f"{type(self).__name__}.{hook.__name__}", error)
            return None

    return wrapper  # type: ignore[return-value]
