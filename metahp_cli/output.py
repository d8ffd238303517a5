"""Printing: results to stdout as a table or as JSON, remarks to stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.console import Console

UNLIMITED_WIDTH = 10_000
"""Columns where output goes to a file or a pipe: a line per row, so that nothing is cut and grep works."""


def to_json(value: Any) -> Any:
    """Return a value as JSON can hold it.

    JSON has no NaN and no infinity: they become the strings ``nan``, ``inf`` and ``-inf``. Tuples and sets become lists, what
    JSON does not know at all becomes its text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Enum):
        return to_json(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(item) for item in value]
    return str(value)


def record_dict(record: DataclassInstance, leave_out: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of a record by name, their values as they are."""
    return {item.name: getattr(record, item.name) for item in fields(record) if item.name not in leave_out}


def print_json(value: Any) -> None:
    """Write one JSON document to stdout."""
    sys.stdout.write(json.dumps(to_json(value), indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def note(text: str) -> None:
    """Write a remark to stderr, where it does not disturb a script that reads stdout."""
    sys.stderr.write(text + "\n")


def print_line(text: str) -> None:
    """Write a line of text to stdout."""
    sys.stdout.write(text + "\n")


def make_console(file: TextIO) -> Console:
    """Return a rich console that takes text literally: ``[redacted]`` is a value and no markup."""
    from rich.console import Console

    width = None if file.isatty() else UNLIMITED_WIDTH
    return Console(file=file, width=width, markup=False, emoji=False, highlight=False, soft_wrap=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Write rows under their column names to stdout.

    Args:
        columns: Column names; the first one is never cut.
        rows: Cells, as many per row as there are columns; None shows as nothing.
        title: A line above.
    """
    cells = [[show_value(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        sys.stdout.write("".join(f"{line}\n" for line in [*([] if title is None else [title]), *plain_lines(columns, cells)]))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in cells:
        table.add_row(*row)
    console = make_console(sys.stdout)
    if title is not None:
        console.print(title)
    console.print(table)


def plain_lines(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield a table for a file or a pipe, one line a row: grep works, and laying out a screen takes a third of a second."""
    lines = [[" ".join(cell.splitlines()) for cell in line] for line in ([*columns], *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * width for width in widths]
    for line in (lines[0], rule, *lines[1:]):
        yield "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()


def print_fields(values: Mapping[str, Any]) -> None:
    """Write names and values, one pair a line, to stdout; values of None are left out."""
    shown = [(name, show_value(value)) for name, value in values.items() if value is not None]
    if not sys.stdout.isatty():
        width = max((len(name) for name, _ in shown), default=0)
        sys.stdout.write("".join(f"{name:{width}}  {' '.join(value.splitlines())}".rstrip() + "\n" for name, value in shown))
        return
    from rich.table import Table

    table = Table.grid(padding=(0, 2, 0, 0))
    for name, value in shown:
        table.add_row(name, value)
    make_console(sys.stdout).print(table)


def show_value(value: Any) -> str:
    """Write a value for reading: floats with four significant digits, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={'None' if item is None else show_value(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "(" + ", ".join(show_value(item) for item in value) + ")"
    return str(value)


def show_duration(seconds: float | None) -> str | None:
    """Write a duration for reading: ``0.8 s``, ``12 min``, ``3.4 h``, ``2.1 d``."""
    if seconds is None or not math.isfinite(seconds):
        return None
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit, size, limit in (("min", 60.0, 120.0), ("h", 3600.0, 48.0)):
        if seconds / size < limit:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 86400:.1f} d"


def show_time(utc: str | None) -> str | None:
    """Write a stored UTC time for reading, to the second."""
    return None if not utc else utc[:19].replace("T", " ")


def age_s(utc: str) -> float:
    """Return how many seconds ago a stored UTC time was."""
    then = datetime.fromisoformat(utc)
    return (datetime.now(UTC) - (then if then.tzinfo else then.replace(tzinfo=UTC))).total_seconds()


def show_bytes(size: int | None) -> str | None:
    """Write a number of bytes in MiB."""
    return None if size is None else f"{size / 2**20:.0f} MiB"


@contextmanager
def progress(description: str) -> Iterator[Callable[[float, str], None]]:
    """Show a progress bar on stderr, gone when finished; nothing where stderr is no terminal.

    Yields:
        A function that takes the share done, in [0, 1], and what is being done.
    """
    from rich.progress import Progress

    console = make_console(sys.stderr)
    if not console.is_terminal:
        yield lambda share, text: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(description, total=None)  # moves without an end until the first report
        yield lambda share, text: bar.update(task, total=1.0, completed=share, description=text)
