"""The tables of a history, as numbered migrations.

A released migration is never edited and its name never reused. ``metrics`` is made and changed by raw DDL, because
``sqlite_utils``' ``transform`` would drop ``WITHOUT ROWID``.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from store.sqlite import fresh_schema

if TYPE_CHECKING:
    from sqlite_utils import Database, Migrations

APPLICATION_ID = 0x4D455448  # "METH" in the file header: tells a history from any other SQLite database
SCHEMA_VERSION = 2
"""``PRAGMA user_version`` of a history that has every migration of ``MIGRATIONS``."""

_TASKS_1: dict[str, type] = {
    "id": str,
    "name": str,
    "is_named": int,
    "objective": str,
    "direction": str,
    "identity_json": str,
    "description_json": str,
    "created_utc": str,
    "merged_into": str,
}

_RUNS_1: dict[str, type] = {
    "id": str,
    "task_id": str,
    "original_task_id": str,
    "status": str,
    "objective": str,
    "direction": str,
    "objective_best": float,
    "objective_best_kind": str,
    "objective_best_step": int,
    "objective_last": float,
    "objective_last_kind": str,
    "objective_last_step": int,
    "epochs_reached": float,
    "steps_reached": int,
    "started_utc": str,
    "ended_utc": str,
    "heartbeat_utc": str,
    "wall_s": float,
    "cpu_s": float,
    "gpu_s": float,
    "peak_memory_bytes": int,
    "peak_gpu_memory_bytes": int,
    "framework": str,
    "model_class": str,
    "model_family": str,
    "n_parameters": int,
    "variant": str,
    "error": str,
    "git_commit": str,
    "recommendation_id": str,
    "parent_run_id": str,
    "attempt": int,
    "host_hash": str,
    "pid": int,
    "versions_json": str,
    "description_json": str,
    # Counted up by the owner with each change: what waits in a spool never overwrites what is newer.
    "revision": int,
    "hparams_revision": int,
}

_HPARAMS_1: dict[str, type] = {
    "run_id": str,
    "name": str,
    "raw_name": str,
    "value_json": str,
    "source": str,
    "requested_json": str,
    "observed_json": str,
}

_METRICS_DDL_1 = """
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

# What the code of this version reads and writes: a later migration adds its columns here, never above.
TASK_COLUMNS = tuple(_TASKS_1)
RUN_COLUMNS = tuple(_RUNS_1)
HPARAM_COLUMNS = tuple(_HPARAMS_1)
METRIC_COLUMNS = ("run_id", "name", "attempt", "step", "epoch", "value", "kind", "elapsed_s")
RESOURCE_COLUMNS = ("run_id", "name", "device", "elapsed_s", "value")


def m001_first_tables(db: Database) -> None:
    """Create every table of the first schema."""
    created: Any = db
    created["tasks"].create(_TASKS_1, pk="id", not_null={"name", "is_named", "identity_json"})
    created["runs"].create(_RUNS_1, pk="id", not_null={"task_id", "status", "started_utc"})
    created["runs"].create_index(["task_id", "status"])
    created["runs"].create_index(["recommendation_id"])
    created["hparams"].create(_HPARAMS_1, pk=("run_id", "name"), not_null={"raw_name", "value_json", "source"})
    created["resources"].create(
        {"run_id": str, "name": str, "device": str, "elapsed_s": float, "value": float},
        pk=("run_id", "name", "device", "elapsed_s"),
    )
    created["recommendations"].create(
        {
            "id": str,
            "created_utc": str,
            "task_id": str,
            "decision": str,
            "recommendation_json": str,
            "current_json": str,
            "changes_json": str,
        },
        pk="id",
    )
    created["models"].create(
        {"id": str, "created_utc": str, "kind": str, "file": str, "n_runs": int, "n_tasks": int, "info_json": str}, pk="id"
    )
    created.execute(_METRICS_DDL_1)


def m002_indexes_and_compactions(db: Database) -> None:
    """Let what is asked every day be answered from indexes alone, and note which runs were made smaller."""
    # counts, last start and what changed, by task, without reading the wide rows of runs
    db.execute("DROP INDEX IF EXISTS idx_runs_task_id_status")
    db.execute("CREATE INDEX idx_runs_by_task ON runs (task_id, status, revision, started_utc)")
    # the best run of a task is the first of these that has finished
    db.execute("CREATE INDEX idx_runs_by_outcome ON runs (task_id, objective, direction, objective_best, id, status)")
    db.execute("CREATE INDEX idx_tasks_by_name ON tasks (name)")
    db.execute(
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


MIGRATIONS: tuple[Callable[[Database], None], ...] = (m001_first_tables, m002_indexes_and_compactions)


def build_migrations(version: int | None = None) -> Migrations:
    """Return the migrations up to a schema version, by default all, in order, as ``sqlite_utils`` runs them.

    ``sqlite_utils`` costs a third of a second to import, so it is imported here: only an old history pays.
    """
    from sqlite_utils import Migrations

    migrations = Migrations("metahp")
    for step in MIGRATIONS[:version]:
        migrations()(step)
    return migrations


def is_empty(connection: sqlite3.Connection) -> bool:
    """Say whether a database has no table yet."""
    return connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone() is None


def migrate(connection: sqlite3.Connection, version: int | None = None) -> None:
    """Bring an open history to the current schema; the caller holds the write transaction.

    Args:
        connection: In autocommit mode (``isolation_level=None``), inside ``BEGIN IMMEDIATE``.
        version: An older schema version to stop at: for taking in what was exported from it.
    """
    if version is None and is_empty(connection):
        fresh_schema.create(connection, [step.__name__ for step in MIGRATIONS])
    else:
        from sqlite_utils import Database

        build_migrations(version).apply(Database(connection))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION if version is None else version}")
