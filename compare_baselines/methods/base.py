"""The interface of a tuning method, the same for recorded runs (a finite pool) and for real training (a space).

A method of your own is a class with a name and ``choose``; ``--methods mymodule:Nearest`` finds it:

    class Nearest(Method):
        name = "nearest"

        def learn(self, past):                       # once a fold and seed
            best = max(past.tasks, key=lambda task: task.values.max())
            self.target = best.points[best.values.argmax()]

        def choose(self, tried, values):             # once an evaluation: the index of a configuration not in `tried`
            return self.task.first_free(np.argsort(np.square(self.task.points - self.target).sum(1)), tried)
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from compare_baselines.methods.spaces import UnitCube
from metamodel.space.dimensions import Space, parse_space

if TYPE_CHECKING:
    from compare_baselines.live.tasks.base import LiveTask
    from metahp_report.comparison.records import RecordedPrediction

FloatArray = npt.NDArray[np.float64]

CONTEXT, DEFAULTS = "context", "defaults"
"""Keys of a pool's description: what all of its runs had in common, and what somebody without advice would run."""
N_DRAWN = 512
"""Configurations drawn from a space for a method that chooses from a pool."""


@dataclass(frozen=True, slots=True, eq=False)
class PastTask:
    """What is known of a past task: ``n_hist`` random configurations with their outcomes; a scenario changes which, and how they ended.

    Attributes:
        name: Its name.
        configs: By canonical name, ``n`` of them.
        points: The same as points of the unit cube, shape ``(n, d)``.
        outcomes: Oriented final objective, larger is better, NaN for diverged runs; shape ``(n,)``.
        direction: ``min`` or ``max``: whether outcomes were negated.
        epochs: Epochs each run reached, None where unknown.
        description: What is known of the task.
        endings: How each run ended, ``completed``, ``interrupted``, ``diverged`` or ``oom``; empty: it follows from the outcomes.
        curves: Steps and oriented values of each run up to where it ended; empty: only the outcomes are known.
        spelling: Canonical name -> how it was written in this task.
    """

    name: str
    configs: tuple[Mapping[str, Any], ...]
    points: FloatArray
    outcomes: FloatArray
    direction: str
    epochs: tuple[float | None, ...]
    description: Mapping[str, Any]
    endings: tuple[str, ...] = ()
    curves: tuple[tuple[tuple[int, ...], tuple[float, ...]], ...] = ()
    spelling: Mapping[str, str] = field(default_factory=dict)

    @property
    def values(self) -> FloatArray:
        """Outcomes with the worst finite one in place of diverged runs, shape ``(n,)``."""
        return filled(self.outcomes)


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """All a method may know before it meets a new task.

    Attributes:
        tasks: The past tasks, by name.
        space: What varies.
        objective: Name of the metric.
        seed: Seed of everything random in the method.
    """

    tasks: tuple[PastTask, ...]
    space: Space
    objective: str
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class NewTask:
    """A task to be tuned: which configurations there are, and nothing of what comes of them.

    Attributes:
        name: Its name.
        configs: The pool by canonical name, ``n`` configurations.
        points: The pool as points of the unit cube, shape ``(n, d)``.
        space: What varies.
        direction: ``min`` or ``max``.
        epochs: Epochs a run takes here, None where unknown.
        description: What is known of the task before training: no outcome.
        seed: Seed of everything random for this task.
    """

    name: str
    configs: tuple[Mapping[str, Any], ...]
    points: FloatArray
    space: Space
    direction: str
    epochs: float | None
    description: Mapping[str, Any]
    seed: int

    def is_free(self, tried: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return which configurations are not evaluated yet, shape ``(n,)``."""
        free = np.ones(len(self.configs), dtype=bool)
        free[list(tried)] = False
        return free

    def snap(self, config: Mapping[str, Any], tried: Sequence[int]) -> int:
        """Return the configuration nearest to a proposal among those not evaluated yet."""
        return UnitCube(self.space).nearest(config, self.points, self.is_free(tried))

    def first_free(self, order: Iterable[int], tried: Sequence[int]) -> int:
        """Return the first index of an order that is not evaluated yet.

        Raises:
            ValueError: If there is none.
        """
        free = self.is_free(tried)
        for index in order:
            if free[index]:
                return int(index)
        raise ValueError("an order must hold a configuration that is not evaluated yet, but every one is")


@dataclass(frozen=True, slots=True)
class Trial:
    """A configuration that was trained, and its validation value in the task's units; None where it failed."""

    config: Mapping[str, Any]
    value: float | None


@dataclass(frozen=True, slots=True)
class SearchProblem:
    """What a method knows of a search in a space.

    Attributes:
        task: The task.
        size: ``tiny``, ``small`` or ``full``.
        seed: Seed of the search.
        budget: Evaluations in all.
        past: History with the runs of other tasks and, of this one, those of this search only; None for methods that use none.
        uses_starter: Whether the starter history may be used.
    """

    task: LiveTask
    size: str
    seed: int
    budget: int
    past: Path | None = None
    uses_starter: bool = False

    def seed_of(self, method: str, index: int) -> int:
        """Return the seed of one decision."""
        return zlib.crc32(f"{self.task.name} {method} {self.seed} {index}".encode())

    def as_pool(self, method: str, trials: Sequence[Trial]) -> NewTask:
        """Return the space as a pool: what was trained, then configurations drawn from the space, none twice; the same at each decision."""
        space = {name: next(iter(parse_space({name: given}).values())) for name, given in self.task.space().items()}
        seed = self.seed_of(method, 0)
        draws = np.random.default_rng(seed).random((N_DRAWN, len(space)))
        drawn = [{name: dim.from_unit(float(u)) for (name, dim), u in zip(space.items(), row, strict=True)} for row in draws]
        fresh = {repr(config): config for config in drawn if config not in [trial.config for trial in trials]}
        configs = (*(trial.config for trial in trials), *fresh.values())
        points = UnitCube(space).encode(configs)
        return NewTask(self.task.name, configs, points, space, self.task.direction, None, {}, seed)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What to train next, with what was expected of it and a remark."""

    config: dict[str, Any]
    prediction: RecordedPrediction | None = None
    note: str = ""


class Method(ABC):
    """A tuning method. It sees past runs, the configurations there are, and the outcomes of those it chose; nothing else.

    In a pool one object serves one fold and seed: ``learn`` once, then for each tested task ``start`` and ``choose``. In a space
    ``propose`` is called with everything trained so far and keeps nothing in between, so that an interrupted search goes on exactly as it
    would have.

    Attributes:
        name: Name in tables.
        task: The present task of a pool.
    """

    name: str
    is_slow: ClassVar[bool] = False
    """Whether a single task takes long, so that the tasks of a fold are spread over processes; for methods that learn nothing."""
    uses_past: ClassVar[bool] = False
    """Whether it learns from the runs of other tasks."""
    needs_pool: ClassVar[bool] = False
    """Whether it serves recorded runs only: it learns from past tasks of the same space, or keeps a state between its choices."""
    task: NewTask

    def learn(self, past: Past) -> None:  # noqa: B027  # not every method learns
        """Look at the past, once a fold and seed. The default forgets it."""

    def start(self, task: NewTask) -> None:
        """Meet a new task. An override calls this one."""
        self.task = task

    @abstractmethod
    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Choose what to evaluate next.

        Args:
            tried: Indices of the configurations evaluated so far, in their order.
            values: Their oriented outcomes, larger is better; NaN where the run diverged.

        Returns:
            Index of a configuration that is not in ``tried``.
        """

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return what to train next, None if nothing is left. The default chooses from configurations drawn from the space."""
        pool = problem.as_pool(self.name, trials)
        if len(pool.configs) == len(trials):
            return None
        self.start(pool)
        sign = -1.0 if problem.task.direction == "min" else 1.0
        values = [np.nan if trial.value is None else sign * trial.value for trial in trials]
        return Proposal(dict(pool.configs[self.choose(range(len(trials)), values)]))

    def close(self) -> None:  # noqa: B027  # most methods hold nothing
        """Release files, at the end of the fold."""


def filled(values: Sequence[float] | FloatArray) -> FloatArray:
    """Return outcomes with the worst finite one seen so far in place of NaN (0 if there is none), shape ``(n,)``."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    return np.where(np.isfinite(array), array, finite.min() if finite.size else 0.0)
