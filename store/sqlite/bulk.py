"""Runs that ended elsewhere, written many at a time: what importers and replay use where a recorder would be too slow."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from store.errors import InvalidArgumentError
from store.ids import task_id_of
from store.names import Direction, canonical_names, resolve_direction
from store.outcome import describe_error, value_kind
from store.records import RunStatus, Source
from store.sqlite.operations import insert_rows, resolve_merged, write_task
from store.sqlite.schema import HPARAM_COLUMNS, METRIC_COLUMNS, RUN_COLUMNS
from store.values import decode_value, encode_value, storable_text

_BATCH_RUNS = 500
"""Runs whose rows are handed to SQLite together: enough to be fast, few enough to stay small in memory."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of one metric of one run, ``t`` of them, in the order of their steps.

    Attributes:
        steps: Distinct, increasing.
        values: May be NaN or infinite.
        elapsed_s: Seconds since the run's start, None where unknown.
        epochs: Epochs reached at each value; None: the steps, where the run has ``epochs_reached``.
    """

    steps: Sequence[int]
    values: Sequence[float]
    elapsed_s: Sequence[float | None] | None = None
    epochs: Sequence[float | None] | None = None


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that ended before it came into the history.

    Attributes:
        id: Its id; a run whose id the history has is left as it is, so writing twice changes nothing.
        task: Name of its task.
        hparams: Raw name -> value.
        objective: Metric that decided; one of ``curves``, except where the run did not come to it by its ``status``.
        direction: ``min`` or ``max``.
        curves: Metric name -> its values.
        status: How it ended; None: diverged if the objective's last value is not finite, else completed.
        started_utc: Start, UTC in ISO 8601.
        epochs_reached: Epochs, where the steps count epochs.
        framework: Where it comes from.
        description: Further facts, JSON-compatible. What stands under ``origin`` with a ``digest`` was read from elsewhere: where the
            digest changes, the source has gone on or is read otherwise, and the run is written anew.
        sources: Raw name -> who decided the value; those that are not named are the user's.
        names: Raw name -> the name it is stored under, all of them; empty: their canonical names.
        ended_utc: End, UTC in ISO 8601.
        wall_s: Duration; None: the last time of the objective.
        error: What it failed with.
        model_class: Class name of the model.
        model_family: ``mlp cnn rnn transformer other``.
        n_parameters: Number of the model's parameters.
        outcome: What its tool gives as the outcome, in the place of the best value of its curve; empty: it gives none.
    """

    id: str
    task: str
    hparams: Mapping[str, Any]
    objective: str
    direction: str
    curves: Mapping[str, Curve]
    status: RunStatus | None = None
    started_utc: str = "1970-01-01T00:00:00.000000Z"
    epochs_reached: float | None = None
    framework: str = "table"
    description: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    ended_utc: str | None = None
    wall_s: float | None = None
    error: str | None = None
    model_class: str | None = None
    model_family: str | None = None
    n_parameters: int | None = None
    outcome: Curve | None = None


def write_finished_runs(
    connection: sqlite3.Connection, runs: Iterable[FinishedRun], descriptions: Mapping[str, Mapping[str, Any]]
) -> dict[str, int]:
    """Write runs; the caller holds the transaction.

    Args:
        connection: Open history.
        runs: The runs, consumed one at a time.
        descriptions: Task name -> what is known of the task, as ``TaskDescription.to_dict`` gives it.

    Returns:
        Table -> number of rows that came in; ``runs_updated`` are the runs known before that were written anew, not among ``runs``.

    Raises:
        InvalidArgumentError: If a run has no value of its objective.
        ObjectiveError: If a direction is neither ``min`` nor ``max``.
    """
    counts = dict.fromkeys(("tasks", "runs", "runs_updated", "hparams", "metrics"), 0)
    task_ids: dict[tuple[str, str, str], tuple[str, str]] = {}
    encoded: dict[Any, str] = {}
    n_tasks = _count(connection, "tasks")
    for batch in _batches(runs):
        new = []
        for run in batch:
            key = (run.task, run.objective, run.direction)
            if key not in task_ids:
                task_ids[key] = _write_task(connection, run, descriptions.get(run.task, {}))
            row = _run_row(run, *task_ids[key])
            written = connection.execute(_ADD_RUN, row)
            if written.rowcount > 0:
                new.append(run)
                counts["runs"] += 1
            elif _write_anew(connection, run, row):
                new.append(run)
                counts["runs_updated"] += 1
        counts["hparams"] += insert_rows(connection, _ADD_HPARAM, _hparam_rows(new, encoded))
        counts["metrics"] += insert_rows(connection, _ADD_METRIC, metric_rows(new))
    counts["tasks"] = _count(connection, "tasks") - n_tasks
    return counts


