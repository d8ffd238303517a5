"""Measuring candidates in turns, and saying how sure the figures are."""

from __future__ import annotations

import os
import platform
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Timing:
    """What one call took.

    Attributes:
        wall_s: Seconds on the clock.
        cpu_s: Seconds of processor time of the whole process, all threads together.
    """

    wall_s: float
    cpu_s: float


@dataclass(frozen=True)
class Interval:
    """A median with its 95 % interval from the bootstrap over rounds."""

    median: float
    low: float
    high: float

    def scaled(self, factor: float) -> Interval:
        """Return the interval in other units."""
        return Interval(self.median * factor, self.low * factor, self.high * factor)


def in_turns(
    candidates: Mapping[str, Callable[[], Timing]],
    rounds: int,
    *,
    fewer: Mapping[str, int] | None = None,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, list[Timing]]:
    """Call every candidate once a round, in a new random order each round, after one round that does not count.

    Args:
        candidates: Name -> function that does the work and says what it took.
        rounds: How often each is measured.
        fewer: Name -> rounds of a candidate that would take too long; it takes part in the first ones.
        seed: Seed of the orders.
        note: Told what is being measured.

    Returns:
        Name -> one timing per round.
    """
    orders = random.Random(seed)
    limits = {name: min(rounds, (fewer or {}).get(name, rounds)) for name in candidates}
    measured: dict[str, list[Timing]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        names = [name for name in candidates if number <= limits[name]]
        orders.shuffle(names)
        for name in names:
            took = candidates[name]()
            if number:  # the first call of each pays for imports and caches
                measured[name].append(took)
            note(f"round {number} of {rounds}: {name}: {took.wall_s:.2f} s")
    return measured


def differences(measured: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return what was added in each round: what disturbs a whole round disturbs both and cancels out."""
    return [one - other for one, other in zip(measured, baseline, strict=False)]


def interval(values: Sequence[float], *, n_resamples: int = 2000, seed: int = 0) -> Interval:
    """Return the median and the 95 % percentile interval of its bootstrap."""
    if not values:
        raise AssertionError("values must not be empty")
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(n_resamples))
    return Interval(statistics.median(values), medians[int(0.025 * n_resamples)], medians[int(0.975 * n_resamples)])


def describe_machine() -> str:
    """Return the machine in words: what a reader needs to compare figures, nothing that names it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{platform.system()} on {platform.machine()}, {cores} cores, CPU only, Python {sys.version_info[0]}.{sys.version_info[1]}"
