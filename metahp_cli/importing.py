"""``metahp import table``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption, split_list

if TYPE_CHECKING:
    from store.importers.table import ImportReport

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Take in what was recorded elsewhere.")


@app.callback()
def import_() -> None:
    """Take in what was recorded elsewhere."""


@app.command("table")
def table(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV, JSON Lines or Parquet, told by its suffix.")],
    task_col: Annotated[str, typer.Option("--task-col", help="Column that names the task.")],
    run_col: Annotated[str, typer.Option("--run-col", help="Column that tells the runs of a task apart.")],
    hparams: Annotated[str, typer.Option("--hparams", metavar="LIST", help="Columns that are hyperparameters.")],
    objective: Annotated[str, typer.Option("--objective", help="Column of the metric that decides.")],
    direction: Annotated[str | None, typer.Option("--direction", help="min or max; needed where the name does not say it.")] = None,
    step_col: Annotated[str | None, typer.Option("--step-col", help="Column that counts the values of a run.")] = None,
    time_col: Annotated[str | None, typer.Option("--time-col", help="Column with the seconds since the run's start.")] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="LIST", help="Further columns to keep as metrics.")] = None,
    join: Annotated[
        str | None, typer.Option("--join", metavar="FILE:COL", help="Table with hyperparameters, and the key column both have.")
    ] = None,
    task_features: Annotated[
        str | None, typer.Option("--task-features", metavar="FILE:COL", help="Table with a row a task, and its task column.")
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="JSON file of a search space: says scales and bounds.")
    ] = None,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Take a recorded table into the history; doing it twice changes nothing.

    Example: metahp import table runs.csv --task-col dataset --run-col run --hparams lr,depth --objective val_acc
    """
    from metamodel.space import load_space_file
    from store import History
    from store.importers.table import TableColumns, import_table

    scales = None if space is None else load_space_file(space)
    names = tuple(split_list(hparams) or ())
    if scales is not None:
        check_space_names(scales, names, space)
    columns = TableColumns(task_col, run_col, names, objective, direction, step_col, time_col, tuple(split_list(metrics) or ()))
    with History(history) as opened, output.progress("reading") as report:
        found = import_table(
            opened, file, columns, join=file_and_column(join), task_features=file_and_column(task_features), progress=report
        )
    for line in found.notes:
        output.note(line)
    print_import(found, scales, format)


def check_space_names(scales: Mapping[str, Any], names: Sequence[str], path: Path | None) -> None:
    """Check that a space file speaks of columns that are hyperparameters, under either spelling.

    Raises:
        InvalidArgumentError: If one of its names is no such column.
    """
    from store import InvalidArgumentError, canonical_name

    known = {canonical_name(name) for name in names}
    unknown = [name for name in scales if canonical_name(name) not in known]
    if unknown:
        raise InvalidArgumentError(
            f"A space file must name columns of --hparams, but {str(path)!r} has {unknown[0]!r}; --hparams names: "
            f"{', '.join(names) or 'none'}."
        )


def file_and_column(text: str | None) -> tuple[str, str] | None:
    """Split ``FILE:COL``; None stays None.

    Raises:
        InvalidArgumentError: If one half is missing.
    """
    from store import InvalidArgumentError

    if text is None:
        return None
    file, _, column = text.rpartition(":")
    if not file or not column:
        raise InvalidArgumentError(f"A joined table must be given as FILE:COL, but got {text!r}. Write for example configs.csv:config_id.")
    return file, column


def print_import(found: ImportReport, scales: dict[str, Any] | None, format: Format) -> None:
    """Print what came in, and on which scale each hyperparameter is read."""
    from store import canonical_name

    configs = [{canonical_name(name): value for name, value in config.items()} for config in found.configs]
    rows = scale_rows(configs, scales)
    counts = output.record_dict(found, leave_out=("configs",))
    if format is Format.JSON:
        columns = ("name", "scale", "range", "from", "outside")
        described = [{**dict(zip(columns, row, strict=True)), "outside": int(row[-1])} for row in rows]
        output.print_json({**counts, "n_configs": len(configs), "hyperparameters": described})
        return
    left_out = ", ".join(found.left_out)
    output.print_fields(
        {
            "rows": found.n_rows,
            "tasks": found.n_tasks,
            "runs": f"{found.n_runs}, {found.n_new} of them new",
            "diverged": found.n_diverged,
            "metric values": f"{found.n_values} new",
            "configurations": len(configs),
            "columns left out": left_out or None,
        }
    )
    output.print_table(("name", "scale", "range", "scale from", "outside"), rows, title="\nHyperparameters")
    n_outside = sum(int(row[-1]) for row in rows)
    if n_outside:
        output.note(f"{n_outside} values lie outside the space file's bounds; they were kept as they are.")
    if scales is not None:
        output.note("Values are stored, scales are not: pass the same --space to `metahp compare-baselines replay` and `metahp recommend`.")


def scale_rows(configs: Sequence[Mapping[str, Any]], scales: Mapping[str, Any] | None) -> list[tuple[str, str, str, str, str]]:
    """Return how each hyperparameter is read: by the space file where it names it, else by the spread of the values."""
    from compare_baselines.replay.spaces import describe_scales, outside_counts, space_of

    given = {} if scales is None else space_of(configs, scales)
    rest = {name: dim for name, dim in space_of(configs).items() if name not in given}
    outside = outside_counts(given, configs)
    rows = [(*row, str(outside[row[0]])) for row in describe_scales(given, is_given=True)]
    return sorted(rows + [(*row, "0") for row in describe_scales(rest, is_given=False)])
