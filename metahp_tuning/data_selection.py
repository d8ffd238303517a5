"""What a part of a data set was chosen by: a random split has all common values of each column, a filter lacks some.

Parts are described by the whole they were taken from, so that another seed of a split is the same task. One language, domain or class of it
is not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from metahp_tuning.data_parts import base_of, columns_of, is_table, length_of

_N_ROWS = 1_000
"""Rows of whole and part that are compared."""
_MAX_VALUES = 50
_MIN_EXPECTED = 30
"""A value that a random part would have this often is missing by choice."""


def selection_of(dataset: Any) -> dict[str, Any]:
    """Return which values a part has of the columns that it was chosen by, as a digest under ``selected``; nothing for a random part."""
    base, indices = _chosen_rows(dataset)
    n = None if base is None else length_of(base)
    if indices is None or not n or not len(indices):
        return {}
    part = indices[_spread(len(indices))]
    texts = []
    for number, column in enumerate(columns_of(base, n)):
        size = length_of(column) or 0
        whole = Counter(_values(column, _spread(size)))
        if not 1 < len(whole) <= _MAX_VALUES or any(isinstance(value, float) for value in whole):
            continue
        present, total = set(_values(column, part[part < size])), sum(whole.values())
        if any(value not in present and count / total * len(part) >= _MIN_EXPECTED for value, count in whole.items()):
            texts.append(f"{number}: {sorted(map(str, present))}")
    return {"selected": hashlib.sha256(repr(texts).encode()).hexdigest()[:8]} if texts else {}


def _chosen_rows(dataset: Any) -> tuple[Any, Any]:
    """Return the whole, and the rows of it that a part has; None where it is no part of anything."""
    if isinstance(dataset, Subset):
        base, chosen = _chosen_rows(dataset.dataset)
        indices = np.asarray(dataset.indices)
        return base, indices if chosen is None else np.asarray(chosen)[indices]
    chosen_rows = getattr(dataset, "_indices", None) if is_table(dataset) else None
    return base_of(dataset), None if chosen_rows is None else chosen_rows.column(0).to_numpy()


def _spread(n: int) -> Any:
    return np.unique(np.linspace(0, n - 1, min(n, _N_ROWS)).astype(np.int64))


def _values(column: Any, rows: Any) -> Sequence[Any]:
    """Return the values of some rows, where there is one plain value a row."""
    if hasattr(column, "take") and hasattr(column, "to_pylist"):
        values = column.take(rows).to_pylist()
    elif isinstance(column, np.ndarray | torch.Tensor):
        values = column[rows].tolist() if column.ndim == 1 else []
    else:
        values = [column[int(row)] for row in rows]
        values = [value[-1] if isinstance(value, tuple) and value else value for value in values]  # a file and its class
    return values if all(isinstance(value, str | int | float) for value in values) else []
