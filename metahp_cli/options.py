"""Options that every command takes, after its name."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Format(StrEnum):
    """How results are written to stdout."""

    TABLE = "table"
    JSON = "json"


class Mode(StrEnum):
    """What a recommendation should be good for."""

    BEST = "best"
    EXPLORE = "explore"


HistoryOption = Annotated[
    Path | None,
    typer.Option("--history", metavar="PATH", help="History file; default: $METAHP_HISTORY, else in your user data folder."),
]
FormatOption = Annotated[Format, typer.Option("--format", help="A table to read, or JSON for scripts.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def split_list(text: str | None) -> list[str] | None:
    """Split a comma-separated list; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
