"""What a data set is made of: the sets of a dictionary, the base of a split, and the columns that it holds as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

MAX_WRAPPERS = 8
"""Wrappers around a data set that are followed; a data set that contains itself must not hang us."""
MAX_COLUMNS = 64
_MAX_ROWS = 10_000
_BLOCK = 16
"""Rows of a long series, or quarters of this many characters of a text, that count as one row: single numbers say too little."""

TOKENIZED = frozenset(
    str.split(
        "input_ids attention_mask token_type_ids special_tokens_mask position_ids offset_mapping overflow_to_sample_mapping word_ids "
        "length num_tokens completion_mask prompt_input_ids chosen_input_ids rejected_input_ids"
    )
)
"""Columns that a tokenizer makes."""
_ROW_NUMBERS = frozenset({"idx", "id", "__index_level_0__", "index"})
_ORDER_WORDS = frozenset(str.split("index indexes indices idx idxs perm permutation order weights cache cached rng seed seeds"))
"""Words of attributes that are as long as the data and are no content: an order drawn, weights of a sampler."""


def data_sets(dataset: object) -> list[Any]:
    """Return the data sets that a dictionary (a ``DatasetDict``, too) holds by name; anything else is one itself."""
    if not isinstance(dataset, Mapping) or not dataset or not all(isinstance(name, str) for name in dataset):
        return [dataset]
    return list(dataset.values())


def length_of(dataset: Any) -> int | None:
    """Return the number of samples; None for a stream, or where a user's ``__len__`` fails."""
    try:
        return len(dataset)
    except Exception:  # it may fail in any way
        return None


def sample_count(dataset: object) -> int | None:
    """Return the number of samples, over all data sets of a dictionary; None where one has no length."""
    sizes = [length_of(part) for part in data_sets(dataset)]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def unwrap(dataset: object) -> object:
    """Return the data set inside splits; the first one of a chain."""
    for _ in range(MAX_WRAPPERS):
        if isinstance(dataset, Subset):
            dataset = dataset.dataset
        elif isinstance(dataset, ConcatDataset) and dataset.datasets:
            dataset = dataset.datasets[0]
        else:
            break
    return dataset


def base_of(dataset: Any) -> Any:
    """Return the data set that holds the content: inside splits, and inside a user's wrapper around one other data set."""
    for _ in range(MAX_WRAPPERS):
        inner = dataset.dataset if isinstance(dataset, Subset) else _wrapped(dataset)
        if inner is None:
            break
        dataset = inner
    return dataset


def _wrapped(dataset: Any) -> Any:
    if isinstance(dataset, TensorDataset | ConcatDataset) or is_table(dataset) or not isinstance(dataset, Dataset):
        return None
    held = [value for value in vars(dataset).values() if isinstance(value, Dataset) or is_table(value)]
    return held[0] if len(held) == 1 and held[0] is not dataset and length_of(held[0]) == length_of(dataset) else None


def is_table(value: Any) -> bool:
    """Say whether a value is a map-style data set of Hugging Face ``datasets``."""
    is_hosted = type(value).__module__.startswith("datasets.") and hasattr(value, "column_names")
    return is_hosted and hasattr(type(value), "__len__") and not isinstance(value, IterableDataset)


def is_frame(value: Any) -> bool:
    """Say whether a value is a frame or a series of pandas or polars; neither is imported for it."""
    return type(value).__module__.partition(".")[0] in ("pandas", "polars")


def columns_of(dataset: Any, n: int) -> list[Any]:
    """Return the columns that a data set holds as a whole, ``n`` rows each or more; none where its samples are made on reading."""
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors)
    if is_table(dataset):
        return [dataset.data.column(name) for name in content_names(dict(dataset.features))]
    if isinstance(dataset, list | tuple):
        return [_rows(dataset)]
    if isinstance(dataset, np.ndarray | torch.Tensor) or is_frame(dataset):
        return list(_parts_of_column(dataset))
    if not isinstance(dataset, Dataset) or isinstance(dataset, IterableDataset):
        return []
    held = [value for name, value in vars(dataset).items() if _ORDER_WORDS.isdisjoint(words_of(name)) and not callable(value)]
    columns = [column for value in _distinct(held) for column in _parts_of_column(value) if length_of(column) == n]
    return (columns or [series for value in _distinct(held) for series in _series(value, n)])[:MAX_COLUMNS]


def _distinct(values: Sequence[Any]) -> list[Any]:
    return list({id(value): value for value in values}.values())


def _parts_of_column(value: Any) -> Iterator[Any]:
    """Yield the columns of a value: those of a frame, of a mapping, and an array or list itself."""
    if is_table(value):
        yield from columns_of(value, len(value))
    elif isinstance(value, Mapping):
        yield from (value[name] for name in content_names(value) if not isinstance(value[name], str))
    elif is_frame(value) and hasattr(value, "columns"):
        yield from (value[name] for name in list(value.columns)[:MAX_COLUMNS])
    elif isinstance(value, np.ndarray) and value.dtype.names:
        yield from (value[name] for name in value.dtype.names)
    elif isinstance(value, list | tuple):
        if value:
            yield _rows(value)
    elif (isinstance(value, np.ndarray | torch.Tensor) and value.ndim) or is_frame(value):
        yield value


def _rows(rows: Sequence[Any]) -> Sequence[Any]:
    """Return rows as they are, of mappings only what is content."""
    if not isinstance(rows[0], Mapping):
        return rows
    names = content_names(rows[0])
    return _Lazy(rows, names)


class _Lazy(Sequence[Any]):
    """Rows of mappings, reduced to some keys when they are read."""

    def __init__(self, rows: Sequence[Any], names: Sequence[str]) -> None:
        self._all, self._names = rows, names

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, item: Any) -> Any:
        if isinstance(item, slice):
            return [self._reduced(row) for row in self._all[item]]
        return self._reduced(self._all[item])

    def _reduced(self, row: Mapping[str, Any]) -> dict[str, Any]:
        return {name: row[name] for name in self._names if name in row}


def content_names(columns: Mapping[str, Any]) -> list[str]:
    """Return the columns that are content: not what a tokenizer made, where its source is there, and no numbers of rows."""
    names = [name for name in columns if isinstance(name, str) and name not in _ROW_NUMBERS]
    sources = [name for name in names if name not in TOKENIZED and name not in ("labels", "label", "label_ids")]
    if sources:
        is_tokenized = any(name in TOKENIZED for name in names)
        return [name for name in names if name not in TOKENIZED and not (is_tokenized and name == "labels" and "label" not in names)]
    return [name for name in names if name not in TOKENIZED or name.endswith("input_ids")] or names


def _series(value: Any, n: int) -> Iterator[Any]:
    """Yield what windows are cut from: an array or text that is longer than the data set, in blocks."""
    if isinstance(value, str) and len(value) > n:
        size = 4 * _BLOCK
        yield [value[i : i + size] for i in range(0, min(len(value), size * _MAX_ROWS), size)]
        return
    for column in _parts_of_column(value):
        if (length_of(column) or 0) <= n:
            continue
        array = column.to_numpy() if hasattr(column, "to_numpy") else column
        if isinstance(array, list):
            array = np.asarray(array) if all(type(item) in (int, float) for item in array[:_BLOCK]) else array
        if isinstance(array, np.ndarray | torch.Tensor) and len(array) >= _BLOCK:
            n_blocks = len(array) // _BLOCK
            yield array[: n_blocks * _BLOCK].reshape(n_blocks, -1)
        else:
            yield array


def words_of(name: str) -> list[str]:
    """Return the words of a name, in lower case: ``trainDataset.root_dir`` has four."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower())
