"""``metahp compare-baselines`` and ``metahp compare-baselines replay``."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption, ListingCommand, split_list

MIN_WAIT_S = 20.0
"""Seconds still to wait from which on the table of the first seed is shown."""
N_PEER_COLUMNS = 4
"""Columns of a scenario's comparison that are about the best peer."""

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def compare_baselines(
    context: typer.Context,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Compare tuning methods on your finished runs, without training anything.

    With too few runs it shows how many are missing.

    Example: metahp compare-baselines
    """
    from store import History

    context.obj = history
    if context.invoked_subcommand is not None:
        return
    with History(history, create=False) as opened:
        from compare_baselines.replay import own_runs_protocol

        protocol = own_runs_protocol(opened)
        output.note(
            f"{protocol.n_hist} to {protocol.max_hist} past runs a task, {protocol.budget} evaluations; "
            "`metahp compare-baselines replay` sets others."
        )
        print_replay(opened, protocol, None, None, format=format, debug=debug)


@app.command("replay", cls=ListingCommand)
def replay(
    context: typer.Context,
    objective: Annotated[str | None, typer.Option("--objective", help="Metric; default: the one most tasks have.")] = None,
    holdout: Annotated[str | None, typer.Option("--holdout", metavar="LIST", help="Target tasks; the others are source tasks.")] = None,
    folds: Annotated[str, typer.Option("--folds", metavar="N|loo", help="Number of folds, or loo: one task at a time.")] = "3",
    n_hist: Annotated[int, typer.Option("--n-hist", help="Random runs known of every source task.")] = 50,
    budget: Annotated[int, typer.Option("--budget", help="Evaluations on a target task.")] = 32,
    seeds: Annotated[int, typer.Option("--seeds", help="Number of seeds.")] = 3,
    methods: Annotated[
        str | None,
        typer.Option("--methods", metavar="LIST", help="{methods}, or module:Class of yours; default: the fast ones."),
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="JSON file of a search space; default: from the runs.")
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", metavar="NAME", help="Other source tasks, e.g. few-2 or failures; docs/replay.md lists them."),
    ] = None,
    starter: Annotated[
        Path | None,
        typer.Option("--starter", metavar="FILE", help="Only the starter history; FILE maps names, docs/starter.md shows one."),
    ] = None,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; default: one a core.")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", metavar="PNG", help="Draw regret against evaluations here.")] = None,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Compare tuning methods on the recorded runs of any history.

    Example: metahp compare-baselines replay --methods random,tpe,metahp --seeds 1 --picture regret.png
    """
    from compare_baselines.replay import Protocol, save_picture
    from store import History

    tested = tuple(split_list(holdout) or ())
    protocol = Protocol(n_hist if starter is None else 1, budget, seeds, number_of_folds(folds), tested, objective)
    with History(history if history is not None else context.obj, create=False) as opened:
        report = print_replay(opened, protocol, methods, space, workers, scenario, starter, format=format, debug=debug)
    if picture is not None:
        output.note(f"Drawn: {save_picture(report, picture)}")


def number_of_folds(text: str) -> int:
    """Read ``--folds``: a number, or ``loo`` as 0.

    Raises:
        InvalidArgumentError: If it is neither.
    """
    from store import InvalidArgumentError

    if text == "loo":
        return 0
    if not text.isdecimal() or int(text) < 2:
        raise InvalidArgumentError(f"--folds must be 'loo' or a number of at least 2, but got {text!r}.")
    return int(text)


def print_replay(
    history: Any,
    protocol: Any,
    methods: str | None,
    space: Path | None,
    workers: int | None = None,
    scenario: str | None = None,
    starter: Path | None = None,
    *,
    format: Format,
    debug: bool,
) -> dict[str, Any]:
    """Carry a replay out and print it, with a progress bar and each note on a line of stderr.

    Raises:
        WorkerDiedError: If a process died; what was measured until then is printed.
    """
    from compare_baselines.methods import DAY_ONE_METHODS, DEFAULT_METHODS, find_method
    from compare_baselines.replay import load_benchmark, run_replay
    from compare_baselines.replay.day_one import TableMapping, day_one
    from compare_baselines.replay.scenarios import find_scenario, with_scenario
    from metamodel.space.dimensions import load_space_file
    from store import WorkerDiedError

    default = DEFAULT_METHODS if starter is None else DAY_ONE_METHODS
    names = list(default) if methods is None else split_list(methods) or []
    for name in names:
        find_method(name)  # refused before minutes of reading
    about = None if scenario is None else find_scenario(scenario).about
    benchmark = load_benchmark(history, protocol, None if space is None else load_space_file(space))
    if scenario is not None:
        benchmark = with_scenario(history, benchmark, scenario)
        output.note(f"Scenario {scenario}: {about}.")
    if starter is not None:
        benchmark = day_one(benchmark, TableMapping.load(starter))
    for line in benchmark.notes:
        output.note(line)
    started = time.monotonic()

    def show_first(report: Mapping[str, Any]) -> None:
        n_more = benchmark.protocol.seeds - 1
        if (remaining_s := n_more * (time.monotonic() - started)) > MIN_WAIT_S:
            output.note("\n".join([f"First seed; {n_more} more to come, about {output.show_duration(remaining_s)}.", *first_lines(report)]))

    try:
        with output.progress("replaying") as progress:
            report = run_replay(benchmark, names, workers=workers, progress=progress, first=show_first)
    except WorkerDiedError as error:
        if error.report is not None:
            output.note("Measured before a process died:")
            print_report(error.report, format)
        raise
    for name, failure in report.get("left_out", {}).items():
        output.note(f"left out, {name}: it raised an error: {failure['reason']}{'' if debug else ' (--debug shows where)'}")
        if debug:
            output.note(failure["traceback"].rstrip())
    print_report(report, format)
    return report


def first_lines(report: Mapping[str, Any]) -> list[str]:
    """Return the lines of a narrow table: regrets only."""
    from compare_baselines.replay.report import regret_rows

    columns, rows = regret_rows(report)
    n_shown = n_regrets(columns)
    return list(output.plain_lines(columns[:n_shown], [row[:n_shown] for row in rows]))


def print_report(report: Mapping[str, Any], format: Format) -> None:
    """Print the table of regrets, or everything as JSON."""
    from compare_baselines.replay.report import comparison_rows, regret_rows

    if format is Format.JSON:
        output.print_json(report)
        return
    columns, rows = regret_rows(report)
    protocol = report["protocol"]
    seeds = f"{protocol['seeds']} seed{'s' if protocol['seeds'] > 1 else ''}"
    title = f"Normalised regret of {protocol['objective']}: {len(protocol['tasks'])} tasks, {seeds}; 0 is the best run."
    print_wide(columns, rows, n_regrets(columns), title)
    if report.get("comparison"):
        columns, rows = comparison_rows(report)
        print_wide(columns, rows, N_PEER_COLUMNS, "\nDifference of regret, below 0 where metahp is better")


def print_wide(columns: Sequence[str], rows: Sequence[Sequence[str]], n_first: int, title: str) -> None:
    """Print a table; where the terminal is too narrow for it, as two: the first columns, then the first one with the others."""
    width = sum(2 + max(map(len, column)) for column in zip(columns, *rows, strict=True)) - 2
    if width <= output.make_console(sys.stdout).width or len(columns) == n_first:
        output.print_table(columns, rows, title=title)
        return
    output.print_table(columns[:n_first], [row[:n_first] for row in rows], title=title)
    output.print_table([columns[0], *columns[n_first:]], [[row[0], *row[n_first:]] for row in rows], title="")


def n_regrets(columns: Sequence[str]) -> int:
    """Return how many columns the narrow part of a table of regrets has: the method and its regrets."""
    return 1 + sum(column.startswith("k=") for column in columns)
