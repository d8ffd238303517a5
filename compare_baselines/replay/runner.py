"""Carries a replay out: every method on every fold and seed, spread over processes."""

from __future__ import annotations

import os
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt

from compare_baselines.replay.methods import Method, NewTask, Past, PastTask
from compare_baselines.replay.metrics import best_so_far, bootstrap_intervals, expected_best, mean_ranks, random_equivalent
from compare_baselines.replay.protocol import Benchmark
from store.errors import InvalidArgumentError

FloatArray = npt.NDArray[np.float64]

RANDOM = "random"
METHODS = {
    RANDOM: "compare_baselines.replay.methods:Random",
    "grid": "compare_baselines.replay.methods:Grid",
    "tpe": "compare_baselines.replay.samplers:TPE",
    "gp": "compare_baselines.replay.samplers:GP",
    "cmaes": "compare_baselines.replay.samplers:CMAES",
    "best-of-past": "compare_baselines.replay.methods:BestOfPast",
    "quantile": "compare_baselines.replay.transfer:Quantile",
    "zero-shot": "compare_baselines.replay.transfer:ZeroShot",
    "rgpe": "compare_baselines.replay.rgpe:RGPE",
    "metahp": "compare_baselines.replay.metahp:MetaHP",
}
"""Name -> ``module:Class``."""


@dataclass(frozen=True)
class Job:
    """Some tasks of one fold and seed, for one method."""

    method: str
    fold: int
    seed: int
    tested: tuple[str, ...]


@dataclass(frozen=True)
class Done:
    """Regret after each evaluation, task by task, and the seconds it took."""

    job: Job
    regret: dict[str, FloatArray]
    seconds: float


def find_method(name: str) -> type[Method]:
    """Return the class of a method.

    Args:
        name: One of ``METHODS``, or ``module:Class`` of a class of one's own; the module may lie in the working directory.

    Raises:
        InvalidArgumentError: If there is no such method.
    """
    path = METHODS.get(name, name)
    module, _, attribute = path.partition(":")
    if not attribute:
        raise InvalidArgumentError(
            f"A method must be known, but got {name!r}; possible are {', '.join(METHODS)}, or module:Class of a class of your own."
        )
    if path == name and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidArgumentError(f"A method must be importable as module:Class, but {name!r} is not: {error}.") from error
    if not (isinstance(found, type) and issubclass(found, Method)):
        raise InvalidArgumentError(f"A method must be a subclass of compare_baselines.replay.Method, but {name!r} is {found!r}.")
    return found


