"""Which hyperparameters mattered: functional analysis of variance of how runs of a task stand among each other.

Hutter, Hoos & Leyton-Brown, "An efficient approach for assessing hyperparameter importance", ICML 2014, as Optuna carries it out: a random
forest is fitted to the runs, and each hyperparameter gets its share of the forest's variance. What is explained is the rank of a run, a
rank: in the metric's own units a few runs that went astray would decide alone.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from metahp_report.facts import FloatArray

logger = logging.getLogger(__name__)

MIN_RUNS_EXPLAINED = 16
"""Judged runs a task needs: with fewer the forest explains noise."""
MAX_RUNS_EXPLAINED = 160
"""Runs of a task that are looked at: the forest's time grows with them, its answer hardly changes."""
MAX_NAMES = 12
MAX_DISTINCT_TEXTS = 24
"""Different texts of one hyperparameter: with more it is a name or a path, and no choice."""
MIN_KNOWN = 0.8
LOG_RATIO_OF_VALUES = 10.0
"""Ratio of the largest to the smallest value from which a positive number may be looked at on a log scale."""
N_TREES = 24


@dataclass(frozen=True, slots=True)
class ValueColumn:
    """The values of one hyperparameter over ``n`` runs.

    Attributes:
        name: Its name.
        values: Numbers, or texts where ``labels`` is not empty.
        is_log: Whether it is looked at on a log scale.
        labels: The different texts, sorted; empty for numbers.
    """

    name: str
    values: tuple[Any, ...]
    is_log: bool = False
    labels: tuple[str, ...] = ()

    def position(self) -> FloatArray:
        """Return the values in [0, 1] along their scale, shape ``(n,)``; NaN where unknown."""
        if self.labels:
            top = max(len(self.labels) - 1, 1)
            return np.array([math.nan if value is None else self.labels.index(value) / top for value in self.values])
        numbers = np.array([math.nan if value is None else float(value) for value in self.values])
        numbers = np.log10(numbers) if self.is_log else numbers
        low, high = np.nanmin(numbers), np.nanmax(numbers)
        return np.asarray((numbers - low) / (high - low) if high > low else np.full(len(numbers), 0.5))


def columns(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[ValueColumn]:
    """Return the hyperparameters that can be looked at.

    Left out are texts with too many values, and what follows from another one: it orders the runs in the same way.

    Args:
        configs: ``n`` configurations.
        names: Those that varied.
    """
    found: list[ValueColumn] = []
    for name in sorted(names, key=lambda name: ("." in name, name)):  # of two of a kind the user's setting stays, not `optimizer.lr`
        column = _column(name, [config.get(name) for config in configs])
        if column is not None and not any(_is_same(column, other) for other in found):
            found.append(column)
    return found


def _column(name: str, values: Sequence[Any]) -> ValueColumn | None:
    known = [value for value in values if value is not None]
    if len(known) < MIN_KNOWN * len(values) or len(set(map(repr, known))) < 2:
        return None
    if all(isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) for value in known):
        return ValueColumn(name, tuple(values), _is_log([float(value) for value in known]))
    texts = tuple(None if value is None else str(value) for value in values)
    labels = tuple(sorted({text for text in texts if text is not None}))
    return ValueColumn(name, texts, labels=labels) if len(labels) <= MAX_DISTINCT_TEXTS else None


def _is_log(values: Sequence[float]) -> bool:
    """Say whether positive numbers lie more evenly on a log scale: there their median is nearer to the middle of their range."""
    low, high, middle = min(values), max(values), float(np.median(values))
    if low <= 0 or high / low < LOG_RATIO_OF_VALUES:
        return False
    return abs(math.log(middle / low) / math.log(high / low) - 0.5) < abs((middle - low) / (high - low) - 0.5)


def _is_same(one: ValueColumn, other: ValueColumn) -> bool:
    """Say whether two columns order the runs in the same or the reverse way, or cut them into the same few groups."""
    if not one.labels and not other.labels:
        left, right = (rankdata([math.nan if value is None else float(value) for value in column.values]) for column in (one, other))
        return bool(np.array_equal(left, right, equal_nan=True) or np.array_equal(left, len(left) + 1 - right, equal_nan=True))
    groups = [{value: index for index, value in enumerate(dict.fromkeys(column.values))} for column in (one, other)]
    if any(2 * len(group) > len(one.values) for group in groups):
        return False
    codes = [[group[value] for value in column.values] for group, column in zip(groups, (one, other), strict=True)]
    return codes[0] == codes[1]


def importances(configs: Sequence[Mapping[str, Any]], rank: FloatArray, names: Sequence[str], seed: int = 0) -> dict[str, float]:
    """Return the share of each hyperparameter in what decided how runs stand, the largest first.

    Args:
        configs: ``n`` configurations.
        rank: How each run stands, shape ``(n,)``, larger is better; NaN for runs that are left out.
        names: Hyperparameters that varied.
        seed: Seed of the forest and of the choice of runs, where there are very many.

    Returns:
        Name -> share, summing to 1; empty where there are too few runs, or nothing varied.
    """
    judged = np.flatnonzero(~np.isnan(rank)).tolist()
    if len(judged) > MAX_RUNS_EXPLAINED:
        judged = sorted(np.random.default_rng(seed).choice(judged, MAX_RUNS_EXPLAINED, replace=False).tolist())
    if len(judged) < MIN_RUNS_EXPLAINED or len(np.unique(rank[judged])) < 2:
        return {}
    found = columns([configs[i] for i in judged], names)[:MAX_NAMES]
    is_known = [all(column.values[row] is not None for column in found) for row in range(len(judged))]
    rows = [row for row, known in enumerate(is_known) if known]
    found = [column for column in found if len({column.values[row] for row in rows}) > 1]
    if len(rows) < MIN_RUNS_EXPLAINED or not found:
        return {}
    if len(found) == 1:
        return {found[0].name: 1.0}
    shares = _fanova(found, rows, [float(rank[judged[row]]) for row in rows], seed)
    total = sum(shares.values())
    return {name: share / total for name, share in sorted(shares.items(), key=lambda pair: -pair[1])} if total > 0 else {}


def _fanova(found: Sequence[ValueColumn], rows: Sequence[int], values: Sequence[float], seed: int) -> dict[str, float]:
    import optuna
    from optuna.importance import FanovaImportanceEvaluator

    distributions = {column.name: _distribution(column) for column in found}
    with quiet_optuna():
        study = optuna.create_study(direction="maximize")
        for row, value in zip(rows, values, strict=True):
            params = {column.name: column.values[row] if column.labels else float(column.values[row]) for column in found}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
        evaluator = FanovaImportanceEvaluator(n_trees=N_TREES, seed=seed)
        return {name: float(share) for name, share in evaluator.evaluate(study).items()}


def _distribution(column: ValueColumn) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if column.labels:
        return CategoricalDistribution(column.labels)
    numbers = [float(value) for value in column.values if value is not None]
    return FloatDistribution(min(numbers), max(numbers), log=column.is_log)


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Silence Optuna, which announces each study and warns at every call of experimental features and degenerate fits."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def mean_importances(found: Sequence[Mapping[str, float]]) -> dict[str, tuple[float, int]]:
    """Return for each hyperparameter its mean share over the tasks that vary it, and how many these are; the largest first."""
    names = dict.fromkeys(name for shares in found for name in shares)
    means = {name: [shares[name] for shares in found if name in shares] for name in names}
    return {name: (sum(v) / len(v), len(v)) for name, v in sorted(means.items(), key=lambda pair: -sum(pair[1]) / len(pair[1]))}
