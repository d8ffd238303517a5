"""``metahp doctor``."""

from __future__ import annotations

from typing import Annotated

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption


def doctor(
    full: Annotated[bool, typer.Option("--full", help="Also compare every index with its table; reads everything twice.")] = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Check the history: what is wrong with it, and what to do about it. Changes nothing.

    Exit code 1 if something needs doing.

    Example: metahp doctor --full
    """
    from store.upkeep.doctor import Level, examine

    with output.progress("checking") as report:
        findings = examine(history, full=full, progress=report)
    if format is Format.JSON:
        output.print_json([output.record_dict(finding) for finding in findings])
    else:
        output.print_table(("check", "state", "found", "what to do"), [(f.check, f.level, f.text, f.advice) for f in findings])
    if any(finding.level is Level.ACTION for finding in findings):
        raise typer.Exit(1)