def run_replay(
    benchmark: Benchmark,
    methods: Sequence[str] = tuple(METHODS),
    *,
    workers: int | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> dict[str, Any]:
    """Compare methods on recorded runs.

    Args:
        benchmark: What to replay.
        methods: Names, or ``module:Class``.
        workers: Processes; None for one a core.
        progress: Called with a fraction in [0, 1] and a text.

    Returns:
        ``{"protocol", "random_exact", "methods": {name: {"regret", "ci95", "mean_rank", "random_equivalent", "seconds", "tasks"}}}``;
        entry ``k - 1`` of a list belongs to ``k`` evaluations, regret is the mean over tasks and seeds.

    Raises:
        InvalidArgumentError: If a method is unknown or named twice.
    """
    classes = {name: find_method(name) for name in methods}
    if len(classes) < len(methods) or not methods:
        raise InvalidArgumentError(f"Methods must be named, each once, but got {list(methods)}. Possible are {', '.join(METHODS)}.")
    jobs = list(_jobs(benchmark, classes))
    done: list[Done] = []
    n_workers = min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    for finished in _carry_out(benchmark, jobs, n_workers):
        done.append(finished)
        if progress is not None:
            progress(len(done) / len(jobs), f"{finished.job.method} ({len(done)} of {len(jobs)})")
    return summarise(benchmark, done, list(methods))


def _jobs(benchmark: Benchmark, classes: dict[str, type[Method]]) -> Iterator[Job]:
    # Slow ones first, so that no process is left alone with them in the end.
    for name in sorted(classes, key=lambda name: not classes[name].is_slow):
        for fold, (_, tested) in enumerate(benchmark.folds()):
            for seed in range(benchmark.protocol.seeds):
                if name == RANDOM:
                    continue
                parts = [(task,) for task in tested] if classes[name].is_slow else [tuple(tested)]
                for part in parts:
                    yield Job(name, fold, seed, part)


_shared: dict[str, Benchmark] = {}


def _initialise(benchmark: Benchmark) -> None:
    """Prepare a worker: the tables once a process, and one thread, since there is a process a core."""
    import torch

    torch.set_num_threads(1)
    _shared["benchmark"] = benchmark


def _work(job: Job) -> Done:
    return carry_out(_shared["benchmark"], job)


def _carry_out(benchmark: Benchmark, jobs: list[Job], n_workers: int) -> Iterator[Done]:
    if n_workers <= 1:
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            for job in jobs:
                yield carry_out(benchmark, job)
        finally:
            torch.set_num_threads(before)
        return
    with ProcessPoolExecutor(n_workers, get_context("spawn"), _initialise, (benchmark,)) as pool:
        try:
            for future in as_completed([pool.submit(_work, job) for job in jobs]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def carry_out(benchmark: Benchmark, job: Job) -> Done:
    """Replay some tasks of one fold and seed with one method.

    Raises:
        InvalidArgumentError: If the method chooses a configuration twice or one that does not exist.
    """
    started = time.perf_counter()
    past_names, _ = benchmark.folds()[job.fold]
    cube, points = benchmark.cube, {}
    for name in (*past_names, *job.tested):
        points[name] = cube.encode(benchmark.pools[name].configs)
    method = find_method(job.method)()
    method.learn(_past(benchmark, past_names, job.seed, points))
    regret = {}
    try:
        for name in job.tested:
            pool = benchmark.pools[name]
            seed = zlib.crc32(f"{name} {job.seed}".encode())
            epochs = max((value for value in pool.epochs if value is not None), default=None)
            method.start(NewTask(name, pool.configs, points[name], benchmark.space, pool.direction, epochs, pool.description, seed))
            tried: list[int] = []
            values: list[float] = []
            for _ in range(benchmark.protocol.budget):
                index = method.choose(tuple(tried), tuple(values))
                if not 0 <= index < len(pool) or index in tried:
                    raise InvalidArgumentError(
                        f"A method must choose a configuration that is not evaluated yet, but {job.method!r} chose {index} of {len(pool)} "
                        f"after {tried}. Use task.first_free or task.snap."
                    )
                tried.append(index)
                values.append(float(pool.values[index]))
            regret[name] = best_so_far(pool.regret, tried)
    finally:
        method.close()
    return Done(job, regret, time.perf_counter() - started)


def _past(benchmark: Benchmark, names: Sequence[str], seed: int, points: dict[str, FloatArray]) -> Past:
    tasks = []
    for name, chosen in benchmark.past_runs(names, seed).items():
        pool = benchmark.pools[name]
        configs, epochs = tuple(pool.configs[i] for i in chosen), tuple(pool.epochs[i] for i in chosen)
        tasks.append(PastTask(name, configs, points[name][chosen], pool.values[chosen], pool.direction, epochs, pool.description))
    return Past(tuple(tasks), benchmark.space, benchmark.objective, seed)


def summarise(benchmark: Benchmark, done: Sequence[Done], methods: Sequence[str]) -> dict[str, Any]:
    """Turn what was carried out into the report of ``run_replay``."""
    tested = sorted({name for _, names in benchmark.folds() for name in names})
    seeds, budget = benchmark.protocol.seeds, benchmark.protocol.budget
    longest = min(len(benchmark.pools[name]) for name in tested)
    exact = np.stack([expected_best(benchmark.pools[name].regret, longest) for name in tested])
    table = {name: np.zeros((len(tested), seeds, budget)) for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for item in done:
        seconds[item.job.method] += item.seconds
        for task, regret in item.regret.items():
            table[item.job.method][tested.index(task), item.job.seed] = regret
    if RANDOM in table:
        table[RANDOM] = np.repeat(exact[:, None, :budget], seeds, axis=1)
    over_seeds = {name: values.mean(1) for name, values in table.items()}
    intervals, ranks = bootstrap_intervals(over_seeds), mean_ranks(table)
    random_exact = exact.mean(0)
    report = {}
    for name in methods:
        regret = over_seeds[name].mean(0)
        report[name] = {
            "regret": regret.tolist(),
            "ci95": intervals[name].tolist(),
            "mean_rank": ranks[name].tolist(),
            "random_equivalent": random_equivalent(regret, random_exact),
            "seconds": round(seconds[name], 3),
            "tasks": {task: over_seeds[name][i].tolist() for i, task in enumerate(tested)},
        }
    return {"protocol": benchmark.describe(), "random_exact": random_exact[:budget].tolist(), "methods": report}
