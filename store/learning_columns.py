"""What learning reads of a history: all runs at once, flat, and their hyperparameters from a cache beside the models.

A process that starts a training asks for every finished run. Their rows are read each time, so that status, outcome and grouping are
always those of the history. Hyperparameters are twenty times as many rows and never change once a run has ended; they are kept in
``<history>.models/hyperparameters.cache``, and a run is taken from there only while its ``hparams_revision`` is the one that was cached.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.outcome import value_of_kind
from store.sqlite.cache import DAMAGED, MIN_CACHED_RUNS, WORTH_WRITING, from_columns, origin_of, read_cache, to_columns, write_cache
from store.statuses import FINISHED, RunStatus
from store.values import decode_value

if TYPE_CHECKING:
    from store.history_reader import HistoryReader

logger = logging.getLogger(__name__)

HPARAMS_CACHE = "hyperparameters.cache"
HPARAMS_FORMAT = 3

ENDED = frozenset({RunStatus.COMPLETED, RunStatus.STOPPED, RunStatus.DIVERGED, RunStatus.OOM, RunStatus.INTERRUPTED})
"""Runs whose hyperparameters are read: those that may teach something."""

_Known = dict[str, tuple[str, Mapping[str, Any]]]
"""Run id -> what its hyperparameters depend on, and the hyperparameters by canonical name."""


@dataclass(frozen=True, slots=True)
class LearningRun:
    """The part of a run that learning looks at; fields as in ``RunRecord``. A run that is not over has no hyperparameters here."""

    id: str
    task_id: str
    status: RunStatus
    objective: str | None
    direction: str | None
    objective_best: float | None
    epochs_reached: float | None
    started_utc: str
    model_family: str | None
    variant: str | None
    description: Mapping[str, Any]
    hparams: Mapping[str, Any]

    @property
    def is_finished(self) -> bool:
        """Whether the run's outcome is evidence for its hyperparameters."""
        return self.status in FINISHED


def learning_runs(history: HistoryReader, task_ids: Collection[str] | None = None) -> list[LearningRun]:
    """Return all runs of some tasks, in the order they started.

    Args:
        history: Open history.
        task_ids: Only these; None for all.
    """
    with history._reading() as connection:
        rows = _read_rows(connection, task_ids)
        ended = {row[0]: f"{row[12]}|{row[8]}" for row in rows if row[2] in ENDED}
        path = history.models_path / HPARAMS_CACHE
        origin = origin_of(connection) if len(ended) >= MIN_CACHED_RUNS else None
        known = {} if origin is None else _read_cache(path, origin)
        missing = [run_id for run_id, depends_on in ended.items() if run_id not in known or known[run_id][0] != depends_on]
        fresh = _read_hparams(connection, missing, is_most=task_ids is None and 2 * len(missing) > len(ended))
    known |= {run_id: (ended[run_id], fresh.get(run_id, {})) for run_id in missing}
    if origin is not None and len(missing) > WORTH_WRITING * len(known):
        # tasks that were not asked for now stay in the cache; what is gone from the history is dropped with the next full reading
        _write_cache(path, origin, known if task_ids is not None else {run_id: known[run_id] for run_id in ended})
    return _as_runs(rows, known)


def _read_rows(connection: sqlite3.Connection, task_ids: Collection[str] | None) -> list[tuple[Any, ...]]:
    cursor = connection.cursor()
    cursor.row_factory = None
    clause, values = ("", ()) if task_ids is None else (" WHERE task_id IN (SELECT value FROM json_each(?))", (json.dumps(list(task_ids)),))
    return cursor.execute(
        "SELECT id, task_id, status, objective, direction, objective_best, objective_best_kind, epochs_reached, started_utc, model_family, "
        f"variant, description_json, coalesce(hparams_revision, -1) FROM runs{clause} ORDER BY id",
        values,
    ).fetchall()


def _read_hparams(connection: sqlite3.Connection, run_ids: list[str], *, is_most: bool) -> dict[str, dict[str, Any]]:
    """Read the hyperparameters of some runs; those of most runs by going through all of them, which is faster."""
    if not run_ids:
        return {}
    found: dict[str, dict[str, Any]] = {run_id: {} for run_id in run_ids}
    shared: dict[str, Any] = {}  # most runs share most values, and decoding is most of the time
    cursor = connection.cursor()
    cursor.row_factory = None
    query, values = "SELECT run_id, name, value_json FROM hparams", ()
    if not is_most:
        query, values = f"{query} WHERE run_id IN (SELECT value FROM json_each(?)) ORDER BY rowid", (json.dumps(run_ids),)  # type: ignore[assignment]
    for run_id, name, text in cursor.execute(query, values):
        config = found.get(run_id)
        if config is None:
            continue
        value = shared.get(text, shared)
        if value is shared:
            value = decode_value(text)
            if not isinstance(value, list | dict | set):  # what can be changed in place is not shared
                shared[text] = value
        config[name] = value
    return found


def _as_runs(rows: Iterable[tuple[Any, ...]], known: _Known) -> list[LearningRun]:
    nothing: tuple[str, Mapping[str, Any]] = ("", {})
    statuses = {str(status): status for status in RunStatus}
    descriptions: dict[str | None, Mapping[str, Any]] = {None: {}}
    runs = []
    for row in rows:
        text = row[11]
        if text not in descriptions:
            descriptions[text] = decode_value(text) or {}
        runs.append(
            LearningRun(
                row[0],
                row[1],
                statuses[row[2]],
                row[3],
                row[4],
                row[5] if row[6] == "finite" else value_of_kind(row[5], row[6]),
                row[7],
                row[8],
                row[9],
                row[10],
                descriptions[text],
                known.get(row[0], nothing)[1],
            )
        )
    return runs


def _read_cache(path: Path, origin: str) -> _Known:
    """Read the cache; nothing where there is none, it belongs to another database, or it is damaged."""
    known: _Known = {}
    try:
        for block in (read_cache(path, HPARAMS_FORMAT, origin) or {"blocks": []})["blocks"]:
            n, same, each = from_columns(block["configs"])
            rows = zip(*each.values(), strict=True) if each else repeat((), n)
            for run_id, depends_on, values in zip(block["ids"], block["depends_on"], rows, strict=True):
                known[run_id] = (depends_on, {**same, **dict(zip(each, values, strict=True))})
    except DAMAGED as error:
        logger.debug("The cache %s is damaged and is made anew: %s", path, error)
        return {}
    return known


def _write_cache(path: Path, origin: str, known: _Known) -> None:
    groups: dict[tuple[str, ...], list[str]] = {}  # runs with the same names, so that no column has gaps
    for run_id, (_, config) in known.items():
        groups.setdefault(tuple(sorted(config)), []).append(run_id)
    blocks = [
        {"ids": ids, "depends_on": [known[run_id][0] for run_id in ids], "configs": to_columns([known[run_id][1] for run_id in ids])}
        for ids in groups.values()
    ]
    write_cache(path, HPARAMS_FORMAT, origin, {"blocks": blocks})
