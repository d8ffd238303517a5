"""The tables of a new history as one script: what the migrations of ``store/sqlite/schema.py`` come to.

The migrations stay the definition. They need ``sqlite_utils``, which takes a third of a second to import, and nobody's first run shall
wait for that. A test compares the two, table by table and index by index.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime

FRESH_SCHEMA = """
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE TABLE "tasks" (
   "id" TEXT PRIMARY KEY,
   "name" TEXT NOT NULL,
   "is_named" INTEGER NOT NULL,
   "objective" TEXT,
   "direction" TEXT,
   "identity_json" TEXT NOT NULL,
   "description_json" TEXT,
   "created_utc" TEXT,
   "merged_into" TEXT
);
CREATE TABLE "runs" (
   "id" TEXT PRIMARY KEY,
   "task_id" TEXT NOT NULL,
   "original_task_id" TEXT,
   "status" TEXT NOT NULL,
   "objective" TEXT,
   "direction" TEXT,
   "objective_best" REAL,
   "objective_best_kind" TEXT,
   "objective_best_step" INTEGER,
   "objective_last" REAL,
   "objective_last_kind" TEXT,
   "objective_last_step" INTEGER,
   "epochs_reached" REAL,
   "steps_reached" INTEGER,
   "started_utc" TEXT NOT NULL,
   "ended_utc" TEXT,
   "heartbeat_utc" TEXT,
   "wall_s" REAL,
   "cpu_s" REAL,
   "gpu_s" REAL,
   "peak_memory_bytes" INTEGER,
   "peak_gpu_memory_bytes" INTEGER,
   "framework" TEXT,
   "model_class" TEXT,
   "model_family" TEXT,
   "n_parameters" INTEGER,
   "variant" TEXT,
   "error" TEXT,
   "git_commit" TEXT,
   "recommendation_id" TEXT,
   "parent_run_id" TEXT,
   "attempt" INTEGER,
   "host_hash" TEXT,
   "pid" INTEGER,
   "versions_json" TEXT,
   "description_json" TEXT,
   "revision" INTEGER,
   "hparams_revision" INTEGER
);
CREATE INDEX "idx_runs_recommendation_id"
    ON "runs" ("recommendation_id");
CREATE TABLE "hparams" (
   "run_id" TEXT,
   "name" TEXT,
   "raw_name" TEXT NOT NULL,
   "value_json" TEXT NOT NULL,
   "source" TEXT NOT NULL,
   "requested_json" TEXT,
   "observed_json" TEXT,
   PRIMARY KEY ("run_id", "name")
);
CREATE TABLE "resources" (
   "run_id" TEXT,
   "name" TEXT,
   "device" TEXT,
   "elapsed_s" REAL,
   "value" REAL,
   PRIMARY KEY ("run_id", "name", "device", "elapsed_s")
);
CREATE TABLE "recommendations" (
   "id" TEXT PRIMARY KEY,
   "created_utc" TEXT,
   "task_id" TEXT,
   "decision" TEXT,
   "recommendation_json" TEXT,
   "current_json" TEXT,
   "changes_json" TEXT
);
CREATE TABLE "models" (
   "id" TEXT PRIMARY KEY,
   "created_utc" TEXT,
   "kind" TEXT,
   "file" TEXT,
   "n_runs" INTEGER,
   "n_tasks" INTEGER,
   "info_json" TEXT
);
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
) WITHOUT ROWID;
CREATE INDEX idx_runs_by_task ON runs (task_id, status, revision, started_utc);
CREATE INDEX idx_runs_by_outcome ON runs (task_id, objective, direction, objective_best, id, status);
CREATE INDEX idx_tasks_by_name ON tasks (name);
CREATE TABLE compactions (
    run_id TEXT NOT NULL,
    compacted_utc TEXT NOT NULL,
    method TEXT NOT NULL,
    points INTEGER NOT NULL,
    rows_before INTEGER NOT NULL,
    rows_after INTEGER NOT NULL,
    PRIMARY KEY (run_id, compacted_utc)
) WITHOUT ROWID;
"""


def create(connection: sqlite3.Connection, names: Iterable[str]) -> None:
    """Make every table in an empty database; the caller holds the write transaction.

    Args:
        connection: In autocommit mode, inside ``BEGIN IMMEDIATE``.
        names: Of the migrations that this is the outcome of, which are noted as applied.
    """
    for statement in FRESH_SCHEMA.split(";"):  # not executescript, which would commit
        if statement.strip():
            connection.execute(statement.strip())
    applied = [("metahp", name, str(datetime.now(UTC))) for name in names]
    connection.executemany("INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)", applied)
