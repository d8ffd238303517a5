"""``metahp compact``."""

from __future__ import annotations

import re
import sys
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption

if TYPE_CHECKING:
    from store import Compaction

_UNITS = {"h": "hours", "d": "days", "w": "weeks"}


def compact(
    task: Annotated[str | None, typer.Option("--task", help="Only runs of this task: name, id or start of an id.")] = None,
    older_than: Annotated[str | None, typer.Option("--older-than", metavar="AGE", help="Only runs that started longer ago: 30d.")] = None,
    keep_points: Annotated[int, typer.Option("--keep-points", help="Rows that a step curve keeps at most.")] = 200,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    vacuum: Annotated[
        bool,
        typer.Option("--vacuum", help="Then VACUUM the file (needs exclusive access). Without it, freed pages are reused by later runs."),
    ] = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Shorten the step curves of ended runs.

    Shows what that would free, and does it only with --yes or after asking on a terminal. Objectives, validation metrics, metrics with
    one row an epoch, and the first, last, smallest and largest value of each curve are kept, and so is its shape.

    Example: metahp compact --older-than 30d --keep-points 200
    """
    from store import History, compact, vacuum_history

    age = None if older_than is None else parse_age(older_than)
    with History(history, create=False) as opened:
        with output.progress("Looking") as report:
            done = compact(opened, task=task, older_than=age, keep_points=keep_points, progress=report)
        if done.rows_freed and (yes or is_confirmed(done)):
            with output.progress("Compacting") as report:
                done = compact(opened, task=task, older_than=age, keep_points=keep_points, is_dry=False, progress=report)
        shrunk = vacuum_history(opened) if vacuum and done.is_done else None
    print_compaction(done, shrunk, format)
    if done.rows_freed and not done.is_done:
        output.note("Nothing was changed; --yes does it.")


def parse_age(text: str) -> timedelta:
    """Return an age such as ``12h``, ``30d`` or ``8w``.

    Raises:
        InvalidArgumentError: If it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([hdw])", text.strip().lower())
    if match is None:
        from store import InvalidArgumentError

        raise InvalidArgumentError(f"An age is a number with h, d or w for hours, days or weeks, but got {text!r}. Pass e.g. 30d.")
    return timedelta(**{_UNITS[match.group(2)]: float(match.group(1))})


def is_confirmed(planned: Compaction) -> bool:
    """Ask on a terminal; where there is none the answer is no."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    return typer.confirm(
        f"Drop {planned.rows_freed:,} of {planned.rows_before:,} metric rows of {planned.n_runs:,} runs "
        f"(about {output.show_bytes(planned.bytes_freed)})?",
        err=True,
    )


def print_compaction(done: Compaction, shrunk_bytes: int | None, format: Format) -> None:
    """Print what was, or would be, freed."""
    if format is Format.JSON:
        output.print_json({**output.record_dict(done), "file_shrunk_bytes": shrunk_bytes})
        return
    output.print_fields(
        {
            "runs": done.n_runs,
            "step curves": done.n_curves,
            "metric rows before": f"{done.rows_before:,}",
            "rows freed" if done.is_done else "rows that would go": f"{done.rows_freed:,}",
            "about": output.show_bytes(done.bytes_freed),
            "file smaller by": output.show_bytes(shrunk_bytes),
        }
    )
