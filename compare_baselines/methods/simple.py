"""The simple methods: random search, grid, library defaults, the best of the past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from compare_baselines.methods.base import DEFAULTS, Method, NewTask, Past, Proposal, SearchProblem, Trial
from compare_baselines.methods.samplers import ask_sampler
from compare_baselines.methods.spaces import UnitCube
from metahp_report.comparison.records import GRID_LEVELS
from metamodel.space.batch import as_seen_by_model
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
        wanted = {**wanted, **as_seen_by_model(wanted)}  # the batch by either of its names: here it is the global one
        # Bounds first: a weight decay of 0 has no place on a logarithmic scale.
        config = {name: dim.snap(wanted[name]) for name, dim in self.task.space.items() if name in wanted and is_number(wanted[name])}
        return self.task.snap({**{name: dim.from_unit(0.5) for name, dim in self.task.space.items()}, **config}, tried)

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return the defaults once."""
        return None if trials else Proposal(dict(problem.task.defaults))


class Grid(Method):
    """What people do: three evenly spaced levels of every number and all labels, in random order, none twice."""

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

    def propose(self, problem: SearchProblem, trials: Sequence[Trial]) -> Proposal | None:
        """Return the next cell of the task's own grid; None when it is used up."""
        levels = problem.task.levels()
        cells = list(product(*levels.values()))
        order = np.random.default_rng(problem.seed_of(self.name, 0)).permutation(len(cells))
        return None if len(trials) >= len(cells) else Proposal(dict(zip(levels, cells[order[len(trials)]], strict=True)))


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
