"""What a recorder writes, as operations that can be applied to a history at once or wait as JSON lines in a spool.

Each one may be applied twice, late or out of order and the history ends the same: a run's row carries a revision, a metric's
value the time since the start, and what is older never replaces what is newer.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

from store.sqlite.schema import HPARAM_COLUMNS, METRIC_COLUMNS, RESOURCE_COLUMNS, RUN_COLUMNS, TASK_COLUMNS

_ROWS_PER_STATEMENT = 400
"""More gain nothing; an SQLite that takes fewer values in one statement gets fewer rows."""
_SERIES_PER_STATEMENT = 100
"""The same for names that are logged together, so that the values of one call always fit."""

Operation = Mapping[str, Any]
"""``{"op": "run" | "metrics" | "series" | "resources", "run_id": ..., ...}``, JSON-compatible; see ``spooled`` for what waits in a file."""


def run_operation(row: Mapping[str, Any], task: Mapping[str, Any], hparams: list[list[Any]] | None) -> dict[str, Any]:
    """Return the operation that writes a run's whole row.

    Args:
        row: Column -> value, with ``revision`` and ``hparams_revision``.
        task: Column -> value of the run's task.
        hparams: Rows in the order of ``HPARAM_COLUMNS``; None where they did not change.
    """
    return {"op": "run", "run_id": row["id"], "row": dict(row), "task": dict(task), "hparams": hparams}


def metrics_operation(run_id: str, rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return the operation that writes values; rows in the order of ``METRIC_COLUMNS``."""
    return {"op": "metrics", "run_id": run_id, "rows": rows}


def series_operation(
    run_id: str,
    attempt: int,
    series: Mapping[str, Sequence[float]],
    steps: Sequence[int],
    epochs: Sequence[float | None],
    elapsed_s: Sequence[float],
) -> dict[str, Any]:
    """Return the operation that writes metrics which were logged together, ``n`` times.

    It lives in memory alone; what waits in a spool are the rows, which every version of this package can read.

    Args:
        run_id: Run.
        attempt: Its attempt.
        series: Name -> ``n`` finite values.
        steps: ``n`` steps.
        epochs: ``n`` epochs.
        elapsed_s: ``n`` times since the start, in seconds.
    """
    op = {"op": "series", "run_id": run_id, "attempt": attempt, "series": series}
    return op | {"steps": steps, "epochs": epochs, "elapsed_s": elapsed_s}


def spooled(operation: Operation) -> Operation:
    """Return an operation in the form in which it waits in a spool."""
    return metrics_operation(operation["run_id"], _rows_of_series(operation)) if operation["op"] == "series" else operation


def _rows_of_series(operation: Operation) -> list[tuple[Any, ...]]:
    shared = list(zip(operation["steps"], operation["epochs"], operation["elapsed_s"], strict=True))
    run_id, attempt = operation["run_id"], operation["attempt"]
    return [
        (run_id, name, attempt, step, epoch, value, "finite", elapsed_s)
        for name, values in operation["series"].items()
        for (step, epoch, elapsed_s), value in zip(shared, values, strict=True)
    ]


def resources_operation(run_id: str, rows: list[list[Any]]) -> dict[str, Any]:
    """Return the operation that writes samples; rows in the order of ``RESOURCE_COLUMNS``."""
    return {"op": "resources", "run_id": run_id, "rows": rows}


def apply_operations(connection: sqlite3.Connection, operations: Iterable[Operation]) -> None:
    """Write operations into a history; the caller holds the transaction.

    Raises:
        ValueError: If an operation is of a kind this version does not know.
        sqlite3.Error: If SQLite refuses.
    """
    for operation in operations:
        kind = operation["op"]
        if kind == "metrics":
            insert_rows(connection, _INSERT_METRIC, operation["rows"], _UPDATE_OLDER_METRIC)
        elif kind == "series":
            _write_series(connection, operation)
        elif kind == "run":
            _write_run(connection, operation)
        elif kind == "resources":
            insert_rows(connection, _INSERT_RESOURCE, operation["rows"])
        else:
            raise ValueError(f"unknown operation {kind!r}")


