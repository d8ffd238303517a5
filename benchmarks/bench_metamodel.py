"""How the cost of learning and of advice grows: ``python -m benchmarks.bench_metamodel``, with ``--write`` into docs/performance.md.

Histories are made up: tasks with the same optimum up to a shift, so that there is something to learn. The table grows one thing at a time.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np
from optuna.distributions import FloatDistribution

from benchmarks.page import markdown_table, measured_on, write_section
from metamodel import MetaModel, TaskDescription, recommend, refit
from store import Curve, FinishedRun, History

CASES = (
    # tasks, runs a task, hyperparameters
    (4, 50, 6),
    (24, 50, 6),
    (24, 417, 6),
    (200, 50, 6),
    (1000, 100, 6),
    (24, 50, 2),
    (24, 50, 24),
)
N_CANDIDATES = 1600
ROUNDS = 5


def runs(n_tasks: int, n_runs: int, n_hparams: int) -> Iterator[FinishedRun]:
    """Yield runs of tasks whose best value of each hyperparameter lies near 0.6."""
    rng = np.random.default_rng(0)
    for number in range(n_tasks):
        peak = 0.6 + 0.1 * rng.normal(size=n_hparams)
        points = rng.random((n_runs, n_hparams))
        outcomes = -np.square(points - peak) @ (2.0 ** -np.arange(n_hparams)) + 0.02 * rng.normal(size=n_runs)
        for i, (point, outcome) in enumerate(zip(points, outcomes, strict=True)):
            config = {f"x{j}": float(value) for j, value in enumerate(point)}
            yield FinishedRun(
                f"run-{number:05d}-{i:05d}", f"task {number}", config, "score", "max", {"score": Curve([1], [float(outcome)])}
            )


def timed(call: Callable[[], object]) -> float:
    """Return the seconds of one call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure(n_tasks: int, n_runs: int, n_hparams: int, device: str) -> list[str]:
    """Return one row of the table."""
    with tempfile.TemporaryDirectory() as folder, History(Path(folder) / "history.db") as history:
        history.add_finished_runs(runs(n_tasks, n_runs, n_hparams))
        fit_s = timed(lambda: refit(history, device))
        load_s = median(timed(lambda: MetaModel.load(history.models_path)) for _ in range(ROUNDS))
        rng = np.random.default_rng(1)
        task = TaskDescription(name="new", objective="score", direction="max")
        pool = [{f"x{j}": float(value) for j, value in enumerate(point)} for point in rng.random((N_CANDIDATES, n_hparams))]
        for config in pool[:10]:
            with history.start_run(task=task, hparams=config, objective="score", direction="max") as run:
                run.log({"score": -float(sum(config.values()))})
        space = {f"x{j}": FloatDistribution(0, 1) for j in range(n_hparams)}
        recommend(history, task, candidates=pool, max_fit_s=0)
        pool_s = median(timed(lambda: recommend(history, task, candidates=pool, max_fit_s=0)) for _ in range(ROUNDS))
        space_s = median(timed(lambda: recommend(history, task, space, max_fit_s=0)) for _ in range(ROUNDS))
    return [
        str(n_tasks),
        f"{n_tasks * n_runs:,}",
        str(n_hparams),
        f"{fit_s:.1f} s",
        f"{load_s * 1e3:.0f} ms",
        f"{pool_s * 1e3:.0f} ms",
        f"{space_s * 1e3:.0f} ms",
    ]


def main() -> None:
    """Measure and print, or write the page."""
    parser = argparse.ArgumentParser(description="Measure what learning and advice cost.")
    parser.add_argument("--device", default="auto", help="where to fit: auto, cpu, cuda")
    parser.add_argument("--cases", type=int, default=len(CASES), help="how many of the cases to measure")
    parser.add_argument("--write", action="store_true", help="write docs/performance.md")
    given = parser.parse_args()
    asked = [f"recommend of {N_CANDIDATES:,}", "recommend in a space"]
    columns = ["tasks", "runs", "hyperparameters", "refit, reading included", "load", *asked]
    found = markdown_table(columns, [measure(*case, given.device) for case in CASES[: given.cases]])
    text = f"{measured_on()} A task has 10 own runs when it asks; medians of {ROUNDS} but for the fit.\n\n{found}"
    print(text)
    if given.write:
        write_section("metamodel", text)


if __name__ == "__main__":
    main()
