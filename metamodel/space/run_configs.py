"""Configurations of a task's runs, kept by hyperparameter: a history of 10,000 runs is asked for a few columns, seldom for each run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

from store.sqlite.cache import ABSENT

Config = Mapping[str, Any]


class ConfigColumns(Sequence[Config]):
    """The configurations of ``n`` runs as columns; each run's own mapping is put together when it is asked for.

    Args:
        n: How many runs.
        same: Hyperparameters with one value in all runs.
        each: The others: name -> one value a run; ``ABSENT`` where a run does not have it.

    Raises:
        ValueError: If a column has another length.
    """

    def __init__(self, n: int, same: Mapping[str, Any], each: Mapping[str, Sequence[Any]]) -> None:
        if any(len(column) != n for column in each.values()):
            raise ValueError(f"columns must have {n} values, got {[len(column) for column in each.values()]}")
        self._n, self._same, self._each = n, dict(same), dict(each)

    def __len__(self) -> int:
        """Return the number of runs."""
        return self._n

    @overload
    def __getitem__(self, index: int) -> Config: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Config, ...]: ...

    def __getitem__(self, index: int | slice) -> Config | tuple[Config, ...]:
        """Return the configuration of one run, or of several."""
        return tuple(self._row(i) for i in range(self._n)[index]) if isinstance(index, slice) else self._row(range(self._n)[index])

    def __iter__(self) -> Iterator[Config]:
        """Return the configurations, oldest run first."""
        if not self._each:
            return (dict(self._same) for _ in range(self._n))
        names = tuple(self._each)
        return (self._put_together(names, values) for values in zip(*self._each.values(), strict=True))

    def column(self, name: str) -> list[Any]:
        """Return the value of a hyperparameter in each run, None where a run does not have it."""
        if name in self._each:
            return [None if value is ABSENT else value for value in self._each[name]]
        return [self._same.get(name)] * self._n

    def _row(self, index: int) -> Config:
        return self._put_together(tuple(self._each), [column[index] for column in self._each.values()])

    def _put_together(self, names: Sequence[str], values: Sequence[Any]) -> Config:
        return {**self._same, **{name: value for name, value in zip(names, values, strict=True) if value is not ABSENT}}


def column_of(configs: Sequence[Config], name: str) -> list[Any]:
    """Return the value of a hyperparameter in each configuration, None where one does not have it."""
    return configs.column(name) if isinstance(configs, ConfigColumns) else [config.get(name) for config in configs]


def varies(configs: Sequence[Config], name: str) -> bool:
    """Say whether a hyperparameter has more than one value, or is missing in some configurations."""
    return len(set(map(repr, column_of(configs, name)))) > 1
