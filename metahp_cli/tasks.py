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
    from store.repeats import BestOfTask

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
        print_found(opened, shown, format, reasons_of(opened, shown, found) if why else None)
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
        print_found(opened, [opened.task(into)], format)


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
        print_found(opened, [opened.task(opened.split_task(runs, name))], format)


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
        print_found(opened, [opened.task(opened.rename_task(task, name))], format)


def chosen(context: typer.Context, history: Path | None) -> Path | None:
    """Return the history given after the subcommand, else the one given before it."""
    given: Path | None = context.obj
    return history if history is not None else given


def print_found(history: History, records: Sequence[TaskRecord], format: Format, reasons: Sequence[TaskReasons] | None = None) -> None:
    """Print tasks with their best, or explain them.

    Args:
        history: Open history.
        records: The tasks.
        format: A table or JSON.
        reasons: What makes each of the tasks, where they are to be explained.
    """
    from store.learning_columns import learning_runs
    from store.repeats import best_of_task

    runs: dict[str, list[LearningRun]] = {}
    for run in learning_runs(history, [record.id for record in records]):
        runs.setdefault(run.task_id, []).append(run)
    found = {record.id: best_of_task(runs.get(record.id, ()), record.objective, record.direction) for record in records}
    print_tasks(records, format, {task_id: best for task_id, best in found.items() if best is not None}, reasons)


def print_tasks(
    records: Sequence[TaskRecord],
    format: Format,
    best: Mapping[str, BestOfTask[LearningRun]],
    reasons: Sequence[TaskReasons] | None = None,
) -> None:
    """Print tasks, or explain them.

    Args:
        records: The tasks.
        format: A table or JSON.
        best: The best of each task, by task id: a mean where a configuration was repeated, since a single run may be a lucky draw.
        reasons: What makes each of the tasks, where they are to be explained.
    """
    if format is Format.JSON:
        explained = [item.facts() for item in reasons or ()] or [{}] * len(records)
        pairs = zip(records, explained, strict=True)
        output.print_json([{**output.record_dict(record), **best_facts(best.get(record.id)), **more} for record, more in pairs])
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
        row = [record.id, record.name, objective, record.n_runs, record.n_finished, *shown_best(best.get(record.id))]
        row.append(output.show_time(record.last_run_utc))
        rows.append(row)
    output.print_table(columns, rows)
    for record in records:
        if record.id in best and best[record.id].n_others:
            output.note(f"The best of {record.name} is {describe_group(best[record.id])}; metahp tasks --why shows the groups.")


def shown_best(best: BestOfTask[LearningRun] | None) -> tuple[float | str | None, str | None]:
    """Return the best of a task for a table, and the run it is of."""
    from store.repeats import describe_draws

    if best is None:
        return None, None
    run = best.configuration.best_run()
    return describe_draws(best.configuration) if best.has_repeats else run.objective_best, run.id


def describe_group(best: BestOfTask[LearningRun]) -> str:
    """Say of which runs something is the best."""
    which = f"with {best.definition}" if best.definition else "with the usual objective"
    others = f"the other {best.n_others} compare" if best.n_others > 1 else "the other one compares"
    return f"that of {best.n_runs} {'run' if best.n_runs == 1 else 'runs'} {which}; {others} with them only in order"


def best_facts(best: BestOfTask[LearningRun] | None) -> dict[str, Any]:
    """Return the best of a task for JSON: of single runs, of configurations where these were repeated, and of which group."""
    if best is None:
        return {"best": None, "best_run_id": None, "best_configuration": None, "best_of": None}
    draws, run = best.configuration, best.best_run
    facts: dict[str, Any] = {"mean": draws.mean, "spread": draws.spread, "n_draws": len(draws), "n_failed": draws.n_failed}
    facts["run_ids"] = [item.id for item in draws.runs]
    return {
        "best": run.objective_best,
        "best_run_id": run.id,
        "best_configuration": facts if best.has_repeats else None,
        "best_of": {"defined_by": best.definition, "n_runs": best.n_runs, "n_others": best.n_others},
    }
