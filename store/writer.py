"""The one way from a training step to the disk: a queue, and one thread per process and history that empties it.

A step appends to the queue and does nothing else. Every second (or when a run starts or ends, in the calling thread) what is
queued is turned into numbers and written in one transaction. What cannot be written goes to the spool; training never notices
more than one warning.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sqlite3
import threading
import time
import warnings
from collections import deque
from pathlib import Path
from typing import Any

from store import schema, spool, tensors
from store.connection import connect, is_on_network, transaction
from store.errors import StorageWarning
from store.operations import Operation, apply_operations, metrics_operation
from store.outcome import value_kind
from store.records import RunStatus
from store.run_state import RunState

logger = logging.getLogger(__name__)

FLUSH_INTERVAL_S = 1.0
"""A process that is killed loses at most what it logged within this time."""
HEARTBEAT_INTERVAL_S = 10.0
WRITE_TIMEOUT_S = 5.0
"""How long a write waits for another process's transaction before it goes to the spool."""
QUEUE_LIMIT = 50_000
"""Log calls that may wait; a full queue is emptied into the spool by the step that finds it full."""
_MAX_RETRY_S = 60.0
_MAX_PENDING = 1_000_000  # operations kept in memory if neither history nor any spool can be written: a last resort

Event = tuple[RunState, int, float | None, float, bool, tuple[tuple[str, Any], ...], Any]
"""Run, step, epoch, seconds since the start, whether partial, names with held values, the CUDA stream they come from."""


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
        self._settle_lock = threading.Lock()
        self._write_lock = threading.Lock()
        self._thread_lock = threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self._is_network = is_on_network(path)
        self._retry_at = 0.0
        self._retry_s = 0.0
        self._problem: str | None = None
        self._has_warned = False

    def register(self, state: RunState) -> None:
        """Take a run on: its row is written, and its heartbeat kept up until it ends."""
        self._active.add(state)
        self.touch(state)

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

    def settle(self) -> None:
        """Turn everything queued into operations, so that the outcome of each run is known. Touches no disk."""
        # a timeout, since a signal handler may end a run in the very thread that is busy here
        if not self._settle_lock.acquire(timeout=WRITE_TIMEOUT_S):
            return
        events: list[Event] = []
        try:
            events += [self.queue.popleft() for _ in range(len(self.queue))]
            rows = self._absorb(events)
            self._note_active()
            touched = {self._touched.pop() for _ in range(len(self._touched))}
            for state in sorted(touched.union(event[0] for event in events), key=lambda state: state.id):
                operation = state.take_operation()
                if operation is not None:
                    self._pending.append(operation)
                if state.is_finished:
                    self._active.discard(state)
            self._pending += [metrics_operation(run_id, values) for run_id, values in rows.items() if values]
            events = []
        finally:
            self.queue.extendleft(reversed(events))  # after a KeyboardInterrupt in the middle
            self._settle_lock.release()

    def flush(self, timeout_s: float | None = None, *, is_last_try: bool = False) -> bool:
        """Write everything queued, in the calling thread.

        Args:
            timeout_s: How long to wait for a write that is going on already; default ``WRITE_TIMEOUT_S``.
            is_last_try: Whether the history is tried even shortly after it failed.

        Returns:
            Whether everything is in the history now. Never raises.
        """
        if not self._write_lock.acquire(timeout=WRITE_TIMEOUT_S if timeout_s is None else timeout_s):
            return False
        try:
            if is_last_try:
                self._retry_at = 0.0
            self.settle()
            if not self._active:
                self._wake.set()  # the thread has nothing left to do and ends now, not a second later
            return self._write()
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
        where = spool.spool_directories(self.path)[0]
        message = (
            f"The history {self.path} cannot be written: {self._problem}. Training goes on; the values wait in {where} "
            "and are taken in when the history is opened next."
        )
        try:
            warnings.warn(message, StorageWarning, stacklevel=3)
        except StorageWarning:  # warnings are errors in this program; a full disk must not end its training all the same
            logger.warning(message)

    @property
    def has_waiting(self) -> bool:
        """Whether something is not in the history yet."""
        return bool(self.queue or self._touched or self._pending)

    def shut_down(self) -> None:
        """End every run that nobody ended, and write: the interpreter exits."""
        for state in list(self._active):
            if state.close(RunStatus.INTERRUPTED, "The program ended before finish()."):
                self._touched.add(state)
        self.flush(is_last_try=True)
        self.close_connection()

    def close_connection(self) -> None:
        """Let go of the file."""
        with self._write_lock:
            self._disconnect()

    def _absorb(self, events: list[Event]) -> dict[str, list[list[Any]]]:
        """Return rows of ``metrics`` by run, and tell each run its values."""
        for stream in {event[6] for event in events if event[6] is not None}:
            tensors.wait_for(stream)
        numbers = iter(tensors.to_floats([value for event in events for _, value in event[5]]))
        rows: dict[str, list[list[Any]]] = {}
        for state, step, epoch, elapsed_s, is_partial, items, _ in events:
            target = rows.setdefault(state.id, [])
            for name, _ in items:
                number = next(numbers)
                if number is None:
                    continue
                kind = value_kind(number)
                value = number if kind == "finite" else None
                target.append([state.id, name, state.attempt, step, epoch, value, kind, elapsed_s])
                if not is_partial:
                    state.add_value(name, number, step)
            if not is_partial:
                state.add_progress(step, epoch)
        return rows

    def _write(self) -> bool:
        """Write pending operations to the history, else to the spool; the caller holds the write lock."""
        operations = self._take_pending()
        if not operations and self._problem is None:
            return True
        if self._is_network or time.monotonic() < self._retry_at:
            self._spool(operations)
            # On a network file system each run writes its own file; it is taken in whenever a run's row changes.
            return self._is_network and any(operation["op"] == "run" for operation in operations) and self._ingest()
        try:
            connection = self._connect()
            if self._problem is not None:
                spool.ingest(connection, self.path)  # our own older operations first
            with transaction(connection):
                apply_operations(connection, operations)
        except Exception as error:
            self._disconnect()
            self._note_problem(error)
            self._spool(operations)
            self._retry_s = min(_MAX_RETRY_S, max(1.0, self._retry_s * 2))
            self._retry_at = time.monotonic() + self._retry_s
            return False
        except BaseException:
            self._put_back(operations)
            raise
        self._problem, self._retry_s = None, 0.0
        return True

    def _ingest(self) -> bool:
        """Take the spool in; what cannot be taken in now is taken in later."""
        try:
            spool.ingest(self._connect(), self.path)
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            logger.debug("The spool of %s will be taken in later: %s", self.path, error)
            return False
        return True

    def _note_active(self) -> None:
        """Keep up the heartbeats, and end the runs whose recorder is gone."""
        for state in list(self._active):
            if state.is_abandoned and state.close(RunStatus.INTERRUPTED, "The recorder was dropped before finish()."):
                self._touched.add(state)
            elif state.silent_s >= HEARTBEAT_INTERVAL_S:
                state.touch()
                self._touched.add(state)

    def _take_pending(self) -> list[Operation]:
        with self._settle_lock:
            operations, self._pending = self._pending, []
        return operations

    def _spool(self, operations: list[Operation]) -> None:
        """Write operations to the spool; if even that fails, keep them in memory for the next try."""
        if not operations:
            return
        try:
            spool.append(self.path, operations)
        except (OSError, ValueError) as error:
            self._note_problem(error)
            self._put_back(operations)

    def _put_back(self, operations: list[Operation]) -> None:
        with self._settle_lock:
            self._pending = [*operations, *self._pending][-_MAX_PENDING:]

    def _spill(self) -> None:
        """Empty a full queue into the spool: the thread is stuck in a write, and nothing may be lost."""
        try:
            self.settle()
            self._spool(self._take_pending())
        except Exception as error:  # the edge: this is called from a training step
            self._note_problem(error)

    def _connect(self) -> sqlite3.Connection:
        """Return the connection, a new one if the file was replaced meanwhile.

        Raises:
            OSError: If the file is gone or is no history of this version.
            sqlite3.Error: If SQLite cannot open it.
        """
        found = os.stat(self.path)
        file = (found.st_dev, found.st_ino)
        if self._connection is not None and file == self._file:
            return self._connection
        if self._file is not None and file != self._file:
            self._rewrite_all()  # SQLite would go on writing into the deleted file without a word
        self._disconnect()
        connection = connect(self.path, WRITE_TIMEOUT_S)
        if connection.execute("PRAGMA user_version").fetchone()[0] != schema.SCHEMA_VERSION:
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
            self._problem = str(error) or type(error).__name__
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
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_inherited)
