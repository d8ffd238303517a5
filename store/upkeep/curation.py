"""Corrections by hand: tasks merged and split. Each is one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from store.errors import InvalidArgumentError
from store.ids import task_id_of, utc_now
from store.sqlite.connection import transaction
from store.sqlite.operations import resolve_merged, write_task
from store.sqlite.row_reader import find_run_id, find_task_id
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
    """Move runs to the task of this name, which is made if there is none; one that was merged away is a task of its own again.

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


def rename_task(connection: sqlite3.Connection, task: str, name: str) -> str:
    """Give a task another name to be shown and found by; what its runs share stays the same.

    Returns:
        The task's id.

    Raises:
        UnknownTaskError: If there is no such task.
        InvalidArgumentError: If the name is empty or another task's, or the task's name is what its runs share.
    """
    with transaction(connection):
        task_id = find_task_id(connection, task)
        taken = connection.execute("SELECT 1 FROM tasks WHERE id <> ?1 AND (name = ?2 OR id = ?2)", (task_id, name)).fetchone()
        if not name or taken is not None:
            raise InvalidArgumentError(f"A task's name must be a text that no other task has, but got {name!r}. Pass another one.")
        if connection.execute("SELECT is_named FROM tasks WHERE id = ?", (task_id,)).fetchone()["is_named"]:
            raise InvalidArgumentError(
                f"Runs belong to the task {task!r} by its name, so it must keep it, but got {name!r}. Pass task={name!r} to the next run "
                f"and merge: metahp tasks merge {name} {task}."
            )
        connection.execute("UPDATE tasks SET name = ? WHERE id = ?", (name, task_id))
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
