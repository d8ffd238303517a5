"""Reading a history: plain functions from a connection to records."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

from store import environment
from store.errors import InvalidArgumentError, UnknownRecommendationError, UnknownRunError, UnknownTaskError
from store.ids import utc_age_s
from store.names import canonical_name, nearest
from store.outcome import value_of_kind
from store.records import Configuration, HParam, MetricRecord, RunRecord, TaskRecord
from store.sqlite.operations import resolve_merged
from store.sqlite.schema import RUN_COLUMNS
from store.statuses import FINISHED, RunStatus, Source
from store.values import decode_value

RUN_STALE_AFTER_S = 60.0
"""A running run whose heartbeat is older than this is shown as stale: killed, or its machine is gone."""

_SHOWN_NAMES = 12

_FINISHED_SQL = ", ".join(f"'{status}'" for status in sorted(FINISHED))


def read_runs(
    connection: sqlite3.Connection,
    *,
    task_id: str | None = None,
    run_id: str | None = None,
    statuses: frozenset[RunStatus] | None = None,
    limit: int | None = None,
    newest_first: bool = False,
    with_hparams: bool = True,
) -> list[RunRecord]:
    """Return runs in the order they started.

    Args:
        connection: Open history.
        task_id: Only this task.
        run_id: Only this run.
        statuses: Only these, ``stale`` computed from ``running``.
        limit: At most so many, the newest if ``newest_first``.
        newest_first: Whether the order is reversed.
        with_hparams: Whether hyperparameters are read as well.
    """
    clauses, values = [], []
    for column, value in (("task_id", task_id), ("id", run_id)):
        if value is not None:
            clauses.append(f"runs.{column} = ?")
            values.append(value)
    is_limited_later = False
    if statuses is not None:
        stored = {RunStatus.RUNNING if status is RunStatus.STALE else status for status in statuses}
        is_limited_later = RunStatus.RUNNING in stored and limit is not None
        clauses.append(f"runs.status IN ({', '.join('?' * len(stored))})")
        values += [str(status) for status in stored]
    where = f" WHERE {' AND '.join(clauses)}" if clauses else ""
    order = f" ORDER BY runs.id {'DESC' if newest_first else 'ASC'}"
    bound = "" if limit is None or is_limited_later else f" LIMIT {int(limit)}"
    tables = "runs LEFT JOIN tasks ON tasks.id = runs.task_id"
    rows = connection.execute(f"SELECT runs.*, tasks.name AS task_name FROM {tables}{where}{order}{bound}", values).fetchall()
    hparams: Mapping[str, dict[str, HParam]] = {}
    if with_hparams and rows:
        hparams = _read_hparams(connection, f"SELECT runs.id FROM runs{where}{order}{bound}", values)
    records = [_run_record(row, hparams.get(row["id"], {})) for row in rows]
    if statuses is not None:
        records = [record for record in records if record.status in statuses]
    return records if limit is None else records[:limit]


def find_run_id(connection: sqlite3.Connection, run_id: str) -> str:
    """Return the whole id of the one run that a whole id, its beginning or its end names.

    Raises:
        UnknownRunError: If there is none, or more than one.
    """
    ids = _matching_ids(connection, "runs", run_id)
    if len(ids) == 1:
        return ids[0]
    if ids:
        raise UnknownRunError(
            f"A run's id must be unambiguous, but {run_id!r} begins or ends {len(ids)} ids: {_listed(ids)}. Write more of it."
        )
    newest = [row[0] for row in connection.execute("SELECT id FROM runs ORDER BY id DESC LIMIT 5")]
    known = f"the newest are {', '.join(newest)}" if newest else "it has no runs yet"
    raise UnknownRunError(f"The history has no run {run_id!r}; {known}. Use an id from 'metahp runs'.")


def read_last_rewrite(connection: sqlite3.Connection, task_id: str, variant: str | None, name: str) -> tuple[str, Any, Any] | None:
    """Return the newest run of a task and a model's source in which a recommendation rewrote a hyperparameter.

    Returns:
        Id of the run, the value that was written, and the one that was in force; None where there is no such run. What a checkpoint or a
        limit decided instead does not count, and nothing does where a later run had a value of the user's own in force.
    """
    row = connection.execute(
        "SELECT runs.id, changes_json, recommendation_json, COALESCE(observed_json, value_json) AS observed_json FROM runs "
        "JOIN recommendations ON recommendations.id = runs.recommendation_id "
        "JOIN hparams ON hparams.run_id = runs.id AND hparams.name = ?3 AND requested_json IS NOT NULL "
        "WHERE runs.task_id = ?1 AND runs.variant IS ?2 AND source NOT IN ('resume', 'constraint') ORDER BY runs.id DESC LIMIT 1",
        (task_id, variant, name),
    ).fetchone()
    later = connection.execute(
        "SELECT 1 FROM runs JOIN hparams ON hparams.run_id = runs.id AND hparams.name = ?3 "
        "WHERE runs.task_id = ?1 AND runs.variant IS ?2 AND runs.id > ?4 AND source = 'user' AND observed_json = value_json LIMIT 1",
        (task_id, variant, name, "" if row is None else row["id"]),
    ).fetchone()
    if row is None or later is not None:
        return None
    written = {change["name"]: change["new"] for change in decode_value(row["changes_json"])}
    config = {canonical_name(raw): value for raw, value in (decode_value(row["recommendation_json"]).get("config") or {}).items()}
    # One that was pinned keeps the changes of its first run.
    found = written.get(name, config.get(name))
    return None if found is None else (row["id"], found, decode_value(row["observed_json"]))


def find_task_id(connection: sqlite3.Connection, name_or_id: str, *, follow: bool = True) -> str:
    """Return the id of the one task that an id, a name or the beginning of an id names, after merges.

    Args:
        connection: Open history.
        name_or_id: What the user wrote.
        follow: Whether a merged task gives the one it went into.

    Raises:
        UnknownTaskError: If there is none, or more than one.
    """
    for query in (
        "SELECT id FROM tasks WHERE id = ?",
        "SELECT id FROM tasks WHERE name = ? AND is_named",
        "SELECT id FROM tasks WHERE name = ? AND merged_into IS NULL",
        "SELECT id FROM tasks WHERE name = ?",
    ):
        found = [row[0] for row in connection.execute(query, (name_or_id,))]
        if found:
            break
    else:
        found = _matching_ids(connection, "tasks", name_or_id)
    if follow:
        found = sorted({resolve_merged(connection, task_id) for task_id in found})
    if len(found) == 1:
        return found[0]
    if found:
        raise UnknownTaskError(
            f"A task must be unambiguous, but {name_or_id!r} names {len(found)}: {_listed(found)}. Use one of these ids."
        )
    rows = connection.execute("SELECT name FROM tasks WHERE merged_into IS NULL ORDER BY created_utc DESC")
    names = [row[0] for row in rows]
    near = " or ".join(map(repr, nearest(name_or_id, names)))
    known = f"did you mean {near}?" if near else f"it has {_listed(names)}." if names else "it has no tasks yet."
    raise UnknownTaskError(f"The history has no task {name_or_id!r}; {known} Use a name or id from 'metahp tasks'.")


# Each part is answered from one index, task by task: the rows of runs are wide, and there are many.
_TASKS_SQL = (
    "SELECT tasks.*, (SELECT count(*) FROM runs WHERE runs.task_id = tasks.id) AS n_runs, "
    "(SELECT max(started_utc) FROM runs WHERE runs.task_id = tasks.id) AS last_run_utc, "
    f"(SELECT count(*) FROM runs WHERE runs.task_id = tasks.id AND runs.status IN ({_FINISHED_SQL})) AS n_finished FROM tasks"
)


def read_tasks(connection: sqlite3.Connection, task_id: str | None = None) -> list[TaskRecord]:
    """Return the tasks that have runs, those used last first; with an id that task, runs or not."""
    merged: dict[str, list[str]] = {}
    for row in connection.execute("SELECT id FROM tasks WHERE merged_into IS NOT NULL ORDER BY id").fetchall():
        merged.setdefault(resolve_merged(connection, row["id"]), []).append(row["id"])
    if task_id is None:
        rows = connection.execute(f"{_TASKS_SQL} WHERE merged_into IS NULL").fetchall()
        rows = [row for row in rows if row["n_runs"]]
    else:
        rows = connection.execute(f"{_TASKS_SQL} WHERE tasks.id = ?", (task_id,)).fetchall()
    records = [_task_record(connection, row, tuple(merged.get(row["id"], ()))) for row in rows]
    return sorted(records, key=lambda record: record.last_run_utc or "", reverse=True)


def read_metrics(connection: sqlite3.Connection, run_id: str, name: str | None = None) -> list[MetricRecord]:
    """Return the values of one run, ordered by attempt, step and name."""
    clause, values = (" AND name = ?", [run_id, name]) if name is not None else ("", [run_id])
    rows = connection.execute(f"SELECT * FROM metrics WHERE run_id = ?{clause} ORDER BY attempt, step, name", values)
    return [
        MetricRecord(row["name"], row["step"], _number(row["value"], row["kind"]), row["attempt"], row["epoch"], row["elapsed_s"])
        for row in rows
    ]


def read_objective_curves(connection: sqlite3.Connection, run_ids: Iterable[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Return run id -> shares of the training, and the objective at each, of the last attempt, in the order of steps."""
    curves: dict[str, tuple[list[float], list[float]]] = {}
    rows = connection.execute(
        "SELECT runs.id, metrics.step, metrics.value, metrics.kind, runs.steps_reached, metrics.name FROM runs "
        "JOIN metrics ON metrics.run_id = runs.id "
        "AND metrics.name IN (runs.objective, runs.objective || '_epoch', runs.objective || '/dataloader_idx_0') "
        "WHERE runs.id IN (SELECT value FROM json_each(?)) ORDER BY runs.id, metrics.step",
        (json.dumps(list(run_ids)),),
    )
    n_steps: dict[str, int] = {}
    found = list(rows)
    by_epoch = {row[0] for row in found if row[5].endswith("_epoch")}  # beside these the others are single batches
    for run_id, step, value, kind, steps_reached, name in found:
        if run_id in by_epoch and not name.endswith("_epoch"):
            continue
        steps, values = curves.setdefault(run_id, ([], []))
        steps.append(step + 1)
        values.append(_number(value, kind))
        n_steps[run_id] = max(step + 1, steps_reached or 0)
    return {run_id: ([step / n_steps[run_id] for step in steps], values) for run_id, (steps, values) in curves.items()}


