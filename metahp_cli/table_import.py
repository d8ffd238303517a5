"""``metahp import table``."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metahp_cli import imports, output
from metahp_cli.imports import SharedOptions
from metahp_cli.options import Format, split_list

if TYPE_CHECKING:
    from store.importers.table import TableReport
    from store.importers.table_dialect import TableDialect


def table(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="CSV, JSON Lines or Parquet; a folder of save_to_disk; or hf:OWNER/NAME[:SPLIT].")
    ],
    shared: SharedOptions,
    task_col: Annotated[str | None, typer.Option("--task-col", help="Column that names the task; or pass --task.")] = None,
    run_col: Annotated[str | None, typer.Option("--run-col", help="Column that identifies the run within its task.")] = None,
    hparams: Annotated[str | None, typer.Option("--hparams", metavar="LIST", help="Columns that are hyperparameters.")] = None,
    step_col: Annotated[str | None, typer.Option("--step-col", help="Column that counts the values of a run.")] = None,
    time_col: Annotated[str | None, typer.Option("--time-col", help="Column with the seconds since the run's start.")] = None,
    status_col: Annotated[
        str | None, typer.Option("--status-col", help="Column that holds how the run ended; default: state or status, if there is one.")
    ] = None,
    metrics: Annotated[str | None, typer.Option("--metrics", metavar="LIST", help="Further columns to keep as metrics.")] = None,
    join: Annotated[
        str | None, typer.Option("--join", metavar="FILE:COL", help="Table with hyperparameters, and the key column both have.")
    ] = None,
    task_features: Annotated[
        str | None, typer.Option("--task-features", metavar="FILE:COL", help="Table with a row for each task, and its task column.")
    ] = None,
    decimal: Annotated[
        str | None, typer.Option("--decimal", metavar="MARK", help="comma or point, or COLUMN=comma,...; default: as it is found.")
    ] = None,
    delimiter: Annotated[
        str | None,
        typer.Option("--delimiter", help="What stands between cells: comma, semicolon, tab, pipe or a character; default: as found."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option("--encoding", metavar="NAME", help="Encoding, e.g. utf-8 or latin-1; default: as it is found.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option("--mapping", metavar="FILE", help="Saved options; those given here come first.")] = None,
    save_mapping: Annotated[Path | None, typer.Option("--save-mapping", metavar="FILE", help="Save these options as JSON.")] = None,
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="JSON file of a search space, for scales and bounds.")
    ] = None,
) -> None:
    """Import a recorded table; doing it twice changes nothing.

    Example: metahp import table runs.csv --task-col dataset --run-col run --hparams lr,depth --objective val_acc
    """
    given = {"task_col": task_col, "run_col": run_col, "objective": shared.objective, "direction": shared.direction, "step_col": step_col}
    given |= {"task": shared.task, "time_col": time_col, "join": join, "task_features": task_features, "batch": shared.batch}
    given |= {"status_col": status_col, "decimal": decimal, "delimiter": delimiter, "encoding": encoding}
    lists = {"hparams": split_list(hparams), "metrics": split_list(metrics)}
    pairs = {"name": imports.pairs(shared.name, "--name") or None, "unit": imports.pairs(shared.unit, "--unit") or None}
    chosen = table_options({**given, **lists, **pairs}, mapping, file)
    if save_mapping is not None:
        save_mapping.write_text(json.dumps(chosen, indent=2) + "\n", encoding="utf-8")
    import_rows(file, chosen, space, shared)


_own = [parameter for parameter in inspect.signature(table, eval_str=True).parameters.values() if parameter.name != "shared"]
command = imports.with_shared_options(table, _own)


def table_options(given: Mapping[str, Any], mapping: Path | None, file: str) -> dict[str, Any]:
    """Return the options of a table: those given, else those of a saved file.

    Args:
        given: Option -> value, None where it is not given.
        mapping: The saved file.
        file: The table, whose columns are listed where one is missing.

    Raises:
        InvalidArgumentError: If the file is no mapping, or something that every table needs is missing.
    """
    from store import InvalidArgumentError

    saved = {} if mapping is None else load_mapping(mapping, given)
    chosen = {**saved, **{key: value for key, value in given.items() if value is not None}}
    if given["task"] is not None or given["task_col"] is not None:  # either one given here replaces the saved one
        chosen = {key: value for key, value in chosen.items() if key not in ("task", "task_col") or given[key] is not None}
    if chosen.get("task") and chosen.get("task_col"):
        raise InvalidArgumentError("A table's task must be named once, but both --task and --task-col are given. Leave one out.")
    needed = ("run_col", "hparams", "objective") if chosen.get("task") else ("task_col", "run_col", "hparams", "objective")
    missing = [key for key in needed if not chosen.get(key)]
    if missing:
        options = ", ".join("--" + key.replace("_", "-") for key in missing)
        from store.importers.table_files import read_table

        listed = ", ".join(read_table(file, dialect_of(chosen)).column_names)
        raise InvalidArgumentError(
            f"A table's columns must be named, but {options} is missing; the table has: {listed}. Pass it, or a saved --mapping FILE."
        )
    return chosen


def dialect_of(chosen: Mapping[str, Any]) -> TableDialect:
    """Return how a table is written, as far as options set it."""
    from store.importers.table_dialect import dialect_options

    return dialect_options(chosen.get("encoding"), chosen.get("delimiter"), chosen.get("decimal"))


def load_mapping(path: Path, known: Iterable[str]) -> dict[str, Any]:
    """Read the options that ``--save-mapping`` wrote.

    Raises:
        InvalidArgumentError: If the file is none of these.
    """
    from store import InvalidArgumentError
    from store.importers.bounded_files import MIB, UnreadableRecordError, json_object, read_text

    try:
        found = json_object(read_text(path, MIB))
    except UnreadableRecordError as error:
        raise InvalidArgumentError(
            f"A mapping must be a JSON object that --save-mapping wrote, but {str(path)!r} is none: {error}. Write it anew."
        ) from error
    kinds = {"hparams": list, "metrics": list, "name": dict, "unit": dict}
    for key, value in found.items():
        items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
        if key not in known or not isinstance(value, kinds.get(key, str)) or not all(isinstance(item, str) for item in items):
            raise InvalidArgumentError(
                f"A mapping must hold names of columns under {', '.join(known)}, but {str(path)!r} has {key!r}: {value!r:.60}. Correct it."
            )
    return found


def import_rows(file: str, chosen: Mapping[str, Any], space: Path | None, shared: SharedOptions) -> None:
    """Import a table and print what was imported."""
    from metamodel.space.dimensions import load_space_file
    from store import History
    from store.importers.table import TableColumns, import_table
    from store.paths import resolve_path

    scales = None if space is None else load_space_file(space)
    names = tuple(chosen["hparams"])
    if scales is not None:
        check_space_names(scales, names, space)
    columns = TableColumns(
        task=chosen.get("task_col") or "",
        run=chosen["run_col"],
        hparams=names,
        objective=chosen["objective"],
        direction=chosen.get("direction"),
        step=chosen.get("step_col"),
        time=chosen.get("time_col"),
        metrics=tuple(chosen.get("metrics") or ()),
        status=chosen.get("status_col"),
    )
    options = replace(shared.import_options(), names=chosen.get("name") or {}, units=chosen.get("unit") or {}, batch=chosen.get("batch"))
    is_new = shared.is_look and not resolve_path(shared.history).exists()  # a look leaves nothing behind, not even an empty history
    opening = nullcontext() if is_new else History(shared.history, create=not shared.is_look)
    with opening as opened, output.progress("reading") as report:
        found = import_table(
            opened,
            file,
            columns,
            join=file_and_column(chosen.get("join")),
            task_features=file_and_column(chosen.get("task_features")),
            task=chosen.get("task"),
            options=options,
            dialect=dialect_of(chosen),
            dry_run=shared.is_look,
            progress=report,
        )
    for line in found.notes:
        output.note(line)
    if shared.explain and shared.format is Format.TABLE:
        imports.print_names(found.mapping.names)
    print_import(found, scales, shared.format)
    imports.print_questions(found.mapping.questions, is_written=found.is_written)


def check_space_names(scales: Mapping[str, Any], names: Sequence[str], path: Path | None) -> None:
    """Check that a space file names only columns that are hyperparameters, under either spelling.

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
        raise InvalidArgumentError(f"A joined table must be given as FILE:COL, but got {text!r}. Write e.g. configs.csv:config_id.")
    return file, column


def print_import(found: TableReport, scales: dict[str, Any] | None, format: Format) -> None:
    """Print what was imported, and on which scale each hyperparameter is read."""
    from store import canonical_name

    configs = [{canonical_name(name): value for name, value in config.items()} for config in found.configs]
    rows = scale_rows(configs, scales)
    counts = output.record_dict(found, leave_out=("configs", "mapping"))
    counts |= {"readings": [output.record_dict(item) for item in found.mapping.names], "questions": found.mapping.questions}
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
            "runs": f"{found.n_runs}, {found.n_new} of them new" + (f", {found.n_updated} written anew" if found.n_updated else ""),
            "outcomes": ", ".join(f"{count} {status}" for status, count in found.statuses.items()) or None,
            "left out": f"{found.n_unfinished} that did not end" if found.n_unfinished else None,
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
    from compare_baselines.methods.spaces import describe_scales, outside_counts, space_of

    given = {} if scales is None else space_of(configs, scales)
    rest = {name: dim for name, dim in space_of(configs).items() if name not in given}
    outside = outside_counts(given, configs)
    rows = [(*row, str(outside[row[0]])) for row in describe_scales(given, is_given=True)]
    return sorted(rows + [(*row, "0") for row in describe_scales(rest, is_given=False)])
