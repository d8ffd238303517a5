"""One job of a replay: a method on some tasks of one fold and seed."""

from __future__ import annotations

import time
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from compare_baselines.methods.base import Method, NewTask
from compare_baselines.methods.registry import find_method
from compare_baselines.replay.protocol import Benchmark
from metahp_report.statistics import best_so_far
from store.errors import InvalidArgumentError

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ReplayJob:
    """Some tasks of one fold and seed, for one method."""

    method: str
    fold: int
    seed: int
    tested: tuple[str, ...]

    @property
    def label(self) -> str:
        """What it is, for a message."""
        tasks = f"task {self.tested[0]}" if len(self.tested) == 1 else f"{len(self.tested)} tasks"
        return f"{self.method} on {tasks} of fold {self.fold + 1}, seed {self.seed}"


@dataclass(frozen=True, slots=True)
class ReplayOutcome:
    """Regret and number of failed runs after each evaluation, task by task, and the CPU seconds it took."""

    job: ReplayJob
    regret: dict[str, FloatArray]
    n_failed: dict[str, FloatArray]
    seconds: float


@dataclass(frozen=True, slots=True)
class ReplayFailure:
    """A method raised an error: the error in one line, and its traceback."""

    job: ReplayJob
    reason: str
    traceback: str


def attempt(benchmark: Benchmark, job: ReplayJob) -> ReplayOutcome | ReplayFailure:
    """Replay some tasks of one fold and seed; a method that raises an error costs itself, not the comparison."""
    try:
        return carry_out(benchmark, job)
    except Exception as error:
        text = " ".join(str(error).split())
        if isinstance(error, InvalidArgumentError):
            return ReplayFailure(job, text, traceback.format_exc())
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        return ReplayFailure(job, f"{type(error).__name__}: {text or 'without a message'} ({where})", traceback.format_exc())


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
