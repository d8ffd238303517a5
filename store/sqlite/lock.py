"""A lock that every file system has: a file that only one process can create.

Network file systems may have no locks between machines, or pretend to have them. There every transaction of ours, and every
reading, holds ``<history>.lock``; on local disks nothing of this is used.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from store import environment
from store.forks import call_in_child

logger = logging.getLogger(__name__)

LOCK_STALE_AFTER_S = 600.0
"""A lock of another machine that is older than this was left by a process that is gone."""

_POLL_S = 0.005
_MAX_POLL_S = 0.05

# One holder of a file per process, whatever its threads: a thread that holds it may take it again.
_held: dict[Path, threading.RLock] = {}
_depth: dict[Path, int] = {}
_guard = threading.Lock()


def lock_path(history_path: Path) -> Path:
    """Return the lock file of a history."""
    return Path(f"{history_path}.lock")


@contextlib.contextmanager
def held_lock(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock file; the same thread may hold it twice.

    Args:
        path: The lock file.
        timeout_s: How long to wait for its holder, in seconds.

    Raises:
        sqlite3.OperationalError: If it is held for longer, as SQLite reports its own locks.
        OSError: If the file cannot be made.
    """
    with _guard:
        own = _held.setdefault(path, threading.RLock())
    if not own.acquire(timeout=timeout_s):
        raise sqlite3.OperationalError(f"database is locked (by another thread holding {path})")
    try:
        if _depth.get(path, 0) == 0:
            _create(path, timeout_s)
        _depth[path] = _depth.get(path, 0) + 1
        try:
            yield
        finally:
            _depth[path] -= 1
            if _depth[path] == 0:
                with contextlib.suppress(FileNotFoundError):  # somebody took it for stale
                    path.unlink()
    finally:
        own.release()


def _create(path: Path, timeout_s: float) -> None:
    mine = json.dumps({"host": environment.host_hash(), "pid": os.getpid(), "at": time.time()}).encode()
    deadline = time.monotonic() + timeout_s
    pause = _POLL_S
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            if _remove_stale(path):
                continue
            if time.monotonic() > deadline:
                raise sqlite3.OperationalError(f"database is locked by {_holder(path)}; delete {path} if that one is gone") from None
            time.sleep(pause)
            pause = min(_MAX_POLL_S, pause * 1.5)
            continue
        try:
            os.write(descriptor, mine)
        finally:
            os.close(descriptor)
        return


def _holder(path: Path) -> str:
    try:
        found = json.loads(path.read_bytes())
        here = "this machine" if found["host"] == environment.host_hash() else "another machine"
        return f"process {int(found['pid'])} of {here}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"


def _remove_stale(path: Path) -> bool:
    """Remove a lock whose process is gone; return whether there is none any more."""
    try:
        content, age_s = path.read_bytes(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    except OSError:
        return False
    try:
        found = json.loads(content)
        is_here = found["host"] == environment.host_hash()
        is_gone = is_here and not environment.is_process_alive(int(found["pid"]))
        is_gone |= not is_here and age_s > LOCK_STALE_AFTER_S
    except (ValueError, KeyError, TypeError):
        is_gone = age_s > LOCK_STALE_AFTER_S  # killed between making and filling it
    if not is_gone:
        return False
    # Renaming first: of several that find it stale, one wins. What it got must be what it read, else it goes back.
    aside = path.with_name(f"{path.name}.{os.getpid()}-{os.urandom(3).hex()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return True
    if aside.read_bytes() != content:
        with contextlib.suppress(OSError):  # a third one has it by now; its own holder notices nothing
            os.link(aside, path)
    else:
        logger.warning("The lock %s was left by a process that is gone and is removed.", path)
    aside.unlink()
    return True


def _forget_inherited() -> None:
    """After a fork: what the parent holds is the parent's."""
    global _guard
    _held.clear()
    _depth.clear()
    _guard = threading.Lock()


call_in_child(_forget_inherited)
