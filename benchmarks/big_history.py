"""A generated history of any size: ``python -m benchmarks.big_history PATH``."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from store import Curve, FinishedRun, History, RunStatus

N_TASKS = 200
METRICS = ("train_loss", "train_acc", "grad_norm", "val_loss", "val_acc")
"""The first three are logged every step, the others every tenth."""


def runs(n_runs: int, rows_per_run: int, seed: int = 0) -> Iterator[FinishedRun]:
    """Yield runs of ``N_TASKS`` tasks with ids, hyperparameters and curves as they are recorded.

    Args:
        n_runs: How many.
        rows_per_run: Metric rows of each run, about.
        seed: The same seed gives the same history.
    """
    rng = random.Random(seed)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    steps = max(10, int(rows_per_run / 3.2))
    every, sparse = range(steps), range(0, steps, 10)
    noise = [rng.gauss(0, 0.05) for _ in range(steps + 1000)]
    elapsed = [0.02 * step for step in range(steps)]
    for number in range(n_runs):
        begun = start + timedelta(seconds=60 * number)
        rate, offset = 10 ** rng.uniform(-5, -1), rng.randrange(1000)
        floor = 0.2 + abs(rate - 0.003)
        losses = [floor + 2 / (1 + 0.1 * step) + noise[offset + step] for step in every]
        dense = {"train_loss": losses, "train_acc": [1 - 0.3 * value for value in losses], "grad_norm": [2 * value for value in losses]}
        curves = {name: Curve(every, values, elapsed) for name, values in dense.items()}
        curves |= {
            name: Curve(sparse, dense[other][::10], elapsed[::10]) for name, other in (("val_loss", "train_loss"), ("val_acc", "train_acc"))
        }
        yield FinishedRun(
            id=f"{number:010d}{rng.getrandbits(80):020X}"[:26],
            task=f"task-{number % N_TASKS:03d}",
            hparams={
                "lr": rate,
                "batch_size": rng.choice([16, 32, 64, 128]),
                "weight_decay": rng.choice([0.0, 1e-4, 1e-2]),
                "dropout": rng.choice([0.0, 0.1, 0.3]),
                "num_layers": rng.randint(1, 8),
                "optimizer": rng.choice(["Adam", "AdamW", "SGD"]),
                "seed": number,
            },
            objective="val_loss",
            direction="min",
            curves=curves,
            status=RunStatus.FAILED if number % 50 == 7 else None,
            started_utc=f"{begun:%Y-%m-%dT%H:%M:%S}.000000Z",
            framework="lightning",
        )


def generate(path: Path, n_runs: int, rows_per_run: int) -> int:
    """Write a history; return the number of metric rows."""
    with History(path) as history:
        return history.add_finished_runs(runs(n_runs, rows_per_run))["metrics"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Generate a history from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.big_history", description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--rows-per-run", type=int, default=200)
    options = parser.parse_args(arguments)
    rows = generate(options.path, options.runs, options.rows_per_run)
    sys.stdout.write(f"{options.path}: {options.runs:,} runs, {rows:,} metric rows, {options.path.stat().st_size:,} bytes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
