"""Figures of a replay: exact random search, intervals over tasks, ranks. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln
from scipy.stats import rankdata

FloatArray = npt.NDArray[np.float64]

N_RESAMPLES = 2000
"""Bootstrap resamples; the ends of a 95 % interval then move by about a hundredth of its width."""


def expected_best(values: FloatArray, n_draws: int) -> FloatArray:
    """Return the exact expectation of the smallest of the first ``k`` values drawn without replacement.

    The smallest of ``k`` draws is the ``j``-th smallest of all (from 0) with probability ``C(n - 1 - j, k - 1) / C(n, k)``.

    Args:
        values: Shape ``(n,)``.
        n_draws: Largest ``k``, at most ``n``.

    Returns:
        For ``k = 1 .. n_draws``, shape ``(n_draws,)``.
    """
    n = len(values)
    ordered = np.sort(values)
    k = np.arange(1, n_draws + 1)[:, None]
    left = (n - 1 - np.arange(n))[None, :]
    possible = left >= k - 1
    rest = np.maximum(left - (k - 1), 0)
    log_ways = gammaln(left + 1) - gammaln(k) - gammaln(rest + 1)
    log_all = gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    weights = np.where(possible, np.exp(log_ways - log_all), 0.0)
    return np.asarray(weights @ ordered, dtype=np.float64)


def best_so_far(regret: FloatArray, order: Sequence[int]) -> FloatArray:
    """Return the regret of the best of the first ``k`` evaluations, shape ``(len(order),)``."""
    return np.asarray(np.minimum.accumulate(regret[list(order)]), dtype=np.float64)


def random_equivalent(regret: FloatArray, random_exact: FloatArray) -> list[float | None]:
    """Return how many evaluations of random search reach the same mean regret, interpolated.

    Args:
        regret: Mean regret of a method, shape ``(budget,)``.
        random_exact: That of random search over the whole pool, non-increasing, shape ``(n,)``.

    Returns:
        One number an entry of ``regret``; 1 where the first random draw is as good, None beyond the smallest pool.
    """
    found: list[float | None] = []
    counts = np.arange(1, len(random_exact) + 1, dtype=np.float64)
    for value in regret:
        if value < random_exact[-1] - 1e-12:
            found.append(None)
        else:
            found.append(float(np.interp(-value, -random_exact, counts)))
    return found


def bootstrap_intervals(regret: Mapping[str, FloatArray], level: float = 0.95, seed: int = 0) -> dict[str, FloatArray]:
    """Return intervals of the mean over tasks; every method is resampled with the same tasks, so differences are paired.

    Args:
        regret: Method -> regret, shape ``(n_tasks, budget)``.
        level: Share covered.
        seed: Seed of the resamples.

    Returns:
        Method -> lower and upper ends, shape ``(budget, 2)``.
    """
    rng = np.random.default_rng(seed)
    n_tasks = len(next(iter(regret.values())))
    draws = rng.integers(0, n_tasks, (N_RESAMPLES, n_tasks))
    counts = np.stack([np.bincount(draw, minlength=n_tasks) for draw in draws]) / n_tasks
    ends = [50 * (1 - level), 100 - 50 * (1 - level)]
    return {name: np.percentile(counts @ values, ends, axis=0).T for name, values in regret.items()}


def paired_difference(left: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the mean difference of two methods and its interval over tasks, resampled in pairs.

    Args:
        left: Regret, shape ``(n_tasks, budget)``.
        right: The same tasks in the same order.

    Returns:
        Mean of ``left - right``, shape ``(budget,)``, and lower and upper ends, shape ``(budget, 2)``.
    """
    difference = left - right
    return difference.mean(0), bootstrap_intervals({"": difference})[""]


def mean_ranks(regret: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Return the mean rank of each method among all, 1 is best, ties share their mean.

    Args:
        regret: Method -> regret, shape ``(n_tasks, n_seeds, budget)``.

    Returns:
        Method -> shape ``(budget,)``.
    """
    names = list(regret)
    # Rounding makes ties of sums that differ in the last bit only.
    ranks = rankdata(np.round(np.stack([regret[name] for name in names]), 12), axis=0)
    return {name: ranks[i].mean(axis=(0, 1)) for i, name in enumerate(names)}
