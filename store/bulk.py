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
from store.operations import insert_rows, resolve_merged, write_task
from store.outcome import value_kind
from store.records import RunStatus, Source
from store.schema import HPARAM_COLUMNS, METRIC_COLUMNS, RUN_COLUMNS
from store.values import encode_value, storable_text

_BATCH_RUNS = 500
"""Runs whose rows are handed to SQLite together: enough to be fast, few enough to stay small in memory."""


@dataclass(frozen=True, slots=True)
class Curve:
    """The values of one metric of one run, ``t`` of them, in the order of their steps.

    Attributes:
        steps: Distinct, increasing.
        values: May be NaN or infinite.
        elapsed_s: Seconds since the run's start, None where unknown.
    """

    steps: Sequence[int]
    values: Sequence[float]
    elapsed_s: Sequence[float | None] | None = None


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A run that ended before the history heard of it.

    Attributes:
        id: Its id; a run whose id the history has is left as it is, so writing twice changes nothing.
        task: Name of its task.
        hparams: Raw name -> value; all of them count as the user's.
        objective: Metric that decided; one of ``curves``.
        direction: ``min`` or ``max``.
        curves: Metric name -> its values.
        status: How it ended; None: diverged if the objective's last value is not finite, else completed.
        started_utc: Start, UTC in ISO 8601.
        epochs_reached: Epochs, where the steps count epochs.
        framework: Where it comes from.
        description: Further facts, JSON-compatible.
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


def write_finished_runs(
    connection: sqlite3.Connection, runs: Iterable[FinishedRun], descriptions: Mapping[str, Mapping[str, Any]]
) -> dict[str, int]:
    """Write runs; the caller holds the transaction.

    Args:
        connection: Open history.
        runs: The runs, consumed one at a time.
        descriptions: Task name -> what is known of the task, as ``TaskDescription.to_dict`` gives it.

    Returns:
        Table -> number of rows that came in.

    Raises:
        InvalidArgumentError: If a run has no value of its objective.
        ObjectiveError: If a direction is neither ``min`` nor ``max``.
    """
    counts = dict.fromkeys(("tasks", "runs", "hparams", "metrics"), 0)
    task_ids: dict[tuple[str, str, str], tuple[str, str]] = {}
    encoded: dict[Any, str] = {}
    n_tasks = _count(connection, "tasks")
    for batch in _batches(runs):
        new = []
        for run in batch:
            key = (run.task, run.objective, run.direction)
            if key not in task_ids:
                task_ids[key] = _write_task(connection, run, descriptions.get(run.task, {}))
            written = connection.execute(_INSERT_RUN, _run_row(run, *task_ids[key]))
            if written.rowcount > 0:
                new.append(run)
        counts["runs"] += len(new)
        counts["hparams"] += insert_rows(connection, _INSERT_HPARAM, _hparam_rows(new, encoded))
        counts["metrics"] += insert_rows(connection, _INSERT_METRIC, metric_rows(new))
    counts["tasks"] = _count(connection, "tasks") - n_tasks
    return counts


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
    if curve is None or not len(curve.values) or len(curve.values) != len(curve.steps):
        raise InvalidArgumentError(
            f"A finished run must have a value of its objective at each step, but {run.id!r} of task {run.task!r} does not have them "
            f"for {run.objective!r}; it has: {', '.join(run.curves) or 'none'}. Name another objective."
        )
    last, best, best_step = float(curve.values[-1]), None, None
    is_max = run.direction == Direction.MAX
    for step, value in zip(curve.steps, curve.values, strict=True):
        # `value - value` is 0 for finite numbers only; a call for each of millions of values would take most of the time.
        if value - value == 0 and (best is None or (value > best if is_max else value < best)):
            best, best_step = float(value), int(step)
    status = run.status or (RunStatus.COMPLETED if value_kind(last) == "finite" else RunStatus.DIVERGED)
    elapsed = curve.elapsed_s[-1] if curve.elapsed_s else None
    row: dict[str, Any] = dict.fromkeys(RUN_COLUMNS)
    row |= {"id": run.id, "task_id": task_id, "original_task_id": original_task_id, "status": str(status)}
    row |= {"objective": run.objective, "direction": run.direction}
    row |= _stored("objective_last", last) | {"objective_last_step": int(curve.steps[-1])}
    if best is not None:
        row |= _stored("objective_best", best) | {"objective_best_step": best_step}
    row |= {"started_utc": run.started_utc, "epochs_reached": run.epochs_reached, "steps_reached": int(curve.steps[-1])}
    row |= {"wall_s": elapsed, "framework": run.framework, "attempt": 0, "revision": 1, "hparams_revision": 1}
    if run.description:
        row["description_json"] = encode_value(dict(run.description))
    return row


def _stored(name: str, value: float) -> dict[str, Any]:
    kind = value_kind(value)
    return {name: value if kind == "finite" else None, f"{name}_kind": kind}


def _hparam_rows(runs: Iterable[FinishedRun], encoded: dict[Any, str]) -> Iterator[tuple[Any, ...]]:
    stored: dict[tuple[str, ...], dict[str, str]] = {}
    for run in runs:
        raw_names = tuple(run.hparams)
        if raw_names not in stored:
            stored[raw_names] = canonical_names(list(raw_names))
        for raw, name in stored[raw_names].items():
            value = run.hparams[raw]
            # Tables repeat values, and encoding is most of the time; 1, 1.0 and True are equal but stay what they are.
            key = (raw, type(value), value) if isinstance(value, str | bool | int | float) else None
            text = encoded.get(key)
            if text is None:
                text = encode_value(value, raw)
                if key is not None:
                    encoded[key] = text
            yield run.id, name, raw, text, str(Source.USER), None, None


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
            elapsed: Iterable[float | None] = curve.elapsed_s if curve.elapsed_s is not None else repeat(None)
            yield from zip(repeat(run.id), repeat(name), repeat(0), curve.steps, epochs, values, kinds, elapsed, strict=False)


def _check_lengths(run: FinishedRun, name: str, curve: Curve) -> None:
    lengths = {len(column) for column in (curve.steps, curve.values, curve.elapsed_s) if column is not None}
    if len(lengths) > 1:
        raise InvalidArgumentError(
            f"A curve must have a step, and a time if any, for each value, but {name!r} of run {run.id!r} has columns of "
            f"{' and '.join(map(str, sorted(lengths)))}. Pass columns of one length."
        )


_INSERT_RUN = f"INSERT OR IGNORE INTO runs ({', '.join(RUN_COLUMNS)}) VALUES ({', '.join(f':{column}' for column in RUN_COLUMNS)})"
_INSERT_HPARAM = f"INSERT OR IGNORE INTO hparams ({', '.join(HPARAM_COLUMNS)})"
_INSERT_METRIC = f"INSERT OR IGNORE INTO metrics ({', '.join(METRIC_COLUMNS)})"
