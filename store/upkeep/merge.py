"""Whole histories merged: ids are unique across machines, so nothing is renamed and doing it twice changes nothing.

Where both know the same run, the one that got further wins: the owner counts every change of a run's row (``revision``), and a
resumed run counts on above its former attempt. Corrections by hand (tasks merged or split) travel, but ours stand, and what was made
smaller here stays so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.recording import spool
from store.sqlite.connection import copy_of, is_current, opened_for_reading, transaction
from store.sqlite.operations import resolve_merged
from store.sqlite.schema import HPARAM_COLUMNS, METRIC_COLUMNS, RUN_COLUMNS, TASK_COLUMNS

COUNTED = ("tasks", "runs", "runs_updated", "hparams", "metrics", "resources", "recommendations", "compactions")
"""What a merge reports: rows that came in by table, new and updated; ``runs_updated`` are those of ``runs`` that were known before."""


@contextmanager
def source_file(path: Path) -> Iterator[Path]:
    """Give a file of the current schema with everything another history has, what waits in its spool included.

    The other history is only read: an older one, or one with a spool, is copied first.

    Raises:
        HistoryPathError: If there is none.
        NotAHistoryError: If it is something else.
        HistoryTooNewError: If a newer version wrote it.
    """
    probe = opened_for_reading(path)
    try:
        is_ready = probe.copy is None and is_current(probe, path) and not spool.waiting_files(path)
    finally:
        probe.close()
    if is_ready:
        yield path
        return
    copied = copy_of(path)
    try:
        spool.apply_waiting(copied, path)
        yield Path(copied.copy.name) / "history.db"
    finally:
        copied.close()
        copied.copy.cleanup()


def merge_history(connection: sqlite3.Connection, other_path: Path, *, with_models: bool = False) -> dict[str, int]:
    """Take over everything another history has that this one lacks or knows less of.

    Meta-models are not taken over unless asked for: their files belong to the history they were learned from.

    Args:
        connection: Open history that receives.
        other_path: Existing history of the same schema.
        with_models: Whether the rows of ``models`` are taken over as well.

    Returns:
        Table -> number of rows that came in; all zero the second time. See ``COUNTED``.
    """
    try:
        connection.execute("ATTACH DATABASE ? AS other", (f"{other_path.as_uri()}?mode=ro",))
        connection.execute("SELECT 1 FROM other.sqlite_master LIMIT 1").fetchone()
    except sqlite3.OperationalError:
        _detach(connection)
        connection.execute("ATTACH DATABASE ? AS other", (f"{other_path.as_uri()}?mode=ro&immutable=1",))
    try:
        with transaction(connection):
            connection.execute("CREATE TEMP TABLE known AS SELECT id FROM main.runs")
            counts = {"tasks": _merge_tasks(connection), **_merge_runs(connection), "hparams": _merge_hparams(connection)}
            rest = dict(_MERGE_REST) if with_models else {table: query for table, query in _MERGE_REST.items() if table != "models"}
            counts |= {table: connection.execute(query).rowcount for table, query in rest.items()}
            _follow_merged_tasks(connection)
            connection.execute("DROP TABLE temp.known")
    finally:
        _detach(connection)
    return counts


def _detach(connection: sqlite3.Connection) -> None:
    if any(row[1] == "other" for row in connection.execute("PRAGMA database_list")):
        connection.execute("DETACH DATABASE other")


def _merge_tasks(connection: sqlite3.Connection) -> int:
    rows = [dict(row) for row in connection.execute("SELECT * FROM other.tasks ORDER BY rowid").fetchall()]
    known = {row["id"] for row in connection.execute("SELECT id FROM main.tasks")}
    names = {row["name"] for row in connection.execute("SELECT name FROM main.tasks")}
    for row in rows:
        values: dict[str, Any] = {column: row[column] for column in TASK_COLUMNS} | {"merged_into": None}
        if row["id"] not in known and not row["is_named"] and row["name"] in names:
            # two fingerprints with the same classes: the names people read must tell them apart
            values["name"] = f"{row['name']}-{row['id'][1:5]}"
        connection.execute(_MERGE_TASK, values)
    for task_id, target in [(row["id"], row["merged_into"]) for row in rows if row["merged_into"] is not None]:
        # each history may have merged the other way round; ours stands, and no task may end in itself
        if resolve_merged(connection, target) != task_id:
            connection.execute("UPDATE main.tasks SET merged_into = ? WHERE id = ? AND merged_into IS NULL", (target, task_id))
    return sum(row["id"] not in known for row in rows)


def _merge_runs(connection: sqlite3.Connection) -> dict[str, int]:
    n_before = connection.execute("SELECT count(*) FROM main.runs").fetchone()[0]
    n_written = connection.execute(_UPSERT_RUNS).rowcount
    n_new = connection.execute("SELECT count(*) FROM main.runs").fetchone()[0] - n_before
    # moved by hand there, where its own identity put it here
    n_moved = connection.execute(
        "UPDATE main.runs SET task_id = theirs.task_id FROM other.runs AS theirs WHERE theirs.id = runs.id "
        "AND theirs.task_id <> theirs.original_task_id AND runs.task_id = runs.original_task_id AND theirs.task_id NOT IN "
        "(SELECT id FROM main.tasks WHERE merged_into IS NOT NULL) "
        "AND NOT EXISTS (SELECT 1 FROM other.tasks WHERE id = theirs.original_task_id AND merged_into IS NOT NULL)"
    ).rowcount
    return {"runs": n_written + n_moved, "runs_updated": n_written + n_moved - n_new}


def _merge_hparams(connection: sqlite3.Connection) -> int:
    connection.execute(
        "CREATE TEMP TABLE newer AS SELECT theirs.id AS id, theirs.hparams_revision AS revision "
        "FROM other.runs AS theirs JOIN main.runs AS ours ON ours.id = theirs.id "
        "WHERE coalesce(theirs.hparams_revision, 0) > coalesce(ours.hparams_revision, -1)"
    )
    try:
        columns = ", ".join(HPARAM_COLUMNS)
        connection.execute("DELETE FROM main.hparams WHERE run_id IN (SELECT id FROM temp.newer)")
        count = connection.execute(
            f"INSERT INTO main.hparams ({columns}) SELECT {columns} FROM other.hparams "
            "WHERE run_id IN (SELECT id FROM temp.newer) ORDER BY rowid"
        ).rowcount
        connection.execute("UPDATE main.runs SET hparams_revision = coalesce(newer.revision, 0) FROM temp.newer WHERE newer.id = runs.id")
    finally:
        connection.execute("DROP TABLE temp.newer")
    return count


def _follow_merged_tasks(connection: sqlite3.Connection) -> None:
    merged = connection.execute("SELECT id FROM main.tasks WHERE merged_into IS NOT NULL").fetchall()
    for (task_id,) in [tuple(row) for row in merged]:
        target = resolve_merged(connection, task_id)
        connection.execute("UPDATE main.runs SET task_id = ? WHERE task_id = ?", (target, task_id))


_MERGE_TASK = (
    f"INSERT INTO main.tasks ({', '.join(TASK_COLUMNS)}) VALUES ({', '.join(f':{column}' for column in TASK_COLUMNS)}) "
    "ON CONFLICT (id) DO UPDATE SET "
    "direction = CASE WHEN tasks.objective IS NULL THEN excluded.direction ELSE tasks.direction END, "
    "objective = coalesce(tasks.objective, excluded.objective), "
    "description_json = coalesce(tasks.description_json, excluded.description_json)"
)

_COPIED = [column for column in RUN_COLUMNS if column != "hparams_revision"]
_KEPT = {"id", "task_id", "original_task_id"}  # ours may have been corrected by hand

_UPSERT_RUNS = (
    f"INSERT INTO main.runs ({', '.join(_COPIED)}) SELECT {', '.join(_COPIED)} FROM other.runs WHERE true ORDER BY rowid "
    f"ON CONFLICT (id) DO UPDATE SET {', '.join(f'{column} = excluded.{column}' for column in _COPIED if column not in _KEPT)} "
    # the same number of changes, but not the same: two machines went on with one run; the one with the later heartbeat got further
    "WHERE coalesce(excluded.revision, 0) > coalesce(runs.revision, 0) OR (coalesce(excluded.revision, 0) = coalesce(runs.revision, 0) "
    "AND coalesce(excluded.heartbeat_utc, '') > coalesce(runs.heartbeat_utc, ''))"
)


def _ignoring(table: str, columns: tuple[str, ...], *, where: str = "true", order: str = "rowid", newer: str = "") -> str:
    names, verb = ", ".join(columns), "INSERT" if newer else "INSERT OR IGNORE"
    return f"{verb} INTO main.{table} ({names}) SELECT {names} FROM other.{table} AS theirs WHERE {where} ORDER BY {order} {newer}"


_MERGE_REST = {
    "metrics": _ignoring(
        "metrics",
        METRIC_COLUMNS,
        # the values that compacting removed here do not come back, those of a later attempt do
        where="run_id NOT IN (SELECT run_id FROM main.compactions) "
        "OR attempt > (SELECT coalesce(max(attempt), -1) FROM main.metrics WHERE run_id = theirs.run_id)",
        order="run_id, name, attempt, step",
        newer="ON CONFLICT (run_id, name, attempt, step) DO UPDATE SET "
        "epoch = excluded.epoch, value = excluded.value, kind = excluded.kind, elapsed_s = excluded.elapsed_s "
        "WHERE coalesce(excluded.elapsed_s, 0) > coalesce(metrics.elapsed_s, 0)",
    ),
    "resources": _ignoring("resources", ("run_id", "name", "device", "elapsed_s", "value")),
    "recommendations": _ignoring(
        "recommendations",
        ("id", "created_utc", "task_id", "decision", "recommendation_json", "current_json", "changes_json"),
        newer="ON CONFLICT (id) DO UPDATE SET decision = excluded.decision, recommendation_json = excluded.recommendation_json, "
        "created_utc = excluded.created_utc, current_json = excluded.current_json, changes_json = excluded.changes_json "
        "WHERE coalesce(excluded.created_utc, '') > coalesce(recommendations.created_utc, '')",
    ),
    "compactions": _ignoring(
        "compactions",
        ("run_id", "compacted_utc", "method", "points", "rows_before", "rows_after"),
        where="run_id NOT IN (SELECT id FROM temp.known)",
        order="run_id, compacted_utc",
    ),
    "models": _ignoring("models", ("id", "created_utc", "kind", "file", "n_runs", "n_tasks", "info_json")),
}
