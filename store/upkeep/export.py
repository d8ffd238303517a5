"""A history as files that anything can read: one of JSON Lines, or a folder of Parquet tables. ``importers/export.py`` takes both.

Rows are streamed, so the size of a history does not matter. The first line (in Parquet the metadata) names what the file is and
which schema it has; the last line of JSON Lines counts the rows, so that a file that was cut off is noticed.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from store.errors import InvalidArgumentError
from store.extras import needed_for
from store.sqlite import schema
from store.sqlite.connection import make_directories
from store.sqlite.row_reader import find_task_id

if TYPE_CHECKING:
    from store.history import History

FORMAT_NAME = "metahp-history"
FORMAT_VERSION = 1
TABLES = ("tasks", "runs", "hparams", "metrics", "resources", "recommendations", "models", "compactions")
"""What a history consists of, in the order in which it can be taken in again."""

BATCH_ROWS = 20_000
_ARROW_TYPES = {"TEXT": "string", "INTEGER": "int64", "FLOAT": "float64", "REAL": "float64"}

Progress = Callable[[float, str], None]
Head = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written.

    Attributes:
        path: The file, or the folder of Parquet tables.
        format: ``jsonl`` or ``parquet``.
        rows: Table -> number of rows.
    """

    path: Path
    format: str
    rows: dict[str, int]


