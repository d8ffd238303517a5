"""The simple methods: random search, grid, library defaults, the best of the past."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from compare_baselines.methods.base import DEFAULTS, Method, NewTask, Past, Proposal, SearchProblem, Trial
from compare_baselines.methods.samplers import ask_sampler
from compare_baselines.methods.spaces import UnitCube
from metahp_report.comparison.records import GRID_LEVELS
from metamodel.space.dimensions import Dimension, is_number
from store.hyperparameters import GLOBAL_BATCH_SIZE

LIBRARY_DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "momentum": 0.9,
    GLOBAL_BATCH_SIZE: 32,
    "num_layers": 2,
    "hidden_size": 100,
}
"""What one writes who has no idea: Adam's own step size, no regularisation, a batch of 32, a small network."""


MAX_SHUFFLED = 100_000
"""Cells up to which a whole grid is shuffled; of a larger one only as many numbers are drawn as can be tried."""


class Random(Method):
    """Random search. In a pool the figures take its exact expectation, and this draw only where somebody asks for one.

    In a space the draws are independent: one of a small grid may come twice, as it does in practice.
    """

    name = "random"

    def start(self, task: NewTask) -> None:
        """Shuffle the pool."""
        super().start(task)
        self._order = np.random.default_rng(task.seed).permutation(len(task.configs))

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the next one of the shuffled pool."""
        return self.task.first_free(self._order, tried)

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return a draw."""
        from optuna.samplers import RandomSampler

        return Proposal(ask_sampler(problem, (), RandomSampler(seed=problem.seed_of(self.name, len(trials)))))


class Default(Random):
    """What the libraries do where nobody sets anything: in a space one evaluation, in a pool as near as it comes, then random ones."""

    name = "default"

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the defaults, then the next one of the shuffled pool."""
        if tried:
            return super().choose(tried, values)
        wanted = self.task.description.get(DEFAULTS, LIBRARY_DEFAULTS)
        # Bounds first: a weight decay of 0 has no place on a logarithmic scale.
        config = {name: dim.snap(wanted[name]) for name, dim in self.task.space.items() if name in wanted and is_number(wanted[name])}
        return self.task.snap({**{name: dim.from_unit(0.5) for name, dim in self.task.space.items()}, **config}, tried)

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return the defaults once."""
        return None if trials else Proposal(dict(problem.task.defaults))


class Control(Default):
    """The defaults with something else in place: one evaluation, which asks nobody.

    Attributes:
        changes: What is not as the libraries have it.
    """

    changes: ClassVar[Mapping[str, Any]]

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return the defaults with the changes, once."""
        return None if trials else Proposal({**problem.task.defaults, **self.changes})


class ConstantHundredth(Control):
    """One learning rate for everything: a hundredth."""

    name = "constant-1e-2"
    changes: ClassVar[Mapping[str, Any]] = {"learning_rate": 1e-2}


class ConstantThreeThousandths(Control):
    """One learning rate for everything: three thousandths."""

    name = "constant-3e-3"
    changes: ClassVar[Mapping[str, Any]] = {"learning_rate": 3e-3}


class ScheduleFree(Control):
    """Schedule-free AdamW (Defazio et al. 2024) as its package has it."""

    name = "schedule-free"
    changes: ClassVar[Mapping[str, Any]] = {"optimizer": name, "learning_rate": 2.5e-3}


class Prodigy(Control):
    """Prodigy (Mishchenko and Defazio 2023) as its package has it: it estimates the step size."""

    name = "prodigy"
    changes: ClassVar[Mapping[str, Any]] = {"optimizer": name, "learning_rate": 1.0}


class Grid(Method):
    """What people do: three evenly spaced levels of every number and all labels, in random order, none twice."""

    name = "grid"

    def start(self, task: NewTask) -> None:
        """Shuffle the grid."""
        super().start(task)
        self._rng = np.random.default_rng(task.seed)
        self._cells = GridCells({name: _levels(dim) for name, dim in task.space.items()})
        self._order = self._cells.drawn(len(task.configs), self._rng)

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the next cell, snapped; when the grid is used up, a random configuration."""
        if self._order:
            return self.task.snap(self._cells[self._order.pop()], tried)
        return self.task.first_free(self._rng.permutation(len(self.task.configs)), tried)

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return the next cell of the task's own grid; None when it is used up."""
        cells = GridCells(problem.task.levels())
        if len(trials) >= cells.size:
            return None
        order = cells.drawn(len(trials) + 1, np.random.default_rng(problem.seed_of(self.name, 0)))
        return Proposal(cells[order[len(trials)]])


class GridCells:
    """The cells of a grid by their number, in the order of ``itertools.product``; none is built before it is asked for."""

    def __init__(self, levels: Mapping[str, Sequence[Any]]) -> None:
        self._levels = levels
        self.size = math.prod(map(len, levels.values()))

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Return a cell: its number read as digits, one a name, the last one fastest."""
        cell = {}
        for name, values in reversed(list(self._levels.items())):
            number, digit = divmod(number, len(values))
            cell[name] = values[digit]
        return {name: cell[name] for name in self._levels}

    def drawn(self, n: int, rng: np.random.Generator) -> list[int]:
        """Draw numbers of different cells: at least ``n``, or all there are. The first ones do not depend on ``n``."""
        if self.size <= MAX_SHUFFLED:
            return [int(number) for number in rng.permutation(self.size)]
        # numpy's integers end at 64 bits, and 3 ** 41 cells do not
        draw, found = random.Random(int(rng.integers(2**63))), dict[int, None]()
        while len(found) < min(n, self.size):
            found[draw.randrange(self.size)] = None
        return list(found)


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
    uses_past = needs_pool = True

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
