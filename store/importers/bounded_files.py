"""Untrusted files: read within bounds, never followed out of their folder, never executed.

A source may have been downloaded. So every file has a largest size, folders a largest number of entries, links are not followed, and a
binary file or a web page in the place of a text is an error.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from store.errors import InvalidArgumentError
from store.importers.foreign import utc_text

MIB = 2**20
MAX_FILES = 200_000
"""Entries of a folder, with everything below, that are looked at."""
MAX_FOLDER_DEPTH = 12
"""Levels below the folder given."""


class UnreadableRecordError(Exception):
    """A record that cannot be read; its text is the reason. Never leaves the importers: it is counted and reported."""


def read_bytes(path: Path, limit: int) -> bytes:
    """Return a file's contents.

    Raises:
        UnreadableRecordError: If it is larger than ``limit`` bytes, no ordinary file, or cannot be read.
    """
    try:
        if path.is_symlink() or not path.is_file():
            raise UnreadableRecordError("a file is a link or no ordinary file")
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise UnreadableRecordError(f"a file cannot be read ({error.strerror or type(error).__name__})") from error
    if len(data) > limit:
        raise UnreadableRecordError(f"a file is larger than {limit // MIB or 1} MiB")
    return data


def written_utc(path: Path) -> str | None:
    """Return when a file was last written: the start of a run for which no time was recorded."""
    try:
        return utc_text(path.stat().st_mtime)
    except OSError:
        return None


def read_text(path: Path, limit: int) -> str:
    """Return a file's text, which must be UTF-8.

    Raises:
        UnreadableRecordError: As ``read_bytes``, or if it is no text or a web page.
    """
    try:
        text = read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableRecordError("a file is not UTF-8 text") from error
    if "\0" in text:
        raise UnreadableRecordError("a file is not text")
    if text[:200].lstrip().lower().startswith(("<!doctype", "<html")):
        raise UnreadableRecordError("a file is a web page")
    return text


def parse_json(text: str | bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        UnreadableRecordError: If it is none, or nested too deeply.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # ValueError: also an integer of too many digits
        raise UnreadableRecordError("a file is not JSON") from error


def json_object(text: str | bytes) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        UnreadableRecordError: If the text is none.
    """
    value = parse_json(text)
    if not isinstance(value, dict):
        raise UnreadableRecordError("a JSON file holds no object")
    return value


def csv_rows(text: str, max_rows: int = 2_000_000) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV text by column name; cells too many or too few are left out.

    Raises:
        UnreadableRecordError: If it is no CSV text, or has more rows than ``max_rows``.
    """
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        names = next(reader, [])
        for number, row in enumerate(reader):
            if number >= max_rows:
                raise UnreadableRecordError(f"a table has more than {max_rows} rows")
            yield dict(zip(names, row, strict=False))
    except csv.Error as error:
        raise UnreadableRecordError("a file is not CSV") from error


def existing(path: str | Path, what: str) -> Path:
    """Return an absolute path that exists.

    Raises:
        InvalidArgumentError: If nothing is there.
    """
    found = Path(os.path.abspath(os.path.expanduser(path)))
    if not found.exists():
        raise InvalidArgumentError(f"A source must exist, but there is nothing at {str(path)!r}. Give the path of {what}.")
    return found


def sqlite_path(rest: str) -> str:
    """Return the path in a database URL ``sqlite:///...``, given what stands behind ``://``."""
    return unquote(rest.partition("?")[0]).removeprefix("/").removeprefix("file:")


def sqlite_address(path: Path) -> str:
    """Return the URI that opens a SQLite file for reading and leaves nothing beside it.

    A file in WAL mode gets two companions from whoever opens it, a reader who may not write cannot remove them. Where they are not there
    yet, nobody is using the file, and it can be opened as one that does not change.
    """
    with path.open("rb") as file:
        header = file.read(20)
    is_quiet = header[18:20] == b"\2\2" and not path.with_name(path.name + "-wal").exists()
    return f"{path.as_uri()}?mode=ro{'&immutable=1' if is_quiet else ''}"


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the ordinary files of a folder and those below it in the order of their names, links not followed.

    Raises:
        InvalidArgumentError: If there are more than ``MAX_FILES`` of them.
    """
    count = 0
    for place, folders, names in os.walk(folder, followlinks=False):
        here = Path(place)
        depth = len(here.relative_to(folder).parts)
        folders[:] = [] if depth >= MAX_FOLDER_DEPTH else sorted(name for name in folders if not (here / name).is_symlink())
        for name in sorted(names):
            count += 1
            if count > MAX_FILES:
                raise InvalidArgumentError(
                    f"A folder to import may hold {MAX_FILES} files, but {str(folder)!r} holds more. Give a folder further down."
                )
            if not (here / name).is_symlink():
                yield here / name
