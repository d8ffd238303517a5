"""Recorded tables (CSV, JSON Lines, Parquet, data sets of the Hub) become a history: one run for each pair of task and run in the table.

pyarrow is imported when a table is read, never with ``store``.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import InvalidArgumentError
from store.ids import utc_now
from store.importers.foreign import ForeignRun
from store.importers.mapping import ImportOptions, SourceMapping, map_hyperparameters
from store.importers.pipeline import known_digests, stored_hparams
from store.importers.table_files import kind_of, read_csv, read_table
from store.names import resolve_direction
from store.privacy import redact_text
from store.sqlite.bulk import Curve, FinishedRun

if TYPE_CHECKING:
    from store.history import History

_LABEL_DIGITS = 7
"""Numbers of runs are padded to this width inside an id, so that ids sort as the numbers do."""
_EXACT = 2.0**53
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
    """

    task: str
    run: str
    hparams: tuple[str, ...]
    objective: str
    direction: str | None = None
    step: str | None = None
    time: str | None = None
    metrics: tuple[str, ...] = ()

    @property
    def read(self) -> list[str]:
        """Columns of the main table that are needed, hyperparameters aside."""
        optional = [name for name in (self.step, self.time) if name is not None]
        return list(dict.fromkeys([self.task, self.run, self.objective, *optional, *self.metrics]))


@dataclass(slots=True)
class TableReport:
    """What the import of a table did, or would do; filled while the runs are read.

    Attributes:
        n_rows: Rows of the table.
        n_tasks: Tasks in it.
        n_runs: Runs in it.
        n_new: Runs that were not in the history before.
        n_updated: Runs that were, and have other values now.
        n_diverged: Runs whose last value is not finite.
        n_values: Metric values that were written.
        configs: Each distinct configuration once, by raw name.
        left_out: Columns that were not taken.
        notes: What was converted or left out, one line each.
        n_empty: Runs without any value of the objective, which are left out.
        mapping: How the names are read, where options were given.
        is_written: Whether the history was changed.
    """

    n_rows: int = 0
    n_tasks: int = 0
    n_runs: int = 0
    n_new: int = 0
    n_updated: int = 0
    n_diverged: int = 0
    n_values: int = 0
    configs: list[dict[str, Any]] = field(default_factory=list)
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    n_empty: int = 0
    mapping: SourceMapping = field(default_factory=SourceMapping)
    is_written: bool = False


