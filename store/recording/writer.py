"""The one way from a training step to the disk: a queue, and one thread per process and history that empties it.

A step appends to the queue and does nothing else. Every second (or when a run starts or ends, in the calling thread) what is
queued is turned into numbers and written in one transaction. What cannot be written goes to the spool; training never notices
more than one warning.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from pathlib import Path

from store.errors import StorageWarning
from store.forks import call_in_child, using_sqlite
from store.recording import resources, spool
from store.recording.batch_events import Event, batch_events
from store.recording.run_state import RunState
from store.sqlite import schema
from store.sqlite.connection import HistoryConnection, connect, guarded, set_busy_timeout, transaction
from store.sqlite.filesystem import is_on_network
from store.sqlite.operations import Operation, apply_operations
from store.statuses import RunStatus
from store.user_warnings import warn_user

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 1.0
"""A process that is killed loses at most what it logged within this time."""
HEARTBEAT_INTERVAL_S = 10.0
WRITE_TIMEOUT_S = 5.0
"""How long another process may keep the history locked before that is a problem worth a warning; what is due waits in the spool."""
BUSY_SLICE_S = 0.5
"""How long one try waits for another process's transaction, so that nobody who needs the writer waits for longer."""
FINAL_SLICE_S = 1.5
"""The same for the end of a run: if even that fails, the user hears of it."""
QUEUE_LIMIT = 50_000
"""Log calls that may wait; a full queue is emptied into the spool by the step that finds it full."""
_MAX_RETRY_S = 60.0
_MAX_PENDING = 1_000_000  # operations kept in memory if neither history nor any spool can be written: a last resort