def export_history(
    history: History,
    target: str | os.PathLike[str],
    *,
    to: str | None = None,
    task: str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a history into a file of JSON Lines or a folder of Parquet tables.

    Args:
        history: What to write; one state of it, whoever writes meanwhile.
        target: File or folder to make, readable by its owner only.
        to: ``jsonl`` or ``parquet``; None: JSON Lines where the target ends in ``.jsonl``, else Parquet.
        task: Only this task with everything that belongs to it: name, id, or a unique beginning of an id.
        overwrite: Whether an earlier export in the same place is replaced.
        progress: Called with the share done, in [0, 1], and what is being done.

    Raises:
        InvalidArgumentError: If the target exists, or there is no such format.
        UnknownTaskError: If there is no such task.
        MissingDependencyError: If Parquet is asked for and pyarrow is not installed.
        OSError: If the target cannot be written.
    """
    path = Path(os.path.abspath(os.path.expanduser(target)))
    kind = to or ("jsonl" if path.suffix.lower() in {".jsonl", ".ndjson"} else "parquet")
    if kind not in _WRITERS:
        raise InvalidArgumentError(f"An export is one of {', '.join(_WRITERS)}, but got {to!r}. Pass one of these.")
    if path.exists() and not (overwrite and is_export(path)):
        what = "replace it with --overwrite" if is_export(path) else "it is no export of a history"
        raise InvalidArgumentError(f"An export goes to a new file or folder, but {path} exists; {what}. Name another place.")
    make_directories(path.parent)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    with history._reading() as connection:
        scope = _scope(None if task is None else find_task_id(connection, task))
        tables = [_Table.of(connection, name, scope) for name in TABLES]
        head = {"format": FORMAT_NAME, "version": FORMAT_VERSION, "schema_version": schema.SCHEMA_VERSION}
        try:
            rows = _WRITERS[kind](connection, tables, head, part, progress or _ignore)
            if path.exists():
                _remove(path)
            part.replace(path)
        except BaseException:
            _remove(part)
            raise
    return ExportReport(path, kind, rows)


def is_export(path: Path) -> bool:
    """Return whether a path holds an export of a history."""
    if path.is_dir():
        return (path / "runs.parquet").is_file() and (path / "tasks.parquet").is_file()
    try:
        with path.open("rb") as file:
            first = json.loads(file.readline(10_000))
    except (OSError, ValueError):
        return False
    return isinstance(first, dict) and first.get("format") == FORMAT_NAME


@dataclass(frozen=True, slots=True)
class _Table:
    name: str
    columns: tuple[str, ...]
    types: tuple[str, ...]
    count: int
    query: str

    @classmethod
    def of(cls, connection: sqlite3.Connection, name: str, scope: dict[str, str] | None) -> _Table:
        found = [(row[1], str(row[2]).upper()) for row in connection.execute(f"PRAGMA table_info({name})")]
        columns = tuple(column for column, _ in found)
        where = "" if scope is None else f" WHERE {scope[name]}"
        # in the order the rows came in, which is the order of hyperparameters; tables without rowid have none but their key
        order = {"metrics": "run_id, name, attempt, step", "compactions": "run_id, compacted_utc"}.get(name, "rowid")
        count = connection.execute(f"SELECT count(*) FROM {name}{where}").fetchone()[0]
        query = f"SELECT {', '.join(columns)} FROM {name}{where} ORDER BY {order}"
        return cls(name, columns, tuple(kind for _, kind in found), count, query)

    def batches(self, connection: sqlite3.Connection) -> Iterator[list[tuple[Any, ...]]]:
        cursor = connection.cursor()
        cursor.row_factory = None
        cursor.execute(self.query)
        while rows := cursor.fetchmany(BATCH_ROWS):
            yield rows


def _scope(task_id: str | None) -> dict[str, str] | None:
    """Return for each table the condition that picks what belongs to one task; None for everything."""
    if task_id is None:
        return None
    quoted = "'" + task_id.replace("'", "''") + "'"
    of_task = f"FROM main.runs WHERE task_id = {quoted}"
    tasks = (
        f"id = {quoted} OR id IN (SELECT original_task_id {of_task}) OR id IN "
        f"(WITH RECURSIVE merged(id) AS (SELECT {quoted} UNION SELECT tasks.id FROM tasks JOIN merged ON tasks.merged_into = merged.id) "
        "SELECT id FROM merged)"
    )
    return {
        "tasks": tasks,
        "runs": f"task_id = {quoted}",
        **dict.fromkeys(("hparams", "metrics", "resources", "compactions"), f"run_id IN (SELECT id {of_task})"),
        "recommendations": f"id IN (SELECT recommendation_id {of_task})",
        "models": "false",  # learned from all tasks
    }


def _write_jsonl(
    connection: sqlite3.Connection, tables: list[_Table], head: dict[str, Any], part: Path, report: Progress
) -> dict[str, int]:
    done, total = 0, sum(table.count for table in tables) or 1
    counts: dict[str, int] = {}
    with _private_file(part) as file:
        file.write(json.dumps(head).encode() + b"\n")
        for table in tables:
            counts[table.name] = 0
            for rows in table.batches(connection):
                named = ({"table": table.name} | _known(zip(table.columns, row, strict=True)) for row in rows)
                file.write("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in named).encode())
                counts[table.name] += len(rows)
                done += len(rows)
                report(done / total, f"writing {table.name}")
        file.write(json.dumps({"end": FORMAT_NAME, "rows": counts}).encode() + b"\n")
    return counts


def _write_parquet(
    connection: sqlite3.Connection, tables: list[_Table], head: dict[str, Any], part: Path, report: Progress
) -> dict[str, int]:
    pa, pq = import_pyarrow()
    done, total = 0, sum(table.count for table in tables) or 1
    counts: dict[str, int] = {}
    part.mkdir(mode=0o700)
    for table in tables:
        fields = [
            (column, getattr(pa, _ARROW_TYPES.get(kind, "string"))()) for column, kind in zip(table.columns, table.types, strict=True)
        ]
        arrow_schema = pa.schema(fields, metadata={"metahp": json.dumps({**head, "table": table.name})})
        counts[table.name] = 0
        with _private_file(part / f"{table.name}.parquet") as file, pq.ParquetWriter(file, arrow_schema, compression="zstd") as writer:
            for rows in table.batches(connection):
                columns = [pa.array(values, type=kind) for values, (_, kind) in zip(zip(*rows, strict=True), fields, strict=True)]
                writer.write_table(pa.Table.from_arrays(columns, schema=arrow_schema))
                counts[table.name] += len(rows)
                done += len(rows)
                report(done / total, f"writing {table.name}")
    return counts


_WRITERS: dict[str, Callable[[sqlite3.Connection, list[_Table], Head, Path, Progress], dict[str, int]]] = {
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}


def import_pyarrow() -> tuple[Any, Any]:
    """Return ``pyarrow`` and ``pyarrow.parquet``.

    Raises:
        MissingDependencyError: If it is not installed.
    """
    with needed_for("Parquet", otherwise="use JSON Lines"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow, pyarrow.parquet


@contextmanager
def _private_file(path: Path) -> Iterator[IO[bytes]]:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb", buffering=1 << 20) as file:
        yield file


def _known(items: Any) -> dict[str, Any]:
    return {name: value for name, value in items if value is not None}


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _ignore(share: float, text: str) -> None:
    """Report nothing."""
