"""How often the meta-model speaks, how often it is right, and what its intervals hold: ``python -m benchmarks.bench_advice``.

On the recorded tables of docs/replay.md, by its protocol: the past tasks of a fold are the history, and each tested task is asked about
as a user's first run on new data would be.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.page import markdown_table, measured_on, write_section
from compare_baselines.methods.base import NewTask
from compare_baselines.methods.metahp import MetaHP
from compare_baselines.replay.protocol import Benchmark
from compare_baselines.replay.scenarios import with_scenario
from metamodel import recommend
from metamodel.data.run_groups import RunGroups
from metamodel.gp.calibration import LEVELS, N_TARGET_RUNS
from metamodel.recommendation import Decision
from store.hyperparameters import GLOBAL_BATCH_SIZE
from studies.replay.tables import REPLAY_TABLES, load_table

DEFAULTS: dict[str, dict[str, Any]] = {
    # torch.optim.SGD and sklearn's MLPClassifier, and the middle of the table where the library has no default
    "lcbench": {
        GLOBAL_BATCH_SIZE: 32,
        "learning_rate": 1e-3,
        "momentum": 0.1,
        "weight_decay": 1e-5,
        "num_layers": 2,
        "hidden_size": 256,
        "dropout": 0.0,
    },
    "hpobench_mlp": {"weight_decay": 1e-4, GLOBAL_BATCH_SIZE: 200, "num_layers": 1, "learning_rate": 1e-3, "hidden_size": 100},
}
SCENARIOS = ("", "few-4")
CANDIDATES_OF_INTERVALS = 400
"""Fewer, and which of them were drawn would decide: with 40, the same 50 % interval held 59 % where it now holds 55."""


@dataclass
class Advice:
    """What was said about the tested tasks of one fold and seed.

    Attributes:
        spoke: Whether it recommended something, one a task.
        is_above_median: Whether what it said was no worse than the median of the past configurations, one a task it spoke on.
        beats_default: Whether it was better than the library's default, one a task it spoke on.
        held: (own runs, level) -> whether the interval held the outcome, one a prediction.
    """

    spoke: list[bool] = field(default_factory=list)
    is_above_median: list[bool] = field(default_factory=list)
    beats_default: list[bool] = field(default_factory=list)
    held: dict[tuple[int, float], list[bool]] = field(default_factory=lambda: defaultdict(list))


def ask(benchmark: Benchmark, default: Mapping[str, Any], fold: int, seed: int) -> Advice:
    """Ask about each tested task before its first run, and predict some of its runs after none, four and sixteen."""
    past, tested = benchmark.folds()[fold]
    method, found = MetaHP(), Advice()
    method.learn(benchmark.past(past, seed))
    try:
        for name in tested:
            pool = benchmark.pools[name]
            task = NewTask(name, pool.configs, benchmark.points[name], benchmark.space, pool.direction, None, pool.description, seed)
            method.start(task)
            assert method._history is not None
            current = pool.configs[task.snap(default, ())]
            (advice,) = recommend(method._history, method._task, current=current, candidates=pool.configs, max_fit_s=0, seed=seed)
            spoke = advice.decision is Decision.APPLY
            found.spoke.append(spoke)
            values = pool.filled
            if spoke:
                value = values[pool.configs.index(advice.config)]
                found.is_above_median.append(bool(value >= np.median(values)))
                found.beats_default.append(bool(value > values[pool.configs.index(current)]))
            _predict(method, pool.configs, values, seed, found)
    finally:
        method.close()
    return found


def _predict(method: MetaHP, configs: Sequence[Mapping[str, Any]], values: np.ndarray, seed: int, found: Advice) -> None:
    """Note for drawn configurations whether their outcomes, as scores among all of the pool, lie inside the intervals."""
    from scipy.stats import norm, rankdata

    from metamodel.fitting import current_model
    from metamodel.gp.prediction import TargetTaskData

    assert method._history is not None
    model = current_model(method._history, "metahp")
    assert model is not None
    scores = norm.ppf((rankdata(values) - 0.5) / len(values))
    inputs = model.encoder.encode(list(configs))
    for n_own in N_TARGET_RUNS:
        rng = np.random.default_rng([seed, n_own])
        own = rng.choice(len(values), n_own, replace=False)
        posterior = model.posterior(TargetTaskData(inputs[own], values[own], RunGroups.asked(n_own)), method._task, 0, None)
        rest = np.setdiff1d(np.arange(len(values)), own)
        asked = rng.choice(rest, min(len(rest), CANDIDATES_OF_INTERVALS), replace=False)
        mean, variance = posterior.predict(inputs[asked]).mixture()
        distance = np.abs(scores[asked] - mean) / np.sqrt(variance + posterior.noise_variance)
        for level in LEVELS:
            found.held[n_own, level] += list(distance < model.calibration.half_width(n_own, level))


def _of_table(given: tuple[str, str, int]) -> tuple[str, str, list[Advice]]:
    import torch

    torch.set_num_threads(1)
    name, scenario, seeds = given
    table = next(table for table in REPLAY_TABLES if table.name == name)
    with load_table(table, seeds) as (history, benchmark):
        chosen = with_scenario(history, benchmark, scenario) if scenario else benchmark
        return name, scenario, [ask(chosen, DEFAULTS[name], fold, seed) for seed in range(seeds) for fold in range(chosen.protocol.folds)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and write the page with ``--write``."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bench_advice", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="draws of the past")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--write", action="store_true", help="write the tables into docs/performance.md")
    options = parser.parse_args(arguments)
    units = [(name, scenario, options.seeds) for name in DEFAULTS for scenario in SCENARIOS]
    with ProcessPoolExecutor(options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(_of_table, units))
    spoken, intervals = [], []
    for name, scenario, found in results:
        title = f"{name}, {scenario}" if scenario else name
        each = [[x for advice in found for x in getattr(advice, key)] for key in ("spoke", "is_above_median", "beats_default")]
        spoken.append([title, str(len(each[0])), *(f"{np.mean(values):.0%}" if values else "-" for values in each)])
        for n_own in N_TARGET_RUNS if not scenario else ():
            held = [np.mean([x for advice in found for x in advice.held[n_own, level]]) for level in LEVELS]
            intervals.append([title, str(n_own), *(f"{share:.0%}" for share in held)])
    text = "\n\n".join(
        [
            f"{measured_on()} {options.seeds} seeds.",
            markdown_table(["history", "asked", "it speaks", "of that, no worse than the median run", "better than the default"], spoken),
            markdown_table(["history", "own runs", *(f"{level:.0%} interval holds" for level in LEVELS)], intervals),
        ]
    )
    sys.stdout.write(text + "\n")
    if options.write:
        write_section("advice", text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
