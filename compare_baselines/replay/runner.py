"""Carries a replay out: every method on every fold and seed, spread over processes."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import numpy as np
import numpy.typing as npt

from compare_baselines.environment import ONE_THREAD, environment
from compare_baselines.methods.base import Method, NewTask
from compare_baselines.methods.registry import METHODS, PLAIN, RANDOM, find_method
from compare_baselines.replay.protocol import Benchmark
from metahp_report.statistics import (
    best_so_far,
    bootstrap_intervals,
    expected_best,
    mean_ranks,
    paired_difference,
    random_equivalent,
)
from metamodel.kinds import DEFAULT as OURS
from store.errors import InvalidArgumentError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """Some tasks of one fold and seed, for one method."""

    method: str
    fold: int
    seed: int
    tested: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """Regret and number of failed runs after each evaluation, task by task, and the CPU seconds it took."""

    job: ReplayJob
    regret: dict[str, FloatArray]
    n_failed: dict[str, FloatArray]
    seconds: float


def run_replay(
    benchmark: Benchmark,
    methods: Sequence[str] = METHODS,
    *,
    workers: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    keeps_seeds: bool = False,
) -> dict[str, Any]:
    """Compare methods on recorded runs.

    Args:
        benchmark: What to replay.
        methods: Names, or ``module:Class``.
        workers: Processes; None for one a core.
        progress: Called with a fraction in [0, 1] and a text.
        keeps_seeds: Keep the regret of every seed as well, ``"seeds": {task: [[regret ...] ...]}``, so that reports can be merged.

    Returns:
        ``{"protocol", "random_exact", "methods": {name: {"regret", "ci95", "mean_rank", "random_equivalent", "seconds", "tasks"}}}``;
        entry ``k - 1`` of a list belongs to ``k`` evaluations, regret is the mean over tasks and seeds.

    Raises:
        InvalidArgumentError: If a method is unknown or named twice.
    """
    chosen = {name: find_method(name) for name in methods}
    if len(chosen) < len(methods) or not methods:
        raise InvalidArgumentError(f"Methods must be named, each once, but got {list(methods)}. Possible are {', '.join(METHODS)}.")
    jobs = list(_jobs(benchmark, chosen))
    done: list[ReplayOutcome] = []
    n_workers = min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    _ = benchmark.points  # once, before the workers get their copies
    for finished in _carry_out(benchmark, jobs, n_workers):
        done.append(finished)
        if progress is not None:
            progress(len(done) / len(jobs), f"{finished.job.method} ({len(done)} of {len(jobs)})")
    return summarise(benchmark, done, list(methods), keeps_seeds=keeps_seeds)


def _jobs(benchmark: Benchmark, chosen: dict[str, Method]) -> Iterator[ReplayJob]:
    # The dear ones first, so that no process is left alone with them in the end; METHODS lists them last.
    dearness = {name: i for i, name in enumerate(METHODS)}
    for name in sorted(chosen, key=lambda name: (not chosen[name].is_slow, -dearness.get(name, len(METHODS)))):
        for fold, (_, tested) in enumerate(benchmark.folds()):
            for seed in range(benchmark.protocol.seeds):
                if name == RANDOM:
                    continue
                parts = [(task,) for task in tested] if chosen[name].is_slow else [tuple(tested)]
                for part in parts:
                    yield ReplayJob(name, fold, seed, part)


_shared: dict[str, Benchmark] = {}


def _initialise(benchmark: Benchmark) -> None:
    """Prepare a worker: the tables once a process, and one thread, since there is a process a core."""
    import torch

    torch.set_num_threads(1)
    _shared["benchmark"] = benchmark


def _work(job: ReplayJob) -> ReplayOutcome:
    return carry_out(_shared["benchmark"], job)


def _carry_out(benchmark: Benchmark, jobs: list[ReplayJob], n_workers: int) -> Iterator[ReplayOutcome]:
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
    with environment(ONE_THREAD), ProcessPoolExecutor(n_workers, get_context("spawn"), _initialise, (benchmark,)) as pool:
        try:
            for future in as_completed([pool.submit(_work, job) for job in jobs]):
                yield future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def carry_out(benchmark: Benchmark, job: ReplayJob) -> ReplayOutcome:
    """Replay some tasks of one fold and seed with one method.

    Raises:
        InvalidArgumentError: If the method chooses a configuration twice or one that does not exist.
    """
    started = time.process_time()
    past_names, _ = benchmark.folds()[job.fold]
    method = find_method(job.method)
    regret, n_failed = {}, {}
    try:
        method.learn(benchmark.past(past_names, job.seed))
        for name in job.tested:
            pool = benchmark.pools[name]
            seed = zlib.crc32(f"{name} {job.seed}".encode())
            epochs = max((value for value in pool.epochs if value is not None), default=None)
            task = NewTask(name, pool.configs, benchmark.points[name], benchmark.space, pool.direction, epochs, pool.description, seed)
            tried, values = _search(method, task, pool.values, benchmark.protocol.budget, job.method)
            regret[name] = best_so_far(pool.regret, tried)
            n_failed[name] = np.cumsum(np.isnan(values)).astype(np.float64)
    finally:
        method.close()
    return ReplayOutcome(job, regret, n_failed, time.process_time() - started)


def _search(method: Method, task: NewTask, outcomes: FloatArray, budget: int, name: str) -> tuple[list[int], list[float]]:
    """Let a method choose ``budget`` configurations, one after another; return them and what came of each."""
    method.start(task)
    tried: list[int] = []
    values: list[float] = []
    for _ in range(budget):
        index = method.choose(tuple(tried), tuple(values))
        if not 0 <= index < len(outcomes) or index in tried:
            raise InvalidArgumentError(
                f"A method must choose a configuration that is not evaluated yet, but {name!r} chose {index} of {len(outcomes)} "
                f"after {tried}. Use task.first_free or task.snap."
            )
        tried.append(index)
        values.append(float(outcomes[index]))
    return tried, values


def summarise(benchmark: Benchmark, done: Sequence[ReplayOutcome], methods: Sequence[str], *, keeps_seeds: bool = False) -> dict[str, Any]:
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
        if keeps_seeds:
            report[name]["seeds"] = {task: table[name][i].tolist() for i, task in enumerate(tested)}
    protocol = benchmark.describe()
    whole = {"protocol": protocol, "random_exact": random_exact[:budget].tolist(), "methods": report}
    if "scenario" not in protocol:
        return whole
    for name in report:
        counts = [item.n_failed[task] for item in done if item.job.method == name for task in item.n_failed]
        report[name]["failed"] = np.mean(counts, axis=0).tolist() if counts else None
    return {**whole, "comparison": against_best_peer(whole)}


def merge_reports(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Put methods measured later into a report of the same protocol; ranks are computed anew.

    Args:
        old: A report with the regret of every seed.
        new: Another one; its methods replace those of the same name.

    Raises:
        InvalidArgumentError: If the two are of different protocols.
    """
    for key in ("tasks", "seeds", "n_hist", "budget", "folds", "objective", "scenario"):
        if old["protocol"].get(key) != new["protocol"].get(key):
            raise InvalidArgumentError(
                f"Reports of one protocol can be merged, but {key} is {old['protocol'].get(key)!r:.60} and "
                f"{new['protocol'].get(key)!r:.60}. "
                "Measure all methods again."
            )
    methods = {**old["methods"], **new["methods"]}
    tables = {name: np.array(list(item["seeds"].values())) for name, item in methods.items() if "seeds" in item}
    ranks = mean_ranks(tables) if tables else {}
    merged = {name: {**item, "mean_rank": ranks[name].tolist() if name in ranks else None} for name, item in methods.items()}
    whole = {**old, "methods": merged}
    return {**whole, "comparison": against_best_peer(whole)} if "comparison" in old else whole


