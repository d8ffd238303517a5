"""What was learned, apart from where to look first: every method is given the same random points of a task and chooses the next one.

``python -m studies.replay.same_points`` measures on the recorded tables and writes the tables of docs/meta-models.md.
"""

from __future__ import annotations

import argparse
import json
import os
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from compare_baselines.methods.base import NewTask
from compare_baselines.methods.registry import RANDOM, find_method
from compare_baselines.replay.protocol import Benchmark
from compare_baselines.replay.report import show_regret
from metahp_report.statistics import paired_difference
from metamodel.kinds import KINDS
from studies.replay.tables import FIGURES, RECORDED, ROOT, load_table

N_POINTS = 5

SCRATCH = ("scratch", "scratch-few")
"""The same network from a random initialisation: trained until it fits the points, and adapted by the same few steps."""
PAGE_MARK = "<!-- tables: made by python -m studies.replay.same_points -->"


def given_points(task: str, seed: int, n_pool: int, n_points: int = N_POINTS) -> list[int]:
    """Draw the points of a task, the same for every method: indices into its pool."""
    rng = np.random.default_rng(zlib.crc32(f"points of {task} {seed}".encode()))
    return [int(i) for i in rng.choice(n_pool, n_points, replace=False)]


def chosen_after(benchmark: Benchmark, method: str, fold: int, seed: int, n_points: int = N_POINTS) -> dict[str, tuple[float, float]]:
    """Let a method choose one configuration of each tested task after the same points.

    Returns:
        Task -> normalised regret of what it chose, and of the best of the points and that.
    """
    past, tested = benchmark.folds()[fold]
    found = {}
    learner = find_method(method)
    try:
        learner.learn(benchmark.past(past, seed))
        for name in tested:
            pool = benchmark.pools[name]
            tried = given_points(name, seed, len(pool), n_points)
            epochs = max((value for value in pool.epochs if value is not None), default=None)
            draw = zlib.crc32(f"{name} {seed}".encode())
            learner.start(
                NewTask(name, pool.configs, benchmark.points[name], benchmark.space, pool.direction, epochs, pool.description, draw)
            )
            choice = learner.choose(tuple(tried), tuple(float(pool.values[i]) for i in tried))
            found[name] = float(pool.regret[choice]), float(pool.regret[[*tried, choice]].min())
    finally:
        learner.close()
    return found


SamePointsJob = tuple[str, int, int]
"""Method, fold and seed."""
_shared: dict[str, Benchmark] = {}


def _initialise(benchmark: Benchmark) -> None:
    import torch

    torch.set_num_threads(1)
    _shared["benchmark"] = benchmark


def _work(job: SamePointsJob) -> tuple[SamePointsJob, dict[str, tuple[float, float]]]:
    return job, chosen_after(_shared["benchmark"], *job)


def _carry_out(
    benchmark: Benchmark, jobs: Sequence[SamePointsJob], n_workers: int
) -> Iterator[tuple[SamePointsJob, dict[str, tuple[float, float]]]]:
    if n_workers == 1:
        _initialise(benchmark)
        yield from map(_work, jobs)
        return
    with ProcessPoolExecutor(n_workers, get_context("spawn"), _initialise, (benchmark,)) as pool:
        for future in as_completed([pool.submit(_work, job) for job in jobs]):
            yield future.result()


def compare(benchmark: Benchmark, methods: Sequence[str], workers: int | None = None) -> dict[str, Any]:
    """Compare methods on the same points.

    Args:
        benchmark: What to replay.
        methods: Names, ``scratch`` and ``scratch-few`` among them.
        workers: Processes; None for one a core.

    Returns:
        ``{"n_points", "n_seeds", "tasks", "points", "methods": {name: {"choice", "best"}}}``: a value a task, mean over seeds; ``points``
        is the regret of the best of the points alone.
    """
    n_folds, seeds = len(benchmark.folds()), benchmark.protocol.seeds
    jobs = [(method, fold, seed) for method in methods for fold in range(n_folds) for seed in range(seeds)]
    values: dict[str, dict[str, list[tuple[float, float]]]] = {method: {} for method in methods}
    _ = benchmark.points
    for (method, _, _), found in _carry_out(benchmark, jobs, min(workers or os.cpu_count() or 1, len(jobs))):
        for task, pair in found.items():
            values[method].setdefault(task, []).append(pair)
    tasks = sorted(next(iter(values.values())))
    tried = {task: [given_points(task, seed, len(benchmark.pools[task])) for seed in range(seeds)] for task in tasks}
    points = [float(np.mean([benchmark.pools[task].regret[points].min() for points in tried[task]])) for task in tasks]
    means = {method: np.array([np.mean(found[task], axis=0) for task in tasks]) for method, found in values.items()}
    report = {method: {"choice": mean[:, 0].tolist(), "best": mean[:, 1].tolist()} for method, mean in means.items()}
    return {"n_points": N_POINTS, "n_seeds": seeds, "tasks": tasks, "points": points, "methods": report}


