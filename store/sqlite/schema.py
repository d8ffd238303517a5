"""The tables of a history, as numbered migrations in plain SQL: a new history is made by all of them, an older one by those it lacks.

What a released migration does is never changed and its name never reused; the dumps under ``tests/store/released`` hold it to that.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime

APPLICATION_ID = 0x4D455448  # "METH" in the file header: tells a history from any other SQLite database
SCHEMA_VERSION = 3
"""``PRAGMA user_version`` of a history that has every migration of ``MIGRATIONS``."""

_TASKS_1: dict[str, str] = {
    "id": "TEXT",
    "name": "TEXT",
    "is_named": "INTEGER",
    "objective": "TEXT",
    "direction": "TEXT",
    "identity_json": "TEXT",
    "description_json": "TEXT",
    "created_utc": "TEXT",
    "merged_into": "TEXT",
}

_RUNS_1: dict[str, str] = {
    "id": "TEXT",
    "task_id": "TEXT",
    "original_task_id": "TEXT",
    "status": "TEXT",
    "objective": "TEXT",
    "direction": "TEXT",
    "objective_best": "REAL",
    "objective_best_kind": "TEXT",
    "objective_best_step": "INTEGER",
    "objective_last": "REAL",
    "objective_last_kind": "TEXT",
    "objective_last_step": "INTEGER",
    "epochs_reached": "REAL",
    "steps_reached": "INTEGER",
    "started_utc": "TEXT",
    "ended_utc": "TEXT",
    "heartbeat_utc": "TEXT",
    "wall_s": "REAL",
    "cpu_s": "REAL",
    "gpu_s": "REAL",
    "peak_memory_bytes": "INTEGER",
    "peak_gpu_memory_bytes": "INTEGER",
    "framework": "TEXT",
    "model_class": "TEXT",
    "model_family": "TEXT",
    "n_parameters": "INTEGER",
    "variant": "TEXT",
    "error": "TEXT",
    "git_commit": "TEXT",
    "recommendation_id": "TEXT",
    "parent_run_id": "TEXT",
    "attempt": "INTEGER",
    "host_hash": "TEXT",
    "pid": "INTEGER",
    "versions_json": "TEXT",
    "description_json": "TEXT",
    # Counted up by the owner with each change: what waits in a spool never overwrites what is newer.
    "revision": "INTEGER",
    "hparams_revision": "INTEGER",
}

_HPARAMS_1: dict[str, str] = {
    "run_id": "TEXT",
    "name": "TEXT",
    "raw_name": "TEXT",
    "value_json": "TEXT",
    "source": "TEXT",
    "requested_json": "TEXT",
    "observed_json": "TEXT",
}

# What the code of this version reads and writes: a later migration adds its columns here, never above.
TASK_COLUMNS = tuple(_TASKS_1)
RUN_COLUMNS = tuple(_RUNS_1)
HPARAM_COLUMNS = tuple(_HPARAMS_1)
METRIC_COLUMNS = ("run_id", "name", "attempt", "step", "epoch", "value", "kind", "elapsed_s")
RESOURCE_COLUMNS = ("run_id", "name", "device", "elapsed_s", "value")


def m001_first_tables(connection: sqlite3.Connection) -> None:
    """Create every table of the first schema."""
    _create(connection, "tasks", _TASKS_1, key=("id",), not_null={"name", "is_named", "identity_json"})
    _create(connection, "runs", _RUNS_1, key=("id",), not_null={"task_id", "status", "started_utc"})
    connection.execute('CREATE INDEX "idx_runs_task_id_status"\n    ON "runs" ("task_id", "status")')
    connection.execute('CREATE INDEX "idx_runs_recommendation_id"\n    ON "runs" ("recommendation_id")')
    _create(connection, "hparams", _HPARAMS_1, key=("run_id", "name"), not_null={"raw_name", "value_json", "source"})
    resources = {"run_id": "TEXT", "name": "TEXT", "device": "TEXT", "elapsed_s": "REAL", "value": "REAL"}
    _create(connection, "resources", resources, key=("run_id", "name", "device", "elapsed_s"))
    texts = ("id", "created_utc", "task_id", "decision", "recommendation_json", "current_json", "changes_json")
    _create(connection, "recommendations", dict.fromkeys(texts, "TEXT"), key=("id",))
    models = {"id": "TEXT", "created_utc": "TEXT", "kind": "TEXT", "file": "TEXT"}
    _create(connection, "models", {**models, "n_runs": "INTEGER", "n_tasks": "INTEGER", "info_json": "TEXT"}, key=("id",))
    connection.execute(
        """
