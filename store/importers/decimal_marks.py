"""Numbers as spreadsheets write them: with a decimal comma, or with marks between thousands. What could be both is an error, never a guess.

A cell that is a number with one of the marks only (0,5 or 0.5) tells which one its table uses. A cell like 1.234 in a table of decimal
commas may be 1.234 or 1234, and a cell like 64,32 in a table of decimal points may be a list: the first is an error that names the option,
the second stays a word, with a note.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from store.errors import InvalidArgumentError

MARKS = {"comma": ",", "point": "."}
_SPACES = " \u00a0\u202f'\u2019"
_WORDS = frozenset({"nan", "inf", "-inf", "+inf", "infinity", "-infinity"})


def _pattern(mark: str) -> re.Pattern[str]:
    other = re.escape("." if mark == "," else ",")
    digits = rf"[1-9]\d{{0,2}}(?:(?P<group>[{other}{_SPACES}])\d{{3}})(?:(?P=group)\d{{3}})*|\d+"
    mark = re.escape(mark)
    return re.compile(rf"[+-]?(?:(?:{digits})(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?")


_PATTERNS = {name: _pattern(mark) for name, mark in MARKS.items()}


def decimal_options(text: str | None) -> dict[str, str]:
    """Return column -> mark of ``--decimal``: ``comma``, ``point`` or ``COLUMN=comma,...``; the column '' stands for all others.

    Raises:
        InvalidArgumentError: If a mark is none of the two.
    """
    found = {}
    for part in filter(None, map(str.strip, (text or "").split(","))):
        column, _, mark = part.rpartition("=")
        if mark not in MARKS:
            raise InvalidArgumentError(
                f"A decimal mark must be {' or '.join(MARKS)}, or COLUMN=comma, several with commas, but got {part!r}."
            )
        found[column] = mark
    return found


def number_in(text: str, mark: str) -> int | float | None:
    """Return the number that a cell is with a decimal mark, None if it is none."""
    stripped = text.strip()
    if stripped.lower() in _WORDS:
        return float(stripped)
    if len(stripped) > 64 or _PATTERNS[mark].fullmatch(stripped) is None:
        return None
    grouped = ("." if mark == "comma" else ",") + _SPACES
    plain = stripped.translate({ord(letter): None for letter in grouped}).replace(MARKS[mark], ".")
    return int(plain) if re.fullmatch(r"[+-]?\d+", plain) else float(plain)


def _evidence(texts: Iterable[str]) -> dict[str, str]:
    """Return what the cells tell, each with a cell as an example: ``comma``, ``point``, or ``either`` with another value for each mark."""
    found: dict[str, str] = {}
    for text in texts:
        comma, point = number_in(text, "comma"), number_in(text, "point")
        if comma is not None and point is not None and repr(float(comma)) != repr(float(point)):
            found.setdefault("either " + ("point" if "." in text else "comma"), text)
        elif (comma is None) is not (point is None):
            found.setdefault("point" if comma is None else "comma", text)
    return found


def with_decimals_read(
    table: Any,
    names: Sequence[str],
    given: Mapping[str, str],
    *,
    place: str,
    notes: list[str],
    reread: Callable[[Sequence[str]], Any] | None = None,
) -> Any:
    """Return a table in which the numbers of its text columns are read.

    Args:
        table: Arrow table.
        names: Columns that may be numbers.
        given: Column -> mark set by the user, as ``decimal_options`` gives it.
        place: Name of the table, for messages.
        notes: Receives what stays a word.
        reread: Returns columns as the text that the file holds, of a format that holds text; None: its numbers are numbers.

    Raises:
        InvalidArgumentError: If it is ambiguous which number a cell is.
    """
    import pyarrow as pa

    texts = {name: _texts(table.column(name)) for name in names if _is_text(table.schema.field(name).type)}
    told = {name: _evidence(cells) for name, cells in texts.items()}
    if not given and not any("comma" in kind for found in told.values() for kind in found) and not any(map(_is_grouped, texts.values())):
        return table
    floats = [name for name in names if pa.types.is_floating(table.schema.field(name).type)]
    if reread is not None and floats:  # 1.234 was read as a number, and may be a thousand
        raw = reread(floats)
        texts |= {name: _texts(raw.column(name)) for name in floats}
        told |= {name: _evidence(texts[name]) for name in floats}
    marks = {kind for name, found in told.items() if name not in given for kind in MARKS if kind in found}
    common = next(iter(marks)) if len(marks) == 1 else None
    for name, cells in texts.items():
        mark = given.get(name, given.get("")) or _mark_of(name, told[name], common, place, notes)
        if mark is not None:
            numbers = {text: _number(text, mark, is_given=bool(given)) for text in cells}
            if not all(_reads_as(text, number) for text, number in numbers.items()):
                source = raw if name in floats and reread is not None else table
                column = [None if text is None else numbers.get(text) for text in source.column(name).to_pylist()]
                table = table.set_column(table.column_names.index(name), name, _column(source.column(name), numbers, column))
    return table


def _number(text: str, mark: str, *, is_given: bool) -> int | float | None:
    found = number_in(text, mark)
    return number_in(text, "point" if mark == "comma" else "comma") if found is None and is_given else found


def _mark_of(name: str, found: Mapping[str, str], common: str | None, place: str, notes: list[str]) -> str | None:
    """Return the mark of a column, None where it is left as it is."""
    if common == "comma" and "comma" not in found and "either point" in found:
        cell = found["either point"]
        raise InvalidArgumentError(
            f"A number must be unambiguous, but {place!r} has decimal commas and {cell!r} in column {name!r}. Pass --decimal {name}=point "
            f"if that is {number_in(cell, 'point')}, or --decimal {name}=comma if it is {number_in(cell, 'comma')}."
        )
    if common == "comma" or not found.keys() & {"comma", "either comma"} or "point" in found:
        return common or "point"
    cell = found.get("comma") or found["either comma"]
    notes.append(
        f"column {name!r} of {place!r} holds {cell!r}, which stays a word: pass --decimal {name}=comma if it is {number_in(cell, 'comma')}"
        + (f", or --decimal {name}=point if it is {number_in(cell, 'point')}" if "comma" not in found else "")
    )
    return None


def _texts(column: Any) -> list[str]:
    return [text for text in column.unique().to_pylist() if text is not None]


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_grouped(texts: Iterable[str]) -> bool:
    """Say whether thousands are set apart, as in 1 234 or 1,234.5."""
    return any(not _reads_as(text, number_in(text, "point")) for text in texts)


def _reads_as(text: str, number: int | float | None) -> bool:
    """Say whether Python reads a cell as the same number, or neither is one."""
    try:
        return number is None or repr(float(text)) == repr(float(number))
    except ValueError:
        return False


def _column(texts: Any, numbers: Mapping[str, int | float | None], column: list[int | float | None]) -> Any:
    """Return numbers, or, where a cell is a word, text in which Python reads the numbers."""
    import pyarrow as pa

    if any(number is None for number in numbers.values()):
        return pa.array(
            [text if number is None else repr(number) for text, number in zip(texts.to_pylist(), column, strict=True)], pa.string()
        )
    is_whole = all(isinstance(number, int) and abs(number) < 2**53 for number in numbers.values())
    return pa.array(column, pa.int64() if is_whole else pa.float64())
