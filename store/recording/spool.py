"""Where operations wait that could not be written: JSON lines beside the history, taken in by the next one that opens it.

One file per run and process. An appender locks its file for the moment of one write; whoever takes it in renames it first, under
the same lock, so that neither waits for the other's database work. On a network file system, whose locks cannot be trusted, each
write is a file of its own that appears complete. Taking in twice changes nothing, so a crash in between is harmless.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import platformdirs

from store.sqlite.connection import make_directories, transaction
from store.sqlite.filesystem import is_on_network
from store.sqlite.operations import Operation, apply_operations, spooled

try:
    import fcntl
except ImportError:  # Windows, where renaming an open file fails: the file is then taken in the next time
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

_TAKEN = ".taken"
REJECTED = ".rejected"
_MAX_ATTEMPTS = 100  # at a directory that others remove whenever it is empty
_BATCH_OPERATIONS = 2_000
"""Lines taken in with one transaction: a spool may have grown for days."""

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


def spool_directories(history_path: Path) -> tuple[Path, Path, Path]:
    """Return where operations may wait: beside the history; else in the user's state folder; else in the temporary directory."""
    digest = hashlib.sha256(os.fsencode(history_path)).hexdigest()[:12]
    user = os.getuid() if hasattr(os, "getuid") else 0
    return (
        Path(f"{history_path}.spool"),
        state_directory() / f"{digest}.spool",
        Path(tempfile.gettempdir()) / f"metahp-{user}-{digest}.spool",
    )


def state_directory() -> Path:
    """Return the folder of the user that holds spools which could not lie beside their history."""
    folder = platformdirs.user_state_path("metahp", appauthor=False) / "spool"
    # a user without a home, as containers have
    return Path(tempfile.gettempdir()) / "metahp-spool" if str(folder).startswith("~") else folder


def append(history_path: Path, operations: Sequence[Operation]) -> Path:
    """Write operations of any number of runs to their spool files.

    Returns:
        The directory they wait in.

    Raises:
        OSError: If no directory can be written.
    """
    by_run: dict[str, list[Operation]] = {}
    for operation in operations:
        by_run.setdefault(operation["run_id"], []).append(operation)
    first: OSError | None = None
    for directory in spool_directories(history_path):
        try:
            return _append_to(directory, by_run)
        except OSError as error:
            logger.debug("The spool %s cannot be written: %s", directory, error)
            first = first or error
    raise first or OSError("no spool")


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
            try:
                count += _ingest_file(connection, file)
            except OSError as error:
                logger.warning("%s waits for the history, but cannot be read: %s", file, error)
        with contextlib.suppress(OSError):  # not empty: somebody writes right now
            directory.rmdir()
    return count


def apply_waiting(connection: sqlite3.Connection, history_path: Path) -> int:
    """Write what waits for one history into a copy of it, and leave every file where it is.

    Returns:
        Number of operations.
    """
    count = 0
    for file in waiting_files(history_path):
        if file.name.endswith(REJECTED):
            continue
        with contextlib.suppress(OSError, *_UNUSABLE):  # it stays where it is, and its own history reports what is wrong
            for operations, _ in _batches(file):
                with transaction(connection):
                    apply_operations(connection, operations)
                count += len(operations)
    return count


def has_waiting(history_path: Path) -> bool:
    """Return whether something may wait for this history."""
    return any(directory.is_dir() for directory in spool_directories(history_path))


def waiting_files(history_path: Path) -> list[Path]:
    """Return the files that wait for this history, rejected ones included, wherever they are."""
    found: list[Path] = []
    for directory in spool_directories(history_path):
        if directory.is_dir() and _is_ours(directory):
            found += sorted(file for file in directory.iterdir() if file.name.endswith((".jsonl", _TAKEN, REJECTED)))
    return found


def _append_to(directory: Path, by_run: dict[str, list[Operation]]) -> Path:
    is_shared = is_on_network(directory)
    for run_id, operations in by_run.items():
        # allow_nan=False: a bare NaN would not be JSON; values carry their kind instead
        lines = "".join(json.dumps(spooled(operation), separators=(",", ":"), allow_nan=False) + "\n" for operation in operations)
        if is_shared:
            _write_whole(directory, f"{run_id}-{os.getpid()}-{time.time_ns()}-{os.urandom(3).hex()}", lines.encode())
        else:
            _append_lines(directory / f"{run_id}-{os.getpid()}.jsonl", lines.encode())
    return directory


def _open_in(directory: Path, file: Path, flags: int) -> int:
    """Open a file in a directory that is made where needed, and is nobody else's."""
    for attempt in range(_MAX_ATTEMPTS):
        try:
            make_directories(directory)
            if not _is_ours(directory):
                raise PermissionError(f"{directory} belongs to another user")
            if hasattr(os, "getuid") and directory.stat().st_mode & 0o077:
                directory.chmod(0o700)
            return os.open(file, flags, 0o600)
        except FileNotFoundError:
            # somebody took everything in and removed the empty directory between two of these lines
            if attempt == _MAX_ATTEMPTS - 1:
                raise
    raise AssertionError("unreachable")


def _write_whole(directory: Path, name: str, data: bytes) -> None:
    """Write a file of its own, seen by others only when complete: file locks cannot be relied upon on a network file system."""
    part = directory / f"{name}.part"
    descriptor = _open_in(directory, part, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        _write_all(descriptor, data)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    os.rename(part, directory / f"{name}.jsonl")


def _append_lines(path: Path, data: bytes) -> None:
    """Append whole lines or nothing, in a directory that is created where needed."""
    while True:
        descriptor = _open_in(path.parent, path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        try:
            with _locked(descriptor):
                if not _is_same_file(descriptor, path):
                    continue  # taken in between opening and locking
                size = os.fstat(descriptor).st_size
                is_torn = size > 0 and hasattr(os, "pread") and os.pread(descriptor, 1, size - 1) != b"\n"
                try:  # a killed process of the same number may have left half a line
                    _write_all(descriptor, b"\n" + data if is_torn else data)
                except OSError:
                    os.ftruncate(descriptor, size)
                    raise
                return
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


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
    count = damaged = 0
    try:
        for operations, n_damaged in _batches(file):
            damaged += n_damaged
            with transaction(connection):
                apply_operations(connection, operations)
            count += len(operations)
    except FileNotFoundError:
        return 0  # another process took the same file in, to the same effect
    except _UNUSABLE as error:
        logger.warning("%s could not be taken into the history and is kept as %s: %s", file, REJECTED, error)
        _reject(file)
        return 0
    if damaged:
        logger.warning("%d lines of %s are damaged; the other %d were taken in.", damaged, file, count)
        _reject(file)
    else:
        file.unlink(missing_ok=True)
    return count


def _reject(file: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # another process came to the same conclusion
        file.replace(file.with_name(file.name + REJECTED))


def _batches(file: Path) -> Iterator[tuple[list[Operation], int]]:
    """Read a file a piece at a time, whatever its size: operations, and how many lines among them are damaged."""
    operations: list[Operation] = []
    damaged = 0
    with file.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                operation = json.loads(line)
                operation["op"], operation["run_id"]
                operations.append(operation)
            except (ValueError, KeyError, TypeError):
                damaged += 1
            if len(operations) >= _BATCH_OPERATIONS:
                yield operations, damaged
                operations, damaged = [], 0
    yield operations, damaged


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
    """Return whether a directory belongs to this user: the temporary directory is open to everybody."""
    return not hasattr(os, "getuid") or directory.stat().st_uid == os.getuid()
