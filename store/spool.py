"""Where operations wait that could not be written: JSON lines beside the history, taken in by the next one that opens it.

One file per run and process. An appender locks its file for the moment of one write; whoever takes it in renames it first, under
the same lock, so that neither waits for the other's database work. Taking in twice changes nothing, so a crash in between is
harmless.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from store.connection import transaction
from store.operations import Operation, apply_operations

try:
    import fcntl
except ImportError:  # Windows, where renaming an open file fails: the file is then taken in the next time
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_TAKEN = ".taken"
_REJECTED = ".rejected"

# What operations of another version, or of a damaged file, may raise; an error of the disk or a lock is none of these.
_UNUSABLE = (
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    sqlite3.ProgrammingError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,
    sqlite3.DataError,
)


def spool_directories(history_path: Path) -> tuple[Path, Path]:
    """Return where operations may wait: beside the history, and in the temporary directory if even that fails."""
    import tempfile  # costs more than this whole module

    digest = hashlib.sha256(os.fsencode(history_path)).hexdigest()[:12]
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(f"{history_path}.spool"), Path(tempfile.gettempdir()) / f"metahp-{user}-{digest}.spool"


def append(history_path: Path, operations: Sequence[Operation]) -> Path:
    """Write operations of any number of runs to their spool files.

    Returns:
        The directory they wait in.

    Raises:
        OSError: If neither directory can be written.
    """
    by_run: dict[str, list[Operation]] = {}
    for operation in operations:
        by_run.setdefault(operation["run_id"], []).append(operation)
    beside, temporary = spool_directories(history_path)
    try:
        return _append_to(beside, by_run)
    except OSError as error:
        logger.debug("The spool %s cannot be written (%s); using %s.", beside, error, temporary)
        return _append_to(temporary, by_run)


def ingest(connection: sqlite3.Connection, history_path: Path) -> int:
    """Take every waiting operation into the history, and delete the files.

    Args:
        connection: Open history, in autocommit mode and outside a transaction.
        history_path: Its path.

    Returns:
        Number of operations taken in.

    Raises:
        sqlite3.Error: If the history cannot be written; the files then stay.
    """
    count = 0
    for directory in spool_directories(history_path):
        if not directory.is_dir() or not _is_ours(directory):
            continue
        for file in _take(directory):
            count += _ingest_file(connection, file)
        with contextlib.suppress(OSError):  # not empty: somebody writes right now
            directory.rmdir()
    return count


def has_waiting(history_path: Path) -> bool:
    """Say whether something may wait for this history."""
    return any(directory.is_dir() for directory in spool_directories(history_path))


def _append_to(directory: Path, by_run: dict[str, list[Operation]]) -> Path:
    for run_id, operations in by_run.items():
        # allow_nan=False: a bare NaN would not be JSON; values carry their kind instead
        lines = "".join(json.dumps(operation, separators=(",", ":"), allow_nan=False) + "\n" for operation in operations)
        _append_lines(directory / f"{run_id}-{os.getpid()}.jsonl", lines.encode())
    return directory


def _append_lines(path: Path, data: bytes) -> None:
    """Append whole lines or nothing, in a directory that is created where needed."""
    while True:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            if not _is_ours(path.parent):
                raise PermissionError(f"{path.parent} belongs to another user")
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # somebody took everything in and removed the empty directory since the line above
        try:
            with _locked(descriptor):
                if not _is_same_file(descriptor, path):
                    continue  # taken in between opening and locking
                size = os.fstat(descriptor).st_size
                try:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(descriptor, view) :]
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
                return
        finally:
            os.close(descriptor)


def _take(directory: Path) -> list[Path]:
    """Rename the waiting files so that nobody appends to them any more; return them, oldest first."""
    for file in sorted(directory.glob("*.jsonl")):
        try:
            descriptor = os.open(file, os.O_RDWR)
        except OSError as error:
            logger.debug("%s cannot be opened now: %s", file, error)
            continue
        try:
            with _locked(descriptor):
                if _is_same_file(descriptor, file):
                    # a name of its own: a file of this name may still wait from an ingest that crashed
                    os.replace(file, file.with_name(f"{file.name}.{os.getpid()}-{os.urandom(3).hex()}{_TAKEN}"))
        except OSError as error:
            logger.debug("%s cannot be taken now: %s", file, error)
        finally:
            os.close(descriptor)
    return sorted(directory.glob(f"*{_TAKEN}"))


def _ingest_file(connection: sqlite3.Connection, file: Path) -> int:
    try:
        lines = file.read_bytes().splitlines()
    except FileNotFoundError:
        return 0  # another process took the same file in, to the same effect
    operations: list[Operation] = []
    damaged = 0
    for line in lines:
        try:
            operation = json.loads(line)
            operation["op"], operation["run_id"]
            operations.append(operation)
        except (ValueError, KeyError, TypeError):
            damaged += 1
    try:
        with transaction(connection):
            apply_operations(connection, operations)
    except _UNUSABLE as error:
        logger.warning("%s could not be taken into the history and is kept as %s: %s", file, _REJECTED, error)
        file.replace(file.with_name(file.name + _REJECTED))
        return 0
    if damaged:
        logger.warning("%d of %d lines of %s are damaged; the rest was taken in.", damaged, len(lines), file)
        file.replace(file.with_name(file.name + _REJECTED))
    else:
        file.unlink(missing_ok=True)
    return len(operations)


@contextlib.contextmanager
def _locked(descriptor: int) -> Iterator[None]:
    """Hold an advisory lock on an open file; closing it releases the lock even after a crash."""
    if fcntl is None:
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    except OSError as error:  # some network file systems have no locks
        logger.debug("No file lock here: %s", error)
        yield
        return
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return False
    here = os.fstat(descriptor)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _is_ours(directory: Path) -> bool:
    """Say whether a directory belongs to this user: the temporary directory is open to everybody."""
    return not hasattr(os, "getuid") or directory.stat().st_uid == os.getuid()
