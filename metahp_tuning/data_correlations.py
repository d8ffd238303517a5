"""How the columns of a data set go together: alike in two draws of one data set, also where each draw was standardised by itself."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch

from metahp_tuning.data_parts import base_of, columns_of, data_sets, length_of
from metahp_tuning.data_sketch import as_array, spread

_log = logging.getLogger(__name__)

_MIN_ROWS = 40
"""Rows from which correlations say something."""
_MAX_ROWS = 2_000
_MAX_NUMBERS = 10
"""Numbers of a row that are looked at, spread over it, its target among them."""


def correlations_of(dataset: object) -> tuple[float, ...] | None:
    """Return the correlations of a few numbers of each row, which no change of units or offsets shows in.

    Args:
        dataset: A data set; only one that holds whole columns of numbers is looked at.

    Returns:
        The upper triangle of their matrix, ``d (d - 1) / 2`` numbers; None where there are too few rows or columns of numbers.
    """
    try:
        base = base_of(data_sets(dataset)[0])
        n = length_of(base)
        return None if not n or n < _MIN_ROWS else _correlations(base, n)
    except Exception as error:  # a user's data set may be anything
        _log.debug("no correlations of %s: %s", type(dataset).__name__, error, exc_info=True)
        return None


def _correlations(base: Any, n: int) -> tuple[float, ...] | None:
    arrays = [array for column in columns_of(base, n) if (array := as_array(column)) is not None and len(array) == n]
    if not arrays:
        return None
    step = max(1, n // _MAX_ROWS)
    parts = [_as_floats(spread(array[::step], max(1, _MAX_NUMBERS - len(arrays) + 1))) for array in arrays[:_MAX_NUMBERS]]
    table = np.nan_to_num(np.concatenate(parts, axis=1)[:, -_MAX_NUMBERS:], posinf=0.0, neginf=0.0)
    if table.shape[1] < 2:
        return None
    centred = table - table.mean(0)
    norms = np.sqrt(np.square(centred).sum(0))
    scaled = centred / np.where(norms > 0, norms, 1.0)  # a constant is correlated with nothing
    upper = (scaled.T @ scaled)[np.triu_indices(table.shape[1], 1)]
    return tuple(round(float(value), 2) + 0.0 for value in upper)


def _as_floats(rows: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    array = rows.float().cpu().numpy() if isinstance(rows, torch.Tensor) else np.asarray(rows)
    return array.reshape(len(array), -1).astype(np.float64)