def _write_anew(connection: sqlite3.Connection, run: FinishedRun, row: dict[str, Any]) -> bool:
    """Replace a run that was imported before and reads otherwise now; return whether it did."""
    digest = origin_digest(run.description)
    known = connection.execute("SELECT description_json, revision, hparams_revision, attempt FROM runs WHERE id = ?", (run.id,)).fetchone()
    if digest is None or known is None or origin_digest(decode_value(known[0]) or {}) in {None, digest}:
        return False
    connection.execute("DELETE FROM hparams WHERE run_id = ?", (run.id,))
    connection.execute("DELETE FROM metrics WHERE run_id = ?", (run.id,))
    # counted up, so that the newer reading wins where two histories are merged
    connection.execute(_UPDATE_RUN, {**row, "revision": (known[1] or 0) + 1, "hparams_revision": (known[2] or 0) + 1})
    return True


def origin_digest(description: Mapping[str, Any]) -> str | None:
    """Return what changes when an imported run reads otherwise; None for a run that was not imported so."""
    origin = description.get("origin")
    digest = origin.get("digest") if isinstance(origin, Mapping) else None
    return None if digest is None else str(digest)


def _batches(runs: Iterable[FinishedRun]) -> Iterator[list[FinishedRun]]:
    batch: list[FinishedRun] = []
    for run in runs:
        batch.append(run)
        if len(batch) == _BATCH_RUNS:
            yield batch
            batch = []
    yield batch


