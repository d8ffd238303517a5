"""The rows of a recorded table as runs: one run for each pair of task and run in the table."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from store.errors import InvalidArgumentError
from store.ids import utc_now
from store.importers.endings import UnfinishedRuns, known_words, status_of_word
from store.importers.foreign import ForeignRun, SkippedRecord
from store.importers.mapping import SourceMapping
from store.importers.pipeline import stored_hparams
from store.records import RunStatus
from store.sqlite.bulk import Curve, FinishedRun

_LABEL_DIGITS = 7
"""Numbers of runs are padded to this width inside an id, so that ids sort as the numbers do."""
EXACT = 2.0**53
"""From here on a floating-point number is not every whole number."""


@dataclass(frozen=True, slots=True)
class TableColumns:
    """Which column of a table means what.

    Attributes:
        task: Names the task of a row.
        run: Names the run within the task.
        hparams: Columns that are hyperparameters, in the table or in the one joined to it.
        objective: Metric that decides.
        direction: ``min`` or ``max``; None: inferred from the objective's name.
        step: Counts the values of a run; None for a table with one row a run.
        time: Seconds since the run's start.
        metrics: Further columns to keep as metrics.
        status: How the run ended, in the words of its tracker; None: a column that is called so and holds such words, if there is one.
    """

    task: str
    run: str
    hparams: tuple[str, ...]
    objective: str
    direction: str | None = None
    step: str | None = None
    time: str | None = None
    metrics: tuple[str, ...] = ()
    status: str | None = None

    @property
    def numbers(self) -> list[str]:
        """Columns of the main table that must hold numbers."""
        return [self.objective, *self.metrics, *(name for name in (self.time, self.step) if name is not None)]

    @property
    def read(self) -> list[str]:
        """Columns of the main table that are needed, hyperparameters aside."""
        optional = [name for name in (self.step, self.time, self.status) if name is not None]
        return list(dict.fromkeys([self.task, self.run, self.objective, *optional, *self.metrics]))


@dataclass(frozen=True, slots=True)
class KeyedRows:
    """A table with one row a key.

    Attributes:
        names: Its columns, the key aside.
        rows: Key -> column -> value.
    """

    names: tuple[str, ...]
    rows: Mapping[Any, Mapping[str, Any]]

    def matching(self, keys: list[Any]) -> list[Any]:
        """Return keys as they stand in this table: 7 finds '7' and the other way round."""
        by_text = {str(key): key for key in self.rows}
        return [key if key in self.rows else by_text.get(str(key), key) for key in keys]


@dataclass(slots=True)
class TableRows:
    """A sorted table as finished runs.

    Attributes:
        data: Column -> values.
        columns: Which column means what.
        direction: ``min`` or ``max``.
        joined: The table with hyperparameters.
        key: The column by which it is joined.
        own: Hyperparameters that are columns of the main table.
        mapping: How names are read; None: as they are.
        place: Where the table lies.
        unfinished: What becomes of runs that did not end.
        n_empty: Runs without a value of the objective.
        n_unfinished: Runs left out because they did not end.
    """

    data: Mapping[str, list[Any]]
    columns: TableColumns
    direction: str
    joined: KeyedRows | None
    key: str | None
    own: Sequence[str]
    mapping: SourceMapping | None = None
    place: str = ""
    unfinished: UnfinishedRuns = field(default_factory=UnfinishedRuns)
    n_empty: int = 0
    n_unfinished: int = 0

    def note(self) -> str | None:
        """Return the note on runs without a value, None where there are none."""
        runs = "1 run has" if self.n_empty == 1 else f"{self.n_empty} runs have"
        return f"{runs} no value of {self.columns.objective!r} and cannot be imported" if self.n_empty else None

    def configurations(self) -> Iterator[ForeignRun]:
        """Yield the hyperparameters of each run, to map them."""
        for task, run, rows in self._groups():
            yield ForeignRun((), str(task), self._hparams(task, run, rows))

    def _groups(self) -> Iterator[tuple[Any, Any, slice]]:
        tasks, runs = self.data[self.columns.task], self.data[self.columns.run]
        for (task, run), group in groupby(range(len(tasks)), key=lambda i: (tasks[i], runs[i])):
            indices = list(group)
            yield task, run, slice(indices[0], indices[-1] + 1)

    def __iter__(self) -> Iterator[FinishedRun]:
        """Yield the runs in the order of task and run."""
        now = utc_now()
        self.n_empty = self.n_unfinished = self.unfinished.n_skipped = 0
        for task, run, rows in self._groups():
            ended = self.unfinished.ended(ForeignRun((str(task), str(run)), str(task), status=self._status(task, run, rows)))
            done = None if isinstance(ended, SkippedRecord) else self._run(task, run, rows, now, ended.status)
            if done is not None:
                yield done
            elif isinstance(ended, SkippedRecord):
                self.n_unfinished += 1
            else:
                self.n_empty += 1

    def _status(self, task: Any, run: Any, rows: slice) -> RunStatus | None:
        """Return how a run ended by its last row; None where that follows from its values."""
        if self.columns.status is None:
            return None
        words = [word for word in self.data[self.columns.status][rows] if word is not None]
        found = status_of_word(words[-1]) if words else None
        if words and found is None:
            raise InvalidArgumentError(
                f"A status must be a word that is known, but run {run!r} of task {task!r} has {words[-1]!r} in column "
                f"{self.columns.status!r}. Known are {known_words()}. Change it, or name another column by --status-col."
            )
        return None if found is RunStatus.COMPLETED else found

    def _run(self, task: Any, run: Any, rows: slice, now: str, status: RunStatus | None) -> FinishedRun | None:
        columns = self.columns
        steps = self._steps(task, run, rows)
        hparams = self._hparams(task, run, rows)
        seconds = None if columns.time is None else self.data[columns.time][rows]
        curves = {}
        for name in (columns.objective, *columns.metrics):
            values = self.data[name][rows]
            kept = [i for i, value in enumerate(values) if value is not None]
            if kept:  # an empty cell: nothing was logged at this step
                elapsed = None if seconds is None else [seconds[i] for i in kept]
                curves[name] = Curve([steps[i] for i in kept], [float(values[i]) for i in kept], elapsed)
        if columns.objective not in curves and status is None:
            return None
        stored: dict[str, Any] = hparams
        names: dict[str, str] = {}
        description: dict[str, Any] = {}
        deciding = curves.get(columns.objective)
        outcome = None
        if deciding is not None and self.mapping is not None and self.mapping.options.outcome == "last":
            outcome = Curve(deciding.steps[-1:], deciding.values[-1:])
        if self.mapping is not None:  # recorded tables for a replay are many runs, and need no more than their values
            stored, names = stored_hparams(ForeignRun((), str(task), hparams), self.mapping)
            digest = _digest_of(curves, stored, names, *[str(given) for given in (status, outcome) if given is not None])
            origin = {"importer": "table", "place": self.place, "run": str(run), "digest": digest}
            description = {"origin": origin}
        is_epoch = columns.step is not None and "epoch" in columns.step.lower()
        return FinishedRun(
            _run_id(columns.objective, str(task), run, hparams),
            str(task),
            stored,
            columns.objective,
            self.direction,
            curves,
            started_utc=now,
            status=status,
            epochs_reached=float(deciding.steps[-1]) if is_epoch and deciding is not None else None,
            names=names,
            description=description,
            outcome=outcome,
        )

    def _steps(self, task: Any, run: Any, rows: slice) -> list[int]:
        if self.columns.step is None:
            if rows.stop - rows.start > 1:
                raise InvalidArgumentError(
                    f"A run must have one row where no step column is named, but run {run!r} of task {task!r} has "
                    f"{rows.stop - rows.start}. Name the column that counts them, e.g. --step-col epoch."
                )
            return [0]
        given = self.data[self.columns.step][rows]
        if not all(abs(step) < EXACT for step in given):  # NaN and infinity neither
            raise InvalidArgumentError(
                f"Steps must be whole numbers below 2^53, but run {run!r} of task {task!r} has others in column {self.columns.step!r}. "
                "Name the column that counts the values."
            )
        steps = [int(step) for step in given]
        if any(step != exact for step, exact in zip(steps, given, strict=True)) or len(set(steps)) < len(steps):
            raise InvalidArgumentError(
                f"Steps must be whole numbers, each once a run, but run {run!r} of task {task!r} has others in column "
                f"{self.columns.step!r}. Name the column that counts the values, or one that identifies the runs."
            )
        return steps

    def _hparams(self, task: Any, run: Any, rows: slice) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name in self.own:
            column = self.data[name]
            first = column[rows.start]
            if column[rows.stop - 1] != first and first == first:
                raise InvalidArgumentError(
                    f"A hyperparameter must stay the same within a run, but {name!r} changes in run {run!r} of task {task!r}. Name a "
                    "column that identifies the runs."
                )
            found[name] = first
        if self.joined is not None and self.key is not None:
            key = self.data[self.key][rows.start]
            if key not in self.joined.rows:
                raise InvalidArgumentError(
                    f"Every row must find its partner in the joined table, but {self.key}={key!r} of task {task!r} is not there."
                )
            row = self.joined.rows[key]
            found = {name: row[name] if name in row else found[name] for name in self.columns.hparams}
        # An empty cell: this run does not have the hyperparameter.
        return {name: value for name, value in found.items() if value is not None and value == value and value not in ("nan", "NaN")}


def _run_id(objective: str, task: str, run: Any, hparams: Mapping[str, Any]) -> str:
    """Return an id that follows from the rows of a run, and sorts within a task as the runs do."""
    is_whole = (isinstance(run, int) or (isinstance(run, float) and run.is_integer())) and run >= 0
    label = f"{int(run):0{_LABEL_DIGITS}d}" if is_whole else re.sub(r"[^A-Za-z0-9]+", "_", str(run))[:24]
    return f"{_digest((objective, task))}-{label}-{_digest((str(run), sorted(hparams.items())))}"


def _digest_of(curves: Mapping[str, Curve], hparams: Mapping[str, Any], names: Mapping[str, str], *more: str) -> str:
    """Return what changes when a run went on, or is read otherwise."""
    values = sorted((name, curve.steps, curve.values) for name, curve in curves.items())
    return _digest((values, sorted(hparams.items()), sorted(names.items()), *more))


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]
