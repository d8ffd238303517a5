"""Opening the file of a history: what it is, which journal it may use."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from store.errors import HistoryPathError, HistoryTooNewError, MetaHPError, NotAHistoryError, StorageError
from store.sqlite import schema
from store.sqlite.filesystem import is_on_network
from store.sqlite.lock import held_lock, lock_path

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 30.0
"""How long reading and opening wait for another process's transaction."""

EXTRA_URI_OPTIONS = ""
"""Further options of SQLite's file URI, such as ``&vfs=unix-none``; for trying out file systems that lack something."""

_SMALLEST_DATABASE_BYTES = 512  # one page; SQLite takes a shorter file for an empty one and would write over it


class HistoryConnection(sqlite3.Connection):
    """A connection to a history.

    Attributes:
        lock_file: What every transaction holds on a network file system, None on a local disk.
        busy_timeout_s: How long a statement waits for another process, in seconds.
        is_read_only: Whether nothing can be written: the file lies on a read-only medium, or this is a copy of it.
        opened_as: Options of the URI it was opened with.
        copy: The temporary directory that holds the file, where it is a copy.
    """

    lock_file: Path | None = None
    busy_timeout_s: float = BUSY_TIMEOUT_S
    is_read_only: bool = False
    opened_as: str = ""
    copy: Any = None


