"""Carries a replay out: every method on every fold and seed, spread over processes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from compare_baselines.methods.base import Method
from compare_baselines.methods.registry import METHODS, PLAIN, RANDOM, find_method
from compare_baselines.replay.job import ReplayFailure, ReplayJob, ReplayOutcome
from compare_baselines.replay.processes import carry_out_jobs
from compare_baselines.replay.protocol import Benchmark
from metahp_report.statistics import bootstrap_intervals, expected_best, mean_ranks, paired_difference, random_equivalent
from metamodel.kinds import DEFAULT as OURS
from store.errors import InvalidArgumentError, WorkerDiedError

FloatArray = npt.NDArray[np.float64]

Report = dict[str, Any]


def run_replay(
    benchmark: Benchmark,
    methods: Sequence[str] = METHODS,
    *,
    workers: int | None = None,
    progress: Callable[[float, str], None] | None = None,
    first: Callable[[Report], None] | None = None,
    keeps_seeds: bool = False,
) -> Report:
    """Compare methods on recorded runs.

    Args:
        benchmark: What to replay.
        methods: Names, or ``module:Class``.
        workers: Processes; None for one a core.
        progress: Called with a fraction in [0, 1] and a text.
        first: Called with the report of the first seed, where others follow.
        keeps_seeds: Keep the regret of every seed as well, ``"seeds": {task: [[regret ...] ...]}``, so that reports can be merged.

    Returns:
        ``{"protocol", "random_exact", "methods": {name: {"regret", "ci95", "mean_rank", "random_equivalent", "seconds", "tasks"}}}``;
        entry ``k - 1`` of a list belongs to ``k`` evaluations, regret is the mean over tasks and seeds. Where a method raised an error
        there is ``"left_out": {name: {"reason", "traceback"}}`` as well.

    Raises:
        InvalidArgumentError: If a method is unknown or named twice, or every method raised an error.
        WorkerDiedError: If a process died; it holds the report of what was measured until then.
    """
    chosen = {name: find_method(name) for name in methods}
    if len(chosen) < len(methods) or not methods:
        raise InvalidArgumentError(f"Methods must be named, each once, but got {list(methods)}. Possible are {', '.join(METHODS)}.")
    jobs = list(_jobs(benchmark, chosen))
    done: list[ReplayOutcome] = []
    failures: dict[str, ReplayFailure] = {}
    waiting, is_first_shown = set(jobs), first is None or benchmark.protocol.seeds == 1
    n_workers = min(workers or os.cpu_count() or 1, max(len(jobs), 1))
    _ = benchmark.points  # once, before the workers get their copies

    def report() -> Report | None:
        names = [name for name in methods if name not in failures]
        found = _report_so_far(benchmark, done, waiting, names, keeps_seeds=keeps_seeds)
        # random search is computed, not measured, and says nothing about others that were asked for
        return None if found is not None and jobs and set(found["methods"]) == {RANDOM} else found

    try:
        for ended in carry_out_jobs(benchmark, jobs, n_workers, lambda job: job.method not in failures):
            waiting.discard(ended.job)
            if isinstance(ended, ReplayFailure):
                failures.setdefault(ended.job.method, ended)
                waiting = {job for job in waiting if job.method not in failures}
            else:
                done.append(ended)
            n_done = len(jobs) - len(waiting)
            if progress is not None:
                progress(n_done / len(jobs), f"{ended.job.method} ({n_done} of {len(jobs)})")
            if first is not None and not is_first_shown and all(job.seed for job in waiting):
                is_first_shown = True
                if (early := report()) is not None:
                    first(early)
    except WorkerDiedError as error:
        error.report = report()
        raise
    whole = report()
    if whole is None:
        failure = next(iter(failures.values()))
        raise InvalidArgumentError(f"A comparison needs a method that works, but {failure.job.method!r} raised an error: {failure.reason}")
    left_out = {name: {"reason": failure.reason, "traceback": failure.traceback} for name, failure in failures.items()}
    return {**whole, "left_out": left_out} if left_out else whole


def _jobs(benchmark: Benchmark, chosen: dict[str, Method]) -> Iterator[ReplayJob]:
    # Seed by seed, so that there is something to show early. The dear ones first, so that no process is left alone with them in the
    # end; METHODS lists them last.
    dearness = {name: i for i, name in enumerate(METHODS)}
    order = sorted(chosen, key=lambda name: (not chosen[name].is_slow, -dearness.get(name, len(METHODS))))
    for seed in range(benchmark.protocol.seeds):
        for name in order:
            for fold, (_, tested) in enumerate(benchmark.folds()):
                if name == RANDOM:
                    continue
                for part in [(task,) for task in tested] if chosen[name].is_slow else [tuple(tested)]:
                    yield ReplayJob(name, fold, seed, part)


def _report_so_far(
    benchmark: Benchmark, done: Sequence[ReplayOutcome], waiting: Iterable[ReplayJob], methods: Sequence[str], *, keeps_seeds: bool
) -> Report | None:
    """Return the report of the methods and seeds that are measured completely; None if there are none."""
    n_seeds = dict.fromkeys(methods, benchmark.protocol.seeds)
    for job in waiting:
        n_seeds[job.method] = min(n_seeds[job.method], job.seed)
    names = [name for name in methods if n_seeds[name]]
    if not names:
        return None
    seeds = min(n_seeds[name] for name in names)
    measured = replace(benchmark, protocol=replace(benchmark.protocol, seeds=seeds))
    return summarise(measured, [item for item in done if item.job.seed < seeds], names, keeps_seeds=keeps_seeds)


def summarise(benchmark: Benchmark, done: Sequence[ReplayOutcome], methods: Sequence[str], *, keeps_seeds: bool = False) -> dict[str, Any]:
    """Turn what was carried out into the report of ``run_replay``."""
    tested = sorted({name for _, names in benchmark.folds() for name in names})
    seeds, budget = benchmark.protocol.seeds, benchmark.protocol.budget
    longest = max(len(benchmark.pools[name]) for name in tested)
    curves = [expected_best(benchmark.pools[name].regret, len(benchmark.pools[name])) for name in tested]
    exact = np.stack([np.pad(curve, (0, longest - len(curve)), mode="edge") for curve in curves])
    table = {name: np.zeros((len(tested), seeds, budget)) for name in methods}
    seconds = dict.fromkeys(methods, 0.0)
    for item in done:
        if item.job.method not in table:
            continue
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
