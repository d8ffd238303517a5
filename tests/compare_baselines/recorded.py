"""A history of recorded runs whose best learning rate and depth are known, for replays that take a second."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

from store import Curve, FinishedRun, History


def runs_of(task: str, n: int, shift: float, *, n_diverged: int = 0, n_double: int = 0, objective: str = "acc") -> Iterator[FinishedRun]:
    """Random configurations; the best learning rate is 10 ** (shift - 3)."""
    draw = random.Random(task)
    configs = []
    for i in range(n):
        config = {"lr": 10 ** draw.uniform(-5, -1), "depth": draw.randint(1, 4), "act": draw.choice(["relu", "tanh"])}
        configs.append(config if i < n - n_double else configs[i - n + n_double])
    for i, config in enumerate(configs):
        value = 1 - (math.log10(config["lr"]) + 3 - shift) ** 2 / 10 - 0.02 * config["depth"] + 0.01 * (config["act"] == "relu")
        value = math.nan if i < n_diverged else value
        yield FinishedRun(f"{task}-{objective}-{i:04d}", task, config, objective, "max", {objective: Curve([0], [value])})


def write(path: Path, *tasks: tuple[str, int, float]) -> Path:
    """Write tasks, each a name, its number of runs and its shift; return the path."""
    with History(path) as history:
        for task, n, shift in tasks:
            history.add_finished_runs(runs_of(task, n, shift))
    return path
