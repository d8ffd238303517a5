"""Recorded tables (CSV, JSON Lines, Parquet, data sets of the Hub) become a history: one run for each pair of task and run in the table.

pyarrow is imported when a table is read, never with ``store``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import InvalidArgumentError
from store.importers.decimal_marks import number_in, with_decimals_read
from store.importers.endings import STATUS_COLUMNS, UnfinishedRuns, status_of_word
from store.importers.mapping import ImportOptions, SourceMapping, map_hyperparameters
from store.importers.pipeline import known_digests
from store.importers.table_dialect import TableDialect
from store.importers.table_files import kind_of, read_csv, read_table
from store.importers.table_rows import EXACT, KeyedRows, TableRows
from store.importers.table_rows import TableColumns as TableColumns
from store.importers.task_names import joining_notes
from store.names import resolve_direction
from store.privacy import redact_text
from store.records import RunStatus
from store.sqlite.bulk import FinishedRun

if TYPE_CHECKING:
    from store.history import History


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
        n_unfinished: Runs that did not end, which are left out.
        statuses: Status -> number of runs.
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
    n_unfinished: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
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
    dialect: TableDialect | None = None,
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
            nothing is converted, a known run is not written again, and a column with a status counts only where it is named.
        dialect: How the table is written, as far as it is not to be found; of further tables only the decimal marks.
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
    dialect = dialect or TableDialect()
    labels = (columns.run,) if task is not None else (columns.task, columns.run)
    table = _read_labels_exactly(read_table(path, dialect, notes), path, labels, dialect)
    present = table.column_names
    if task is not None:
        columns, table = _with_task(table, columns, task)
    joined = None if join is None else _keyed_rows(join[0], join[1], columns.hparams, notes, dialect.decimals)
    features = {} if task_features is None else _task_features(*task_features)
    keys = [] if join is None else [join[1]]
    own = [name for name in columns.hparams if joined is None or name not in joined.names]
    _check_columns(present, [name for name in [*columns.read, *keys, *own] if task is None or name != columns.task], path)
    if columns.status is None and options is not None:
        columns = replace(columns, status=_status_column(table, [*columns.read, *keys, *own], notes))
    table = _with_decimals(table, [*columns.numbers, *own], path, dialect, notes)
    table = _with_numbers(table, columns, path)
    order = [(name, "ascending") for name in (columns.task, columns.run, columns.step) if name is not None]
    wanted = list(dict.fromkeys([*columns.read, *keys, *own]))
    data = {name: column.to_pylist() for name, column in zip(wanted, table.select(wanted).sort_by(order).columns, strict=True)}
    _read_numbers(data, [name for name in own if _is_text(table, name)], path, notes)
    if joined is not None:
        data[keys[0]] = joined.matching(data[keys[0]])
    report = TableReport(n_rows=table.num_rows, notes=tuple(notes))
    report.left_out = tuple(name for name in table.column_names if name not in wanted)
    rows = TableRows(data, columns, direction, joined, join[1] if join else None, own, place=redact_text(str(path)))
    rows.unfinished = UnfinishedRuns("skip" if options is None else options.unfinished)
    if options is not None:
        report.mapping = rows.mapping = map_hyperparameters(list(rows.configurations()), options)
        if report.mapping.questions and not dry_run:
            raise InvalidArgumentError(f"The table {str(path)!r} is ambiguous: {'; '.join(report.mapping.questions)}.")
    ids_by_task: dict[str, set[str]] = {}
    if dry_run or history is None:
        ids = [run.id for run in _watched(rows, report, progress, ids_by_task)]
        report.n_new = len(ids) - len(known_digests(history, ids))
    else:
        counts = history.add_finished_runs(_watched(rows, report, progress, ids_by_task), features)
        report.n_new, report.n_updated = counts["runs"], counts["runs_updated"]
        report.n_values, report.is_written = counts["metrics"], True
    _note_rest(report, rows, None if options is None else history, ids_by_task)  # recorded tables for a replay have a history of their own
    return report


def _note_rest(report: TableReport, rows: TableRows, history: History | None, ids_by_task: dict[str, set[str]]) -> None:
    """Note which runs are left out, and which tasks of the history runs join."""
    report.n_empty, report.n_unfinished = rows.n_empty, rows.n_unfinished
    report.notes += tuple(filter(None, [rows.unfinished.note(), rows.note()]))
    if history is not None:
        report.notes += tuple(joining_notes(history, ids_by_task, "table", rows.place))


def _keyed_rows(
    path: str | Path,
    key: str,
    hparams: Sequence[str] | None = None,
    notes: list[str] | None = None,
    decimals: Mapping[str, str] | None = None,
) -> KeyedRows:
    """Read a table with one row a key; its columns may hold numbers where they are hyperparameters, or all of them."""
    notes = [] if notes is None else notes
    table = read_table(path, notes=notes)
    _check_columns(table.column_names, [key], path)
    names = [name for name in table.column_names if name != key and (hparams is None or name in hparams)]
    table = _with_decimals(table, names, path, TableDialect(decimals=decimals or {}), notes)
    data = {name: column.to_pylist() for name, column in zip(table.column_names, table.columns, strict=True)}
    _read_numbers(data, [name for name in hparams or () if name in data and _is_text(table, name)], path, notes)
    rows: dict[Any, Mapping[str, Any]] = {}
    for i, value in enumerate(data[key]):
        if value in rows:
            raise InvalidArgumentError(
                f"A joined table must have each key once, but {str(path)!r} has {key}={value!r} twice. Remove the doubles or join by "
                "another column."
            )
        rows[value] = {name: column[i] for name, column in data.items() if name != key}
    return KeyedRows(tuple(name for name in table.column_names if name != key), rows)


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
        hint = " What stands between the cells is set by --delimiter." if len(present) == 1 else ""
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


def _with_decimals(table: Any, names: Sequence[str], path: str | Path, dialect: TableDialect, notes: list[str]) -> Any:
    """Return a table in which the numbers of text columns are read."""

    def reread(texts: Sequence[str]) -> Any:
        import pyarrow as pa

        return read_csv(path, dict.fromkeys(texts, pa.string()), dialect)

    is_csv = kind_of(path) in {"csv", "tsv"} and not Path(path).is_dir()
    return with_decimals_read(table, names, dialect.decimals, place=str(path), notes=notes, reread=reread if is_csv else None)


def _status_column(table: Any, used: Sequence[str], notes: list[str]) -> str | None:
    """Return the column that holds statuses: it is called so, and means nothing else."""
    for name in table.column_names:
        plain = "".join(letter for letter in name.lower().rpartition("/")[2] if letter.isalpha())
        if name in used or plain not in STATUS_COLUMNS or table.column_names.count(name) > 1:
            continue
        words = [word for word in table.column(name).unique().to_pylist() if word is not None]
        unknown = [word for word in words if status_of_word(word) is None]
        if words and not unknown:
            notes.append(f"column {name!r} is read as how the runs ended")
            return str(name)
        if len(unknown) < len(words):
            notes.append(f"column {name!r} is not read as how the runs ended, since it holds {unknown[0]!r}; --status-col {name} reads it")
    return None


def _read_labels_exactly(table: Any, path: str | Path, names: Sequence[str], dialect: TableDialect) -> Any:
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
        and (pyarrow.compute.max(pyarrow.compute.abs(table.column(name))).as_py() or 0.0) >= EXACT
    ]
    return table if not inexact else read_csv(path, dict.fromkeys(inexact, pa.string()), dialect)


def _with_numbers(table: Any, columns: TableColumns, path: str | Path) -> Any:
    """Check what the columns hold; return the table with decimal numbers as ordinary ones."""
    import pyarrow as pa
    import pyarrow.compute

    if table.num_rows == 0:
        raise InvalidArgumentError(f"A table must have rows, but {str(path)!r} has only column names. Check the file.")
    for name in columns.numbers:
        kind = table.schema.field(name).type
        if pa.types.is_decimal(kind):
            table = table.set_column(table.column_names.index(name), name, table.column(name).cast(pa.float64()))
        elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)):
            values = (value for value in table.column(name).to_pylist() if value is not None and _as_number(value) is None)
            first = next(values, None)
            seen = "" if first is None else f", for example {first!r:.40}"
            is_comma = isinstance(first, str) and number_in(first, "comma") is not None
            way = f"Pass --decimal {name}=comma if its comma is a decimal mark" if is_comma else "Leave such cells empty"
            raise InvalidArgumentError(
                f"Column {name!r} must hold numbers, but in {str(path)!r} it holds {kind}{seen}. {way}, or name another column."
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


def _watched(
    rows: TableRows, report: TableReport, progress: Callable[[float, str], None] | None, ids_by_task: dict[str, set[str]]
) -> Iterator[FinishedRun]:
    """Pass runs on and count them."""
    tasks: set[str] = set()
    configs: dict[str, dict[str, Any]] = {}
    n_seen = 0
    for run in rows:
        curve = run.curves.get(run.objective)
        is_diverged = run.status is None and curve is not None and not math.isfinite(curve.values[-1])
        status = str(run.status or (RunStatus.DIVERGED if is_diverged else RunStatus.COMPLETED))
        n_seen += 0 if curve is None else len(curve.steps)
        report.n_runs += 1
        ids_by_task.setdefault(run.task, set()).add(run.id)
        report.n_diverged += status == RunStatus.DIVERGED
        report.statuses[status] = report.statuses.get(status, 0) + 1
        tasks.add(run.task)
        configs.setdefault(repr(run.hparams), dict(run.hparams))
        if progress is not None and report.n_runs % 200 == 0:
            progress(n_seen / max(report.n_rows, 1), f"{report.n_runs} runs")
        yield run
    report.n_tasks, report.configs = len(tasks), list(configs.values())