def read_metric_names(connection: sqlite3.Connection, run_id: str | None = None, task_id: str | None = None) -> list[str]:
    """Return the names that were logged: by one run, by the runs of one task, or at all.

    A name has thousands of rows in a run, so each run's next name is looked up in the key instead of reading them all.
    """
    clause, values = ("WHERE runs.id = ?", [run_id]) if run_id is not None else ("WHERE task_id = ?", [task_id])
    if run_id is None and task_id is None:
        clause, values = "", []
    rows = connection.execute(
        "WITH RECURSIVE found (run_id, name) AS ("
        f"SELECT runs.id, (SELECT min(name) FROM metrics WHERE metrics.run_id = runs.id) FROM runs {clause} UNION ALL "
        "SELECT found.run_id, (SELECT min(metrics.name) FROM metrics WHERE metrics.run_id = found.run_id AND metrics.name > found.name) "
        "FROM found WHERE found.name IS NOT NULL) SELECT DISTINCT name FROM found WHERE name IS NOT NULL ORDER BY name",
        values,
    )
    return [row[0] for row in rows]


def read_recommendation(connection: sqlite3.Connection, recommendation_id: str) -> dict[str, Any]:
    """Return a stored recommendation with the first run that used it and what came of it.

    Raises:
        UnknownRecommendationError: If there is none, or more than one.
    """
    ids = _matching_ids(connection, "recommendations", recommendation_id)
    if len(ids) != 1:
        newest = [row[0] for row in connection.execute("SELECT id FROM recommendations ORDER BY id DESC LIMIT 5")]
        known = f"matching are {_listed(ids)}" if ids else f"the newest are {_listed(newest)}" if newest else "it has none yet"
        raise UnknownRecommendationError(
            f"The history has no single recommendation {recommendation_id!r}; {known}. Use an id from a start-up message."
        )
    row = connection.execute("SELECT * FROM recommendations WHERE id = ?", (ids[0],)).fetchone()
    run = connection.execute(
        "SELECT id, objective_best, objective_best_kind FROM runs WHERE recommendation_id = ? ORDER BY id LIMIT 1", (ids[0],)
    ).fetchone()
    return {
        "recommendation": decode_value(row["recommendation_json"]),
        "current": decode_value(row["current_json"]),
        "changes": decode_value(row["changes_json"]),
        "run_id": None if run is None else run["id"],
        "outcome": None if run is None else value_of_kind(run["objective_best"], run["objective_best_kind"]),
        "created_utc": row["created_utc"],
    }


