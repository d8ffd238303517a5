"""The demonstration: over a hundred short runs on real data, a meta-model learned from them, two new data sets with its advice.

Run it with ``python -m studies.demo.run``. The arms of the comparison train for equally many epochs on equal splits, and the
recommendation for a task is made from a history that holds no run of its data set.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from store.errors import InvalidArgumentError, MetaHPError
from studies.demo.plan import OWN_RUN, DemoPlan, later_jobs, new_chains, past_jobs
from studies.demo.report import ADVISED, Comparison, compare, remarks, results_table, save_picture
from studies.demo.runs import DemoJob, DemoOutcome, TrainAll, training_processes

if TYPE_CHECKING:
    from rich.console import Console

DEMO_MARK = ".metahp-demo"
"""File that marks a folder as one of ours, which the next demonstration may clear."""


@dataclass(slots=True)
class Result:
    """What a demonstration found.

    Attributes:
        past: The runs of the history, in the order in which they ended.
        outcomes: All runs on the new tasks.
        comparisons: The arms of each new task.
        seconds: Part -> seconds it took.
    """

    past: list[DemoOutcome] = field(default_factory=list)
    outcomes: list[DemoOutcome] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


def run_demo(plan: DemoPlan, out: Path, history: Path, progress: Callable[[str, float], None] | None = None) -> Result:
    """Run the demonstration.

    Args:
        plan: How much to train.
        out: Folder for the picture, ``demo.png``, and the histories of the comparison.
        history: Where the past runs are recorded; must not exist.
        progress: Called with the name of a part and the share of it that is done, in [0, 1].

    Returns:
        Everything that was measured.

    Raises:
        InvalidArgumentError: If ``history`` exists.
    """
    _check_fresh(history)
    report = progress or (lambda part, share: None)
    result, folder = Result(), out / "comparison"
    with training_processes(plan.workers) as train_all:
        with _timed(result, "past runs"):
            result.past = _train(train_all, [[job] for job in past_jobs(plan, history)], lambda share: report("past runs", share))
        with _timed(result, "meta-model"):
            from metamodel import refit

            report("meta-model", 0.0)
            refit(history, progress=lambda share, _: report("meta-model", share))
            report("meta-model", 1.0)
        with _timed(result, "new tasks"):
            chains, later = new_chains(plan, history, folder), [[job] for job in later_jobs(plan, folder)]
            share_first = 1.0 - len(later) / (len(later) + sum(map(len, chains)))
            result.outcomes = _train(train_all, chains, lambda share: report("new tasks", share * share_first))
            result.outcomes += _train(train_all, later, lambda share: report("new tasks", share_first + share * (1 - share_first)))
    shown = [outcome for outcome in result.outcomes if outcome.job.arm != OWN_RUN]
    result.comparisons = [compare(task, shown) for task in plan.new_tasks]
    save_picture(result.comparisons, len(result.past), len(plan.past_tasks), out / "demo.png")
    return result


def _check_fresh(history: Path) -> None:
    if history.exists():
        raise InvalidArgumentError(f"The demonstration needs a fresh history, but {str(history)!r} exists. Pass the path of a new file.")


def _train(train_all: TrainAll, chains: Sequence[Sequence[DemoJob]], report: Callable[[float], None]) -> list[DemoOutcome]:
    total = max(1, sum(map(len, chains)))
    outcomes: list[DemoOutcome] = []
    report(0.0)
    for outcome in train_all(chains):
        outcomes.append(outcome)
        report(len(outcomes) / total)
    return outcomes


@contextlib.contextmanager
def _timed(result: Result, part: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    result.seconds[part] = time.monotonic() - started


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Show a progress bar for each part as it begins."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description:<10}"), BarColumn(bar_width=40), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bars = {}

        def report(part: str, share: float) -> None:
            if part not in bars:
                bars[part] = progress.add_task(part, total=1.0)
            progress.update(bars[part], completed=share)

        yield report


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    plan = DemoPlan()
    parser = argparse.ArgumentParser(prog="python -m studies.demo.run", description="Show the whole loop on real data, in minutes.")
    parser.add_argument("--out", type=Path, default=Path("build/demo"), help="folder for the picture and the histories (%(default)s)")
    parser.add_argument("--history", type=Path, help="new file for the past runs (default: history.db in that folder)")
    parser.add_argument("--seeds", type=int, default=len(plan.seeds), help="seeds of the comparison (%(default)s)")
    parser.add_argument("--epochs", type=int, default=plan.epochs, help="length of every run (%(default)s)")
    parser.add_argument("--runs-per-task", type=int, default=plan.runs_per_task, help="random runs on each past task (%(default)s)")
    parser.add_argument("--random", type=int, default=plan.n_random, help="random configurations to compare with (%(default)s)")
    parser.add_argument("--own-runs", type=int, default=plan.n_own_runs, help="own runs before the second recommendation (%(default)s)")
    parser.add_argument("--workers", type=int, default=plan.workers, help="processes (%(default)s)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_args(argv)


def prepare_folder(out: Path) -> None:
    """Make the folder of the demonstration, without what a former one left in it.

    Raises:
        InvalidArgumentError: If the folder holds something else: its ``history.db`` could be somebody's real one.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not (out / DEMO_MARK).exists() and any(out.iterdir()):
        raise InvalidArgumentError(
            f"The folder of the demonstration must be new, empty or a former demonstration's, but {str(out)!r} holds other files. "
            "Pass another folder with --out."
        )
    (out / DEMO_MARK).touch()
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        (out / name).unlink(missing_ok=True)
    for name in ("history.db.models", "history.db.spool", "comparison"):
        shutil.rmtree(out / name, ignore_errors=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration from the command line.

    Args:
        argv: Arguments without the program's name, None for those of the process.

    Returns:
        0, 1 after an error that is the user's to mend, 130 after Ctrl-C.
    """
    arguments = _arguments(argv)
    # Switches meant for the user's own runs would bend the comparison; worker processes inherit what is left.
    for name in ("METAHP", "METAHP_PIN", "METAHP_REFIT", "METAHP_STARTER"):
        os.environ.pop(name, None)
    try:
        plan = DemoPlan(
            runs_per_task=arguments.runs_per_task,
            seeds=tuple(range(arguments.seeds)),
            n_random=arguments.random,
            n_own_runs=arguments.own_runs,
            epochs=arguments.epochs,
            workers=arguments.workers,
        )
        _present(plan, arguments.out, arguments.history)
    except KeyboardInterrupt:
        return 130
    except (MetaHPError, OSError) as error:
        if arguments.debug:
            raise
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


def _present(plan: DemoPlan, out: Path, history: Path | None) -> None:
    from rich.console import Console

    started = time.monotonic()
    console = Console(highlight=False)
    if history is not None:
        _check_fresh(history)
    prepare_folder(out)
    history = history or out / "history.db"
    n_past = len(plan.past_tasks) * plan.runs_per_task
    console.print(f"{n_past} short runs with random hyperparameters on {len(plan.past_tasks)} tasks, {plan.epochs} epochs each:")
    with _shown(console) as report:
        result = run_demo(plan, out, history, report)
    advised = [outcome for outcome in result.outcomes if outcome.job.arm == ADVISED]
    # A failure first: it must not hide behind the runs that went well.
    message = next((outcome.message for outcome in sorted(advised, key=lambda outcome: not outcome.is_unanswered)), "")
    if message:
        console.print("\nWhat an advised run prints at its start:")
        console.print(message, markup=False, soft_wrap=True)
    for comparison in result.comparisons:
        console.print()
        console.print(results_table(comparison))
        for line in remarks(comparison):
            console.print(line, style="bold red" if "FAILED" in line else None)
    n_random = plan.n_random * len(plan.seeds)
    console.print(f"mean ± standard deviation over {len(plan.seeds)} seeds, for random configurations over all {n_random} runs;")
    console.print("* chosen afterwards by its result, for orientation only")
    parts = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in result.seconds.items())
    console.print(f"\n{time.monotonic() - started:.0f} s in all: {parts}.")
    console.print(f"Picture: {out / 'demo.png'}", soft_wrap=True)
    console.print(f"Look around: metahp runs --history {history}", soft_wrap=True)


if __name__ == "__main__":
    raise SystemExit(main())