def difference(report: Mapping[str, Any], method: str, peer: str, figure: str = "choice") -> tuple[float, float, float]:
    """Return the mean paired difference of regret of two methods, and the ends of its 95 % interval over tasks.

    Below 0 the first is better.
    """
    left, right = (np.array(report["methods"][name][figure])[:, None] for name in (method, peer))
    mean, interval = paired_difference(left, right)
    return float(mean[0]), float(interval[0, 0]), float(interval[0, 1])


def section(name: str, report: Mapping[str, Any]) -> str:
    """Return the table of one recorded table as Markdown."""
    peers = [peer for peer in SCRATCH if peer in report["methods"]]
    seeds = f"{report['n_seeds']} seed{'s' if report['n_seeds'] > 1 else ''}"
    alone = show_regret(float(np.mean(report["points"])))
    lines = [f"### {name}", "", f"{len(report['tasks'])} tasks, {seeds}. Best of the {report['n_points']} points alone: {alone}.", ""]
    head = ["method", "regret of its choice", "best of all six", *(f"choice minus {peer}" for peer in peers)]
    lines += [f"| {' | '.join(head)} |", f"| --- | {' | '.join(['---:'] * (len(head) - 1))} |"]
    for method, found in sorted(report["methods"].items(), key=lambda pair: float(np.mean(pair[1]["choice"]))):
        cells = [method, *(show_regret(float(np.mean(found[figure]))) for figure in ("choice", "best"))]
        for peer in peers:
            mean, low, high = difference(report, method, peer)
            cells.append("-" if method in SCRATCH else f"{mean:+.3f} ({low:+.3f} to {high:+.3f})")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def write_page(path: Path) -> None:
    """Write docs/meta-models.md from the explanation that stands in it and the figures measured."""
    head = path.read_text(encoding="utf-8").partition(PAGE_MARK)[0]
    parts = [head + PAGE_MARK + "\n"]
    for table in RECORDED:
        file = FIGURES / f"{table.name}-same-points.json"
        known = file.exists()
        parts.append(
            section(table.name, json.loads(file.read_text(encoding="utf-8"))) if known else f"### {table.name}\n\nNot measured yet.\n"
        )
    path.write_text("\n".join(parts), encoding="utf-8")


def _store(name: str, report: dict[str, Any]) -> dict[str, Any]:
    """Keep figures; methods measured earlier on the same points stay beside the new ones."""
    path = FIGURES / f"{name}-same-points.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if all(old.get(key) == report[key] for key in ("n_points", "n_seeds", "tasks", "points")):
        report = {**report, "methods": {**old["methods"], **report["methods"]}}
    path.write_text(json.dumps(report), encoding="utf-8")
    return report


def main() -> None:
    """Measure what is asked for and write the page."""
    parser = argparse.ArgumentParser(description="Compare methods on the same points and write docs/meta-models.md.")
    parser.add_argument("--only", nargs="*", default=None, help="tables to measure; default all")
    parser.add_argument("--methods", default=",".join((*KINDS, *SCRATCH)), help="comma-separated")
    parser.add_argument("--seeds", type=int, default=None, help="default: those of the table")
    parser.add_argument("--workers", type=int, default=None, help="processes; default one a core")
    parser.add_argument("--write", action="store_true", help="only write the page, from the figures of earlier measurements")
    given = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    methods = [name.strip() for name in given.methods.split(",") if name.strip() not in {"", RANDOM}]
    for table in () if given.write else [table for table in RECORDED if table.name in (given.only or [t.name for t in RECORDED])]:
        with load_table(table, given.seeds or table.seeds) as (_, benchmark):
            report = compare(benchmark, methods, given.workers)
        report = _store(table.name, report)
        print(section(table.name, report), flush=True)
    write_page(ROOT / "docs" / "meta-models.md")


if __name__ == "__main__":
    main()
