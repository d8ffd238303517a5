"""``metahp compare-baselines live``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption, names_of, split_list

if TYPE_CHECKING:
    from compare_baselines.live import ComparisonResult


def live(
    context: typer.Context,
    tasks: Annotated[str | None, typer.Option("--tasks", metavar="LIST", help="Tasks of {live_tasks}; default: all.")] = None,
    methods: Annotated[str | None, typer.Option("--methods", metavar="LIST", help="Methods of {live_methods}; default: all.")] = None,
    budget: Annotated[int, typer.Option("--budget", help="Evaluations of each method on each task.")] = 4,
    max_seconds: Annotated[
        float | None, typer.Option("--max-seconds", help="Seconds after which a method starts no further evaluation of a task.")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Number of seeds.")] = 1,
    size: Annotated[str, typer.Option("--size", help="tiny, small, or full: the real models and data, for a GPU.")] = "tiny",
    data_dir: Annotated[Path | None, typer.Option("--data-dir", metavar="DIR", help="Data files; default: the hub.")] = None,
    past: Annotated[
        str, typer.Option("--past", help="Source tasks of the meta-models: history, starter, tasks, or auto: the first there is.")
    ] = "auto",
    comparison: Annotated[str | None, typer.Option("--comparison", metavar="ID", help="Name it, or continue the one of that name.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", help="Processes side by side.")] = 1,
    ray: Annotated[str | None, typer.Option("--ray", metavar="ADDRESS|local", help="Work on a Ray cluster (extra ray).")] = None,
    picture: Annotated[Path | None, typer.Option("--picture", metavar="PNG", help="Draw regret against evaluations here.")] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", metavar="NAME", help="A suite of tasks with controls instead: {live_suites}.")
    ] = None,
    half: Annotated[str, typer.Option("--half", help="Tasks of the suite: development, held-out or all.")] = "all",
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Train real tuning tasks by each method, with every cost counted.

    Everything is recorded as runs: called again, an interrupted comparison continues.

    Example: metahp compare-baselines live --tasks tabular,series,cnn,transformer --data-dir data --jobs 2
    """
    from compare_baselines.live import Settings, run_live

    chosen = history if history is not None else context.obj
    if suite is not None:
        _live_suite(chosen, suite, half, seeds, size, jobs, format)
        return
    settings = Settings(
        tasks=tuple(names_of("live_tasks") if tasks is None else split_list(tasks) or ()),
        methods=tuple(names_of("live_methods") if methods is None else split_list(methods) or ()),
        budget=budget,
        seeds=seeds,
        size=size,
        max_seconds=max_seconds,
        jobs=jobs,
        data_dir=data_dir,
        ray=ray,
        past=past,
        has_own_history=chosen is not None,
        comparison=comparison,
    )
    with output.progress("training") as report:
        result = run_live(chosen, settings, progress=report, remark=output.note)
    print_result(result, format)
    if picture is not None:
        from compare_baselines.live.report import save_picture

        output.note(f"Drawn: {save_picture(result, picture)}")


def _live_suite(history: Path | None, suite: str, half: str, seeds: int, size: str, jobs: int, format: Format) -> None:
    """Carry a suite out and print its tables."""
    from compare_baselines.live.small_nets import SuiteSettings, all_rows, check_suite, read_suite, run_suite
    from metamodel.data.opened_history import opened_history

    check_suite(suite)
    with output.progress("training") as report:
        run_suite(history, SuiteSettings(half, seeds=seeds, size=size, jobs=jobs), progress=report, remark=output.note)
    with opened_history(history) as opened:
        tables = all_rows(read_suite(opened, size, half))
    if format is Format.JSON:
        output.print_json({title: [dict(zip(columns, row, strict=True)) for row in rows] for title, (columns, rows) in tables.items()})
        return
    for title, rows in tables.items():
        output.print_table(*rows, title=f"\n{title}")


def print_result(result: ComparisonResult, format: Format) -> None:
    """Print the tables, or everything as JSON."""
    from compare_baselines.live.report import accuracy_rows, cost_rows, quality_rows, standing_rows

    if format is Format.JSON:
        output.print_json(result.to_dict())
        return
    plan = result.plan
    output.print_table(
        *quality_rows(result), title=f"Comparison {result.id}: size {plan.size}, {plan.budget} evaluations, {plan.seeds} seeds."
    )
    output.print_table(*cost_rows(result), title="\nCost of a search")
    output.print_table(*accuracy_rows(result), title="\nDistance of the recommended hyperparameters from the best found")
    output.print_table(*standing_rows(result), title="\nOver all tasks: regret from 0 (best found) to 1 (median evaluation or worse)")
