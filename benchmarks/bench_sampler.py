"""``MetaHPSampler`` with an empty history beside Optuna's own samplers: ``python -m benchmarks.bench_sampler``; see docs/performance.md.

The test functions are those of the Gaussian process literature (Surjanovic & Bingham, Virtual Library of Simulation Experiments).
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from benchmarks.measuring import interval
from benchmarks.page import markdown_table, measured_on, write_section

N_TRIALS = 50
SHOWN = (10, 25, 50)
OURS, REFERENCE = "MetaHPSampler", "GPSampler"


@dataclass(frozen=True)
class Function:
    """A function to minimise.

    Attributes:
        value: From the values of its d parameters to its own.
        space: Distribution of each parameter.
        minimum: Its smallest value there.
    """

    value: Callable[[Sequence[Any]], float]
    space: Mapping[str, BaseDistribution]
    minimum: float


def _branin(values: Sequence[Any]) -> float:
    x = np.asarray(values)
    a, b, c, r, s, t = 1.0, 5.1 / (4 * math.pi**2), 5 / math.pi, 6.0, 10.0, 1 / (8 * math.pi)
    return float(a * (x[1] - b * x[0] ** 2 + c * x[0] - r) ** 2 + s * (1 - t) * math.cos(x[0]) + s)


_HARTMANN_WEIGHTS = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_SCALES = np.array([[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]])
_HARTMANN_CENTRES = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def _hartmann_6(values: Sequence[Any]) -> float:
    return float(-_HARTMANN_WEIGHTS @ np.exp(-(_HARTMANN_SCALES * (np.asarray(values) - _HARTMANN_CENTRES) ** 2).sum(axis=1)))


_HARTMANN_3_SCALES = np.array([[3.0, 10, 30], [0.1, 10, 35], [3.0, 10, 30], [0.1, 10, 35]])
_HARTMANN_3_CENTRES = 1e-4 * np.array([[3689, 1170, 2673], [4699, 4387, 7470], [1091, 8732, 5547], [381, 5743, 8828]])


def _hartmann_3(values: Sequence[Any]) -> float:
    return float(-_HARTMANN_WEIGHTS @ np.exp(-(_HARTMANN_3_SCALES * (np.asarray(values) - _HARTMANN_3_CENTRES) ** 2).sum(axis=1)))


def _ackley(values: Sequence[Any]) -> float:
    x = np.asarray(values)
    return float(20 + math.e - 20 * math.exp(-0.2 * math.sqrt(np.mean(x**2))) - math.exp(np.mean(np.cos(2 * math.pi * x))))


def _rosenbrock(values: Sequence[Any]) -> float:
    x = np.asarray(values)
    return float(np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2))


def _rastrigin(values: Sequence[Any]) -> float:
    x = np.asarray(values)
    return float(10 * len(x) + np.sum(x**2 - 10 * np.cos(2 * math.pi * x)))


def _levy(values: Sequence[Any]) -> float:
    w = 1 + (np.asarray(values) - 1) / 4
    middle = np.sum((w[:-1] - 1) ** 2 * (1 + 10 * np.sin(math.pi * w[:-1] + 1) ** 2))
    return float(math.sin(math.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2))


_BEST_RATE = {"sgd": -1.0, "adam": -3.0, "rmsprop": -3.5}
_HANDICAP = {"sgd": 0.1, "adam": 0.0, "rmsprop": 0.2}


def _training(values: Sequence[Any]) -> float:
    """Return something like the loss of a training: the best learning rate depends on the optimizer and the batch."""
    optimizer, rate, decay, n_layers, batch_size, dropout = values
    rate_gap = math.log10(rate) - _BEST_RATE[optimizer] - 0.5 * math.log2(batch_size / 64) * math.log10(2)
    decay_gap, width_gap = math.log10(decay) + 4, n_layers - 5
    return float(
        _HANDICAP[optimizer]
        + math.log1p(rate_gap**2)
        + 0.1 * decay_gap**2 * (1 + 0.2 * abs(rate_gap))
        + 0.05 * width_gap**2
        + 0.1 * math.log2(batch_size / 64) ** 2
        + 4 * (dropout - 0.15) ** 2
    )


def _box(*bounds: tuple[float, float]) -> dict[str, BaseDistribution]:
    return {f"x{i}": FloatDistribution(*pair) for i, pair in enumerate(bounds)}


FUNCTIONS = {
    "Branin, 2": Function(_branin, _box((-5, 10), (0, 15)), 0.397887),
    "Hartmann, 3": Function(_hartmann_3, _box(*[(0.0, 1.0)] * 3), -3.86278),
    "Rosenbrock, 3": Function(_rosenbrock, _box(*[(-2.0, 2.0)] * 3), 0.0),
    "Levy, 4": Function(_levy, _box(*[(-10.0, 10.0)] * 4), 0.0),
    "Rastrigin, 4": Function(_rastrigin, _box(*[(-4.0, 5.0)] * 4), 0.0),
    "Ackley, 5": Function(_ackley, _box(*[(-20.0, 30.0)] * 5), 0.0),
    "Hartmann, 6": Function(_hartmann_6, _box(*[(0.0, 1.0)] * 6), -3.32237),
    "training, 6 mixed": Function(
        _training,
        {
            "optimizer": CategoricalDistribution(list(_BEST_RATE)),
            "learning_rate": FloatDistribution(1e-5, 1.0, log=True),
            "weight_decay": FloatDistribution(1e-6, 1e-1, log=True),
            "num_layers": IntDistribution(1, 8),
            "batch_size": IntDistribution(16, 256, step=16),
            "dropout": FloatDistribution(0.0, 0.5, step=0.05),
        },
        0.0,
    ),
}


def search(sampler_name: str, function_name: str, seed: int, n_trials: int = N_TRIALS) -> tuple[list[float], float]:
    """Search once.

    Returns:
        The regret after each trial, shape (n_trials,), and the seconds a trial took.
    """
    import torch

    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    function = FUNCTIONS[function_name]

    with tempfile.TemporaryDirectory(prefix="metahp-benchmark-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        study = optuna.create_study(sampler=_sampler(sampler_name, seed, Path(folder)), study_name=function_name)
        start = time.perf_counter()
        for _ in range(n_trials):
            trial = study.ask(dict(function.space))
            study.tell(trial, function.value([trial.params[name] for name in function.space]))
        seconds = (time.perf_counter() - start) / n_trials
    values = [trial.value if trial.value is not None else math.inf for trial in study.trials]
    return list(np.minimum.accumulate(values) - function.minimum), seconds


def _sampler(name: str, seed: int, folder: Path) -> optuna.samplers.BaseSampler:
    if name == OURS:
        from metamodel import MetaHPSampler

        os.environ["METAHP_STARTER"] = "0"  # an empty history is meant to be empty
        return MetaHPSampler(folder / "history.db", seed=seed)
    kinds: dict[str, Callable[[], optuna.samplers.BaseSampler]] = {
        REFERENCE: lambda: optuna.samplers.GPSampler(seed=seed),
        "TPESampler": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True),
        "RandomSampler": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    return kinds[name]()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page with ``--write``; 1 if ours is worse than ``GPSampler`` beyond chance."""
    options = _parse(arguments)
    names = [OURS, REFERENCE, "TPESampler", "RandomSampler"]
    units = [(name, function, seed, options.trials) for function in options.functions for seed in range(options.seeds) for name in names]
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        found = dict(zip(units, pool.map(search, *zip(*units, strict=True)), strict=True))
    shown = [k for k in SHOWN if k <= options.trials]
    rows, gaps = [], []
    for function in options.functions:
        for name in names:
            curves = np.array([found[name, function, seed, options.trials][0] for seed in range(options.seeds)])
            seconds = median(found[name, function, seed, options.trials][1] for seed in range(options.seeds))
            rows.append([function, name, *(f"{np.median(curves[:, k - 1]):.3g}" for k in shown), f"{1e3 * seconds:.0f}"])
        for seed in range(options.seeds):
            ours, other = (max(found[name, function, seed, options.trials][0][-1], 1e-9) for name in (OURS, REFERENCE))
            gaps.append(math.log10(ours / other))
    gap = interval(gaps)
    text = "\n\n".join(
        [
            f"{measured_on()} {options.seeds} seeds, {options.trials} trials, empty history; medians of the regret after k trials.",
            markdown_table(["function, dimensions", "sampler", *(f"k={k}" for k in shown), "ms a trial"], rows),
            f"Regret of {OURS} over that of {REFERENCE} after {options.trials} trials, paired over functions and seeds: median factor "
            f"{10**gap.median:.2f} (95 % interval {10**gap.low:.2f} to {10**gap.high:.2f}).",
        ]
    )
    sys.stdout.write(text + "\n")
    if options.write:
        write_section("sampler", text)
    return int(gap.low > 0 and not options.lenient)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_sampler", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10, help="studies of each sampler and function")
    parser.add_argument("--trials", type=int, default=N_TRIALS, help="trials of a study")
    parser.add_argument("--functions", nargs="*", default=list(FUNCTIONS), choices=list(FUNCTIONS), help="functions to search")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--write", action="store_true", help="write the table into docs/performance.md")
    parser.add_argument("--lenient", action="store_true", help="exit with 0 also where ours is worse")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    raise SystemExit(main())
