"""Corrections by hand: tasks merged and split, and whole histories merged. Each is one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from store.connection import transaction
from store.errors import InvalidArgumentError
from store.ids import task_id_of, utc_now
from store.operations import resolve_merged, write_task
from store.reading import find_run_id, find_task_id
from store.schema import HPARAM_COLUMNS, METRIC_COLUMNS, RUN_COLUMNS, TASK_COLUMNS
from store.values import encode_value


def merge_tasks(connection: sqlite3.Connection, into: str, others: Sequence[str]) -> None:
    """Make several tasks one; later runs with the others' identities join it as well.

    Raises:
        UnknownTaskError: If one of them does not exist.
    """
    with transaction(connection):
        target = find_task_id(connection, into)
        sources = [find_task_id(connection, other) for other in others]  # all of them before anything moves
        for source in sources:
            if resolve_merged(connection, source) != target:
                connection.execute("UPDATE tasks SET merged_into = ? WHERE id = ?", (target, source))
                connection.execute("UPDATE runs SET task_id = ? WHERE task_id = ?", (target, source))


def split_task(connection: sqlite3.Connection, run_ids: Sequence[str], name: str) -> str:
    """Move runs to the task of this name, which is made if there is none; one that was merged away stands alone again.

    Returns:
        The task's id.

    Raises:
        UnknownRunError: If one of the runs does not exist.
        InvalidArgumentError: If no runs are given.
    """
    if not run_ids:
        raise InvalidArgumentError(f"A task is split off with at least one run, but got none for {name!r}. Pass the ids of the runs.")
    with transaction(connection):
        ids = [find_run_id(connection, run_id) for run_id in run_ids]
        existing = connection.execute(
            "SELECT id FROM tasks WHERE id = ?1 OR name = ?1 ORDER BY id = ?1 DESC, is_named DESC LIMIT 1", (name,)
        ).fetchone()
        if existing:
            task_id: str = existing["id"]
            connection.execute("UPDATE tasks SET merged_into = NULL WHERE id = ?", (task_id,))
        else:
            task_id = _make_task(connection, name, ids[0])
        connection.executemany("UPDATE runs SET task_id = ? WHERE id = ?", [(task_id, run_id) for run_id in ids])
    return task_id


def _make_task(connection: sqlite3.Connection, name: str, run_id: str) -> str:
    """Make a named task that trains what a run trained."""
    identity = {"name": name}
    task_id = task_id_of(identity)
    run = connection.execute(
        "SELECT runs.objective, runs.direction, tasks.description_json FROM runs LEFT JOIN tasks ON tasks.id = runs.task_id "
        "WHERE runs.id = ?",
        (run_id,),
    ).fetchone()
    fixed = {"id": task_id, "name": name, "is_named": 1, "identity_json": encode_value(identity), "created_utc": utc_now()}
    write_task(connection, {**fixed, **dict(run)})
    return task_id


def merge_history(connection: sqlite3.Connection, other_path: Path) -> dict[str, int]:
    """Take over everything another history has that this one lacks or knows less of.

    Meta-models are not taken over: their files belong to the history they were learned from, and a refit is due anyway.

    Args:
        connection: Open history that receives.
        other_path: Existing history of the same schema.

    Returns:
        Table -> number of rows that came in; all zero the second time.
    """
    connection.execute("ATTACH DATABASE ? AS other", (str(other_path),))
    try:
        with transaction(connection):
            counts = {"tasks": _merge_task_rows(connection)}
            counts |= {table: connection.execute(query).rowcount for table, query in _MERGE_RUNS.items()}
            counts["hparams"] = _merge_hparams(connection)
            counts |= {table: connection.execute(query).rowcount for table, query in _MERGE_REST.items()}
            _follow_merged_tasks(connection)
    finally:
        connection.execute("DETACH DATABASE other")
    return counts


def _merge_task_rows(connection: sqlite3.Connection) -> int:
    rows: list[Mapping[str, Any]] = [dict(row) for row in connection.execute("SELECT * FROM other.tasks").fetchall()]
    count = 0
    for row in rows:
        is_new = not connection.execute("SELECT 1 FROM main.tasks WHERE id = ?", (row["id"],)).fetchone()
        count += is_new
        write_task(connection, {**{column: row[column] for column in TASK_COLUMNS}, "merged_into": None})
    for row in rows:
        if row["merged_into"] is None:
            continue
        target = resolve_merged(connection, row["merged_into"])
        # each history may have merged the other way round; ours stands, and no task may end in itself
        if target != row["id"]:
            connection.execute("UPDATE main.tasks SET merged_into = ? WHERE id = ? AND merged_into IS NULL", (target, row["id"]))
    return count


def _merge_hparams(connection: sqlite3.Connection) -> int:
    newer = [
        row[0]
        for row in connection.execute(
            "SELECT theirs.id FROM other.runs AS theirs JOIN main.runs AS ours ON ours.id = theirs.id "
            "WHERE coalesce(theirs.hparams_revision, 0) > coalesce(ours.hparams_revision, -1)"
        ).fetchall()
    ]
    columns = ", ".join(HPARAM_COLUMNS)
    count = 0
    for run_id in newer:
        connection.execute("DELETE FROM main.hparams WHERE run_id = ?", (run_id,))
        count += connection.execute(
            f"INSERT INTO main.hparams ({columns}) SELECT {columns} FROM other.hparams WHERE run_id = ? ORDER BY rowid", (run_id,)
        ).rowcount
        connection.execute(
            "UPDATE main.runs SET hparams_revision = coalesce((SELECT hparams_revision FROM other.runs WHERE id = ?1), 0) WHERE id = ?1",
            (run_id,),
        )
    return count


def _follow_merged_tasks(connection: sqlite3.Connection) -> None:
    merged = connection.execute("SELECT id FROM main.tasks WHERE merged_into IS NOT NULL").fetchall()
    for (task_id,) in [tuple(row) for row in merged]:
        target = resolve_merged(connection, task_id)
        connection.execute("UPDATE main.runs SET task_id = ? WHERE task_id = ?", (target, task_id))


_COPIED = [column for column in RUN_COLUMNS if column != "hparams_revision"]
_KEPT = {"id", "task_id", "original_task_id"}  # ours may have been corrected by hand

_MERGE_RUNS = {
    "runs": f"INSERT INTO main.runs ({', '.join(_COPIED)}) SELECT {', '.join(_COPIED)} FROM other.runs WHERE true "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in _COPIED if column not in _KEPT)} "
    "WHERE coalesce(excluded.revision, 0) > coalesce(runs.revision, 0)"
}

_MERGE_REST = {
    "metrics": f"INSERT INTO main.metrics ({', '.join(METRIC_COLUMNS)}) "
    f"SELECT {', '.join(METRIC_COLUMNS)} FROM other.metrics WHERE true "
    "ON CONFLICT (run_id, name, attempt, step) DO UPDATE SET "
    "epoch = excluded.epoch, value = excluded.value, kind = excluded.kind, elapsed_s = excluded.elapsed_s "
    "WHERE coalesce(excluded.elapsed_s, 0) > coalesce(metrics.elapsed_s, 0)",
    "resources": "INSERT OR IGNORE INTO main.resources SELECT * FROM other.resources",
    "recommendations": "INSERT OR IGNORE INTO main.recommendations SELECT * FROM other.recommendations",
}
