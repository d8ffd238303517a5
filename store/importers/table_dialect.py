"""How a table of text is written: its encoding, and what stands between its cells. Found, unless the user sets it."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO

from store.errors import InvalidArgumentError
from store.importers.decimal_marks import decimal_options

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
_CHUNK = 2**22
_SAMPLE_BYTES = 2**16
_SAMPLE_ROWS = 100
_BYTE_ORDER_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}


@dataclass(frozen=True, slots=True)
class TableDialect:
    """How a table is written; None where it is to be found.

    Attributes:
        encoding: Name of the encoding.
        delimiter: What stands between cells.
        skip_rows: Lines before the names of the columns.
        decimals: Column -> ``comma`` or ``point``, as ``decimal_options`` gives it.
    """

    encoding: str | None = None
    delimiter: str | None = None
    skip_rows: int = 0
    decimals: Mapping[str, str] = field(default_factory=dict)


def dialect_options(encoding: str | None, delimiter: str | None, decimal: str | None) -> TableDialect:
    """Return what ``--encoding``, ``--delimiter`` and ``--decimal`` set.

    Raises:
        InvalidArgumentError: If there is no such encoding or decimal mark, or the delimiter is no single character.
    """
    try:
        found = None if encoding is None else codecs.lookup(encoding).name
    except LookupError as error:
        raise InvalidArgumentError(f"An encoding must be one that Python knows, such as utf-8 or latin-1, but got {encoding!r}.") from error
    between = None if delimiter is None else DELIMITERS.get(delimiter, delimiter)
    if between is not None and len(between.encode()) != 1:
        raise InvalidArgumentError(f"A delimiter must be one character, or {', '.join(DELIMITERS)}, but got {delimiter!r}.")
    return TableDialect(found, between, decimals=decimal_options(decimal))


def found_dialect(file: BinaryIO, given: TableDialect, *, prefers_tabs: bool, place: str) -> TableDialect:
    """Return how a table is written.

    Args:
        file: The table, at its start.
        given: What the user set.
        prefers_tabs: Whether tabs are expected rather than commas.
        place: Its name, for messages.

    Raises:
        InvalidArgumentError: If it is no text.
    """
    sample = file.read(_SAMPLE_BYTES)
    file.seek(0)
    encoding = given.encoding or _encoding_of(file, sample, place)
    text = codecs.getincrementaldecoder(encoding)(errors="replace").decode(sample).removeprefix("\ufeff")
    lines = text.splitlines()
    if len(sample) == _SAMPLE_BYTES and len(lines) > 1:
        del lines[-1]  # it may be cut off
    if lines and lines[0].lower().startswith("sep=") and len(lines[0]) == 5:  # a hint that Excel writes and reads
        return TableDialect(encoding, given.delimiter or lines[0][4], 1)
    return TableDialect(encoding, given.delimiter or _delimiter_of(lines, "\t,;|" if prefers_tabs else ",;\t|"))


def _encoding_of(file: BinaryIO, sample: bytes, place: str) -> str:
    for mark, name in _BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        raise InvalidArgumentError(
            f"A table must be text, but {place!r} is not, or it is UTF-16 without a byte order mark. Save it as UTF-8, or pass --encoding."
        )
    for name in ("utf-8", "cp1252"):
        decoder = codecs.getincrementaldecoder(name)()
        try:
            while chunk := file.read(_CHUNK):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            continue
        finally:
            file.seek(0)
        if name == "cp1252" and any(byte < 32 and byte not in b"\t\n\r\f" for byte in sample):
            break
        return name
    raise InvalidArgumentError(
        f"A table must be text, but {place!r} is neither UTF-8 nor Windows-1252 (Latin-1). Save it as UTF-8, or pass --encoding NAME."
    )


def _delimiter_of(lines: Sequence[str], candidates: str) -> str:
    """Return what gives all rows as many cells as there are names; of several the one with the most cells, then the first candidate."""

    def score(delimiter: str) -> tuple[float, int]:
        try:
            rows = [row for row in csv.reader(lines[:_SAMPLE_ROWS], delimiter=delimiter) if row]
        except csv.Error:
            return 0.0, 0
        width = len(rows[0]) if rows else 0
        return (sum(len(row) == width for row in rows) / len(rows) if width > 1 else 0.0), width

    return max(candidates, key=score)