def insert_rows(connection: sqlite3.Connection, into: str, rows: Iterable[Sequence[Any]], tail: str = "") -> int:
    """Insert many rows, most of them many to a statement: that takes less than half the time of ``executemany``.

    Args:
        connection: Open history; the caller holds the transaction.
        into: ``INSERT INTO table (columns)``.
        rows: Rows in the order of the columns, all of one length; consumed one at a time.
        tail: What follows the values, such as an ``ON CONFLICT`` clause.

    Returns:
        Number of rows inserted or updated.
    """
    count = 0
    source = iter(rows)
    n_columns = into.count(",") + 1
    places = f"({', '.join('?' * n_columns)})"
    n_rows = min(_ROWS_PER_STATEMENT, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) // n_columns)
    statement = ""
    while batch := list(islice(source, n_rows)):
        if len(batch) == n_rows:
            # always the same text, so that SQLite compiles it once
            statement = statement or f"{into} VALUES {', '.join([places] * len(batch))} {tail}"
            count += connection.execute(statement, [value for row in batch for value in row]).rowcount
        else:
            count += connection.executemany(f"{into} VALUES {places} {tail}", batch).rowcount
    return count


def _write_series(connection: sqlite3.Connection, operation: Operation) -> None:
    """Write metrics that were logged together: what they share is handed to SQLite once, not with each value.

    Handing values over is most of what a flush keeps the interpreter busy with; SQLite's own work goes on beside the training.
    """
    steps, epochs, elapsed_s = operation["steps"], operation["epochs"], operation["elapsed_s"]
    names = sorted(operation["series"])  # in the order of the primary key
    for first in range(0, len(names), _SERIES_PER_STATEMENT):
        some = names[first : first + _SERIES_PER_STATEMENT]
        head = [operation["run_id"], operation["attempt"], *some]
        columns = [operation["series"][name] for name in some]
        start, n_values = 0, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER) - len(head)
        size = max(1, min(_ROWS_PER_STATEMENT // len(some), n_values // (3 + len(some))))
        while start < len(steps):
            while size > len(steps) - start:
                size = (size + 3) // 4  # few different statements, since SQLite compiles each once
            end = start + size
            values = [*head, *steps[start:end], *epochs[start:end], *elapsed_s[start:end]]
            for column in columns:
                values += column[start:end]
            connection.execute(_series_statement(len(some), size), values)
            start = end


@functools.lru_cache(maxsize=64)
def _series_statement(n_names: int, n_steps: int) -> str:
    """Return the statement that writes ``n_names`` metrics of ``n_steps`` log calls.

    Its values: run, attempt, the names; then steps, epochs and times of the calls; then the values of each metric.
    """
    step, epoch, elapsed_s, value = (3 + n_names + part * n_steps for part in range(4))
    rows = [
        f"(?1,?{3 + name},?2,?{step + i},?{epoch + i},?{value + name * n_steps + i},'finite',?{elapsed_s + i})"
        for name in range(n_names)
        for i in range(n_steps)
    ]
    return f"{_INSERT_METRIC} VALUES {','.join(rows)} {_UPDATE_OLDER_METRIC}"


def resolve_merged(connection: sqlite3.Connection, task_id: str) -> str:
    """Return the task that a task was merged into, itself if it was not."""
    seen = {task_id}
    while True:
        row = connection.execute("SELECT merged_into FROM tasks WHERE id = ?", (task_id,)).fetchone()
        if row is None or row[0] is None or row[0] in seen:
            return task_id
        task_id = row[0]
        seen.add(task_id)


def write_task(connection: sqlite3.Connection, task: Mapping[str, Any]) -> None:
    """Insert a task or complete it; what is known of it is never replaced by nothing."""
    row: dict[str, Any] = {column: task.get(column) for column in TASK_COLUMNS}
    if not row["is_named"] and _is_name_taken(connection, row["name"], row["id"]):
        # two fingerprints with the same classes: the names people read must tell them apart
        row["name"] = f"{row['name']}-{row['id'][1:5]}"
    connection.execute(_UPSERT_TASK, row)


def _is_name_taken(connection: sqlite3.Connection, name: str, task_id: str) -> bool:
    return connection.execute("SELECT 1 FROM tasks WHERE name = ? AND id <> ?", (name, task_id)).fetchone() is not None


def _write_run(connection: sqlite3.Connection, operation: Operation) -> None:
    write_task(connection, operation["task"])
    row: dict[str, Any] = {column: operation["row"].get(column) for column in RUN_COLUMNS}
    revision = row.pop("hparams_revision")
    row["original_task_id"] = row["task_id"]
    row["task_id"] = resolve_merged(connection, row["task_id"])
    connection.execute(_UPSERT_RUN, row)
    rows = operation.get("hparams")
    if rows is None:
        return
    written = connection.execute(
        "UPDATE runs SET hparams_revision = ? WHERE id = ? AND coalesce(hparams_revision, -1) < ?",
        (revision, row["id"], revision),
    )
    if written.rowcount:
        connection.execute("DELETE FROM hparams WHERE run_id = ?", (row["id"],))
        connection.executemany(_INSERT_HPARAM, rows)


_RUN_WRITTEN = tuple(column for column in RUN_COLUMNS if column != "hparams_revision")

_UPSERT_RUN = (
    f"INSERT INTO runs ({', '.join(_RUN_WRITTEN)}) VALUES ({', '.join(f':{column}' for column in _RUN_WRITTEN)}) "
    "ON CONFLICT (id) DO UPDATE SET "
    # a task that was merged or split by hand stays so, unless the owner itself moved the run
    "task_id = CASE WHEN runs.original_task_id IS excluded.original_task_id THEN runs.task_id ELSE excluded.task_id END, "
    "heartbeat_utc = nullif(max(coalesce(runs.heartbeat_utc, ''), coalesce(excluded.heartbeat_utc, '')), ''), "
    + ", ".join(f"{column} = excluded.{column}" for column in _RUN_WRITTEN if column not in {"id", "task_id", "heartbeat_utc"})
    + " WHERE coalesce(excluded.revision, 0) > coalesce(runs.revision, -1)"
)

_UPSERT_TASK = (
    f"INSERT INTO tasks ({', '.join(TASK_COLUMNS)}) VALUES ({', '.join(f':{column}' for column in TASK_COLUMNS)}) "
    "ON CONFLICT (id) DO UPDATE SET "
    "direction = CASE WHEN tasks.objective IS NULL THEN excluded.direction ELSE tasks.direction END, "
    "objective = coalesce(tasks.objective, excluded.objective), "
    "description_json = coalesce(excluded.description_json, tasks.description_json)"
)

_INSERT_HPARAM = f"INSERT OR REPLACE INTO hparams ({', '.join(HPARAM_COLUMNS)}) VALUES ({', '.join('?' * len(HPARAM_COLUMNS))})"

_INSERT_RESOURCE = f"INSERT OR REPLACE INTO resources ({', '.join(RESOURCE_COLUMNS)})"

_INSERT_METRIC = f"INSERT INTO metrics ({', '.join(METRIC_COLUMNS)})"
_UPDATE_OLDER_METRIC = (
    "ON CONFLICT (run_id, name, attempt, step) DO UPDATE SET "
    "epoch = excluded.epoch, value = excluded.value, kind = excluded.kind, elapsed_s = excluded.elapsed_s "
    "WHERE coalesce(excluded.elapsed_s, 0) >= coalesce(metrics.elapsed_s, 0)"
)
