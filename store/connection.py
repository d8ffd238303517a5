"""Opening the file of a history: where it is, what it is, which journal it may use."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

from store import schema
from store.errors import HistoryPathError, HistoryTooNewError, NotAHistoryError, StorageError

logger = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 30.0
"""How long reading and opening wait for another process's transaction."""

_SMALLEST_DATABASE_BYTES = 512  # one page; SQLite takes a shorter file for an empty one and would write over it

# WAL needs shared memory between the processes, which these do not give; some end the process with SIGBUS.
_NETWORK_FILE_SYSTEMS = frozenset(
    str.split(
        "nfs nfs3 nfs4 cifs smb smb2 smb3 smbfs afs ncpfs lustre gpfs wekafs beegfs ceph glusterfs fuse.glusterfs "
        "fuse.ceph fuse.sshfs fuse.s3fs fuse.gcsfuse fuse.rclone fuse.juicefs pvfs2 orangefs panfs 9p virtiofs fuse.mfs "
        "acfs ocfs2 gfs2"
    )
)


def default_history_path() -> Path:
    """Return where the history lies when nobody says otherwise: ``$METAHP_HISTORY``, else the user's data directory."""
    chosen = os.environ.get("METAHP_HISTORY")
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs

    return platformdirs.user_data_path("metahp") / "history.db"


def is_on_network(path: Path, mount_table: Path = Path("/proc/mounts")) -> bool:
    """Say whether a path lies on a network file system, as far as the mount table tells.

    Args:
        path: Absolute path; need not exist yet.
        mount_table: Linux' table of mounts; where there is none (macOS, Windows) the answer is False.
    """
    try:
        lines = mount_table.read_text(errors="replace").splitlines()
    except OSError:
        return False
    target = os.path.realpath(path)
    longest, kind = -1, ""
    for line in lines:
        words = line.split()
        if len(words) < 3:
            continue
        mount = words[1].replace("\\040", " ")
        inside = target == mount or target.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= longest:  # a later line of the same mount point hides the earlier one
            longest, kind = len(mount), words[2]
    return kind in _NETWORK_FILE_SYSTEMS


def resolve_path(path: str | os.PathLike[str] | None) -> Path:
    """Return the absolute path of a history.

    Raises:
        HistoryPathError: If the path is ``:memory:`` or no path at all.
    """
    if path is None:
        path = default_history_path()
    if not isinstance(path, str | os.PathLike):
        raise HistoryPathError(f"A history is a path, a History or None, but got {type(path).__name__}. Pass the path of a file.")
    text = os.fspath(path)
    if text == ":memory:" or not text or "\x00" in text:
        raise HistoryPathError(f"A history is a file that several processes share, but got {text!r}. Pass the path of a file.")
    try:
        return Path(os.path.abspath(os.path.expanduser(text)))
    except FileNotFoundError:  # of the working directory
        raise HistoryPathError(f"The history {text} is relative to a directory that was deleted. Pass an absolute path.") from None


def open_database(path: Path, *, create: bool = True) -> sqlite3.Connection:
    """Open a history in autocommit mode, creating or migrating it where needed.

    Args:
        path: Absolute path.
        create: Whether a missing file is created (mode 0600, new directories 0700).

    Raises:
        HistoryPathError: If the path cannot hold a history.
        NotAHistoryError: If the file is something else.
        HistoryTooNewError: If a newer version wrote it.
        StorageError: If another program keeps it locked.
    """
    _prepare_file(path, create=create)
    try:
        connection = connect(path)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            raise _not_a_history(path, "it is no SQLite database") from error
        raise HistoryPathError(f"The history {path} cannot be opened: {error}. Check its permissions or pass another path.") from error
    try:
        _ensure_schema(connection, path)
    except sqlite3.OperationalError as error:
        connection.close()
        if "readonly" in str(error) or "unable to open" in str(error):
            raise HistoryPathError(f"The history {path} cannot be written: {error}. Check its permissions.") from error
        raise storage_error(path, error) from error
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _not_a_history(path, str(error)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def connect(path: Path, busy_timeout_s: float | None = None) -> sqlite3.Connection:
    """Open an existing file in autocommit mode, without looking at its schema.

    Args:
        path: Absolute path of an existing file.
        busy_timeout_s: How long a statement waits for another process's lock, in seconds; default ``BUSY_TIMEOUT_S``.
    """
    timeout = BUSY_TIMEOUT_S if busy_timeout_s is None else busy_timeout_s
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    # check_same_thread: each connection stands behind a lock of ours
    connection = sqlite3.connect(f"{path.as_uri()}?mode={mode}", uri=True, timeout=timeout, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA synchronous = NORMAL")
        if is_on_network(path):
            connection.execute("PRAGMA mmap_size = 0")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Hold the write lock from the first statement on: a transaction that starts by reading could lose it half way."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
    except BaseException:
        if connection.in_transaction:  # a full disk rolls back by itself
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def storage_error(path: Path, error: BaseException) -> StorageError:
    """Return the one error for a history that is fine but cannot be read or written just now."""
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
            _make_directories(path.parent)
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


def _make_directories(directory: Path) -> None:
    """Create missing directories, readable by their owner only."""
    missing = [folder for folder in (directory, *directory.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=0o700, exist_ok=True)


def _ensure_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Create or migrate the tables unless ``user_version`` says that all is there."""
    if _is_current(connection, path):
        return
    if not is_on_network(path):
        _switch_to_wal(connection)
    with transaction(connection):
        # the lock may have been waited for while another process did all of it
        if not _is_current(connection, path):
            schema.migrate(connection)


def _is_current(connection: sqlite3.Connection, path: Path) -> bool:
    """Say whether the schema is this version's.

    Raises:
        NotAHistoryError: If the database belongs to another program.
        HistoryTooNewError: If it is newer.
    """
    application: int = connection.execute("PRAGMA application_id").fetchone()[0]
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if application != schema.APPLICATION_ID:
        if application or connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone():
            raise _not_a_history(path, "it is a SQLite database of another program")
        return False
    if version > schema.SCHEMA_VERSION:
        raise HistoryTooNewError(
            f"The history {path} has schema version {version}, but this version reads up to {schema.SCHEMA_VERSION}. "
            "Upgrade with: pip install --upgrade lightning-metahp"
        )
    return version == schema.SCHEMA_VERSION


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Set the journal before any transaction: SQLite does not wait for others here, so we do."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _not_a_history(path: Path, why: str) -> NotAHistoryError:
    return NotAHistoryError(f"{path} is not a history: {why}. Pass the path of a history, or of a file that does not exist yet.")
