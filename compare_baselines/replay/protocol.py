"""What a replay compares on: the pools of recorded configurations, the folds, and what a method may know of the past.

Everything that deviates from the protocol asked for is a note in plain words: a task that is left out, runs that are not used.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compare_baselines.methods.base import Past, PastTask
from compare_baselines.methods.spaces import UnitCube, space_of
from metamodel.space.batch import as_seen_by_model, name_in_model
from metamodel.space.dimensions import Space
from store.errors import InvalidArgumentError, NotEnoughHistoryError
from store.hyperparameters import is_output_place, is_seed_name
from store.names import Direction, canonical_name
from store.records import FINISHED, RunRecord, RunStatus

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from store import History

FloatArray = npt.NDArray[np.float64]

FIRST_SEED = 1000
"""Seed of the draw of history runs for seed 0; seed s takes ``FIRST_SEED + s``."""
MIN_REPLAY_TASKS = 3
"""Two tasks of the past and the one in question."""
MIN_REPLAY_RUNS = 10
"""Finished runs a task of the user's own needs: fewer leave no order to find."""
MAX_LABELS = 64
"""Labels up to which a name is a hyperparameter; with more it is a remark or an identifier, and each label would be a column."""
_SHOWN_TASKS = 6


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a replay is done.

    Attributes:
        n_hist: Random configurations known of every past task.
        budget: Evaluations on the new task.
        seeds: Number of seeds; seed s draws the past runs with ``FIRST_SEED + s``.
        folds: Number of folds; 0 leaves one task out at a time.
        holdout: Names of the tasks that are tested, the others being the past; replaces ``folds``.
        objective: Metric; None for the one most tasks have.
        max_hist: Configurations known of a past task that has more than ``n_hist``; None: ``n_hist``.
    """

    n_hist: int = 50
    budget: int = 32
    seeds: int = 3
    folds: int = 3
    holdout: tuple[str, ...] = ()
    objective: str | None = None
    max_hist: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            InvalidArgumentError: If one of them is not possible.
        """
        for name, least in (("n_hist", 1), ("budget", 1), ("seeds", 1), ("folds", 0)):
            if getattr(self, name) < least or (name == "folds" and self.folds == 1):
                possible = "'loo' or at least 2" if name == "folds" else f"at least {least}"
                raise InvalidArgumentError(f"{name} must be {possible}, but got {getattr(self, name)}. Pass another number.")