def import_table(
    history: History | None,
    path: str | Path,
    columns: TableColumns,
    *,
    join: tuple[str | Path, str] | None = None,
    task_features: tuple[str | Path, str] | None = None,
    task: str | None = None,
    options: ImportOptions | None = None,
    dry_run: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> TableReport:
    """Import a recorded table. Doing it twice changes nothing: ids follow from the rows of a run.

    Args:
        history: Where the runs go; None only with ``dry_run``.
        path: CSV, JSON Lines or Parquet, told by the suffix; a folder of ``save_to_disk``; or ``hf:OWNER/NAME[:SPLIT]``.
        columns: Which column means what.
        join: A second table with hyperparameters, and the key column that both have.
        task_features: A table with one row a task, and its column with the task.
        task: Name of the one task of all rows, in the place of a column.
        options: Names, units and batch sizes set by the user; ambiguous ones are then questions, and each run keeps its origin. None:
            nothing is converted, and a known run is not written again.
        dry_run: Only report what would be imported.
        progress: Called with a fraction in [0, 1] and a text.

    Returns:
        What was imported, or would be.

    Raises:
        InvalidArgumentError: If a file or a column is missing or malformed, a run has several rows and no step column, or a question
            is open.
        ObjectiveError: If the direction is unknown.
        MissingDependencyError: If pyarrow is missing.
        StorageError: If the history cannot be written.
    """
    direction = str(resolve_direction(columns.objective, columns.direction))
    notes: list[str] = []
    table = _read_labels_exactly(read_table(path), path, (columns.run,) if task is not None else (columns.task, columns.run))
    if task is not None:
        columns, table = _with_task(table, columns, task)
    joined = None if join is None else _keyed_rows(join[0], join[1], columns.hparams, notes)
    features = {} if task_features is None else _task_features(*task_features)
    keys = [] if join is None else [join[1]]
    own = [name for name in columns.hparams if joined is None or name not in joined.names]
    _check_columns(table.column_names, [*columns.read, *keys, *own], path)
    table = _with_numbers(table, columns, path)
    order = [(name, "ascending") for name in (columns.task, columns.run, columns.step) if name is not None]
    wanted = list(dict.fromkeys([*columns.read, *keys, *own]))
    data = {name: column.to_pylist() for name, column in zip(wanted, table.select(wanted).sort_by(order).columns, strict=True)}
    _read_numbers(data, [name for name in own if _is_text(table, name)], path, notes)
    if joined is not None:
        data[keys[0]] = joined.matching(data[keys[0]])
    report = TableReport(n_rows=table.num_rows, notes=tuple(notes))
    report.left_out = tuple(name for name in table.column_names if name not in wanted)
    rows = _Rows(data, columns, direction, joined, join[1] if join else None, own, place=redact_text(str(path)))
    if options is not None:
        report.mapping = rows.mapping = map_hyperparameters(list(rows.configurations()), options)
        if report.mapping.questions and not dry_run:
            raise InvalidArgumentError(f"The table {str(path)!r} is ambiguous: {'; '.join(report.mapping.questions)}.")
    if dry_run or history is None:
        ids = [run.id for run in _watched(rows, report, progress)]
        report.n_new = len(ids) - len(known_digests(history, ids))
    else:
        counts = history.add_finished_runs(_watched(rows, report, progress), features)
        report.n_new, report.n_updated = counts["runs"], counts["runs_updated"]
        report.n_values, report.is_written = counts["metrics"], True
    report.n_empty = rows.n_empty
    if rows.n_empty:
        runs = "1 run has" if rows.n_empty == 1 else f"{rows.n_empty} runs have"
        report.notes += (f"{runs} no value of {columns.objective!r} and cannot be imported",)
    return report


@dataclass(frozen=True, slots=True)
class _Keyed:
    names: tuple[str, ...]
    rows: Mapping[Any, Mapping[str, Any]]

    def matching(self, keys: list[Any]) -> list[Any]:
        """Return keys as they stand in this table: 7 finds '7' and the other way round."""
        by_text = {str(key): key for key in self.rows}
        return [key if key in self.rows else by_text.get(str(key), key) for key in keys]


def _keyed_rows(path: str | Path, key: str, hparams: Sequence[str] = (), notes: list[str] | None = None) -> _Keyed:
    """Read a table with one row a key."""
    table = read_table(path)
    _check_columns(table.column_names, [key], path)
    data = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    _read_numbers(data, [name for name in hparams if name in data and _is_text(table, name)], path, [] if notes is None else notes)
    rows: dict[Any, Mapping[str, Any]] = {}
    for i, value in enumerate(data[key]):
        if value in rows:
            raise InvalidArgumentError(
                f"A joined table must have each key once, but {str(path)!r} has {key}={value!r} twice. Remove the doubles or join by "
                "another column."
            )
        rows[value] = {name: column[i] for name, column in data.items() if name != key}
    return _Keyed(tuple(name for name in table.column_names if name != key), rows)


def _task_features(path: str | Path, key: str) -> dict[str, dict[str, Any]]:
    """Return task name -> description with the numbers of its row as features."""
    found = {}
    for task, row in _keyed_rows(path, key).rows.items():
        numbers = {name: float(value) for name, value in row.items() if isinstance(value, int | float) and math.isfinite(value)}
        found[str(task)] = {"features": numbers}
    return found


def _check_columns(present: Sequence[str], needed: Sequence[str], path: str | Path) -> None:
    missing = [name for name in needed if name not in present]
    if missing:
        other = next((mark for mark in ";\t|" if len(present) == 1 and mark in present[0]), None)
        hint = "" if other is None else f" Columns must be separated by a comma (a tab in .tsv), not by {other!r}."
        raise InvalidArgumentError(
            f"A column must be in the table, but {str(path)!r} has no {', '.join(map(repr, missing))}; it has: {', '.join(present)}.{hint}"
        )
    double = [name for name in dict.fromkeys(needed) if list(present).count(name) > 1]
    if double:
        raise InvalidArgumentError(f"A column must be named once, but {str(path)!r} has {double[0]!r} several times. Rename the others.")


def _with_task(table: Any, columns: TableColumns, task: str) -> tuple[TableColumns, Any]:
    """Add a column with the same task in every row."""
    import pyarrow as pa

    name = "task"
    while name in table.column_names:
        name += "_"
    return replace(columns, task=name), table.append_column(name, pa.array([task] * table.num_rows, pa.string()))


def _read_labels_exactly(table: Any, path: str | Path, names: Sequence[str]) -> Any:
    """Read a CSV again with its labels as text where they are numbers too large to be exact."""
    import pyarrow as pa
    import pyarrow.compute
    import pyarrow.csv

    kind = kind_of(path)
    inexact = [
        name
        for name in names
        if kind in {"csv", "tsv"}
        and list(table.column_names).count(name) == 1
        and pa.types.is_floating(table.schema.field(name).type)
        and (pyarrow.compute.max(pyarrow.compute.abs(table.column(name))).as_py() or 0.0) >= _EXACT
    ]
    return table if not inexact else read_csv(path, dict.fromkeys(inexact, pa.string()))


def _with_numbers(table: Any, columns: TableColumns, path: str | Path) -> Any:
    """Check what the columns hold; return the table with decimal numbers as ordinary ones."""
    import pyarrow as pa
    import pyarrow.compute

    if table.num_rows == 0:
        raise InvalidArgumentError(f"A table must have rows, but {str(path)!r} has only column names. Check the file.")
    for name in [columns.objective, *columns.metrics, *([columns.time] if columns.time else []), *([columns.step] if columns.step else [])]:
        kind = table.schema.field(name).type
        if pa.types.is_decimal(kind):
            table = table.set_column(table.column_names.index(name), name, table.column(name).cast(pa.float64()))
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            values = (value for value in table.column(name).to_pylist() if value is not None and _as_number(value) is None)
            first = next(values, None)
            seen = "" if first is None else f", for example {first!r:.40}"
            raise InvalidArgumentError(
                f"Column {name!r} must hold numbers, but in {str(path)!r} it holds {kind}{seen}. "
                "Leave such cells empty, or name another column."
            )
    required = [columns.task, columns.run, *([columns.step] if columns.step else [])]
    for name in required:
        kind = table.schema.field(name).type
        if pa.types.is_binary(kind) or pa.types.is_nested(kind):
            raise InvalidArgumentError(
                f"Column {name!r} must hold numbers or UTF-8 text, but in {str(path)!r} it holds {kind}. Convert it."
            )
        n_empty = table.column(name).null_count
        if pa.types.is_floating(kind):
            n_empty += pyarrow.compute.sum(pyarrow.compute.is_nan(table.column(name))).as_py() or 0
        if n_empty:
            rows = "1 row" if n_empty == 1 else f"{n_empty} rows"
            raise InvalidArgumentError(
                f"Column {name!r} must have a value in every row, but {str(path)!r} has {rows} without one. Fill it."
            )
    return table


def _is_text(table: Any, name: str) -> bool:
    import pyarrow as pa

    kind = table.schema.field(name).type
    if pa.types.is_binary(kind):
        raise InvalidArgumentError(f"Column {name!r} must hold numbers or UTF-8 text, but it holds {kind}. Save the file as UTF-8.")
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _read_numbers(data: dict[str, list[Any]], names: Sequence[str], path: str | Path, notes: list[str]) -> None:
    """Read text that is mostly numbers as numbers: one cell with a word would otherwise make labels of a whole column."""
    for name in names:
        read = {text: _as_number(text) for text in set(data[name]) if text is not None}
        words = sorted(text for text, number in read.items() if number is None)
        if len(words) >= len(read) / 2:
            continue
        data[name] = [text if read.get(text) is None else read[text] for text in data[name]]
        if words:
            listed = ", ".join(map(repr, words[:3])) + (f" and {len(words) - 3} more" if len(words) > 3 else "")
            notes.append(f"column {name!r} of {str(path)!r} holds numbers and words; these stay words: {listed}")


def _as_number(text: Any) -> int | float | None:
    for kind in (int, float):
        with suppress(TypeError, ValueError):  # a number of the other kind, or a word
            return kind(text)
    return None


@dataclass(slots=True)
class _Rows:
    """A sorted table as finished runs."""

    data: Mapping[str, list[Any]]
    columns: TableColumns
    direction: str
    joined: _Keyed | None
    key: str | None
    own: Sequence[str]
    mapping: SourceMapping | None = None
    place: str = ""
    n_empty: int = 0

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
        self.n_empty = 0
        for task, run, rows in self._groups():
            done = self._run(task, run, rows, now)
            if done is None:
                self.n_empty += 1
            else:
                yield done

    def _run(self, task: Any, run: Any, rows: slice, now: str) -> FinishedRun | None:
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
        if columns.objective not in curves:
            return None
        stored: dict[str, Any] = hparams
        names: dict[str, str] = {}
        description: dict[str, Any] = {}
        if self.mapping is not None:  # recorded tables for a replay are many runs, and need no more than their values
            stored, names = stored_hparams(ForeignRun((), str(task), hparams), self.mapping)
            origin = {"importer": "table", "place": self.place, "run": str(run), "digest": _digest_of(curves, stored, names)}
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
            epochs_reached=float(curves[columns.objective].steps[-1]) if is_epoch else None,
            names=names,
            description=description,
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
        if not all(abs(step) < _EXACT for step in given):  # NaN and infinity neither
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


def _watched(rows: _Rows, report: TableReport, progress: Callable[[float, str], None] | None) -> Iterator[FinishedRun]:
    """Pass runs on and count them."""
    tasks: set[str] = set()
    configs: dict[str, dict[str, Any]] = {}
    n_seen = 0
    for run in rows:
        curve = run.curves[run.objective]
        n_seen += len(curve.steps)
        report.n_runs += 1
        report.n_diverged += not math.isfinite(curve.values[-1])
        tasks.add(run.task)
        configs.setdefault(repr(run.hparams), dict(run.hparams))
        if progress is not None and report.n_runs % 200 == 0:
            progress(n_seen / max(report.n_rows, 1), f"{report.n_runs} runs")
        yield run
    report.n_tasks, report.configs = len(tasks), list(configs.values())


def _run_id(objective: str, task: str, run: Any, hparams: Mapping[str, Any]) -> str:
    """Return an id that follows from the rows of a run, and sorts within a task as the runs do."""
    is_whole = (isinstance(run, int) or (isinstance(run, float) and run.is_integer())) and run >= 0
    label = f"{int(run):0{_LABEL_DIGITS}d}" if is_whole else re.sub(r"[^A-Za-z0-9]+", "_", str(run))[:24]
    return f"{_digest((objective, task))}-{label}-{_digest((str(run), sorted(hparams.items())))}"


def _digest_of(curves: Mapping[str, Curve], hparams: Mapping[str, Any], names: Mapping[str, str]) -> str:
    """Return what changes when a run went on, or is read otherwise."""
    values = sorted((name, curve.steps, curve.values) for name, curve in curves.items())
    return _digest((values, sorted(hparams.items()), sorted(names.items())))


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:8]