def read_models(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the rows of ``models``, oldest first, with ``info`` decoded beside ``info_json``."""
    rows = connection.execute("SELECT * FROM models ORDER BY created_utc, id")
    return [{**dict(row), "info": decode_value(row["info_json"]) or {}} for row in rows]


def read_state(connection: sqlite3.Connection) -> tuple[int, str]:
    """Return the number of finished runs and a text that changes with any of them, or with a merge of tasks."""
    digest = hashlib.sha256()
    count = 0
    for row in _states(connection, f"WHERE status IN ({_FINISHED_SQL})"):
        count += row[2]
        digest.update(f"{row}\n".encode())
    for row in connection.execute("SELECT id, merged_into FROM tasks WHERE merged_into IS NOT NULL ORDER BY id"):
        digest.update(f"\n{row[0]}>{row[1]}".encode())
    return count, digest.hexdigest()[:16]


def read_task_states(connection: sqlite3.Connection) -> dict[str, str]:
    """Return for each task with runs a text that changes when one of its runs does, in whatever status."""
    digests: dict[str, Any] = {}
    for row in _states(connection):
        digests.setdefault(row[0], hashlib.sha256()).update(f"{row}\n".encode())
    return {task_id: digest.hexdigest()[:16] for task_id, digest in digests.items()}


def _states(connection: sqlite3.Connection, where: str = "") -> Iterator[tuple[Any, ...]]:
    """Return what changes whenever the runs of a task in a status do; the third of each is their number.

    Sums suffice, since a revision only grows and a row number belongs to one run: from the index alone, in one pass. The
    newest id belongs to it, since a history that was made anew, or put back and went on, gives the same numbers to other runs.
    """
    sums = (
        "SELECT task_id, status, count(*), sum(coalesce(revision, 0)), sum(rowid), total(rowid * (1.0 + coalesce(revision, 0))), "
        f"max(rowid) AS newest FROM runs {where} GROUP BY task_id, status"
    )
    newest = f"SELECT states.*, runs.id FROM ({sums}) AS states JOIN runs ON runs.rowid = states.newest"
    return (tuple(row) for row in connection.execute(f"{newest} ORDER BY states.task_id, states.status"))


def checked_statuses(status: Iterable[str] | str | None) -> frozenset[RunStatus] | None:
    """Return statuses as their enum.

    Raises:
        InvalidArgumentError: If there is no such status.
    """
    if status is None:
        return None
    given = [status] if isinstance(status, str) else list(status)
    unknown = [item for item in given if item not in list(RunStatus)]
    if unknown:
        raise InvalidArgumentError(f"A status must be known, but got {unknown[0]!r}; possible are {', '.join(RunStatus)}.")
    return frozenset(RunStatus(item) for item in given)


def _matching_ids(connection: sqlite3.Connection, table: str, text: str) -> list[str]:
    """Return the id equal to a text, else those it begins, else those it ends (the random part tells ids of one day apart)."""
    if not text:
        return []
    if connection.execute(f"SELECT 1 FROM {table} WHERE id = ?", (text,)).fetchone():
        return [text]
    # the beginning is looked up; for the end, which the random part makes unique, all ids of the index are gone through
    for clause in ("id >= :text AND id < :text || char(1114111)", "substr(id, -length(:text)) = :text"):
        rows = connection.execute(f"SELECT id FROM {table} WHERE {clause} ORDER BY id", {"text": text})
        found = [row[0] for row in rows]
        if found:
            return found
    return []


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES])
    return shown if len(names) <= _SHOWN_NAMES else f"{shown} and {len(names) - _SHOWN_NAMES} more"


# Most runs share most values, and what was read before is mostly read again: decoding is most of the time.
_shared_params: dict[tuple[Any, ...], HParam] = {}
_MAX_SHARED_PARAMS = 200_000


def _read_hparams(connection: sqlite3.Connection, ids_query: str, values: Sequence[Any]) -> dict[str, dict[str, HParam]]:
    cursor = connection.cursor()
    cursor.row_factory = None  # plain tuples: this is most of the time of reading runs
    rows = cursor.execute(
        "SELECT run_id, name, raw_name, value_json, source, requested_json, observed_json FROM hparams "
        f"WHERE run_id IN ({ids_query}) ORDER BY rowid",
        values,
    )
    if len(_shared_params) > _MAX_SHARED_PARAMS:
        _shared_params.clear()
    result: dict[str, dict[str, HParam]] = {}
    for row in rows:
        key = row[1:]
        param = _shared_params.get(key)
        if param is None:
            name, raw_name, value_json, source, requested_json, observed_json = key
            decoded = [decode_value(text) for text in (value_json, requested_json, observed_json)]
            param = HParam(name, raw_name, decoded[0], Source(source), decoded[1], decoded[2])
            if all(value is None or isinstance(value, str | int | float) for value in decoded):
                _shared_params[key] = param  # what can be changed in place is not shared
        result.setdefault(row[0], {})[param.name] = param
    return result


def _run_record(row: sqlite3.Row, hparams: Mapping[str, HParam]) -> RunRecord:
    return RunRecord(
        id=row["id"],
        task_id=row["task_id"],
        task_name=row["task_name"] or row["task_id"],
        status=_status_on_reading(row),
        objective_best=value_of_kind(row["objective_best"], row["objective_best_kind"]),
        objective_last=value_of_kind(row["objective_last"], row["objective_last_kind"]),
        attempt=row["attempt"] or 0,
        versions=decode_value(row["versions_json"]) or {},
        description=decode_value(row["description_json"]) or {},
        provenance=Configuration(hparams),
        **{name: row[name] for name in _PLAIN_FIELDS},
    )


_DECODED_FIELDS = frozenset({"id", "task_id", "task_name", "status", "objective_best", "objective_last", "attempt"})
_PLAIN_FIELDS = [field.name for field in fields(RunRecord) if field.name in RUN_COLUMNS and field.name not in _DECODED_FIELDS]


def _status_on_reading(row: sqlite3.Row) -> RunStatus:
    status = RunStatus(row["status"])
    if status is not RunStatus.RUNNING:
        return status
    is_here = row["host_hash"] == environment.host_hash()
    if is_here and row["pid"] is not None and not environment.is_process_alive(row["pid"]):
        return RunStatus.STALE
    return RunStatus.STALE if utc_age_s(row["heartbeat_utc"]) > RUN_STALE_AFTER_S else status


def _task_record(connection: sqlite3.Connection, row: sqlite3.Row, merged_ids: tuple[str, ...]) -> TaskRecord:
    order = "DESC" if row["direction"] == "max" else "ASC"
    best = connection.execute(
        "SELECT id, objective_best FROM runs WHERE task_id = ? AND objective IS ? AND direction IS ? "
        f"AND status IN ({_FINISHED_SQL}) AND objective_best IS NOT NULL ORDER BY objective_best {order}, id LIMIT 1",
        (row["id"], row["objective"], row["direction"]),
    ).fetchone()
    return TaskRecord(
        id=row["id"],
        name=row["name"],
        is_named=bool(row["is_named"]),
        objective=row["objective"],
        direction=row["direction"],
        identity=decode_value(row["identity_json"]) or {},
        description=decode_value(row["description_json"]) or {},
        n_runs=row["n_runs"],
        n_finished=row["n_finished"],
        best=best["objective_best"] if best else None,
        best_run_id=best["id"] if best else None,
        last_run_utc=row["last_run_utc"],
        merged_ids=merged_ids,
    )


def _number(value: float | None, kind: str) -> float:
    number = value_of_kind(value, kind)
    return float("nan") if number is None else number
