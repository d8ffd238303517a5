"""Text as tokens in blocks of one length: how long they are, and pieces that stay the same where the text is cut otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import TensorDataset

from metahp_tuning.data_parts import is_table, unwrap
from metahp_tuning.data_sketch import SKETCH_SIZE, mixed, multipliers
from metahp_tuning.random_states import preserved_counters

_PIECE = 8
"""Tokens of a piece: few texts share so many in a row."""
_MIN_DISTINCT = 6
"""Different ones among them: padding, masks and sparse counts are alike in any data."""
_MAX_TOKENS = 2**14
"""Tokens at the start that pieces are taken of: the same text, however long its rows are."""
_HELD_ROWS, _MADE_ROWS = (256, 64), (16, 8)
"""Rows looked at, of the first ones and of all: of what a data set holds, and of what it makes when it is read."""


def token_blocks(dataset: Any, tokens_of: Callable[[Any], Any]) -> tuple[int | None, tuple[str, ...] | None]:
    """Return the length that all rows of tokens have, and the smallest hashes of pieces of them; None where lengths differ.

    Args:
        dataset: A data set with an index.
        tokens_of: From a sample to its tokens.

    Raises:
        Exception: Whatever the data set raises when it is read.
    """
    dataset = _in_its_own_order(dataset)
    n, (n_first, n_further) = len(dataset), _HELD_ROWS if is_table(dataset) or isinstance(dataset, TensorDataset) else _MADE_ROWS
    with preserved_counters(dataset):
        first = [np.asarray(tokens_of(dataset[0]), dtype=np.int64)]
        n_first = min(n, n_first, max(1, _MAX_TOKENS // max(1, len(first[0]))))
        first += [np.asarray(tokens_of(dataset[i]), dtype=np.int64) for i in range(1, n_first)]
        further = {len(tokens_of(dataset[i])) for i in sorted({i * n // n_further for i in range(n_further)}) if i >= n_first}
    lengths = {len(row) for row in first} | further | _lengths_in_table(dataset)
    if len(lengths) != 1 or n < _PIECE:
        return None, None
    (length,) = lengths
    return (length if length > 1 else None), _pieces(np.stack(first)) if length > _PIECE else None


def _in_its_own_order(dataset: Any) -> Any:
    """Return a data set before a split, a shuffle or a selection, so that these change nothing of what is found."""
    base: Any = unwrap(dataset)
    if is_table(base) and base.format["type"] != "custom":  # else its rows are made when they are read
        return type(base)(base.data, fingerprint="rows")  # a made one hashes the whole table
    return base


def _pieces(rows: npt.NDArray[np.int64]) -> tuple[str, ...] | None:
    windows = np.lib.stride_tricks.sliding_window_view(rows, _PIECE, axis=1).reshape(-1, _PIECE)
    windows = windows[(np.diff(np.sort(windows, axis=1), axis=1) != 0).sum(axis=1) + 1 >= _MIN_DISTINCT]
    words = mixed((windows.astype(np.uint64) * multipliers(_PIECE)).sum(axis=1, dtype=np.uint64))
    return tuple(f"{word:016x}" for word in np.unique(words)[:SKETCH_SIZE].tolist()) or None


def _lengths_in_table(dataset: Any) -> set[int]:
    """Return the least and the largest length of the rows of a Hugging Face data set, without reading them."""
    with suppress(Exception):  # any other data set, or tokens under another name
        import pyarrow.compute

        found = pyarrow.compute.min_max(pyarrow.compute.list_value_length(dataset.data.column("input_ids"))).as_py()
        return {found["min"], found["max"]}
    return set()
