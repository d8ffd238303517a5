"""The jobs of a replay, spread over processes; one that dies is a sentence, and an interruption ends them all."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path

from compare_baselines.environment import ONE_THREAD, environment
from compare_baselines.replay.job import ReplayFailure, ReplayJob, ReplayOutcome, attempt
from compare_baselines.replay.protocol import Benchmark
from store.errors import WorkerDiedError

_shared: dict[str, Benchmark] = {}


def carry_out_jobs(
    benchmark: Benchmark, jobs: Sequence[ReplayJob], n_workers: int, is_wanted: Callable[[ReplayJob], bool]
) -> Iterator[ReplayOutcome | ReplayFailure]:
    """Carry jobs out, side by side.

    Args:
        benchmark: What to replay.
        jobs: In the order in which they begin.
        n_workers: Processes; one takes this process.
        is_wanted: Asked before each job: whether it is still to be carried out.

    Yields:
        What came of each job, in any order.

    Raises:
        WorkerDiedError: If a process died.
    """
    if n_workers > 1:
        yield from _in_processes(benchmark, jobs, n_workers, is_wanted)
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for job in jobs:
            if is_wanted(job):
                yield attempt(benchmark, job)
    finally:
        torch.set_num_threads(before)


def _in_processes(
    benchmark: Benchmark, jobs: Sequence[ReplayJob], n_workers: int, is_wanted: Callable[[ReplayJob], bool]
) -> Iterator[ReplayOutcome | ReplayFailure]:
    others, is_broken = active_children(), False
    # Whatever a worker leaves when it is ended lies in this folder.
    with tempfile.TemporaryDirectory(prefix="metahp-replay-", ignore_cleanup_errors=True) as folder:
        with environment(ONE_THREAD), ProcessPoolExecutor(n_workers, get_context("spawn"), _initialise, (benchmark, folder)) as pool:
            with _uninterrupted():
                futures = {pool.submit(_work, job): job for job in jobs}
            workers = [child for child in active_children() if child not in others]
            try:
                for future in as_completed(futures):
                    if future.cancelled():
                        continue
                    if isinstance(future.exception(), BrokenProcessPool):  # others may have ended before it broke
                        is_broken = True
                        continue
                    yield future.result()
                    for waiting, job in futures.items():
                        if not is_wanted(job):
                            waiting.cancel()
            except BaseException:
                for worker in workers:
                    worker.terminate()
                pool.shutdown(cancel_futures=True)
                raise
        if is_broken:
            raise WorkerDiedError(_obituary(workers, Path(folder)))


def _initialise(benchmark: Benchmark, folder: str) -> None:
    """Prepare a worker: the tables once a process."""
    tempfile.tempdir = folder
    _shared["benchmark"] = benchmark


def _work(job: ReplayJob) -> ReplayOutcome | ReplayFailure:
    Path(tempfile.gettempdir(), f"{os.getpid()}.job").write_text(job.label, encoding="utf-8")
    return attempt(_shared["benchmark"], job)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: it goes to every process of a terminal, and each would print a traceback."""
    if threading.current_thread() is not threading.main_thread():  # only there a signal can be set
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _obituary(workers: Sequence[BaseProcess], folder: Path) -> str:
    """Say which process died of what, and what to do."""
    # The others were ended by the pool, which sends SIGTERM.
    dead = [worker for worker in workers if worker.exitcode not in (0, None, -signal.SIGTERM)] or workers
    for worker in dead:
        if (file := folder / f"{worker.pid}.job").exists():
            return (
                f"A process of a replay must live to its end, but one {_cause(worker.exitcode)} during "
                f"{file.read_text(encoding='utf-8')}. Take fewer processes (--workers 1), or leave this method out with --methods."
            )
    return (
        f"A process of a replay must live through its start, but one {_cause(dead[0].exitcode if dead else None)} before its first method. "
        "Take no further one (--workers 1); a script of your own calls run_replay under if __name__ == '__main__'."
    )


def _cause(code: int | None) -> str:
    if code == -signal.SIGKILL:
        return "was killed by signal 9, as a system does that runs out of memory,"
    if code is not None and code < 0:
        return f"crashed with signal {-code} ({signal.strsignal(-code) or 'unknown'})"
    return f"ended with exit code {code}"
