"""Imports an export of a history: JSON Lines or a folder of Parquet tables, as ``store/upkeep/export.py`` writes them.

The rows go into a temporary history of the schema they were written with, which is then migrated and merged.
So an import is a merge: the same rules, and doing it twice changes nothing. Into an empty history it gives an equal one.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from store.errors import HistoryTooNewError, InvalidArgumentError
from store.history import History
from store.sqlite import schema
from store.sqlite.connection import transaction
from store.upkeep.export import BATCH_ROWS, FORMAT_NAME, FORMAT_VERSION, TABLES, Progress, import_pyarrow
from store.upkeep.merge import merge_history

Rows = Iterator[tuple[str, list[dict[str, Any]], float]]
"""Table, some of its rows, and the share of the source that was read, in [0, 1]."""


def import_history(history: History, source: str | os.PathLike[str], *, progress: Progress | None = None) -> dict[str, int]:
    """Import an export of a history; doing it twice changes nothing.

    Args:
        history: What receives it.
        source: A file of JSON Lines, or a folder of Parquet tables.
        progress: Called with the share done, in [0, 1], and what is being done.

    Returns:
        Table -> number of rows that were written, as ``History.merge`` gives it, with ``models``.

    Raises:
        InvalidArgumentError: If the source is no export, or damaged.
        HistoryTooNewError: If a newer version wrote it.
        StorageError: If the history cannot be written.
    """
    path = Path(os.path.abspath(os.path.expanduser(source)))
    if not path.exists():
        raise InvalidArgumentError(f"An import needs an export of a history, but {path} does not exist. Write one with 'metahp export'.")
    head, rows = _parquet_rows(path) if path.is_dir() else _jsonl_rows(path)
    with tempfile.TemporaryDirectory(prefix="metahp-import-", dir=history.path.parent) as folder:
        file = Path(folder) / "history.db"
        connection = sqlite3.connect(file, isolation_level=None)
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = OFF")  # a failure throws the whole file away
            connection.execute("PRAGMA synchronous = OFF")
            with transaction(connection):
                schema.migrate(connection, head["schema_version"])
                _insert(connection, path, rows, progress)
                schema.migrate(connection)
        finally:
            connection.close()
        if progress is not None:
            progress(0.9, "merging")
        with history._writing() as receiving:
            return merge_history(receiving, file, with_models=True)


def _insert(connection: sqlite3.Connection, path: Path, rows: Rows, progress: Progress | None) -> None:
    columns = {table: [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] for table in TABLES}
    for table, batch, share in rows:
        if table not in columns:
            raise _damaged(path, f"it has a table {table!r}; possible are {', '.join(TABLES)}")
        known = columns[table]
        unknown = sorted({name for row in batch for name in row} - set(known))
        if unknown:
            raise _damaged(path, f"{table} has no column {', '.join(unknown)}")
        try:
            connection.executemany(
                f"INSERT INTO {table} ({', '.join(known)}) VALUES ({', '.join('?' * len(known))})",
                [[row.get(name) for name in known] for row in batch],
            )
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError, OverflowError) as error:
            raise _damaged(path, f"a row of {table} cannot be imported: {error}") from error
        if progress is not None:
            progress(0.9 * share, f"reading {table}")


def _jsonl_rows(path: Path) -> tuple[dict[str, Any], Rows]:
    with path.open("rb") as file:
        try:
            head = json.loads(file.readline(1_000_000))
        except ValueError:
            head = None
    return _checked_head(path, head), _read_jsonl(path)


def _read_jsonl(path: Path) -> Rows:
    size = path.stat().st_size or 1
    counts: dict[str, int] = {}
    table, end = "", None
    batch: list[dict[str, Any]] = []
    with path.open("rb") as file:
        position = len(file.readline())
        for number, line in enumerate(file, 2):
            position += len(line)
            try:
                row = json.loads(line)
                if "end" in row and "table" not in row:
                    end = row["rows"]
                    break
                name = row.pop("table")
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise _damaged(path, f"line {number} is no row") from error
            if batch and (name != table or len(batch) >= BATCH_ROWS):
                yield table, batch, position / size
                batch = []
            table = name
            batch.append(row)
            counts[name] = counts.get(name, 0) + 1
    if batch:
        yield table, batch, 1.0
    if end is None or {name: count for name, count in end.items() if count} != counts:
        raise _damaged(path, "its last line does not count its rows: it was cut off")


def _parquet_rows(path: Path) -> tuple[dict[str, Any], Rows]:
    _, pq = import_pyarrow()
    files = {name: path / f"{name}.parquet" for name in TABLES if (path / f"{name}.parquet").is_file()}
    if "runs" not in files or "tasks" not in files:
        raise _damaged(path, "it is a folder without runs.parquet and tasks.parquet")
    try:
        metadata = pq.read_schema(files["runs"]).metadata or {}
        head = json.loads(metadata.get(b"metahp", b"null"))
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    return _checked_head(path, head), _read_parquet(path, files)


def _read_parquet(path: Path, files: dict[str, Path]) -> Rows:
    _, pq = import_pyarrow()
    for index, (table, file) in enumerate(files.items(), 1):
        try:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(BATCH_ROWS):
                    yield table, batch.to_pylist(), index / len(files)
        except (OSError, ValueError) as error:
            raise _damaged(path, f"{file.name}: {error}") from error


def _checked_head(path: Path, head: Any) -> dict[str, Any]:
    if not isinstance(head, dict) or head.get("format") != FORMAT_NAME or not isinstance(head.get("schema_version"), int):
        raise _damaged(path, "it does not begin as one")
    if head.get("version", 0) > FORMAT_VERSION or head["schema_version"] > schema.SCHEMA_VERSION:
        raise HistoryTooNewError(
            f"The export {path} has schema version {head['schema_version']}, but this version reads up to {schema.SCHEMA_VERSION}. "
            "Upgrade with: pip install --upgrade lightning-metahp"
        )
    if head["schema_version"] < 1:
        raise _damaged(path, "its schema version is unknown")
    return head


def _damaged(path: Path, why: str) -> InvalidArgumentError:
    return InvalidArgumentError(
        f"An import needs an export of a history, whole and as it was written, but {path} is none: {why}. Write it again with "
        "'metahp export'; a history itself is merged with 'metahp merge', other tables with 'metahp import table'."
    )
