"""``metahp tasks``, and ``merge``, ``split`` and ``rename`` below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption
from metahp_cli.task_reasons import TaskReasons, reasons_of

if TYPE_CHECKING:
    from store import History, TaskRecord
    from store.learning_columns import LearningRun
    from store.repeats import Draws

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def tasks(
    context: typer.Context,
    why: Annotated[
        bool, typer.Option("--why", help="Explain each task: what its runs share, its siblings, what compares only in order.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=0, help="At most this many in a table, the latest ones; 0 for all.")] = 50,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """List tasks, or correct which runs belong to one.

    Example: metahp tasks --why
    """
    from store import History

    context.obj = history
    if context.invoked_subcommand is not None:
        return
    with History(history, create=False) as opened:
        found = opened.tasks()
        shown = found
        if limit and len(found) > limit and format is Format.TABLE:
            latest = sorted(found, key=lambda task: task.last_run_utc or "", reverse=True)[:limit]
            shown = [task for task in found if task in latest]
        best = best_of_repeated(opened, shown)
        reasons = reasons_of(opened, shown, found) if why else None
    print_tasks(shown, format, best, reasons)
    if len(shown) < len(found):
        output.note(f"These are {len(shown)} of {len(found)} tasks; --limit 0 lists all.")


@app.command("merge")
def merge(
    context: typer.Context,
    into: Annotated[str, typer.Argument(metavar="INTO", help="Task that stays: its name or id.")],
    others: Annotated[list[str], typer.Argument(metavar="OTHER...", help="Tasks that become part of it.")],
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Make several tasks one; later runs of each follow.

    Example: metahp tasks merge digits t3f2a91c07be45d10
    """
    from store import History

    with History(chosen(context, history), create=False) as opened:
        opened.merge_tasks(into, *others)
        merged = [opened.task(into)]
        print_tasks(merged, format, best=best_of_repeated(opened, merged))


@app.command("split")
def split(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Runs that move: ids, or the start of them.")],
    name: Annotated[str, typer.Option("--name", help="Name of the new task.")],
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Move runs into a new task.

    Example: metahp tasks split 251122-155601123-9f3a21c4 251122-161210554-07be45d1 --name digits-cleaned
    """
    from store import History

    with History(chosen(context, history), create=False) as opened:
        made = [opened.task(opened.split_task(runs, name))]
        print_tasks(made, format, best=best_of_repeated(opened, made))


@app.command("rename")
def rename(
    context: typer.Context,
    task: Annotated[str, typer.Argument(metavar="TASK", help="A task that was recognised by itself: its name or id.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its new name.")],
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Give a task another name; its runs, also later ones, stay in it.

    Example: metahp tasks rename t3f2a91c07be45d10 flowers
    """
    from store import History

    with History(chosen(context, history), create=False) as opened:
        renamed = [opened.task(opened.rename_task(task, name))]
        print_tasks(renamed, format, best=best_of_repeated(opened, renamed))


def chosen(context: typer.Context, history: Path | None) -> Path | None:
    """Return the history given after the subcommand, else the one given before it."""
    given: Path | None = context.obj
    return history if history is not None else given


def best_of_repeated(history: History, records: Sequence[TaskRecord]) -> dict[str, Draws[LearningRun]]:
    """Return the best configuration of each task in which one was run more than once, by task id: a single run may be a lucky draw."""
    from store.learning_columns import learning_runs
    from store.repeats import best_configuration, pooled

    targets = {record.id: (record.objective, record.direction) for record in records}
    by_task: dict[str, list[Draws[LearningRun]]] = {}
    for draws in pooled(learning_runs(history, list(targets))):
        run = draws.runs[0]
        if targets.get(run.task_id) == (run.objective, run.direction):
            by_task.setdefault(run.task_id, []).append(draws)
    repeated = {task_id: found for task_id, found in by_task.items() if any(len(draws) > 1 for draws in found)}
    return {task_id: best for task_id, found in repeated.items() if (best := best_configuration(found)) is not None}


def print_tasks(
    records: Sequence[TaskRecord],
    format: Format,
    best: Mapping[str, Draws[LearningRun]] | None = None,
    reasons: Sequence[TaskReasons] | None = None,
) -> None:
    """Print tasks, or explain them.

    Args:
        records: The tasks.
        format: A table or JSON.
        best: The best configuration of tasks with repeated ones, by task id; of the others the best run is shown.
        reasons: What makes each of the tasks, where they are to be explained.
    """
    from store.repeats import describe_draws

    repeated = best or {}
    if format is Format.JSON:
        output.print_json(
            [
                {**output.record_dict(record), "best_configuration": draws_facts(repeated.get(record.id)), **explained}
                for record, explained in zip(records, [item.facts() for item in reasons or ()] or [{}] * len(records), strict=True)
            ]
        )
        return
    if reasons is not None:
        for index, item in enumerate(reasons):
            for line in [*([""] if index else []), *item.lines()]:
                output.print_line(line)
        return
    columns = ["id", "task", "objective", "runs", "finished", "best", "best run", "last run (UTC)"]
    rows = []
    for record in records:
        objective = f"{record.objective} ({record.direction})" if record.objective else None
        draws = repeated.get(record.id)
        shown = (record.best, record.best_run_id) if draws is None else (describe_draws(draws), draws.best_run().id)
        row = [record.id, record.name, objective, record.n_runs, record.n_finished, *shown]
        row.append(output.show_time(record.last_run_utc))
        rows.append(row)
    output.print_table(columns, rows)


def draws_facts(draws: Draws[LearningRun] | None) -> dict[str, Any] | None:
    """Return what a repeated configuration came to for JSON."""
    if draws is None:
        return None
    ids = [run.id for run in draws.runs]
    return {"mean": draws.mean, "spread": draws.spread, "n_draws": len(draws), "n_failed": draws.n_failed, "run_ids": ids}
