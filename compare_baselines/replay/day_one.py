"""Replay of the first day: no past run of one's own, the starter history is all there is.

What a recorded table calls its hyperparameters, and what all of its runs had in common, is said in a mapping file:

    {"names": {"alpha": "weight_decay"}, "known": {"model_family": "mlp", "optimizer": "Adam"}, "defaults": {"learning_rate": 0.001}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from compare_baselines.replay.metahp import MetaHP
from compare_baselines.replay.methods import Method, NewTask, Past
from compare_baselines.replay.protocol import Benchmark
from compare_baselines.replay.spaces import space_of
from metamodel.space.batch import as_seen_by_model
from metamodel.space.dimensions import is_number
from metamodel.starter.scope import is_off
from store.errors import InvalidArgumentError
from store.names import canonical_name

CONTEXT, DEFAULTS = "context", "defaults"
"""Keys of a pool's description that only the methods of this module read."""
LIBRARY_DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 1e-3,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "momentum": 0.9,
    "batch_size": 32,
    "num_layers": 2,
    "hidden_size": 100,
}
"""What one writes who has no idea: Adam's own step size, no regularisation, a batch of 32, a small network."""


@dataclass(frozen=True)
class Table:
    """What a recorded table means.

    Attributes:
        names: Its hyperparameters -> canonical names, where these are not known aliases.
        known: What all of its runs had in common: ``model_family``, ``optimizer``, ``num_epochs``, ...
        defaults: What somebody without advice would run.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    known: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=lambda: LIBRARY_DEFAULTS)

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a mapping file.

        Raises:
            InvalidArgumentError: If it is no JSON object of ``names``, ``known`` and ``defaults``.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(content, dict) or not all(isinstance(part, dict) for part in content.values()):
                raise TypeError("it must be an object of objects")
            return cls(**content)
        except (OSError, ValueError, TypeError) as error:
            raise InvalidArgumentError(
                f"A mapping file must be a JSON object with names, known and defaults, each of them an object, but {str(path)!r} is not: "
                f"{error}. For example: " + '{"names": {"alpha": "weight_decay"}, "known": {"model_family": "mlp", "optimizer": "Adam"}}.'
            ) from error


class DayOneBenchmark(Benchmark):
    """A benchmark without a past: every task is tested, none is known."""

    def folds(self) -> list[tuple[list[str], list[str]]]:
        """Return one fold: nothing known, everything tested."""
        return [([], list(self.pools))]

    def past(self, names: Sequence[str], seed: int) -> Past:
        """Return an empty past."""
        return Past((), self.space, self.objective, seed)

    def describe(self) -> dict[str, Any]:
        """Return the protocol as it is reported."""
        return {**super().describe(), "n_hist": 0, "folds": 1}


def day_one(benchmark: Benchmark, table: Table) -> DayOneBenchmark:
    """Turn a benchmark into one of the first day.

    Args:
        benchmark: What was recorded.
        table: What its names mean.

    Raises:
        InvalidArgumentError: If a name of the mapping does not occur.
    """
    names = {canonical_name(raw): canonical_name(name) for raw, name in table.names.items()}
    unknown = [name for name in names if name not in benchmark.space]
    if unknown:
        raise InvalidArgumentError(
            f"A name to map must occur in the runs, but got {unknown[0]!r}; possible are {', '.join(benchmark.space)}."
        )
    said = {CONTEXT: dict(table.known), DEFAULTS: _by_any_name(table.defaults)}
    pools = {
        name: replace(
            pool,
            configs=tuple({names.get(key, key): value for key, value in config.items()} for config in pool.configs),
            description={**pool.description, **said},
        )
        for name, pool in benchmark.pools.items()
    }
    space = {names.get(name, name): replace(dim, raw_name=names.get(name, dim.raw_name)) for name, dim in benchmark.space.items()}
    ordered = {name: space[name] for name in sorted(space)} or space_of([])
    return DayOneBenchmark(pools, ordered, benchmark.objective, benchmark.protocol, benchmark.notes)


class Starter(MetaHP):
    """The public ``recommend`` on an empty history, which has nothing but the starter history to go by, and then the task's own runs."""

    name = "starter"

    def learn(self, past: Past) -> None:
        """Make an empty history.

        Raises:
            InvalidArgumentError: If there is a past, or the starter history is switched off.
        """
        super().learn(replace(past, tasks=()))
        if past.tasks or is_off():
            reason = "METAHP_STARTER switches it off" if is_off() else f"there are {len(past.tasks)} past tasks"
            raise InvalidArgumentError(f"The method 'starter' needs the starter history and no other, but {reason}. Use replay --starter.")

    def start(self, task: NewTask) -> None:
        """Say what is known of the task's runs."""
        super().start(task)
        self._task = replace(self._task, model_family=self.known().get("model_family"), is_pretrained=False)

    def known(self) -> dict[str, Any]:
        """Return what all runs of the table had in common."""
        return dict(self.task.description.get(CONTEXT, {}))


class Defaults(Method):
    """Library defaults first, as near as the recorded runs come to them, then random ones."""

    name = "defaults"

    def start(self, task: NewTask) -> None:
        """Shuffle the rest."""
        super().start(task)
        self._order = np.random.default_rng(task.seed).permutation(len(task.configs))

    def choose(self, tried: Sequence[int], values: Sequence[float]) -> int:
        """Return the defaults, then the next one of the shuffled pool."""
        if tried:
            return self.task.first_free(self._order, tried)
        wanted = self.task.description.get(DEFAULTS) or _by_any_name(LIBRARY_DEFAULTS)
        # Bounds first: a weight decay of 0 has no place on a logarithmic scale.
        config = {name: dim.snap(wanted[name]) for name, dim in self.task.space.items() if name in wanted and is_number(wanted[name])}
        return self.task.snap({**{name: dim.from_unit(0.5) for name, dim in self.task.space.items()}, **config}, tried)


def _by_any_name(defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return defaults by canonical name; the batch, which is the global one, also by the name that the meta-model knows."""
    named = {canonical_name(name): value for name, value in defaults.items()}
    return {**named, **as_seen_by_model(named)}
