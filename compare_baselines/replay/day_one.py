"""Replay of the first day: no past run of one's own, the starter history is all there is.

What a recorded table calls its hyperparameters, and what all of its runs had in common, stands in a mapping file:

    {"names": {"alpha": "weight_decay"}, "known": {"model_family": "mlp", "optimizer": "Adam"}, "defaults": {"learning_rate": 0.001}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from compare_baselines.methods.base import CONTEXT, DEFAULTS, Past
from compare_baselines.methods.simple import LIBRARY_DEFAULTS
from compare_baselines.methods.spaces import space_of
from compare_baselines.replay.protocol import Benchmark
from metamodel.space.encoding import column_order
from store.errors import InvalidArgumentError
from store.names import canonical_name


@dataclass(frozen=True, slots=True)
class TableMapping:
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
    def load(cls, path: Path) -> TableMapping:
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


def day_one(benchmark: Benchmark, mapping: TableMapping) -> DayOneBenchmark:
    """Turn a benchmark into one of the first day.

    Args:
        benchmark: What was recorded.
        mapping: What its names mean.

    Raises:
        InvalidArgumentError: If a name of the mapping does not occur.
    """
    names = {canonical_name(raw): canonical_name(name) for raw, name in mapping.names.items()}
    unknown = [name for name in names if name not in benchmark.space]
    if unknown:
        raise InvalidArgumentError(
            f"A name to map must occur in the runs, but got {unknown[0]!r}; possible are {', '.join(benchmark.space)}."
        )
    known = {CONTEXT: dict(mapping.known), DEFAULTS: {canonical_name(name): value for name, value in mapping.defaults.items()}}
    pools = {
        name: replace(
            pool,
            configs=tuple({names.get(key, key): value for key, value in config.items()} for config in pool.configs),
            description={**pool.description, **known},
        )
        for name, pool in benchmark.pools.items()
    }
    space = {names.get(name, name): replace(dim, raw_name=names.get(name, dim.raw_name)) for name, dim in benchmark.space.items()}
    ordered = {name: space[name] for name in sorted(space, key=column_order)} or space_of([])
    return DayOneBenchmark(pools, ordered, benchmark.objective, benchmark.protocol, benchmark.notes)
