"""Options that every command takes, after its name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand


class Format(StrEnum):
    """How results are written to stdout."""

    TABLE = "table"
    JSON = "json"


class Mode(StrEnum):
    """What a recommendation should be good for."""

    BEST = "best"
    EXPLORE = "explore"


class GroupBy(StrEnum):
    """What the runs of a list are put together by."""

    CONFIG = "config"


HistoryOption = Annotated[
    Path | None,
    typer.Option("--history", metavar="PATH", help="History file; default: $METAHP_HISTORY, else in your user data folder."),
]
FormatOption = Annotated[Format, typer.Option("--format", help="A table to read, or JSON for scripts.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


_LISTS = {
    "kinds": "metamodel.kinds:KINDS",
    "methods": "compare_baselines.methods:METHODS",
    "live_methods": "compare_baselines.methods:LIVE_METHODS",
    "live_tasks": "compare_baselines.live.tasks:LIVE_TASKS",
    "live_suites": "compare_baselines.live.tasks:SUITES",
}


def names_of(which: str) -> list[str]:
    """Return the names of a list that another package holds, which is loaded for it."""
    module, _, attribute = _LISTS[which].partition(":")
    found: Iterable[str] = getattr(import_module(module), attribute)
    return list(found)


class ListingCommand(TyperCommand):
    """A command whose help lists names that other packages hold: ``{kinds}`` and the like, filled in when the help is shown."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        for parameter in self.params:
            text = getattr(parameter, "help", None)
            if text:
                parameter.help = re.sub(r"\{(\w+)\}", lambda found: ", ".join(names_of(found[1])), text)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def split_list(text: str | None) -> list[str] | None:
    """Split a comma-separated list; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]
