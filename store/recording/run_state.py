"""Everything known of a run while it trains, kept in memory by its owner; the writer turns it into rows."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from store import environment
from store.errors import InvalidArgumentError
from store.ids import task_id_of, utc_age_s, utc_now
from store.names import Direction, base_metric_name, canonical_name, canonical_names, resolve_direction
from store.privacy import redact_text
from store.recording.summary import Summaries
from store.records import TaskLike
from store.sqlite.operations import Operation, run_operation
from store.statuses import RunStatus, Source
from store.values import decode_value, encode_value, storable_text

_TEXT_FIELDS = frozenset({"model_class", "model_family", "variant", "recommendation_id"})
_INT_FIELDS = frozenset({"n_parameters", "steps_reached", "peak_memory_bytes", "peak_gpu_memory_bytes"})
_FLOAT_FIELDS = frozenset({"epochs_reached", "gpu_s"})
UPDATABLE_FIELDS = _TEXT_FIELDS | _INT_FIELDS | _FLOAT_FIELDS | {"objective", "direction", "task", "description"}
"""What ``RunRecorder.update`` takes."""

_MAX_SQLITE_INT = 2**63 - 1
_REVISION_BITS = 32
_MAX_WORD, _MAX_WORDS, _MAX_COLUMNS = 30, 2, 4
"""Of the names of data that make up a task's: characters, names, and columns where there are no names."""


@dataclass(slots=True)
class _Entry:
    """One hyperparameter, its values already encoded."""

    value_json: str
    source: Source
    requested_json: str | None = None
    observed_json: str | None = None


