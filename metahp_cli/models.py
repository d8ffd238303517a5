"""``metahp refit`` and ``metahp model``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metahp_cli import output
from metahp_cli.calibration import print_calibration, save_calibration
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption

if TYPE_CHECKING:
    from store import History


def refit(
    model: Annotated[
        str | None, typer.Option("--model", metavar="KIND", help="{kinds}; default: the first. docs/meta-models.md describes them.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, or a device as torch names it, e.g. cuda:0.")] = "auto",
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Fit the meta-model to the whole history, at full quality.

    A run fits a missing or outdated model when it starts. This waits for the best model, or changes its kind: later fits keep that kind.

    Example: metahp refit --model maml
    """
    from metamodel.kinds import DEFAULT, check_kind
    from store import History

    check_kind(model)  # refused before the history is read

    with History(history, create=False) as opened:
        from metamodel import refit as refit_  # torch is loaded for a history that exists

        with output.progress("fitting") as report:
            refit_(opened, device, model=model or DEFAULT, progress=report)
        found = stored_models(opened)
    print_model(found[-1], format)


def model(
    png: Annotated[Path | None, typer.Option("--png", metavar="FILE", help="Draw the calibration of its intervals here.")] = None,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Show the current meta-model.

    Its kind, data, age and file, and the calibration of its intervals on held-out tasks; of a kind that predicts the best hyperparameters,
    its error on them.

    Example: metahp model --png calibration.png
    """
    from store import History, NotEnoughHistoryError

    with History(history, create=False) as opened:
        found, path = stored_models(opened), opened.path
    if not found:
        raise NotEnoughHistoryError(f"A model must have been fitted, but {path} has none. Train, or call: metahp refit")
    # One that was fitted for a single query of another kind is not the active one.
    shown = ([info for info in found if info.get("is_chosen", True)] or found)[-1]
    print_model(shown, format)
    if png is not None:
        output.note(f"Drawn: {save_calibration(shown, png)}")


def stored_models(history: History) -> list[dict[str, Any]]:
    """Return the recorded facts of each model whose file is there, oldest first; loading a model would load torch."""
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
    print_calibration(info)
    if info.get("accuracy"):
        output.print_line("")
        n_tasks = info["accuracy"]["n_tasks"]
        output.print_table(*accuracy_rows(info["accuracy"]), title=f"Error of predicted hyperparameters on {n_tasks} held-out tasks")


def accuracy_rows(accuracy: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Return column names and rows of the errors that ``direct`` measured on held-out tasks.

    Args:
        accuracy: Errors by number of known runs of the task, and those of one prediction for all tasks.
    """
    known = {("new task" if n == "0" else f"{n} runs known"): errors for n, errors in accuracy["after"].items()}
    tables = {**known, "same for all tasks": accuracy["same_for_all"]}
    shown = {"exact": "exactly right", "log10_error": "off, powers of ten", "log2_error": "off, doublings", "absolute_error": "off"}
    rows = []
    for name, measures in accuracy["same_for_all"].items():
        for measure in measures:
            values = [errors.get(name, {}).get(measure) for errors in tables.values()]
            cells = ["-" if value is None else f"{value:.0%}" if measure == "exact" else f"{value:.2f}" for value in values]
            rows.append([name, shown[measure], *cells])
    return ["hyperparameter", "measure", *tables], rows
