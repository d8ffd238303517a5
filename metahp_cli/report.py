"""``metahp report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption

DEFAULT_OUT = Path("report.html")


def report(
    comparison: Annotated[
        str | None, typer.Option("--comparison", metavar="ID", help="A live comparison instead of the whole history: its id, or 'newest'.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The page; default: report.html, unless --png is given.")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            "--png", metavar="FOLDER|FILE", help="Draw every plot into a folder, or the one a file such as cost.png is named after."
        ),
    ] = None,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Make a page of the history, to look at or to send to somebody.

    One HTML file that needs no network: the best of each task, what mattered, what recommendations gained, what it cost.

    Example: metahp report --out report.html
    """
    from store import History

    page = out if out is not None or png is not None else DEFAULT_OUT
    with History(history, create=False) as opened, output.progress("reading the history"):
        from metahp_report import comparison_report, history_report, save_pictures, write_page  # plots are loaded for a history that exists

        made = history_report(opened) if comparison is None else comparison_report(opened, None if comparison == "newest" else comparison)
    size = None if page is None else write_page(made, page)
    pictures = [] if png is None else save_pictures(made, png)
    if format is Format.JSON:
        output.print_json({"page": page, "bytes": size, "pictures": pictures, "findings": made.findings})
        return
    for line in made.findings:
        output.print_line(f"- {line}")
    if page is not None and size is not None:
        output.note(f"Written: {page} ({size / 1e6:.1f} MB, most of it Plotly, so that it needs no network)")
    if pictures:
        output.note(f"Drawn: {pictures[0] if len(pictures) == 1 else f'{len(pictures)} pictures in {png}'}")