CREATE TABLE metrics (
    run_id TEXT NOT NULL,
    name TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    step INTEGER NOT NULL,
    epoch REAL,
    value REAL,
    kind TEXT NOT NULL CHECK (kind IN ('finite', 'nan', 'inf', '-inf')),
    elapsed_s REAL,
    PRIMARY KEY (run_id, name, attempt, step)
) WITHOUT ROWID
"""
    )


def m002_indexes_and_compactions(connection: sqlite3.Connection) -> None:
    """Let what is asked every day be answered from indexes alone, and note which runs were made smaller."""
    # counts, last start and what changed, by task, without reading the wide rows of runs
    connection.execute("DROP INDEX IF EXISTS idx_runs_task_id_status")
    connection.execute("CREATE INDEX idx_runs_by_task ON runs (task_id, status, revision, started_utc)")
    # the best run of a task is the first of these that has finished
    connection.execute("CREATE INDEX idx_runs_by_outcome ON runs (task_id, objective, direction, objective_best, id, status)")
    connection.execute("CREATE INDEX idx_tasks_by_name ON tasks (name)")
    connection.execute(
        """
CREATE TABLE compactions (
    run_id TEXT NOT NULL,
    compacted_utc TEXT NOT NULL,
    method TEXT NOT NULL,
    points INTEGER NOT NULL,
    rows_before INTEGER NOT NULL,
    rows_after INTEGER NOT NULL,
    PRIMARY KEY (run_id, compacted_utc)
) WITHOUT ROWID
"""
    )


def m003_batch_size_is_per_device(connection: sqlite3.Connection) -> None:
    """Call the batch that a device loads by a name that cannot be taken for the global batch. The user's own name stays beside it."""
    # A run that has a hyperparameter of the new name already keeps both as they are.
    connection.execute("UPDATE OR IGNORE hparams SET name = 'per_device_batch_size' WHERE name = 'batch_size'")


MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (
    m001_first_tables,
    m002_indexes_and_compactions,
    m003_batch_size_is_per_device,
)


def _create(
    connection: sqlite3.Connection, table: str, columns: Mapping[str, str], *, key: tuple[str, ...], not_null: Collection[str] = ()
) -> None:
    """Create a table from column -> type. With several columns a key stands at the end, as the released files have it."""
    lines = [f'"{name}" {kind}' + " NOT NULL" * (name in not_null) + " PRIMARY KEY" * (key == (name,)) for name, kind in columns.items()]
    if len(key) > 1:
        quoted = ", ".join(f'"{name}"' for name in key)
        lines.append(f"PRIMARY KEY ({quoted})")
    connection.execute(f'CREATE TABLE "{table}" (\n   ' + ",\n   ".join(lines) + "\n)")


def migrate(connection: sqlite3.Connection, version: int | None = None) -> None:
    """Bring an open history to the current schema; the caller holds the write transaction.

    Args:
        connection: In autocommit mode (``isolation_level=None``), inside ``BEGIN IMMEDIATE``.
        version: An older schema version to stop at: for taking in what was exported from it.
    """
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if not found:
        # the layout in which the library that once ran these migrations kept them; it also shows when a history was made
        columns = {"id": "INTEGER", "migration_set": "TEXT", "name": "TEXT", "applied_at": "TEXT"}
        _create(connection, "_sqlite_migrations", columns, key=("id",))
        index = 'CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"'
        connection.execute(f'{index}\n    ON "_sqlite_migrations" ("migration_set", "name")')
    for step in MIGRATIONS[found:version]:
        step(connection)
        applied = ("metahp", step.__name__, str(datetime.now(UTC)))
        connection.execute("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)", applied)
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION if version is None else version}")