def against_best_peer(report: Mapping[str, Any], name: str = OURS) -> list[dict[str, Any]]:
    """Compare a method with the best of the others at each number of evaluations, and with each plain Gaussian process.

    Args:
        report: As ``run_replay`` returns it.
        name: The method.

    Returns:
        An entry for each ``k`` with the best peer, the mean difference of regret (negative: ``name`` is better) and its interval by
        paired bootstrap over tasks; ``plain`` holds the same against ``plain-gp``. Empty where ``name`` or every peer is missing.
    """
    methods = report["methods"]
    peers = [peer for peer in methods if peer != name]
    if name not in methods or not peers:
        return []
    tables = {each: np.array(list(item["tasks"].values())) for each, item in methods.items()}
    differences = {peer: paired_difference(tables[name], tables[peer]) for peer in peers}
    found = []
    for k in range(tables[name].shape[1]):
        best = min(peers, key=lambda peer: float(methods[peer]["regret"][k]))
        entry = {"k": k + 1, "best_peer": best, **_difference(differences[best], k)}
        found.append({**entry, "plain": _difference(differences[PLAIN], k)} if PLAIN in differences else entry)
    return found


def _difference(found: tuple[FloatArray, FloatArray], k: int) -> dict[str, Any]:
    return {"difference": float(found[0][k]), "ci95": found[1][k].tolist()}
