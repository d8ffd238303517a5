"""Tables as files, as folders of the ``datasets`` library, or on the Hugging Face Hub: read within bounds, into Arrow.

pyarrow is imported when a table is read, never with ``store``; ``datasets`` only for its own folders and the Hub.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.errors import InvalidArgumentError
from store.extras import needed_for
from store.importers.table_dialect import TableDialect, found_dialect

HUB = "hf:"
_SUFFIXES = "csv, tsv, jsonl, ndjson, json, parquet or pq"
MAX_TABLE_BYTES = 2**32
"""Of a table once it is unpacked; larger ones are split or filtered before they are worth learning from."""
MAX_TABLE_ROWS = 100_000_000
_CHUNK = 2**22
_ANY = TableDialect()
_EMPTY_CELLS = ["", "#N/A", "#N/A N/A", "#NA", "<NA>", "N/A", "NA", "NULL", "n/a", "null"]
"""What stands for no value. NaN is a value: a run that logged it diverged, one that logged nothing did not."""


def read_table(place: str | Path, given: TableDialect = _ANY, notes: list[str] | None = None) -> Any:
    """Read a table into Arrow.

    Args:
        place: File (by its suffix), folder that ``Dataset.save_to_disk`` wrote, or ``hf:OWNER/NAME[:SPLIT]``.
        given: How a CSV file is written, as far as the user sets it; the rest is found.
        notes: Receives how it was read, where that is not the usual.

    Raises:
        InvalidArgumentError: If it is missing, malformed, too large or of another format.
        MissingDependencyError: If a package is needed and missing.
    """
    if str(place).startswith(HUB):
        return _decoded(_hub_table(str(place)))
    path = Path(place)
    return _decoded(_saved_table(path) if path.is_dir() else _file_table(path, given, notes))


def _decoded(table: Any) -> Any:
    """Return a table with categories (pandas', R's factors) as the values they stand for: Arrow can neither sort nor type them."""
    pa = _pyarrow()
    for index, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            table = table.set_column(index, column.name, table.column(index).cast(column.type.value_type))
    return table


def _file_table(path: Path, given: TableDialect, notes: list[str] | None) -> Any:
    pa = _pyarrow()
    if not path.is_file():
        raise InvalidArgumentError(f"A table must be an existing file, but {str(path)!r} is none. Check the path.")
    kind = kind_of(path)
    try:
        if kind in {"parquet", "pq"}:
            return _read_parquet(path)
        if kind in {"csv", "tsv"}:
            return read_csv(path, None, given, notes)
        if kind in {"json", "jsonl", "ndjson"}:
            opened = _opened(path)
            return pa.json.read_json(opened if isinstance(opened, Path) else pa.BufferReader(opened))
    except (pa.ArrowException, OSError, EOFError, zlib.error) as error:
        hint = "Write one object a line." if kind in {"json", "jsonl", "ndjson"} else "Check the file."
        why = " ".join(str(error).split())
        raise InvalidArgumentError(f"A table must be readable as {kind}, but {str(path)!r} is not: {why}. {hint}") from error
    raise InvalidArgumentError(f"A table must be CSV, JSON Lines or Parquet, but got {path.name!r}. Its name must end in {_SUFFIXES}.")


def kind_of(place: str | Path) -> str:
    """Return the suffix that names the format of a file, ``gz`` aside; empty for what is no file."""
    return "" if str(place).startswith(HUB) else Path(place).name.lower().removesuffix(".gz").rpartition(".")[2]


def read_csv(path: str | Path, types: Mapping[str, Any] | None = None, given: TableDialect = _ANY, notes: list[str] | None = None) -> Any:
    """Read a CSV file, some of its columns as types given.

    Args:
        path: The file.
        types: Column -> Arrow type; of the others it is inferred.
        given: How it is written, as far as the user sets it.
        notes: Receives how it was read, where that is not the usual.

    Raises:
        InvalidArgumentError: If it is no such file.
    """
    pa = _pyarrow()
    opened = _opened(Path(path))
    with Path(path).open("rb") if isinstance(opened, Path) else io.BytesIO(opened) as file:
        found = found_dialect(file, given, prefers_tabs=kind_of(path) == "tsv", place=str(path))
    if notes is not None and given.encoding is None and found.encoding == "cp1252":
        notes.append(f"{str(path)!r} is not UTF-8 and was read as Windows-1252 (Latin-1); --encoding NAME sets another")
    try:
        return pa.csv.read_csv(
            opened if isinstance(opened, Path) else pa.BufferReader(opened),
            read_options=pa.csv.ReadOptions(encoding=found.encoding, skip_rows=found.skip_rows),
            parse_options=pa.csv.ParseOptions(delimiter=found.delimiter),
            convert_options=pa.csv.ConvertOptions(strings_can_be_null=True, null_values=_EMPTY_CELLS, column_types=dict(types or {})),
        )
    except (pa.ArrowException, UnicodeError) as error:
        raise InvalidArgumentError(
            f"A table must be readable as CSV, but {str(path)!r} is not: {' '.join(str(error).split())}. Read as {found.encoding} with "
            f"{found.delimiter!r} between the cells: pass --encoding or --delimiter if it is written otherwise."
        ) from error


def _pyarrow() -> Any:
    with needed_for("Reading tables"):
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.json
        import pyarrow.parquet
    return pa


def _opened(path: Path) -> Path | bytes:
    """Return a text file as it lies, or what it unpacks to within bounds; checked to be no web page."""
    is_packed = path.name.lower().endswith(".gz")
    with gzip.open(path) if is_packed else path.open("rb") as file:
        start = file.read(200)
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").lower().startswith((b"<!doctype", b"<html")):
            raise InvalidArgumentError(f"A table must be a file of rows, but {str(path)!r} is a web page. Download the file itself.")
        if not is_packed:
            _check_size(path, path.stat().st_size)
            return path
        chunks = [start]
        total = len(start)
        while chunk := file.read(_CHUNK):
            total += len(chunk)
            _check_size(path, total)
            chunks.append(chunk)
    return b"".join(chunks)


def _check_size(path: Path, size: int) -> None:
    if size > MAX_TABLE_BYTES:
        raise InvalidArgumentError(
            f"A table may have {MAX_TABLE_BYTES // 2**30} GiB once it is unpacked, but {str(path)!r} has more. Split it, or keep only "
            "the columns that matter."
        )


def _read_parquet(path: Path) -> Any:
    pa = _pyarrow()
    with pa.parquet.ParquetFile(path) as file:
        metadata = file.metadata
        _check_size(path, sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups)))
        if metadata.num_rows > MAX_TABLE_ROWS:  # repeated values take next to no bytes
            raise InvalidArgumentError(f"A table may have {MAX_TABLE_ROWS} rows, but {str(path)!r} has {metadata.num_rows}. Split it.")
        return file.read()


def _datasets() -> Any:
    with needed_for("Reading data sets of the Hub or of save_to_disk"):
        import datasets
    return datasets


@contextmanager
def _readable(message: str) -> Iterator[None]:
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # the Hub, its cache, Arrow and the readers each have errors of their own
        raise InvalidArgumentError(f"{message}: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _hub_table(place: str) -> Any:
    """Return a data set of the Hub; its files are read, code beside them is never run."""
    name, _, split = place.removeprefix(HUB).partition(":")
    if name.count("/") != 1:
        raise InvalidArgumentError(f"A data set of the Hub must be given as hf:OWNER/NAME or hf:OWNER/NAME:SPLIT, but got {place!r}.")
    datasets = _datasets()
    with _readable(f"A data set of the Hub must be readable, but {name!r} is not"):
        found = datasets.load_dataset(name, split=split or None)
    return _one_table(found, place, f"{HUB}{name}:")


def _saved_table(path: Path) -> Any:
    if not any((path / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")):
        raise InvalidArgumentError(
            f"A folder must be one that Dataset.save_to_disk wrote, but {str(path)!r} is none. Name a file in it: {_SUFFIXES}."
        )
    datasets = _datasets()
    with _readable(f"A folder of save_to_disk must be readable, but {str(path)!r} is not"):
        found = datasets.load_from_disk(str(path))
    return _one_table(found, str(path), f"{path}/")


def _one_table(found: Any, place: str, prefix: str) -> Any:
    """Return the Arrow table of a data set; of one with several splits the only one."""
    if hasattr(found, "column_names") and not isinstance(found.column_names, dict):
        return found.with_format("arrow")[:]
    splits = sorted(found)
    if len(splits) == 1:
        return found[splits[0]].with_format("arrow")[:]
    raise InvalidArgumentError(
        f"A data set must be one table, but {place!r} has the splits {', '.join(splits)}. Name one: {prefix}{splits[0]}"
    )
