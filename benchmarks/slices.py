"""Fits compared slice by slice: each in a process of its own, one running while the others are stopped.

Whole fits are too long to compare on a machine that others use as well: its speed changes by a third within seconds. Slices of a fit
that follow each other within a second differ by what the candidate adds, and the median over some hundred of them is steady.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from benchmarks.measuring import Timing

Work = Callable[["Slices"], None]
"""Does the work of one candidate, and calls ``tick`` after each step."""


@dataclass
class Slices:
    """What a fit took, slice by slice.

    Args:
        steps: Steps of a slice.
        is_stopping: Whether the process stops after each slice until somebody continues it.

    Attributes:
        timings: One for each full slice. The time before the first and after the last full slice is in none: it is the run's start and end.
    """

    steps: int
    is_stopping: bool = False
    timings: list[Timing] = field(default_factory=list)
    _ticks: int = 0
    _wall: float = 0.0
    _cpu: float = 0.0

    def tick(self) -> None:
        """Count a step."""
        if not self._ticks and self.is_stopping and hasattr(os, "sched_setaffinity"):
            # The training thread of each on one core, since no two are equally fast; threads that run already keep them all.
            os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
        if self._ticks and self._ticks % self.steps == 0:
            self.timings.append(Timing(time.perf_counter() - self._wall, time.process_time() - self._cpu))
        if self._ticks % self.steps == 0:
            if self.is_stopping:
                os.kill(os.getpid(), signal.SIGSTOP)  # every thread of the process, the writer of a history included
            self._wall, self._cpu = time.perf_counter(), time.process_time()
        self._ticks += 1


def measure_slices(
    candidates: Mapping[str, Work], rounds: int, steps: int, *, seed: int = 0, note: Callable[[str], None] = lambda text: None
) -> dict[str, list[Timing]]:
    """Run all candidates side by side, a slice of each in turn, in a new random order each turn.

    What a candidate does by the clock (a history flushes once a second) it does more often here than in a fit that is not stopped.

    Args:
        candidates: Name -> its work, as a closure: the processes are forks of this one.
        rounds: How often the work is done.
        steps: Steps of a slice.
        seed: Seed of the orders.
        note: Told what is being measured.

    Returns:
        Name -> timings; those at one index ran in one turn.

    Raises:
        RuntimeError: If a candidate fails.
    """
    orders = random.Random(seed)
    found: dict[str, list[Timing]] = {name: [] for name in candidates}
    for number in range(1, rounds + 1):
        note(f"round {number} of {rounds}: {', '.join(candidates)}")
        one = _side_by_side(candidates, steps, orders)
        shortest = min(map(len, one.values()))
        for name, timings in one.items():
            found[name] += timings[:shortest]
    return found


def _side_by_side(candidates: Mapping[str, Work], steps: int, orders: random.Random) -> dict[str, list[Timing]]:
    context = multiprocessing.get_context("fork")
    processes, ends = {}, {}
    for name, work in orders.sample(list(candidates.items()), len(candidates)):
        ends[name], end = context.Pipe(duplex=False)
        processes[name] = context.Process(target=_train, args=(work, steps, end), name=name)
        processes[name].start()
        end.close()
        _wait_for_stop(processes[name].pid)
    alive = list(candidates)
    while alive:
        orders.shuffle(alive)
        for name in list(alive):
            pid = processes[name].pid
            os.kill(pid or 0, signal.SIGCONT)
            if not _wait_for_stop(pid):
                alive.remove(name)
    timings = {}
    for name, process in processes.items():
        process.join()
        if process.exitcode or not ends[name].poll():
            raise RuntimeError(f"Every candidate must finish its work, but {name!r} ended with exit code {process.exitcode}.")
        timings[name] = ends[name].recv()
    return timings


def _train(work: Work, steps: int, end: Connection) -> None:
    slices = Slices(steps, is_stopping=True)
    work(slices)
    end.send(slices.timings)


def _wait_for_stop(pid: int | None) -> bool:
    """Wait until the process stops itself or ends; False where it ended. Who started it collects its exit code."""
    state = os.waitid(os.P_PID, pid or 0, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    if state is None or state.si_code != os.CLD_STOPPED:
        return False
    os.waitid(os.P_PID, pid or 0, os.WSTOPPED)
    return True
