"""What can be asked of a history."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from store.errors import HistoryClosedError, InvalidArgumentError, MetaHPError
from store.forks import using_sqlite
from store.paths import resolve_path
from store.recording import spool
from store.recording.writer import flush_own
from store.records import MetricRecord, RunRecord, TaskRecord
from store.sqlite import row_reader
from store.sqlite.connection import (
    HistoryConnection,
    guarded,
    is_wrong_path,
    open_database,
    set_busy_timeout,
    snapshot,
    storage_error,
)

logger = logging.getLogger(__name__)

_BUSY_AT_START_S = 0.5  # the start of a training does not wait for a locked history
_RETRY_S = 5.0


class HistoryReader:
    """What can be asked of a history. Opens the file at once; thread-safe; usable after a fork.

    Args:
        path: The file; default ``$METAHP_HISTORY``, else ``history.db`` in the user's data directory.
        create: Whether a missing file is created.
        for_recording: Whether a file that cannot be opened just now, because it is locked, damaged or out of reach, is no error:
            runs are then recorded into the spool, and the first reading tries to open it again. A path that cannot be meant (a
            directory, a database of another program) is an error all the same.

    Raises:
        HistoryPathError: If the path is a directory, unreadable, or missing with ``create=False``.
        NotAHistoryError: If the file is something else.
        HistoryTooNewError: If a newer version wrote it.
        StorageError: If another program keeps it locked.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, create: bool = True, for_recording: bool = False) -> None:
        self._path = resolve_path(path)
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._inherited: list[object] = []
        self._connection: HistoryConnection | None = None
        self._is_closed = False
        self._problem: MetaHPError | None = None
        self._retry_at = 0.0
        try:
            with using_sqlite():
                self._connection = open_database(self._path, create=create, busy_timeout_s=_BUSY_AT_START_S if for_recording else None)
        except MetaHPError as error:
            if not for_recording or is_wrong_path(self._path, error):
                raise
            logger.debug("The history %s cannot be opened now: %s", self._path, error)
            self._problem, self._retry_at = error, time.monotonic() + _RETRY_S
            return
        self._take_in_spool()
        with using_sqlite():
            set_busy_timeout(self._connection)

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._path

    @property
    def models_path(self) -> Path:
        """The directory of the meta-models learned from this history; need not exist."""
        return Path(f"{self._path}.models")

    def runs(
        self,
        task: str | None = None,
        *,
        status: Iterable[str] | str | None = None,
        limit: int | None = None,
        newest_first: bool = False,
        with_hparams: bool = True,
    ) -> list[RunRecord]:
        """Return runs in the order they started.

        Args:
            task: Only those of this task: name, id, or a unique beginning of an id.
            status: Only those with this status, or one of these.
            limit: At most so many.
            newest_first: Whether the order is reversed, which ``limit`` respects.
            with_hparams: Whether hyperparameters are read, which takes most of the time.

        Raises:
            UnknownTaskError: If there is no such task.
            InvalidArgumentError: If there is no such status, or ``limit`` is negative.
        """
        statuses = row_reader.checked_statuses(status)
        if limit is not None and limit < 0:
            raise InvalidArgumentError(f"limit must be at least 0, but got {limit}. Pass None for all runs.")
        with self._reading() as connection:
            task_id = None if task is None else row_reader.find_task_id(connection, task)
            return row_reader.read_runs(
                connection, task_id=task_id, statuses=statuses, limit=limit, newest_first=newest_first, with_hparams=with_hparams
            )

    def run(self, run_id: str) -> RunRecord:
        """Return one run.

        Args:
            run_id: Its id, or a beginning or end that only this id has.

        Raises:
            UnknownRunError: If there is none, or more than one.
        """
        with self._reading() as connection:
            return row_reader.read_runs(connection, run_id=row_reader.find_run_id(connection, run_id))[0]

    def tasks(self) -> list[TaskRecord]:
        """Return the tasks that have runs, those used last first; merged ones are part of what they were merged into."""
        with self._reading() as connection:
            return row_reader.read_tasks(connection)

    def task(self, name_or_id: str) -> TaskRecord:
        """Return one task by its name, its id, or a unique beginning of the id.

        Raises:
            UnknownTaskError: If there is none, or more than one.
        """
        with self._reading() as connection:
            return row_reader.read_tasks(connection, row_reader.find_task_id(connection, name_or_id))[0]

    def metrics(self, run_id: str, name: str | None = None) -> list[MetricRecord]:
        """Return a run's logged values, ordered by attempt and step.

        Args:
            run_id: The run's id, or a unique beginning or end of it.
            name: Only this metric.

        Raises:
            UnknownRunError: If there is no such run.
        """
        with self._reading() as connection:
            return row_reader.read_metrics(connection, row_reader.find_run_id(connection, run_id), name)

    def objective_curves(self, run_ids: Iterable[str]) -> dict[str, tuple[list[float], list[float]]]:
        """Return the learning curves of runs: their objective over the share of their training, in [0, 1].

        Args:
            run_ids: Whole ids; a run without values of its objective is absent.

        Returns:
            Run id -> shares of the training, and the value at each; ordered by step.
        """
        with self._reading() as connection:
            return row_reader.read_objective_curves(connection, run_ids)

    def metric_names(self, run_id: str | None = None, task: str | None = None) -> list[str]:
        """Return the names that were logged, by one run, by the runs of one task, or at all; sorted.

        Raises:
            UnknownRunError: If there is no such run.
            UnknownTaskError: If there is no such task.
        """
        with self._reading() as connection:
            whole_id = None if run_id is None else row_reader.find_run_id(connection, run_id)
            task_id = None if task is None else row_reader.find_task_id(connection, task)
            return row_reader.read_metric_names(connection, whole_id, task_id)

    def recommendation(self, recommendation_id: str) -> dict[str, Any]:
        """Return a stored recommendation and what came of it.

        Args:
            recommendation_id: Its id, or a unique beginning or end of it.

        Returns:
            ``recommendation`` (the dictionary that was stored), ``current``, ``changes``, ``run_id`` of the first run that used
            it, ``outcome`` (that run's best objective, or None) and ``created_utc``.

        Raises:
            UnknownRecommendationError: If there is none, or more than one.
        """
        with self._reading() as connection:
            return row_reader.read_recommendation(connection, recommendation_id)

    def last_rewrite(self, task: str, name: str, *, variant: str | None = None) -> tuple[str, Any, Any] | None:
        """Return what came of the newest recommendation that rewrote a hyperparameter.

        Args:
            task: Name or id of the task.
            name: Canonical name of the hyperparameter.
            variant: Version of the model's source: what another version did with a value tells nothing of this one.

        Returns:
            Id of the run, the value that was written, and the one that was in force; None where there is no such run.

        Raises:
            UnknownTaskError: If there is no such task.
        """
        with self._reading() as connection:
            return row_reader.read_last_rewrite(connection, row_reader.find_task_id(connection, task), variant, name)

    def models(self) -> list[dict[str, Any]]:
        """Return the meta-models that were learned from this history, oldest first, ``info`` decoded from ``info_json``."""
        with self._reading() as connection:
            return row_reader.read_models(connection)

    def state(self) -> tuple[int, str]:
        """Return the number of finished runs, and a text that changes when any of them or the grouping into tasks does."""
        with self._reading() as connection:
            return row_reader.read_state(connection)

    def task_states(self) -> dict[str, str]:
        """Return for each task's id a text that changes when any of its runs does: what is unchanged need not be read again."""
        with self._reading() as connection:
            return row_reader.read_task_states(connection)

    def close(self) -> None:
        """Write what this process has queued, and let go of the file. May be called twice."""
        flush_own(self._path)
        self._leave_to_parent()
        with self._lock:
            connection, self._connection = self._connection, None
            self._is_closed = True
            if connection is not None:
                with using_sqlite():
                    connection.close()

    def __enter__(self) -> Self:
        """Return the history."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close the history."""
        self.close()

    def __repr__(self) -> str:
        """Return class and path."""
        return f"{type(self).__name__}({str(self._path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as the path."""
        return type(self), (str(self._path),)

    def _leave_to_parent(self) -> None:
        """After a fork: the parent's connection is kept but never used, since closing it could harm its locks."""
        if self._pid != os.getpid():
            self._inherited += [self._connection, self._lock]
            self._lock, self._pid, self._connection = threading.RLock(), os.getpid(), None

    @contextmanager
    def _using(self) -> Iterator[HistoryConnection]:
        """Give the connection to one thread at a time, and turn SQLite's errors into ours."""
        self._leave_to_parent()
        with self._lock, using_sqlite():
            if self._connection is None and not self._is_closed:
                self._open_again()
            if self._connection is None:
                raise HistoryClosedError(f"The history {self._path} is closed. Open it again with History({str(self._path)!r}).")
            try:
                with guarded(self._connection):
                    yield self._connection
            except sqlite3.Error as error:
                raise storage_error(self._path, error) from error

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """As ``_using``, on one state of the file, after everything this process has queued."""
        flush_own(self._path)
        with self._using() as connection, snapshot(connection):
            yield connection

    def _open_again(self) -> None:
        """Open what could not be opened before; where that failed a moment ago, raise the same error at once."""
        if self._problem is not None and time.monotonic() < self._retry_at:
            raise self._problem
        try:
            self._connection = open_database(self._path, create=False, busy_timeout_s=_BUSY_AT_START_S)
        except MetaHPError as error:
            self._problem, self._retry_at = error, time.monotonic() + _RETRY_S
            raise
        self._problem = None
        set_busy_timeout(self._connection)

    def _take_in_spool(self) -> None:
        if self._connection is None or self._connection.is_read_only or not spool.has_waiting(self._path):
            return
        try:
            with self._using() as connection:
                # nobody who opens a history waits for long because somebody else is writing
                set_busy_timeout(connection, _BUSY_AT_START_S)
                count = spool.ingest(connection, self._path)
            logger.debug("%d operations of %s waited in the spool.", count, self._path)
        except (MetaHPError, OSError) as error:  # reading works all the same; the next open tries again
            logger.warning("What waits in the spool of %s could not be taken in now: %s", self._path, error)