class Writer:
    """Writes the runs of this process into one history. Use ``writer_for``; thread-safe.

    Args:
        path: Absolute path of an existing history.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.queue: deque[Event] = deque()
        self._active: set[RunState] = set()
        self._touched: set[RunState] = set()
        self._pending: list[Operation] = []
        self._drain_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._thread_lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: HistoryConnection | None = None
        self._file: tuple[int, int] | None = None
        self._is_network = is_on_network(path)
        self._retry_at = 0.0
        self._retry_s = 0.0
        self._locked_at: float | None = None
        self._has_spooled = False
        self._spooled_in: Path | None = None
        self._problem: str | None = None
        self._has_warned = False

    def register(self, state: RunState) -> None:
        """Take a run on: its row is written, and its heartbeat kept up until it ends."""
        self._active.add(state)
        self.touch(state)
        resources.sampler().watch(state, self)

    def append(self, event: Event) -> None:
        """Queue logged values. Costs an append, unless the queue is full."""
        self.queue.append(event)
        waiting = len(self.queue)
        if waiting >= QUEUE_LIMIT:
            self._spill()
        elif waiting * 2 == QUEUE_LIMIT:
            self._wake.set()

    def touch(self, state: RunState) -> None:
        """Have a run's row written with the next flush."""
        self._touched.add(state)
        self._ensure_thread()

    def add(self, operation: Operation) -> None:
        """Queue an operation that is ready; it is written with the next flush, even if no run is open any more."""
        with self._drain_lock:
            self._pending.append(operation)
        self._ensure_thread()

    def drain(self) -> None:
        """Turn everything queued into operations, so that the outcome of each run is known. Touches no disk."""
        # a timeout, since a signal handler may end a run in the very thread that is busy here
        if not self._drain_lock.acquire(timeout=WRITE_TIMEOUT_S):
            return
        events: list[Event] = []
        try:
            events += [self.queue.popleft() for _ in range(len(self.queue))]
            logged = batch_events(events)
            self._note_active()
            touched = {self._touched.pop() for _ in range(len(self._touched))}
            for state in sorted(touched.union(event[0] for event in events), key=lambda state: state.id):
                operation = state.take_operation()
                if operation is not None:
                    self._pending.append(operation)
                if state.is_finished:
                    self._active.discard(state)
            self._pending += logged
            events = []
        finally:
            self.queue.extendleft(reversed(events))  # after a KeyboardInterrupt in the middle
            self._drain_lock.release()

    def flush(self, timeout_s: float | None = None, *, is_last_try: bool = False, is_final: bool = False) -> bool:
        """Write everything queued, in the calling thread.

        Args:
            timeout_s: How long to wait for a write that is going on already; default ``WRITE_TIMEOUT_S``.
            is_last_try: Whether the history is tried even shortly after it failed.
            is_final: Whether a run ends with it, so that a history that is locked even now is a problem.

        Returns:
            Whether everything is in the history now. Never raises.
        """
        if not self._write_lock.acquire(timeout=WRITE_TIMEOUT_S if timeout_s is None else timeout_s):
            return False
        try:
            if is_last_try:
                self._retry_at = 0.0
            self.drain()
            if not self._active:
                self._wake.set()  # the thread has nothing left to do and ends now, not a second later
            with using_sqlite():
                return self._write(is_final=is_final)
        except Exception as error:  # the edge: whatever storage does, training goes on
            self._note_problem(error)
            return False
        finally:
            self._write_lock.release()

    def warn_if_needed(self) -> None:
        """Issue the one warning about a storage problem, in the thread of the user's code."""
        if self._problem is None or self._has_warned:
            return
        self._has_warned = True
        where = "memory, since no spool can be written either," if self._spooled_in is None else self._spooled_in
        message = (
            f"The history {self.path} cannot be written: {self._problem}. Training goes on; the values wait in {where} "
            "and are taken in when the history is opened next."
        )
        warn_user(message, StorageWarning)

    @property
    def has_waiting(self) -> bool:
        """Whether something is not in the history yet."""
        return bool(self.queue or self._touched or self._pending)

    def shut_down(self) -> None:
        """End every run that nobody ended, and write: the interpreter exits."""
        for state in list(self._active):
            if state.close(RunStatus.INTERRUPTED, "The program ended before finish()."):
                self._touched.add(state)
        self.flush(is_last_try=True, is_final=True)
        self.warn_if_needed()
        if self._pending:
            logger.error(
                "%d pieces of what was to be written to %s are lost: %s. No spool could be written either.",
                *(len(self._pending), self.path, self._problem),
            )
        self.close_connection()

    def close_connection(self) -> None:
        """Let go of the file."""
        with self._write_lock, using_sqlite():
            self._disconnect()

    def _write(self, *, is_final: bool = False) -> bool:
        """Write pending operations to the history, else to the spool; the caller holds the write lock."""
        operations = self._take_pending()
        if not operations and not self._has_spooled:
            return True
        if time.monotonic() < self._retry_at:
            self._spool(operations)
            return False
        if self._is_network:
            # each run writes its own files there; they are taken in whenever a run's row changes
            self._spool(operations)
            if not any(operation["op"] == "run" for operation in operations):
                return False
            operations = []
        try:
            final_s = WRITE_TIMEOUT_S if self._is_network else FINAL_SLICE_S  # without locks of the system there is no queue
            connection = self._connect(min(final_s if is_final else BUSY_SLICE_S, WRITE_TIMEOUT_S))
            if self._has_spooled:
                spool.ingest(connection, self.path)  # our own older operations first
                self._has_spooled = False
            if operations:
                with transaction(connection):
                    apply_operations(connection, operations)
        except Exception as error:
            self._spool(operations)
            self._disconnect()
            if not self._is_only_busy(error, is_final):
                self._note_problem(error)
                self._retry_s = min(_MAX_RETRY_S, max(1.0, self._retry_s * 2))
                self._retry_at = time.monotonic() + self._retry_s
            return False
        except BaseException:
            self._put_back(operations)
            raise
        self._problem, self._retry_s, self._locked_at = None, 0.0, None
        return True

    def _is_only_busy(self, error: BaseException, is_final: bool) -> bool:
        """Return whether another process merely writes right now, which is no problem unless it lasts."""
        if not isinstance(error, sqlite3.OperationalError) or "locked" not in str(error):
            return False
        now = time.monotonic()
        self._locked_at = now if self._locked_at is None else self._locked_at
        return not is_final and now - self._locked_at < WRITE_TIMEOUT_S

    def _note_active(self) -> None:
        """Keep up the heartbeats, and end the runs whose recorder is gone."""
        for state in list(self._active):
            if state.is_abandoned and state.close(RunStatus.INTERRUPTED, "The recorder was dropped before finish()."):
                self._touched.add(state)
            elif state.since_written_s >= HEARTBEAT_INTERVAL_S:
                state.touch()
                self._touched.add(state)

    def _take_pending(self) -> list[Operation]:
        with self._drain_lock:
            operations, self._pending = self._pending, []
        return operations

    def _spool(self, operations: list[Operation]) -> None:
        """Write operations to the spool; if even that fails, keep them in memory for the next try."""
        if not operations:
            return
        try:
            self._spooled_in = spool.append(self.path, operations)
            self._has_spooled = True
        except (OSError, ValueError) as error:
            self._note_problem(error)
            self._put_back(operations)

    def _put_back(self, operations: list[Operation]) -> None:
        with self._drain_lock:
            self._pending = [*operations, *self._pending][-_MAX_PENDING:]

    def _spill(self) -> None:
        """Empty a full queue into the spool: the thread is stuck in a write, and nothing may be lost."""
        try:
            self.drain()
            self._spool(self._take_pending())
        except Exception as error:  # the edge: this is called from a training step
            self._note_problem(error)

    def _connect(self, busy_s: float) -> sqlite3.Connection:
        """Return the connection, a new one if the file was replaced meanwhile.

        Args:
            busy_s: How long its statements wait for another process, in seconds.

        Raises:
            OSError: If the file is gone or is no history of this version.
            sqlite3.Error: If SQLite cannot open it.
        """
        found = os.stat(self.path)
        if not os.access(self.path, os.W_OK):
            raise PermissionError(errno.EROFS, "it is read-only")
        file = (found.st_dev, found.st_ino)
        if self._connection is not None and file == self._file:
            if self._connection.busy_timeout_s != busy_s:
                set_busy_timeout(self._connection, busy_s)
            return self._connection
        if self._file is not None and file != self._file:
            self._rewrite_all()  # SQLite would go on writing into the deleted file without a word
        self._disconnect()
        connection = connect(self.path, busy_s)
        with guarded(connection):
            version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version != schema.SCHEMA_VERSION:
            connection.close()
            raise OSError("the file is no history of this version any more")
        self._connection, self._file = connection, file
        return connection

    def _rewrite_all(self) -> None:
        for state in list(self._active):
            state.mark_all_dirty()
            self._touched.add(state)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sqlite3.Error):  # it is given up in any case
                self._connection.close()
            self._connection = None

    def _note_problem(self, error: BaseException) -> None:
        if self._problem is None:
            logger.debug("The history %s cannot be written.", self.path, exc_info=error)
            self._problem = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
            if isinstance(error, FileNotFoundError):
                self._rewrite_all()

    def _ensure_thread(self) -> None:
        with self._thread_lock:
            if self._thread is not None and self._thread.is_alive():
                return
            thread = threading.Thread(target=self._run, name="metahp-writer", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the interpreter is shutting down; the exit handler writes
                logger.debug("No writer thread: %s", error)
                return
            self._thread = thread

    def _run(self) -> None:
        while True:
            self._wake.wait(FLUSH_INTERVAL_S)
            self._wake.clear()
            self.flush()
            with self._thread_lock:
                if not self._active and not self.has_waiting:
                    self._thread = None
                    break
        self.close_connection()


_writers: dict[Path, Writer] = {}
_writers_lock = threading.Lock()
_inherited: list[Writer] = []


def writer_for(path: Path) -> Writer:
    """Return this process's writer of a history."""
    with _writers_lock:
        writer = _writers.get(path)
        if writer is None:
            writer = _writers[path] = Writer(path)
        return writer


def flush_own(path: Path) -> None:
    """Write what this process has queued for a history, so that it reads what it wrote."""
    writer = _writers.get(path)
    if writer is not None and writer.has_waiting:
        writer.flush()


def _forget_inherited() -> None:
    """After a fork: the parent alone writes. Its connections are kept but never used; closing them here could harm its locks."""
    global _writers_lock
    _inherited.extend(_writers.values())
    _writers.clear()
    _writers_lock = threading.Lock()


def _at_exit() -> None:
    for writer in list(_writers.values()):
        writer.shut_down()


atexit.register(_at_exit)
call_in_child(_forget_inherited)
