"""docs/performance.md: each benchmark replaces the part between its own two marker comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.measuring import describe_machine

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table whose columns are as wide as their widest cell; all but the first are aligned to the right."""
    cells = [list(columns), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in cells) for index in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        first, *others = zip(row, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 2) if index == 0 else "-" * (width + 1) + ":" for index, width in enumerate(widths)) + "|"
    return "\n".join([line(cells[0]), rule, *(line(row) for row in cells[1:])])


def measured_on() -> str:
    """Return when and where, in words."""
    return f"Measured on {datetime.now(UTC):%Y-%m-%d}: {describe_machine()}."


def write_section(name: str, text: str, page: Path = PAGE) -> None:
    """Replace what stands between ``<!-- name:start -->`` and ``<!-- name:end -->``.

    Raises:
        ValueError: If the page has no such place.
    """
    before = page.read_text(encoding="utf-8")
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    pattern = re.compile(re.escape(start) + r".*?" + re.escape(end), flags=re.DOTALL)
    if not pattern.search(before):
        raise ValueError(f"{page} must have a place for {name!r}: {start} and {end} on lines of their own.")
    page.write_text(pattern.sub(lambda _: f"{start}\n\n{text.strip()}\n\n{end}", before), encoding="utf-8")