@dataclass(frozen=True, eq=False)  # no slots: it caches
class Pool:
    """The configurations recorded for a task, and what came of each. Methods see the configurations only.

    Attributes:
        task: Name of the task.
        configs: ``n`` configurations by canonical name, distinct, in the order of their runs.
        values: Oriented final objective, shape ``(n,)``: larger is better; NaN for diverged runs.
        direction: ``min`` or ``max``.
        epochs: Epochs each run reached, None where unknown.
        description: What is known of the task.
        run_ids: The run each configuration was taken from.
        judged: What regret is computed from, shape ``(n,)``; None for ``values``.
        endings: How each run ended, as in ``RunStatus``; empty: it follows from the values.
    """

    task: str
    configs: tuple[Mapping[str, Any], ...]
    values: FloatArray
    direction: str
    epochs: tuple[float | None, ...]
    description: Mapping[str, Any] = field(default_factory=dict)
    run_ids: tuple[str, ...] = ()
    judged: FloatArray | None = None
    endings: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of configurations ``n``."""
        return len(self.configs)

    @cached_property
    def filled(self) -> FloatArray:
        """What regret is computed from, with the worst finite value in place of diverged runs, shape ``(n,)``."""
        judged = self.values if self.judged is None else self.judged
        return np.where(np.isnan(judged), float(np.nanmin(judged)), judged)

    @cached_property
    def regret(self) -> FloatArray:
        """Normalised regret of each configuration: 0 for the best, 1 for the median of the pool; shape ``(n,)``."""
        best = float(self.filled.max())
        return np.asarray((best - self.filled) / (best - float(np.median(self.filled))), dtype=np.float64)


@dataclass(frozen=True, eq=False)  # no slots: it caches
class Benchmark:
    """The pools of a history, ready to be replayed.

    Attributes:
        pools: By task name sorted as text.
        space: What varies, by canonical name.
        objective: Metric.
        protocol: As it is carried out.
        notes: What was left out and why, one line each.
    """

    pools: Mapping[str, Pool]
    space: Space
    objective: str
    protocol: Protocol
    notes: tuple[str, ...] = ()

    @property
    def cube(self) -> UnitCube:
        """Coordinates of the space."""
        return UnitCube(self.space)

    @cached_property
    def points(self) -> dict[str, FloatArray]:
        """Each pool as points of the unit cube, shape ``(n, d)``."""
        return {name: self.cube.encode(pool.configs) for name, pool in self.pools.items()}

    def folds(self) -> list[tuple[list[str], list[str]]]:
        """Return for each fold the names of the past tasks and of the tested ones."""
        names = list(self.pools)
        if self.protocol.holdout:
            tested = [name for name in names if name in self.protocol.holdout]
            return [([name for name in names if name not in tested], tested)]
        n_folds = self.protocol.folds or len(names)
        return [
            ([name for i, name in enumerate(names) if i % n_folds != j], names[j::n_folds]) for j in range(n_folds) if names[j::n_folds]
        ]

    def past_runs(self, past: Sequence[str], seed: int) -> dict[str, npt.NDArray[np.int64]]:
        """Draw the runs that are known of each past task: indices into its pool, shape ``(n_hist,)``, or more up to ``max_hist``."""
        rng = np.random.default_rng(FIRST_SEED + seed)
        most = self.protocol.max_hist or self.protocol.n_hist
        return {name: rng.choice(len(self.pools[name]), min(most, len(self.pools[name])), replace=False) for name in sorted(past)}

    def past(self, names: Sequence[str], seed: int) -> Past:
        """Return what is known before a new task: the drawn runs of the past tasks."""
        tasks = []
        for name, chosen in self.past_runs(names, seed).items():
            pool = self.pools[name]
            configs, epochs = tuple(pool.configs[i] for i in chosen), tuple(pool.epochs[i] for i in chosen)
            tasks.append(PastTask(name, configs, self.points[name][chosen], pool.values[chosen], pool.direction, epochs, pool.description))
        return Past(tuple(tasks), self.space, self.objective, seed)

    def describe(self) -> dict[str, Any]:
        """Return the protocol as it is reported."""
        space = {name: asdict(dim) for name, dim in self.space.items()}
        tasks = {name: len(pool) for name, pool in self.pools.items()}
        known = {**asdict(self.protocol), "objective": self.objective, "tasks": tasks, "space": space, "notes": list(self.notes)}
        return {**known, "folds": self.protocol.folds or "loo", "diverged": "worst finite value of the pool"}


def load_benchmark(
    history: History, protocol: Protocol | None = None, space: Mapping[str, BaseDistribution | Sequence[Any]] | None = None
) -> Benchmark:
    """Read the pools of a history.

    Args:
        history: Open history.
        protocol: How to replay; default that of the reference.
        space: Scales and bounds by raw name; None takes both from the recorded values.

    Raises:
        NotEnoughHistoryError: If fewer than three tasks can be replayed.
        InvalidArgumentError: If a held-out task does not exist or cannot be replayed.
    """
    protocol = protocol or Protocol()
    notes: list[str] = []
    descriptions = {task.name: dict(task.description) for task in history.tasks()}
    runs = [run for run in history.runs() if run.is_finished and run.status is not RunStatus.OOM]
    objective = protocol.objective or _common_objective(runs, notes)
    groups: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.objective == objective:
            groups.setdefault(run.task_name, []).append(run)
    without = sorted({run.task_name for run in runs} - groups.keys())
    if not groups:
        possible = sorted({run.objective for run in runs if run.objective is not None})
        raise InvalidArgumentError(
            f"An objective must have finished runs, but got {objective!r}; possible are {_listed(possible) or 'none'}."
        )
    if without:
        notes.append(f"left out, no run has the objective {objective!r}: {_listed(without)}")
    names = None if space is None else [name_in_model(canonical_name(name)) for name in space]
    pools = {name: _pool(name, groups[name], names, descriptions.get(name, {}), notes) for name in sorted(groups)}
    usable = {name: pool for name, pool in pools.items() if _is_usable(pool, protocol, notes)}
    _check_roles(usable, protocol, notes, str(history.path))
    found = space_of([config for pool in usable.values() for config in pool.configs], space)
    if space is None:
        for name in [name for name, dim in found.items() if not dim.is_numeric and len(dim.choices or ()) > MAX_LABELS]:
            notes.append(f"{name}: {len(found.pop(name).choices or ())} labels are too many to learn from, not used (--space)")
    return Benchmark(usable, found, objective, protocol, tuple(notes))


def own_runs_protocol(history: History, objective: str | None = None) -> Protocol:
    """Return the protocol for a history of one's own: as much of the reference as its tasks allow.

    Raises:
        NotEnoughHistoryError: If runs are missing, saying how many of which task.
    """
    runs = [run for run in history.runs(status=FINISHED, with_hparams=False) if run.objective is not None]
    chosen = objective or _common_objective(runs, [])
    counts = Counter(run.task_name for run in runs if run.objective == chosen)
    ready = {name: count for name, count in counts.items() if count >= MIN_REPLAY_RUNS}
    if len(ready) < MIN_REPLAY_TASKS:
        nearest = [(name, count) for name, count in counts.most_common() if count < MIN_REPLAY_RUNS][: MIN_REPLAY_TASKS - len(ready)]
        missing = [f"{MIN_REPLAY_RUNS - count} more of {name!r} ({count} now)" for name, count in nearest]
        n_new = MIN_REPLAY_TASKS - len(ready) - len(nearest)
        if n_new:
            missing.append(f"{MIN_REPLAY_RUNS} of {'another task' if n_new == 1 else f'each of {n_new} other tasks'}")
        total = sum(MIN_REPLAY_RUNS - count for _, count in nearest) + n_new * MIN_REPLAY_RUNS
        raise NotEnoughHistoryError(
            f"A replay of your own runs needs {MIN_REPLAY_TASKS} tasks with {MIN_REPLAY_RUNS} finished runs each, but {history.path} has "
            f"{len(ready)}; {total} runs are missing: {', '.join(missing)}. Train on, or replay a recorded table (metahp import table)."
        )
    # Repeated configurations count once, so half of the runs is what surely remains to be known and to be found. The smallest task
    # decides that, but not how much is known of the others: as much as their owner knows.
    least = min(ready.values())
    known = Protocol()
    n_hist, budget = (min(most, max(least // 2, 4)) for most in (known.n_hist, known.budget))
    return Protocol(n_hist, budget, objective=chosen, max_hist=known.n_hist)


def _common_objective(runs: Sequence[RunRecord], notes: list[str]) -> str:
    tasks = Counter(objective for _, objective in {(run.task_name, run.objective) for run in runs if run.objective is not None})
    if not tasks:
        raise NotEnoughHistoryError(
            f"A replay needs at least {MIN_REPLAY_TASKS} tasks with finished runs and an objective, but the history has none; "
            f"{MIN_REPLAY_TASKS * MIN_REPLAY_RUNS} runs are missing. Train with a MetaHPCallback, or use metahp import table."
        )
    order = sorted(tasks, key=lambda name: (-tasks[name], name))
    if len(order) > 1:
        notes.append(f"the objective is {order[0]!r}, which most tasks have; others are {_listed(order[1:])} (--objective)")
    return order[0]


def _pool(task: str, runs: list[RunRecord], names: list[str] | None, description: Mapping[str, Any], notes: list[str]) -> Pool:
    """Collect the configurations of a task, each once."""
    direction = str(runs[-1].direction)
    sign = -1.0 if direction == Direction.MIN else 1.0
    seen: dict[str, int] = {}
    kept: list[tuple[Mapping[str, Any], float, float | None, str]] = []
    n_other = n_double = 0
    for run in runs:
        if run.direction != direction or (run.objective_last is None and run.status is not RunStatus.DIVERGED):
            n_other += 1
            continue
        # Runs of a callback have their batch as a device loads it, too: one hyperparameter, not two that move together.
        whole = as_seen_by_model(run.hparams)
        config = {name: whole[name] for name in whole if (_tells_apart(name) if names is None else name in names)}
        if seen.setdefault(repr(sorted(config.items())), len(kept)) < len(kept):
            n_double += 1
            continue
        is_diverged = run.status is RunStatus.DIVERGED or run.objective_last is None or not math.isfinite(run.objective_last)
        kept.append((config, math.nan if is_diverged else sign * float(run.objective_last or 0.0), run.epochs_reached, run.id))
    if n_double:
        verb = "run repeats" if n_double == 1 else "runs repeat"
        notes.append(f"{task}: {n_double} {verb} a configuration; the first run of each counts")
    if n_other:
        verb = "run has" if n_other == 1 else "runs have"
        notes.append(f"{task}: {n_other} {verb} no final objective or another direction, not used")
    configs, values, epochs, ids = zip(*kept, strict=True) if kept else ((), (), (), ())
    return Pool(task, tuple(configs), np.array(values, dtype=np.float64), direction, tuple(epochs), description, tuple(ids))


def _tells_apart(name: str) -> bool:
    """Whether runs that differ in a name are of different configurations: not in a seed, nor in where a run is written."""
    return not (is_seed_name(name) or is_output_place(name))


def _check_roles(usable: Mapping[str, Pool], protocol: Protocol, notes: Sequence[str], path: str) -> None:
    """Check that there are tasks to test and tasks to learn from."""
    why = f": {'; '.join(notes)}" if notes else ""
    unknown = [name for name in protocol.holdout if name not in usable]
    if unknown:
        raise InvalidArgumentError(
            f"A held-out task must be one that can be replayed, but got {unknown[0]!r}; possible are "
            f"{_listed(list(usable)) or 'none'}{why}."
        )
    if len(usable) < MIN_REPLAY_TASKS:
        least = max(protocol.n_hist, protocol.budget)
        raise NotEnoughHistoryError(
            f"A replay needs at least {MIN_REPLAY_TASKS} tasks with {least} finished runs of differing outcome, but {path} has "
            f"{len(usable)}{why}. "
            "Log more runs or lower --n-hist and --budget."
        )
    if protocol.holdout and len(set(protocol.holdout)) == len(usable):
        raise InvalidArgumentError(
            f"A task that is not held out must remain as the past, but all {len(usable)} are held out. Hold fewer out, or none for folds."
        )
    if not protocol.holdout and protocol.folds > len(usable):
        raise InvalidArgumentError(
            f"Folds must be at most as many as tasks, but got {protocol.folds} for {len(usable)} tasks{why}. "
            "Use 'loo' to test one at a time."
        )


def _is_usable(pool: Pool, protocol: Protocol, notes: list[str]) -> bool:
    """Say whether a pool can be replayed; if not, a note gives the reason."""
    reason = None
    is_past, is_tested = (pool.task not in protocol.holdout, pool.task in protocol.holdout) if protocol.holdout else (True, True)
    least = max(protocol.n_hist * is_past, protocol.budget * is_tested)
    if len(pool) < least:
        needed = f"{least} are needed (n_hist {protocol.n_hist}, budget {protocol.budget})"
        reason = f"it has {len(pool)} distinct finished configurations, {needed}"
    elif np.isnan(pool.values).all():
        reason = "every run diverged"
    elif float(pool.filled.max()) == float(pool.filled.min()):
        reason = "every run has the same outcome"
    elif float(pool.filled.max()) == float(np.median(pool.filled)):
        reason = "half of its runs share the best outcome, so regret has no scale"
    if reason is not None:
        notes.append(f"left out, {pool.task}: {reason}")
    return reason is None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_TASKS])
    return shown if len(names) <= _SHOWN_TASKS else f"{shown} and {len(names) - _SHOWN_TASKS} more"
