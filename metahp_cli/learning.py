"""``metahp refit`` and ``metahp model``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption

if TYPE_CHECKING:
    from store import History


def refit(
    device: Annotated[str, typer.Option("--device", help="auto, cpu, or a device as torch names it, e.g. cuda:0.")] = "auto",
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Learn from the whole history, at full quality.

    Runs learn by themselves when they start; this is for when you want to wait for the best model.

    Example: metahp refit --device cuda
    """
    from metamodel import refit as refit_
    from store import History

    with History(history, create=False) as opened:
        with output.progress("learning from the history") as report:
            refit_(opened, device, progress=report)
        found = stored_models(opened)
    print_model(found[-1], format)


def model(history: HistoryOption = None, format: FormatOption = Format.TABLE, debug: DebugOption = False) -> None:
    """Show the current meta-model.

    Its kind, what it learned from, its age and its file.

    Example: metahp model
    """
    from store import History, NotEnoughHistoryError

    with History(history, create=False) as opened:
        found, path = stored_models(opened), opened.path
    if not found:
        raise NotEnoughHistoryError(f"A model must have been fitted, but {path} has none. Train, or call: metahp refit")
    print_model(found[-1], format)


def stored_models(history: History) -> list[dict[str, Any]]:
    """Return what the history notes about each model whose file is there, oldest first; loading a model would load torch."""
    rows = [{**row["info"], "file": str(history.models_path / str(row["file"]))} for row in history.models()]
    return [row for row in rows if Path(row["file"]).exists()]


def print_model(info: Mapping[str, Any], format: Format) -> None:
    """Print what is known about a meta-model; the table shows what a reader wants first, JSON everything."""
    if format is Format.JSON:
        output.print_json(info)
        return
    age = output.show_duration(output.age_s(info["created_utc"]))
    simple = {key: value for key, value in info.items() if isinstance(value, str | int | float)}
    output.print_fields({**simple, "created_utc": output.show_time(info["created_utc"]), "age": age})
