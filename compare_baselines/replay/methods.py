"""The interface of a method, and the simple ones: grid, the best of the past, and random search as the exact expectation.

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

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from compare_baselines.replay.spaces import UnitCube
from metamodel.space.dimensions import Dimension, Space

FloatArray = npt.NDArray[np.float64]

GRID_LEVELS = 3
"""Levels of a number in the grid: low, middle and high, as people write them down."""


@dataclass(frozen=True, eq=False)
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
        endings: How each run ended, ``completed``, ``interrupted``, ``diverged`` or ``oom``; empty: the outcomes say it.
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


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True, eq=False)
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


class Method(ABC):
    """A tuning method. One object serves one fold and seed: ``learn`` once, then for each tested task ``start`` and ``choose``.

    It sees the past runs, the configurations of the pool and the outcomes of those it chose; nothing else of the pool.

    Attributes:
        name: Name in tables.
        task: The present task.
    """

    name: ClassVar[str]
    is_slow: ClassVar[bool] = False
    """Whether a single task takes long, so that the tasks of a fold are spread over processes; for methods that learn nothing."""
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

    def close(self) -> None:  # noqa: B027  # most methods hold nothing
        """Let go of files, at the end of the fold."""


def filled(values: Sequence[float] | FloatArray) -> FloatArray:
    """Return outcomes with the worst finite one seen so far in place of NaN (0 if there is none), shape ``(n,)``."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    return np.where(np.isfinite(array), array, finite.min() if finite.size else 0.0)


class Random(Method):
    """Random search; the figures take its exact expectation, and this draw only where somebody asks for one."""

    name = "random"

    def start(self, task: NewTask) -> None:
        """Shuffle the pool."""
        super().start(task)
        self._order = np.random.default_rng(task.seed).permutation(len(task.configs))

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the next one of the shuffled pool."""
        return self.task.first_free(self._order, tried)


class Grid(Method):
    """What people do: three evenly spaced levels of every number and all labels, in random order."""

    name = "grid"

    def start(self, task: NewTask) -> None:
        """Shuffle the grid."""
        super().start(task)
        self._rng = np.random.default_rng(task.seed)
        levels = [_levels(dim) for dim in task.space.values()]
        cells = list(product(*levels))
        self._cells = [dict(zip(task.space, cells[i], strict=True)) for i in self._rng.permutation(len(cells))]

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the next cell, snapped; when the grid is used up, a random configuration."""
        if self._cells:
            return self.task.snap(self._cells.pop(), tried)
        return self.task.first_free(self._rng.permutation(len(self.task.configs)), tried)


def _levels(dim: Dimension) -> list[Any]:
    if not dim.is_numeric:
        return list(dim.choices or ())
    if dim.choices is not None:
        return list(dict.fromkeys(dim.choices[round(i * (len(dim.choices) - 1) / (GRID_LEVELS - 1))] for i in range(GRID_LEVELS)))
    shares = np.linspace(0.0, 1.0, GRID_LEVELS)
    if dim.is_log:
        return list(dict.fromkeys(dim.snap(dim.low * (dim.high / dim.low) ** float(share)) for share in shares))
    return list(dict.fromkeys(dim.snap(dim.low + float(share) * (dim.high - dim.low)) for share in shares))


class BestOfPast(Method):
    """The best known configuration of each past task, shuffled; when they are used up, random ones."""

    name = "best-of-past"

    def learn(self, past: Past) -> None:
        """Remember the best configuration of each past task."""
        self._best = [task.configs[int(task.values.argmax())] for task in past.tasks]

    def start(self, task: NewTask) -> None:
        """Shuffle them."""
        super().start(task)
        self._rng = np.random.default_rng(task.seed)
        self._queue = [self._best[i] for i in self._rng.permutation(len(self._best))]

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the next one, snapped; one that was already evaluated is passed over."""
        everything = np.ones(len(self.task.configs), dtype=bool)
        while self._queue:
            index = UnitCube(self.task.space).nearest(self._queue.pop(), self.task.points, everything)
            if index not in tried:
                return index
        return self.task.first_free(self._rng.permutation(len(self.task.configs)), tried)