class RunState:
    """One run's row, hyperparameters and outcome. Thread-safe: every method takes the state's own lock.

    Args:
        run_id: Its id.
        task: Task description, name or None, see ``History.start_run``.
        row: First values of columns of ``runs``.
        known_task: Row of the existing task that the given name or id stands for.

    Attributes:
        is_finished: Whether the run has ended, in whatever way.
        metrics: What it logged.
    """

    def __init__(self, run_id: str, task: str | TaskLike | None, row: dict[str, Any], known_task: Mapping[str, Any] | None) -> None:
        self.id = run_id
        self.pid = os.getpid()
        self.lock = threading.RLock()
        self.started = time.perf_counter()
        self.attempt: int = row["attempt"]
        self.is_abandoned = False
        self.is_finished = False
        self.is_dirty = True
        self.are_hparams_dirty = True
        self._written_at = self.started
        self._cpu_started = environment.cpu_seconds()
        self._row: dict[str, Any] = {"id": run_id, "status": str(RunStatus.RUNNING), "started_utc": utc_now(), **row}
        self._row |= {"pid": self.pid, "host_hash": environment.host_hash(), "git_commit": environment.git_commit()}
        self._row["versions_json"] = encode_value(environment.describe_environment())
        self._description: dict[str, Any] = {}
        self._entries: dict[str, _Entry] = {}
        self.metrics = Summaries(run_id, self.lock)
        self._revision = self._hparams_revision = 0
        self.next_step = 0
        self._given_fields: set[str] = set()
        self._task_given = task
        self._known_task = known_task
        self.task: dict[str, Any] = {}
        self.resolved_task_id = ""
        self._set_task()

    def resume(self, row: Mapping[str, Any], hparams: Iterable[Mapping[str, Any]], next_step: int) -> None:
        """Go on from where an earlier attempt of the same run stopped.

        Args:
            row: The run's row.
            hparams: Its rows of ``hparams``.
            next_step: Step to count on from.
        """
        with self.lock:
            kept = ("started_utc", "parent_run_id", "recommendation_id", "model_class", "model_family", "n_parameters", "variant")
            self._row |= {name: row[name] for name in (*kept, "epochs_reached", "steps_reached")}
            if self.objective is None and row["objective"] is not None:
                self._row |= {"objective": row["objective"], "direction": row["direction"]}
            spent = row["wall_s"] or max(0.0, utc_age_s(row["started_utc"]) - utc_age_s(row["heartbeat_utc"] or row["started_utc"]))
            self.started -= spent
            self._cpu_started -= row["cpu_s"] or 0.0
            self.next_step = next_step
            # an attempt counts in a range of its own: what the earlier one left in a spool stays older than this
            self._revision = self._hparams_revision = max(self.attempt << _REVISION_BITS, (row["revision"] or 0) + 1)
            self._description = dict(decode_value(row["description_json"]) or {})
            for found in hparams:
                values = found["value_json"], Source(found["source"]), found["requested_json"], found["observed_json"]
                self._entries[found["raw_name"]] = _Entry(*values)
            if self.objective is not None and self.objective == row["objective"] and row["objective_best"] is not None:
                self.metrics.resume(self.objective, row)
            self._set_task()

    @property
    def status(self) -> RunStatus:
        """Status as its owner knows it."""
        return RunStatus(self._row["status"])

    @property
    def objective(self) -> str | None:
        """Name of the objective."""
        name: str | None = self._row.get("objective")
        return name

    @property
    def direction(self) -> Direction | None:
        """Direction of the objective."""
        direction = self._row.get("direction")
        return None if direction is None else Direction(direction)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def since_written_s(self) -> float:
        """Seconds since the row was written."""
        return time.perf_counter() - self._written_at

    def set_hparams(
        self,
        hparams: Mapping[str, Any],
        sources: Mapping[str, Source | str] | None = None,
        requested: Mapping[str, Any] | None = None,
    ) -> None:
        """Add or replace hyperparameters; see ``RunRecorder.set_hparams``."""
        checked = {str(name): checked_source(source) for name, source in (sources or {}).items()}
        wanted = {storable_text(name): encode_value(value, str(name)) for name, value in (requested or {}).items()}
        with self.lock:
            for raw, value in hparams.items():
                name = storable_text(raw)
                old = self._entries.get(name)
                source = checked.get(str(raw), old.source if old else Source.USER)
                entry = _Entry(encode_value(value, str(raw)), source)
                if old:
                    entry.requested_json, entry.observed_json = old.requested_json, old.observed_json
                self._entries[name] = entry
            for name, text in wanted.items():
                if name in self._entries:
                    self._entries[name].requested_json = text
            self._touch_hparams()

    def observe(self, observed: Mapping[str, Any]) -> None:
        """Note values read back; see ``RunRecorder.observe``."""
        with self.lock:
            by_canonical = {canonical: raw for raw, canonical in canonical_names(list(self._entries)).items()}
            for given, value in observed.items():
                name = storable_text(given)
                text = encode_value(value, name)
                raw = name if name in self._entries else by_canonical.get(canonical_name(name), name)
                # what is in force without anybody having named it is worth keeping as well
                entry = self._entries.setdefault(raw, _Entry(text, Source.DEFAULT))
                entry.observed_json = text
            self._touch_hparams()

    def update(self, fields: Mapping[str, Any]) -> None:
        """Set fields of the run; see ``RunRecorder.update``."""
        unknown = sorted(set(fields) - UPDATABLE_FIELDS)
        if unknown:
            raise InvalidArgumentError(
                f"update() sets known fields of a run, but got {', '.join(unknown)}; possible are "
                f"{', '.join(sorted(UPDATABLE_FIELDS))}. Use set_hparams() for hyperparameters and log() for metrics."
            )
        with self.lock:
            self._update_objective(fields)
            for name, value in fields.items():
                if name in _TEXT_FIELDS:
                    self._row[name] = None if value is None else storable_text(value)
                elif name in _INT_FIELDS:
                    self._row[name] = _int_or_none(value, name)
                elif name in _FLOAT_FIELDS:
                    self._row[name] = _float_or_none(value, name)
            self._given_fields |= {name for name, value in fields.items() if value is not None}
            if fields.get("description") is not None:
                self._description.update(fields["description"])
            if "task" in fields:
                self._task_given, self._known_task = fields["task"], None
            if fields.keys() & {"task", "objective", "direction"}:
                self._set_task()
            self.is_dirty = True

    def add_series(self, name: str, values: Sequence[float | None], steps: Sequence[int]) -> None:
        """Take values logged under full validation into the outcome, in the order they were logged."""
        with self.lock:
            self.metrics.add_series(name, values, steps)
            if name == self.objective:
                self.is_dirty = True

    def add_progress(self, step: int, epoch: float | None) -> None:
        """Note how far the run got, unless its owner sets it."""
        with self.lock:
            if "steps_reached" not in self._given_fields:
                self._row["steps_reached"] = max(step, self._row.get("steps_reached") or 0)
            if epoch is not None and "epochs_reached" not in self._given_fields:
                self._row["epochs_reached"] = max(epoch, self._row.get("epochs_reached") or 0.0)

    def close(self, status: RunStatus, error: str | None) -> bool:
        """Write the end into the row.

        Returns:
            Whether this call ended the run; False if it had ended before.
        """
        with self.lock:
            if self.is_finished:
                return False
            self._row |= {
                "status": str(status),
                "error": None if error is None else storable_text(error),
                "ended_utc": utc_now(),
                "wall_s": self.elapsed_s,
                "cpu_s": max(0.0, environment.cpu_seconds() - self._cpu_started),
            }
            self.is_finished = True
            if "peak_memory_bytes" not in self._given_fields:
                self._row["peak_memory_bytes"] = environment.peak_memory_bytes()
            if "peak_gpu_memory_bytes" not in self._given_fields:
                self._row["peak_gpu_memory_bytes"] = environment.peak_gpu_memory_bytes()
            self.is_dirty = True
            return True

    def mark_all_dirty(self) -> None:
        """Write everything again with the next flush: what was written may be lost."""
        with self.lock:
            self.is_dirty = self.are_hparams_dirty = True

    def touch(self) -> None:
        """Have the row written with the next flush, as a sign of life."""
        with self.lock:
            self.is_dirty = True

    def take_operation(self) -> Operation | None:
        """Return the operation that brings the run's row up to date, None if it is."""
        with self.lock:
            if not self.is_dirty:
                return None
            self.is_dirty = False
            self._revision += 1
            row = {
                **self._row,
                **self.metrics.outcome(self.objective, self.direction),
                "heartbeat_utc": utc_now(),
                "task_id": self.task["id"],
            }
            row |= {"revision": self._revision, "hparams_revision": self._hparams_revision}
            row["description_json"] = encode_value(self._description) if self._description else None
            self._written_at = time.perf_counter()
            # the last row is complete, so that it suffices where everything before it was lost
            rows = self._hparam_rows() if self.are_hparams_dirty or self.is_finished else None
            self.are_hparams_dirty = False
            return run_operation(row, self.task, rows)

    def _touch_hparams(self) -> None:
        self.is_dirty = self.are_hparams_dirty = True
        self._hparams_revision += 1

    def _hparam_rows(self) -> list[list[Any]]:
        names = canonical_names(list(self._entries))
        return [
            [self.id, names[raw], raw, entry.value_json, str(entry.source), entry.requested_json, entry.observed_json]
            for raw, entry in self._entries.items()
        ]

    def _update_objective(self, fields: Mapping[str, Any]) -> None:
        if "objective" not in fields and "direction" not in fields:
            return
        objective = fields.get("objective") or self.objective
        if objective is None:
            return
        direction = fields.get("direction")
        if direction is None and objective == self.objective:
            direction = self._row.get("direction")
        self._row["direction"] = str(resolve_direction(objective, direction))
        self._row["objective"] = storable_text(objective)

    def _set_task(self) -> None:
        """Work out the task's row from what was given and the objective."""
        task = self._task_given
        objective, direction = self._row.get("objective"), self._row.get("direction")
        if self._known_task is not None:
            self.task = {**self._known_task, "merged_into": None}
            if self.task["objective"] is None:
                self.task |= {"objective": objective, "direction": direction}
            self.resolved_task_id = self._known_task["merged_into"] or self.task["id"]
            return
        if isinstance(task, str):
            identity: dict[str, Any] = {"name": redact_text(storable_text(task))}
        elif task is None:
            folder = environment.script_folder()
            base = None if objective is None else base_metric_name(objective)
            identity = script_identity(base, direction) | ({} if folder is None else {"folder": redact_text(folder)})
        else:
            identity = dict(task.identity())
            if not self._description:
                self._description = dict(task.to_dict())
        name = task if task is None or isinstance(task, str) else task.name
        self.task = {
            "id": task_id_of(identity),
            "name": redact_text(storable_text(name or display_name(identity))),
            "is_named": int(name is not None),
            "objective": objective,
            "direction": direction,
            "identity_json": encode_value(identity),
            "description_json": None if task is None or isinstance(task, str) else encode_value(task.to_dict()),
            "created_utc": utc_now(),
        }
        self.resolved_task_id = self.task["id"]


