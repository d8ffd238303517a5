"""Text as tokens in blocks of one length: how long they are, and pieces that stay the same where the text is cut otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from metahp_tuning.data_sketch import SKETCH_SIZE, mixed, multipliers

_PIECE = 8
"""Tokens of a piece: few texts share so many in a row."""
_FIRST_ROWS, _FURTHER_ROWS = 128, 64
"""Rows looked at: the first ones, which hold the same text however it is cut, and some of all others."""


def token_blocks(dataset: Any, n_samples: int, tokens_of: Callable[[Any], Any]) -> tuple[int | None, tuple[str, ...] | None]:
    """Return the length that all rows of tokens have, and the smallest hashes of pieces of them; None where lengths differ.

    Args:
        dataset: A data set with an index.
        n_samples: Its number of rows.
        tokens_of: From a sample to its tokens.

    Raises:
        Exception: Whatever the data set raises when it is read.
    """
    positions = sorted({*range(min(n_samples, _FIRST_ROWS)), *(i * n_samples // _FURTHER_ROWS for i in range(_FURTHER_ROWS))})
    rows = [np.asarray(tokens_of(dataset[i]), dtype=np.int64) for i in positions]
    lengths = {len(row) for row in rows} | _lengths_in_table(dataset)
    if len(lengths) != 1 or len(rows) < _PIECE:
        return None, None
    (length,) = lengths
    if length <= _PIECE:
        return (length if length > 1 else None), None
    windows = np.lib.stride_tricks.sliding_window_view(np.stack(rows[:_FIRST_ROWS]), _PIECE, axis=1).reshape(-1, _PIECE)
    words = mixed((windows.astype(np.uint64) * multipliers(_PIECE)).sum(axis=1, dtype=np.uint64))
    return length, tuple(f"{word:016x}" for word in np.unique(words)[:SKETCH_SIZE].tolist())


def _lengths_in_table(dataset: Any) -> set[int]:
    """Return the least and the largest length of the rows of a Hugging Face data set, without reading them."""
    with suppress(Exception):  # any other data set, or tokens under another name
        import pyarrow.compute

        found = pyarrow.compute.min_max(pyarrow.compute.list_value_length(dataset.data.column("input_ids"))).as_py()
        return {found["min"], found["max"]}
    return set()