def _count(connection: sqlite3.Connection, table: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


def _write_task(connection: sqlite3.Connection, run: FinishedRun, description: Mapping[str, Any]) -> tuple[str, str]:
    """Write the task of a run; return its own id and the one it was merged into."""
    name = storable_text(run.task)
    identity = {"name": name}
    task_id = task_id_of(identity)
    known = {**description, "name": name, "objective": run.objective, "direction": str(resolve_direction(run.objective, run.direction))}
    write_task(
        connection,
        {
            "id": task_id,
            "name": name,
            "is_named": 1,
            "objective": known["objective"],
            "direction": known["direction"],
            "identity_json": encode_value(identity),
            "description_json": encode_value(known),
            "created_utc": run.started_utc,
        },
    )
    return task_id, resolve_merged(connection, task_id)


def _run_row(run: FinishedRun, original_task_id: str, task_id: str) -> dict[str, Any]:
    curve = run.curves.get(run.objective)
    if curve is None and run.status not in {None, RunStatus.COMPLETED}:
        return _described(run, _bare_row(run, original_task_id, task_id))
    if curve is None or not len(curve.values) or len(curve.values) != len(curve.steps):
        raise InvalidArgumentError(
            f"A finished run must have a value of its objective at each step, but {run.id!r} of task {run.task!r} does not have them "
            f"for {run.objective!r}; it has: {', '.join(run.curves) or 'none'}. Name another objective."
        )
    last, best, best_step = float(curve.values[-1]), None, None
    is_max = run.direction == Direction.MAX
    deciding = curve if run.outcome is None else run.outcome
    for step, value in zip(deciding.steps, deciding.values, strict=True):
        # `value - value` is 0 for finite numbers only; a call for each of millions of values would take most of the time.
        if value - value == 0 and (best is None or (value > best if is_max else value < best)):
            best, best_step = float(value), int(step)
    status = run.status or (RunStatus.COMPLETED if value_kind(last) == "finite" else RunStatus.DIVERGED)
    elapsed = curve.elapsed_s[-1] if curve.elapsed_s else None
    row = _bare_row(run, original_task_id, task_id) | {"status": str(status)}
    row |= _stored("objective_last", last) | {"objective_last_step": int(curve.steps[-1])}
    if best is not None:
        row |= _stored("objective_best", best) | {"objective_best_step": best_step}
    row |= {"steps_reached": int(curve.steps[-1]), "wall_s": elapsed if run.wall_s is None else run.wall_s}
    return _described(run, row)


def _bare_row(run: FinishedRun, original_task_id: str, task_id: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(RUN_COLUMNS)
    row |= {"id": run.id, "task_id": task_id, "original_task_id": original_task_id, "status": str(run.status)}
    row |= {"objective": run.objective, "direction": run.direction, "epochs_reached": run.epochs_reached, "wall_s": run.wall_s}
    row |= {"started_utc": run.started_utc, "ended_utc": run.ended_utc, "framework": run.framework}
    row |= {"model_class": run.model_class, "model_family": run.model_family, "n_parameters": run.n_parameters}
    row |= {"error": None if run.error is None else describe_error(run.error)}
    return row | {"attempt": 0, "revision": 1, "hparams_revision": 1}


def _described(run: FinishedRun, row: dict[str, Any]) -> dict[str, Any]:
    return row | {"description_json": encode_value(dict(run.description))} if run.description else row


def _stored(name: str, value: float) -> dict[str, Any]:
    kind = value_kind(value)
    return {name: value if kind == "finite" else None, f"{name}_kind": kind}


def _hparam_rows(runs: Iterable[FinishedRun], encoded: dict[Any, str]) -> Iterator[tuple[Any, ...]]:
    stored: dict[tuple[str, ...], dict[str, str]] = {}
    for run in runs:
        raw_names = tuple(run.hparams)
        if raw_names not in stored:
            stored[raw_names] = canonical_names(list(raw_names))
        for raw, name in (run.names or stored[raw_names]).items():
            value = run.hparams[raw]
            # Tables repeat values, and encoding is most of the time; 1, 1.0 and True are equal but stay what they are.
            key = (raw, type(value), value) if isinstance(value, str | bool | int | float) else None
            text = encoded.get(key)
            if text is None:
                text = encode_value(value, raw)
                if key is not None:
                    encoded[key] = text
            yield run.id, name, raw, text, str(run.sources.get(raw, Source.USER)), None, None


def metric_rows(runs: Iterable[FinishedRun]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of ``metrics`` of runs, in the order of ``METRIC_COLUMNS`` and of the primary key: SQLite then only appends."""
    for run in sorted(runs, key=lambda run: run.id):
        for name in sorted(run.curves):
            curve = run.curves[name]
            _check_lengths(run, name, curve)
            values: Sequence[float | None] = curve.values
            kinds: Iterable[str] = repeat("finite")
            is_finite = [value - value == 0 for value in curve.values]  # 0 for finite numbers only; a call for each would take long
            if not all(is_finite):
                values = [value if fine else None for value, fine in zip(curve.values, is_finite, strict=True)]
                kinds = map(value_kind, curve.values)
            epochs: Iterable[float | None] = map(float, curve.steps) if run.epochs_reached is not None else repeat(None)
            if curve.epochs is not None:
                epochs = curve.epochs
            elapsed: Iterable[float | None] = curve.elapsed_s if curve.elapsed_s is not None else repeat(None)
            yield from zip(repeat(run.id), repeat(name), repeat(0), curve.steps, epochs, values, kinds, elapsed, strict=False)


def _check_lengths(run: FinishedRun, name: str, curve: Curve) -> None:
    lengths = {len(column) for column in (curve.steps, curve.values, curve.elapsed_s, curve.epochs) if column is not None}
    if len(lengths) > 1:
        raise InvalidArgumentError(
            f"A curve must have a step, and a time if any, for each value, but {name!r} of run {run.id!r} has columns of "
            f"{' and '.join(map(str, sorted(lengths)))}. Pass columns of one length."
        )


_ADD_RUN = f"INSERT OR IGNORE INTO runs ({', '.join(RUN_COLUMNS)}) VALUES ({', '.join(f':{column}' for column in RUN_COLUMNS)})"
_UPDATED = [column for column in RUN_COLUMNS if column not in {"id", "task_id", "original_task_id"}]
_UPDATE_RUN = (
    # a run that was moved to another task by hand stays there, unless it is read as one of another task now
    "UPDATE runs SET task_id = CASE WHEN original_task_id IS :original_task_id THEN task_id ELSE :task_id END, "
    f"original_task_id = :original_task_id, {', '.join(f'{column} = :{column}' for column in _UPDATED)} WHERE id = :id"
)
_ADD_HPARAM = f"INSERT OR IGNORE INTO hparams ({', '.join(HPARAM_COLUMNS)})"
_ADD_METRIC = f"INSERT OR IGNORE INTO metrics ({', '.join(METRIC_COLUMNS)})"
