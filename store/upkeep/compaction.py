"""Making old runs smaller: their step curves keep their shape in fewer rows.

A curve is cut into buckets of consecutive rows, and of each bucket the first, last, smallest and largest row stay: M4 (Jugel,
Jerzak, Hackenbroich and Markl, "M4: A Visualization-Oriented Time Series Data Aggregation", PVLDB 7(10), 2014). All four lie in
the bucket, so drawing straight lines through what stays is never further from a row that went than the range of its bucket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from store.errors import InvalidArgumentError
from store.ids import utc_now
from store.records import RunStatus
from store.sqlite import row_reader
from store.sqlite.connection import transaction
from store.sqlite.operations import insert_rows
from store.sqlite.schema import METRIC_COLUMNS

if TYPE_CHECKING:
    import sqlite3

    from store.history import History

METHOD = "m4"
DEFAULT_POINTS = 200
MIN_POINTS = 8
_PER_BUCKET = 4
_RUNS_PER_TRANSACTION = 20
"""Few, so that nobody who writes at the same time waits for long."""
_VALIDATION_WORDS = frozenset({"val", "valid", "validation", "eval", "evaluation", "test", "dev"})
_ROW_OVERHEAD_BYTES = 34  # header, two small integers, two floats, the kind: what a row takes beside its run's id and its name

_STEP, _EPOCH, _VALUE, _KIND = (METRIC_COLUMNS.index(name) for name in ("step", "epoch", "value", "kind"))


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did, or would do.

    Attributes:
        n_runs: Ended runs with something to drop.
        n_curves: Step curves that become shorter.
        rows_before: Metric rows of these runs before.
        rows_freed: Rows that go.
        bytes_freed: About how many bytes they take in the file.
        is_done: Whether it was done.
    """

    n_runs: int = 0
    n_curves: int = 0
    rows_before: int = 0
    rows_freed: int = 0
    bytes_freed: int = 0
    is_done: bool = False


def compact(
    history: History,
    *,
    task: str | None = None,
    older_than: timedelta | None = None,
    keep_points: int = DEFAULT_POINTS,
    is_dry: bool = True,
    progress: Callable[[float, str], None] = lambda share, text: None,
) -> Compaction:
    """Shorten the step curves of runs that have ended; without ``is_dry=False`` only count what that would free.

    The objective, metrics of validations, metrics with one row an epoch, and the first, last, smallest and largest value of every
    curve stay. Runs that train, or were killed while they did, are never touched. Each run that was shortened has a row in
    ``compactions``. Safe beside programs that write; one that is killed in the middle leaves each run as it was or shortened.

    Args:
        history: The history.
        task: Only runs of this task: name, id, or a unique beginning of an id.
        older_than: Only runs that started longer ago.
        keep_points: Rows that a curve keeps at most, beside the borders of stretches that are not finite.
        is_dry: Whether nothing is changed.
        progress: Called with the share done, in [0, 1], and what is being done.

    Raises:
        InvalidArgumentError: If ``keep_points`` is too small.
        UnknownTaskError: If there is no such task.
        StorageError: If the history cannot be written.
    """
    if keep_points < MIN_POINTS:
        raise InvalidArgumentError(f"A curve needs at least {MIN_POINTS} points to keep its shape, but got keep_points={keep_points}.")
    with history._writing() as connection:
        task_id = None if task is None else row_reader.find_task_id(connection, task)
        ids = _candidates(connection, task_id, older_than, keep_points)
    parts = []
    for start in range(0, len(ids), _RUNS_PER_TRANSACTION):
        batch = ids[start : start + _RUNS_PER_TRANSACTION]
        progress(start / len(ids), f"{start:,} of {len(ids):,} runs")
        # a connection of its own for each batch: other threads of this history get their turn in between
        with history._writing() as connection:
            if is_dry:
                parts += [_compact_run(connection, run_id, keep_points, is_dry=True) for run_id in batch]
            else:
                with transaction(connection):
                    parts += [_compact_run(connection, run_id, keep_points, is_dry=False) for run_id in batch]
    totals = {
        name: sum(getattr(part, name) for part in parts) for name in ("n_runs", "n_curves", "rows_before", "rows_freed", "bytes_freed")
    }
    return Compaction(**totals, is_done=not is_dry)


def vacuum_history(history: History) -> int:
    """Give what was freed back to the disk; until then later runs use it. Needs free space of the file's size, and no other writer.

    Returns:
        Bytes by which the file became smaller.

    Raises:
        StorageError: If somebody else uses the history, or the disk is full.
    """
    before = history.path.stat().st_size
    with history._writing() as connection:
        connection.execute("VACUUM")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return max(0, before - history.path.stat().st_size)