def script_identity(objective: str | None, direction: str | None) -> dict[str, Any]:
    """Return the identity of a run of which nobody said what is trained; earlier versions knew no folder."""
    return {"script": environment.script_name(), "objective": objective, "direction": direction}


def display_name(identity: Mapping[str, Any]) -> str:
    """Return a readable name for a task that has none: what is trained on what."""
    script = identity.get("script")
    data: list[Any] = [identity.get("folder")] if script else _data_words(identity) or [identity.get("dataset_class")]
    parts = [*data, os.path.splitext(str(script))[0] if script else identity.get("model_class")]
    return "-".join(str(part) for part in [*parts, identity.get("objective")] if part) or "task"


def _data_words(identity: Mapping[str, Any]) -> list[Any]:
    """Return what a person would call the data: the first of their names, else their columns, and the fold."""
    names = [item for value in dict(identity.get("data_names") or {}).values() for item in (value if isinstance(value, list) else [value])]
    words = [name for name in names if isinstance(name, str) and len(name) <= _MAX_WORD and "<" not in name]
    words = list(dict.fromkeys(words))[:_MAX_WORDS]
    columns = dict(identity.get("schema") or {}).get("columns")
    if not words and isinstance(columns, Mapping) and len(columns) <= _MAX_COLUMNS:
        words = ["+".join(name for name in columns if not name.startswith("label"))]
    return [*words, *(f"{name}{value}" for name, value in dict(identity.get("fold") or {}).items())]


def checked_source(source: Source | str) -> Source:
    """Return the source as its enum.

    Raises:
        InvalidArgumentError: If there is no such source.
    """
    try:
        return Source(source)
    except ValueError:
        raise InvalidArgumentError(
            f"A hyperparameter's source must be known, but got {source!r}; possible are {', '.join(Source)}."
        ) from None


def _int_or_none(value: Any, name: str) -> int | None:
    if value is None:
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgumentError(f"{name} must be a whole number, but got {value!r}.") from None
    return max(-_MAX_SQLITE_INT, min(number, _MAX_SQLITE_INT))


def _float_or_none(value: Any, name: str) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidArgumentError(f"{name} must be a number, but got {value!r}.") from None
    return number if math.isfinite(number) else None
