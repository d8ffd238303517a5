"""``metahp merge``, ``metahp export`` and ``metahp import history``: histories from elsewhere, and to elsewhere."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption


class ExportFormat(StrEnum):
    """What an export is written as."""

    JSONL = "jsonl"
    PARQUET = "parquet"


def merge(
    other: Annotated[Path, typer.Argument(metavar="OTHER", help="Another history, of this or an older version; it is only read.")],
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Merge another history into this one; doing it twice changes nothing.

    Of a run in both, the further advanced state is kept. Tasks merged or split by hand are merged too, but corrections made here win.
    Meta-models are not merged: the next run fits one, or 'metahp refit' does.

    Example: metahp merge /mnt/laptop/history.db
    """
    from store import History

    with History(history) as opened, output.progress("merging"):
        counts, path = opened.merge(other), opened.path
    print_counts(counts, format)
    if format is Format.TABLE:
        output.note(f"{path} has everything {other} has.")


def export(
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="File ending in .jsonl, or a folder for Parquet tables.")],
    to: Annotated[ExportFormat | None, typer.Option("--to", help="jsonl or parquet; default: from the name.")] = None,
    task: Annotated[str | None, typer.Option("--task", help="Only this task: name, id or start of an id.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an earlier export of the same name.")] = False,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Write the history as JSON Lines or Parquet, for other programs or to be imported again.

    JSON Lines: a row per line, its table under "table"; columns without a value are left out. Parquet: a file per table.

    Example: metahp export runs.jsonl --task digits
    """
    from store import History
    from store.upkeep.export import export_history

    with History(history, create=False) as opened, output.progress("writing") as report:
        done = export_history(opened, target, to=None if to is None else to.value, task=task, overwrite=overwrite, progress=report)
    if format is Format.JSON:
        output.print_json({"path": done.path, "format": done.format, "rows": done.rows})
        return
    output.print_table(("table", "rows"), done.rows.items())
    output.note(f"Written to {done.path} ({done.format}).")


def import_history(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="What 'metahp export' wrote: a file or a folder.")],
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Import an export of a history; doing it twice changes nothing. A new history becomes equal to the exported one.

    Example: metahp import history runs.jsonl
    """
    from store import History
    from store.importers.export import import_history as import_export

    with History(history) as opened, output.progress("reading") as report:
        counts = import_export(opened, source, progress=report)
    print_counts(counts, format)


def print_counts(counts: dict[str, int], format: Format) -> None:
    """Print how many rows were imported, by table."""
    if format is Format.JSON:
        output.print_json(counts)
        return
    updated = counts["runs_updated"]
    rows = [
        (name, f"{count}, {updated} of them known and updated" if name == "runs" and updated else count)
        for name, count in counts.items()
        if name != "runs_updated"
    ]
    output.print_table(("table", "rows imported"), rows)