def thin(values: Sequence[float | None], keep_points: int) -> list[int]:
    """Return which points of a curve stay, in order.

    Args:
        values: One per step; None where it is not finite.
        keep_points: How many of the finite ones stay at most, at least ``MIN_POINTS``.

    Returns:
        Indices: of each of ``keep_points / 4`` buckets of consecutive points the first, last, smallest and largest finite one; and
        the first and last of each stretch that is not finite, with the finite neighbours of both.
    """
    n = len(values)
    if n <= keep_points:
        return list(range(n))
    kept = {0, n - 1}
    for index in range(1, n):
        if (values[index] is None) != (values[index - 1] is None):
            kept |= {index - 1, index}
    n_buckets = keep_points // _PER_BUCKET
    for number in range(n_buckets):
        first, end = number * n // n_buckets, (number + 1) * n // n_buckets
        finite = [(value, index) for index in range(first, end) if (value := values[index]) is not None]
        if finite:
            kept |= {finite[0][1], finite[-1][1], min(finite)[1], max(finite, key=lambda pair: (pair[0], -pair[1]))[1]}
    return sorted(kept)


def is_step_curve(name: str, rows: Sequence[Sequence[Any]], objective: str | None) -> bool:
    """Return whether a curve may be shortened: it is not the objective, of no validation, and has several rows an epoch.

    Args:
        name: Name of the metric.
        rows: Its rows, in the order of ``METRIC_COLUMNS``.
        objective: Name of the run's objective.
    """
    words = set(name.lower().replace("/", "_").replace(".", "_").replace("-", "_").split("_"))
    if name == objective or name.endswith("_epoch") or words & _VALIDATION_WORDS:
        return False
    epochs = {math.ceil(row[_EPOCH]) for row in rows if row[_EPOCH] is not None}
    return len(rows) > len(epochs)


def _candidates(connection: sqlite3.Connection, task_id: str | None, older_than: timedelta | None, keep_points: int) -> list[str]:
    clauses = ["status <> ?", "id NOT IN (SELECT run_id FROM compactions WHERE points <= ?)"]
    values: list[Any] = [str(RunStatus.RUNNING), keep_points]
    if task_id is not None:
        clauses.append("task_id = ?")
        values.append(task_id)
    if older_than is not None:
        clauses.append("started_utc < ?")
        values.append((datetime.now(UTC) - older_than).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    rows = connection.execute(f"SELECT id FROM runs WHERE {' AND '.join(clauses)} ORDER BY id", values)
    return [row[0] for row in rows]


def _compact_run(connection: sqlite3.Connection, run_id: str, keep_points: int, *, is_dry: bool) -> Compaction:
    """Shorten one run; the caller holds the transaction unless nothing is to be changed."""
    run = connection.execute("SELECT status, objective FROM runs WHERE id = ?", (run_id,)).fetchone()
    if run is None or run["status"] == RunStatus.RUNNING:  # it was resumed meanwhile
        return Compaction()
    n_rows = n_curves = n_freed = n_bytes = 0
    for name, attempt, rows in _curves(connection, run_id):
        n_rows += len(rows)
        if len(rows) <= keep_points or not is_step_curve(name, rows, run["objective"]):
            continue
        kept = thin([row[_VALUE] if row[_KIND] == "finite" else None for row in rows], keep_points)
        if len(kept) == len(rows):
            continue
        n_curves += 1
        n_freed += len(rows) - len(kept)
        n_bytes += (len(rows) - len(kept)) * (len(run_id) + len(name.encode()) + _ROW_OVERHEAD_BYTES)
        if not is_dry:
            # dropping a whole range and writing a few rows anew takes a small part of the time of dropping rows one by one
            connection.execute("DELETE FROM metrics WHERE run_id = ? AND name = ? AND attempt = ?", (run_id, name, attempt))
            insert_rows(connection, f"INSERT INTO metrics ({', '.join(METRIC_COLUMNS)})", [rows[index] for index in kept])
    if not n_freed:
        return Compaction()
    if not is_dry:
        connection.execute(
            "INSERT OR REPLACE INTO compactions (run_id, compacted_utc, method, points, rows_before, rows_after) VALUES (?, ?, ?, ?, ?, ?)",
            (run_id, utc_now(), METHOD, keep_points, n_rows, n_rows - n_freed),
        )
    return Compaction(1, n_curves, n_rows, n_freed, n_bytes)


def _curves(connection: sqlite3.Connection, run_id: str) -> Iterator[tuple[str, int, list[tuple[Any, ...]]]]:
    cursor = connection.cursor()
    cursor.row_factory = None
    rows = cursor.execute(
        f"SELECT {', '.join(METRIC_COLUMNS)} FROM metrics WHERE run_id = ? ORDER BY name, attempt, step", (run_id,)
    ).fetchall()
    for (name, attempt), curve in groupby(rows, key=lambda row: (row[1], row[2])):
        yield name, attempt, list(curve)