def open_database(path: Path, *, create: bool = True, busy_timeout_s: float | None = None) -> HistoryConnection:
    """Open a history in autocommit mode, creating or migrating it where needed.

    A history that cannot be written, on a read-only medium for instance, is opened for reading.

    Args:
        path: Absolute path.
        create: Whether a missing file is created (mode 0600, new directories 0700).
        busy_timeout_s: How long a statement waits for another process, in seconds; default ``BUSY_TIMEOUT_S``.

    Raises:
        HistoryPathError: If the path cannot hold a history.
        NotAHistoryError: If the file is something else.
        HistoryTooNewError: If a newer version wrote it.
        StorageError: If another program keeps it locked.
    """
    _prepare_file(path, create=create)
    connection: HistoryConnection | None = None
    try:
        connection = connect(path, busy_timeout_s)
        _ensure_schema(connection, path)
    except sqlite3.OperationalError as error:
        if connection is not None:
            connection.close()
        if not _is_about_writing(error):
            raise storage_error(path, error) from error
        return _open_for_reading(path, error)
    except sqlite3.DatabaseError as error:
        if connection is not None:
            connection.close()
        is_other = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB
        raise _not_a_history(path, "it is no SQLite database" if is_other else str(error)) from error
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def connect(path: Path, busy_timeout_s: float | None = None) -> HistoryConnection:
    """Open an existing file in autocommit mode, without looking at its schema.

    Args:
        path: Absolute path of an existing file.
        busy_timeout_s: How long a statement waits for another process's lock, in seconds; default ``BUSY_TIMEOUT_S``.
    """
    timeout = BUSY_TIMEOUT_S if busy_timeout_s is None else busy_timeout_s
    connection = _connect(path, "mode=rw" if os.access(path, os.W_OK) else "mode=ro", timeout)
    try:
        if not is_on_network(path):
            connection.execute("PRAGMA synchronous = NORMAL")
            return connection
        if not connection.is_read_only:
            connection.lock_file = lock_path(path)
        with guarded(connection):  # every pragma may read the file
            connection.execute("PRAGMA mmap_size = 0")
            if not connection.is_read_only:
                _leave_wal(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def set_busy_timeout(connection: HistoryConnection, seconds: float | None = None) -> None:
    """Set how long a statement waits for another process, in seconds; None for ``BUSY_TIMEOUT_S``."""
    connection.busy_timeout_s = BUSY_TIMEOUT_S if seconds is None else seconds
    connection.execute(f"PRAGMA busy_timeout = {int(connection.busy_timeout_s * 1000)}")


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Hold the write lock from the first statement on: a transaction that starts by reading could lose it half way."""
    with guarded(connection):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            if connection.in_transaction:  # a full disk rolls back by itself
                connection.execute("ROLLBACK")
            raise
        try:
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # nothing was written: a transaction left open would swallow the next one
                connection.execute("ROLLBACK")
            raise


@contextlib.contextmanager
def snapshot(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Read one state of the file."""
    with guarded(connection):
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")


def opened_for_reading(path: Path) -> HistoryConnection:
    """Open an existing history of any schema up to this version's, changing nothing at all.

    SQLite makes the files of a write-ahead log even for reading, and leaves them. Where nobody has the history open there are
    none, and it is read without.

    Raises:
        HistoryPathError: If it does not exist or cannot be read.
        NotAHistoryError: If the file is something else.
        HistoryTooNewError: If a newer version wrote it.
    """
    _prepare_file(path, create=False)
    try:
        is_at_rest = not os.path.exists(f"{path}-wal") and not is_on_network(path)
        connection = _connect(path, "mode=ro&immutable=1" if is_at_rest else "mode=ro", BUSY_TIMEOUT_S)
        try:
            is_current(connection, path)
        except BaseException:
            connection.close()
            raise
    except sqlite3.OperationalError as error:
        if not _is_about_writing(error):
            raise storage_error(path, error) from error
        return _open_for_reading(path, error)
    except sqlite3.DatabaseError as error:
        raise _not_a_history(path, str(error)) from error
    return connection


def copy_of(path: Path, busy_timeout_s: float | None = None) -> HistoryConnection:
    """Return a connection to a temporary copy of a history, brought to the current schema; the original is only read.

    Raises:
        HistoryTooNewError: If a newer version wrote it.
        NotAHistoryError: If it is no history.
        StorageError: If there is no room for the copy.
    """
    folder = tempfile.TemporaryDirectory(prefix="metahp-copy-", ignore_cleanup_errors=True)
    target = Path(folder.name) / "history.db"
    try:
        _copy_database(path, target, busy_timeout_s)
        connection = _connect(target, "mode=rw", BUSY_TIMEOUT_S)
        connection.copy = folder
        if not is_current(connection, path):
            with transaction(connection):
                schema.migrate(connection)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise storage_error(path, error) from error
        raise _not_a_history(path, str(error)) from error
    except OSError as error:
        if isinstance(error, MetaHPError):
            raise
        raise storage_error(path, error) from error
    return connection


def _copy_database(path: Path, target: Path, busy_timeout_s: float | None) -> None:
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    try:
        source = _connect(path, "mode=ro", BUSY_TIMEOUT_S if busy_timeout_s is None else busy_timeout_s)
        try:
            copied = sqlite3.connect(target)
            try:
                source.backup(copied)  # one state of it, whoever writes meanwhile
            finally:
                copied.close()
        finally:
            source.close()
    except sqlite3.OperationalError as error:
        if not _is_about_writing(error):
            raise
        # A journal that cannot be opened without writing beside it. On such a medium nobody else writes either.
        for suffix in ("", "-wal"):
            if os.path.exists(f"{path}{suffix}"):
                shutil.copyfile(f"{path}{suffix}", f"{target}{suffix}")


def _connect(path: Path, options: str, timeout_s: float) -> HistoryConnection:
    # check_same_thread: each connection stands behind a lock of ours
    connection = sqlite3.connect(
        f"{path.as_uri()}?{options}{EXTRA_URI_OPTIONS}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
        factory=HistoryConnection,
    )
    connection.row_factory = sqlite3.Row
    connection.busy_timeout_s = timeout_s
    connection.is_read_only = "mode=ro" in options
    connection.opened_as = options
    return connection


def _open_for_reading(path: Path, problem: sqlite3.Error) -> HistoryConnection:
    """Open a history that cannot be written, without writing anything beside it."""
    has_journal = any(os.path.exists(f"{path}{suffix}") and os.path.getsize(f"{path}{suffix}") for suffix in ("-wal", "-journal"))
    try:
        if has_journal:  # its latest state is in a journal that cannot be opened where it is
            connection = copy_of(path)
        else:
            connection = _connect(path, "mode=ro&immutable=1", BUSY_TIMEOUT_S)
            if not is_current(connection, path):
                connection.close()
                connection = copy_of(path)
    except sqlite3.Error as error:
        raise HistoryPathError(f"The history {path} cannot be read or written: {problem}. Check its permissions.") from error
    connection.is_read_only = True
    connection.execute("PRAGMA query_only = ON")
    logger.debug("The history %s cannot be written (%s) and is opened for reading.", path, problem)
    return connection


def _is_about_writing(error: sqlite3.Error) -> bool:
    """Return whether an error means that the file, or a journal beside it, cannot be written."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    return code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}


@contextlib.contextmanager
def guarded(connection: sqlite3.Connection) -> Iterator[None]:
    """Hold the lock of a history on a network file system; even a reader without it could take another's journal for a crash's."""
    lock_file = getattr(connection, "lock_file", None)
    if lock_file is None:
        yield
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(held_lock(lock_file, getattr(connection, "busy_timeout_s", BUSY_TIMEOUT_S)))
        except OSError as error:  # of the lock file itself: nothing can be written beside the history
            problem = sqlite3.OperationalError(f"the lock {lock_file} cannot be made: {error.strerror or error}")
            problem.sqlite_errorcode = sqlite3.SQLITE_READONLY
            raise problem from error
        yield


def _leave_wal(connection: sqlite3.Connection) -> None:
    """Take a journal of a former, local opening in and go on without: WAL's shared memory must not be touched here."""
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # keeps the journal's index in this process's own memory
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.execute("PRAGMA locking_mode = NORMAL")
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()  # only the next reading lets go of the lock
    connection.execute("PRAGMA synchronous = FULL")


def is_wrong_path(path: Path, error: Exception) -> bool:
    """Return whether an error of ``open_database`` means that the path cannot be meant, rather than that something is broken."""
    return path.is_dir() or (isinstance(error, NotAHistoryError) and "another program" in str(error))


def storage_error(path: Path, error: BaseException) -> StorageError:
    """Return the one error for a history that cannot be read or written just now, or any more."""
    if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return StorageError(
            f"The history {path} must be undamaged, but SQLite says: {error}. Look at it with 'metahp doctor --full'; what can be read "
            f"is saved by: sqlite3 {path} .recover | sqlite3 recovered.db"
        )
    return StorageError(
        f"The history {path} must be readable and writable, but SQLite says: {error}. "
        "Close the program that holds it, or free space on the disk, then try again."
    )


def _prepare_file(path: Path, *, create: bool) -> None:
    """Check that the path holds a history or nothing, and create an empty file in the latter case."""
    if path.is_dir():
        raise HistoryPathError(
            f"A history is a file, but {path} is a directory. Pass a path of a file in it, such as {path / 'history.db'}."
        )
    try:
        if not path.exists():
            if not create:
                raise HistoryPathError(f"The history {path} does not exist. Pass the path of an existing history, or train a run first.")
            make_directories(path.parent)
            with contextlib.suppress(FileExistsError):  # another process was faster, which is fine
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        # Never open the file itself to look into it: closing any descriptor of it drops the locks of every other connection of
        # this process (POSIX), and two writers at once destroy the database. SQLite checks the header when it connects.
        if not os.access(path, os.R_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        if 0 < path.stat().st_size < _SMALLEST_DATABASE_BYTES:
            raise _not_a_history(path, "it is no SQLite database")
    except (HistoryPathError, NotAHistoryError):
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise HistoryPathError(
            f"The history {path} cannot be read or created: {reason}. Check the permissions, or name another path (METAHP_HISTORY)."
        ) from error


def make_directories(directory: Path) -> None:
    """Create missing directories, readable by their owner only."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def _ensure_schema(connection: HistoryConnection, path: Path) -> None:
    """Create or migrate the tables unless ``user_version`` shows that all is there."""
    with guarded(connection):
        if is_current(connection, path):
            return
        if connection.lock_file is None:
            _switch_to_wal(connection)
        with transaction(connection):
            # the lock may have been waited for while another process did all of it
            if not is_current(connection, path):
                schema.migrate(connection)


_WHAT_IT_IS = (
    "SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version), "
    "EXISTS (SELECT 1 FROM sqlite_master)"
)
"""One statement, so one state of the file: another process may be making it a history just now."""


def is_current(connection: sqlite3.Connection, path: Path) -> bool:
    """Return whether the schema is this version's.

    Raises:
        NotAHistoryError: If the database belongs to another program.
        HistoryTooNewError: If it is newer.
    """
    found: tuple[int, int, int] = connection.execute(_WHAT_IT_IS).fetchone()
    application, version, has_tables = found
    if application != schema.APPLICATION_ID:
        if application or has_tables:
            raise _not_a_history(path, "it is a SQLite database of another program")
        return False
    if version > schema.SCHEMA_VERSION:
        raise HistoryTooNewError(
            f"The history {path} has schema version {version}, but this version reads up to {schema.SCHEMA_VERSION}. "
            "Upgrade with: pip install --upgrade lightning-metahp"
        )
    return version == schema.SCHEMA_VERSION


def _switch_to_wal(connection: HistoryConnection) -> None:
    """Set the journal before any transaction: SQLite does not wait for others here, so we do."""
    deadline = time.monotonic() + connection.busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
            if code not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
                if _is_about_writing(error):
                    raise
                logger.debug("No write-ahead log here: %s", error)  # a file system without shared memory that nobody named
                return
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _not_a_history(path: Path, why: str) -> NotAHistoryError:
    return NotAHistoryError(f"{path} is not a history: {why}. Pass the path of a history, or of a file that does not exist yet.")
