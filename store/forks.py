"""Forks: our threads stay out of SQLite while the process forks, and the child inherits no lock of theirs.

A fork copies SQLite's own locks as they are. One that another thread holds at that moment is never released in the child, and
whatever opens a database there, such as the data set of a data-loader worker, waits forever.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator

FORK_WAIT_S = 1.0
"""How long a fork waits for our threads to leave SQLite, and they for the fork. SQLite holds no lock while it waits for other processes."""

_changed = threading.Condition()
_inside: Counter[int] = Counter()  # thread -> how deep it is in SQLite
_forking: set[int] = set()


@contextlib.contextmanager
def using_sqlite() -> Iterator[None]:
    """Use SQLite in this thread: no other thread forks meanwhile. May be nested."""
    thread = threading.get_ident()
    with _changed:
        if not _inside[thread]:
            _changed.wait_for(lambda: not _forking - {thread}, FORK_WAIT_S)
        _inside[thread] += 1
    try:
        yield
    finally:
        with _changed:
            _inside[thread] -= 1
            if not _inside[thread]:
                del _inside[thread]
                _changed.notify_all()


def call_in_child(function: Callable[[], None]) -> None:
    """Have a function called in every forked child, where there are forks."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)


def _before_fork() -> None:
    thread = threading.get_ident()
    with _changed:
        _forking.add(thread)
        _changed.wait_for(lambda: not _inside.keys() - {thread}, FORK_WAIT_S)


def _after_in_parent() -> None:
    with _changed:
        _forking.discard(threading.get_ident())
        _changed.notify_all()


def _after_in_child() -> None:
    global _changed
    _changed = threading.Condition()
    _forking.clear()
    for thread in _inside.keys() - {threading.get_ident()}:
        del _inside[thread]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_in_parent, after_in_child=_after_in_child)
