"""A sketch of what data contain: the smallest hashes of their rows, the same on every machine.

The rows of two data sets with much in common share many of their smallest hashes (MinHash; A. Broder, "On the resemblance and
containment of documents", 1997), so folds and data that grow have overlapping sketches, and other data have none. Two stages keep it
cheap: a few values of each row choose the rows, and only these are hashed. Numbers are rounded coarsely, so that neither their precision
nor the last digit of a computed mean shows.
"""

from __future__ import annotations

import hashlib
import logging
import random
import time
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import ConcatDataset, IterableDataset, TensorDataset

from metahp_tuning.data_parts import base_of, columns_of, data_sets, is_frame, length_of
from metahp_tuning.random_states import preserved_counters, preserved_generators, preserved_rng

_log = logging.getLogger(__name__)

SKETCH_SIZE = 32
"""Hashes kept. Data sets that share a tenth of their rows are recognised with a probability of 97 %."""
_HASH_DIGITS = 12
_MAX_CELLS = 2**18
"""Numbers of a column looked at to choose rows."""
_MAX_CELLS_ON_DISK = 2**12
_MAX_PLAIN = 10_000
"""Rows looked at that are texts or numbers of Python."""
_MAX_OBJECTS = 2_000
"""Rows looked at that are other Python objects."""
_MAX_BYTES = 2**23
"""Bytes of a column of an Arrow table that become Python objects."""
_CHOOSING_WIDTH = 8
_HASHED_WIDTH = 64
"""Numbers of a row that choose it, and that are hashed: the more there are, the more rows a rounding changes."""
_TEXT_LENGTH = 512
"""Characters at the start and at the end of a text that are hashed."""
_MAX_PARTS = 8
_MAX_DEPTH = 2
_N_READS = 5
_N_REPEATED = 3
_SLOW_READ_S = 0.1
"""A sample that takes longer to make is not read again for a sketch."""

Words = npt.NDArray[np.uint64]


def sketch_of(dataset: object) -> tuple[str, ...] | None:
    """Return the sketch of a data set, None where its content cannot be read or is another each time.

    Whole columns are read where a data set holds them, and what transforms would make of them does not matter. Else a few samples are
    read twice under different random states.

    Args:
        dataset: A data set, unwrapped from its splits, or a list of them.
    """
    try:
        with preserved_rng(), preserved_generators(dataset):
            return _sketch(dataset, depth=0)
    except Exception as error:  # a user's data set may be anything
        _log.debug("no sketch of %s: %s", type(dataset).__name__, error, exc_info=True)
        return None


def _sketch(dataset: Any, depth: int) -> tuple[str, ...] | None:
    dataset = base_of(dataset)
    sets = dataset.datasets if isinstance(dataset, ConcatDataset) else data_sets(dataset)
    if sets != [dataset] and depth < _MAX_DEPTH:
        found = [_sketch(part, depth + 1) for part in sets[:_MAX_PARTS]]
        return None if None in found else tuple(sorted({text for part in found for text in part or ()})[:SKETCH_SIZE])
    n = length_of(dataset)
    if not n:
        return None
    # A table knows its rows before a split chose some of them.
    columns = [_Column(column, length_of(column) or n) for column in columns_of(dataset, n)]
    # Labels or row numbers by themselves are the same in many data sets.
    is_content = not all(column.is_whole_number for column in columns)
    hashes = _column_hashes(columns) if is_content or isinstance(dataset, TensorDataset | Sequence) else _sample_hashes(dataset, n)
    return None if hashes is None else tuple(sorted(set(hashes))[:SKETCH_SIZE])


def _column_hashes(columns: Sequence[_Column]) -> list[str]:
    n_rows = min(column.n_rows for column in columns)
    total = np.zeros(n_rows, dtype=np.uint64)
    for column in columns:  # a sum: renamed columns are the same data
        total += mixed(column.choosing_words(n_rows))
    _, first_rows = np.unique(total, return_index=True)  # sorted: the smallest first
    chosen = first_rows[:SKETCH_SIZE]
    width = sum(column.width for column in columns)
    digests = [column.digests(chosen, width) for column in columns]
    return [_hexadecimal(sum(int(words[i]) for words in digests)) for i in range(len(chosen))]


def _sample_hashes(dataset: Any, n: int) -> list[str] | None:
    """Read a few samples, some of them twice: what does not depend on random states is content."""
    if isinstance(dataset, IterableDataset) or not hasattr(type(dataset), "__getitem__"):
        return None
    positions = sorted({0, 1 % n, n // 3, n // 2, n - 1})[:_N_READS]
    with preserved_counters(dataset):
        _seed_all(1)
        started = time.perf_counter()
        words = [_digest(dataset[positions[0]])]
        if time.perf_counter() - started > _SLOW_READ_S:
            return None
        words += [_digest(dataset[position]) for position in positions[1:]]
        _seed_all(2)
        if any(_digest(dataset[position]) != word for position, word in list(zip(positions, words, strict=True))[:_N_REPEATED]):
            return None
    return [_hexadecimal(word) for word in words]


def _seed_all(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # it is what users' data sets draw from
    torch.default_generator.manual_seed(seed)


class _Column:
    """One value a row: numbers in an array, else Python objects."""

    def __init__(self, column: Any, n: int) -> None:
        self._numbers = as_array(column)
        self.width = 1
        if self._numbers is None:
            self._objects = _as_objects(column, n)
            self.n_rows = len(self._objects)
            self.is_whole_number = all(isinstance(item, int) for item in self._objects[:_TEXT_LENGTH])
        else:
            self.width = int(np.prod(self._numbers.shape[1:], dtype=np.int64))
            self.is_whole_number = self.width == 1 and "int" in str(self._numbers.dtype)
            n_cells = _MAX_CELLS_ON_DISK if isinstance(column, np.memmap) else _MAX_CELLS
            self.n_rows = min(n, max(1, n_cells // max(1, min(self.width, _CHOOSING_WIDTH))))

    def choosing_words(self, n_rows: int) -> Words:
        """Return one word for each of the first rows, made of a few of its values."""
        if self._numbers is None:
            return np.fromiter((zlib.crc32(_as_bytes(item)) for item in self._objects[:n_rows]), np.uint64, n_rows)
        words = _rounded(spread(self._numbers[:n_rows], _CHOOSING_WIDTH), self.width)
        return np.asarray((words * multipliers(words.shape[1])).sum(axis=1, dtype=np.uint64))

    def digests(self, chosen: npt.NDArray[np.intp], width: int) -> list[int]:
        """Return one number for each of the chosen rows of a data set whose rows have ``width`` numbers."""
        if self._numbers is None:
            return [_digest(self._objects[i]) for i in chosen]
        rows = _rounded(spread(self._numbers[chosen], _HASHED_WIDTH), width)
        return [_digest_bytes(row.astype("<u8").tobytes()) for row in rows]


def spread(rows: Any, width: int) -> Any:
    """Return at most so many numbers of each row: the middle of each of equal parts, since the edges of images are empty."""
    rows = rows.reshape(len(rows), -1)
    step = rows.shape[1] / width
    return rows if step <= 1 else rows[:, [int((i + 0.5) * step) for i in range(width)]]


def as_array(column: Any) -> npt.NDArray[Any] | torch.Tensor | None:
    """Return a column of numbers as an array or tensor, None for other columns."""
    if isinstance(column, torch.Tensor):
        if column.device.type == "meta" or column.layout is not torch.strided:
            return None
        # Indexing is ten times faster in numpy, which has no bfloat16.
        return column.detach() if column.device.type != "cpu" or column.dtype is torch.bfloat16 else column.detach().numpy()
    array = column.to_numpy() if is_frame(column) else column
    if isinstance(array, np.ndarray) and array.dtype.kind in "biuf":
        return array
    if isinstance(array, np.ndarray) and array.dtype.kind in "mM":
        return array.astype("datetime64[s]" if array.dtype.kind == "M" else "timedelta64[s]").astype(np.int64)
    return None


def _as_objects(column: Any, n: int) -> Sequence[Any]:
    if hasattr(column, "to_pylist"):  # Arrow, also in parts
        n = min(n, _MAX_PLAIN)
        per_row = max(1, int(column.nbytes) // max(1, len(column)))
        return list(column[: max(1, min(n, _MAX_BYTES // per_row))].to_pylist())
    if hasattr(column, "tolist"):
        return list(column[: min(n, _MAX_PLAIN)].tolist())
    n = min(n, _MAX_PLAIN if type(column[0]) in (str, int, float) else _MAX_OBJECTS)
    return column[:n]  # type: ignore[no-any-return]


def _rounded(rows: Any, width: int) -> Words:
    """Return numbers as words: whole ones as they are, others with the fewer digits the more of them a row has."""
    array = rows.float().cpu().numpy() if isinstance(rows, torch.Tensor) and rows.is_floating_point() else rows
    array = array.cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
    if array.dtype.kind != "f":
        return array.astype(np.int64).view(np.uint64) if array.dtype != np.uint64 else array
    bits = np.nan_to_num(array.astype(np.float32), nan=0.5) + np.float32(0.0)  # so that -0.0 is 0.0
    kept = max(3, min(10, 32 // max(1, width)))
    shift = 23 - kept
    return ((bits.view(np.uint32).astype(np.uint64) + np.uint64(1 << (shift - 1))) >> np.uint64(shift)).astype(np.uint64)


def multipliers(n: int) -> Words:
    """Return odd factors for ``n`` places of a row, so that their order counts in a sum."""
    return mixed(np.arange(1, n + 1, dtype=np.uint64)) | np.uint64(1)


def mixed(words: Words) -> Words:
    """Spread words over all bits (the finaliser of SplitMix64)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _as_bytes(value: Any) -> bytes:
    """Return what stands for a value: the ends of a text, the last two parts of a path, numbers rounded."""
    if isinstance(value, PurePath):
        value = str(value)
    if isinstance(value, str):
        if value.startswith(("/", "~", "./")) and len(value) < _TEXT_LENGTH:
            value = "/".join(value.replace("\\", "/").split("/")[-2:])
        ends: str = value if len(value) <= 2 * _TEXT_LENGTH else value[:_TEXT_LENGTH] + value[-_TEXT_LENGTH:]
        return ends.encode(errors="replace")
    if value is None or isinstance(value, bool | int):
        return repr(value).encode()
    if isinstance(value, bytes | bytearray):
        return bytes(value[:_TEXT_LENGTH]) + bytes(value[-_TEXT_LENGTH:]) + str(len(value)).encode()
    if isinstance(value, Mapping):
        return b"".join(str(key).encode() + _as_bytes(value[key]) for key in sorted(value, key=str))
    if isinstance(value, list | tuple) and not all(isinstance(item, bool | int | float) for item in value):
        return b"".join(_as_bytes(item) for item in value[:_TEXT_LENGTH])
    if hasattr(value, "getbands"):  # a PIL image
        value = np.asarray(value)
    with suppress(TypeError, ValueError, RuntimeError):
        array = as_array(value if isinstance(value, torch.Tensor) else np.asarray(value))
        if array is not None:
            words = _rounded(spread(array.reshape(1, -1), _HASHED_WIDTH), int(np.prod(array.shape)))
            return bytes(words.astype("<u8").tobytes())
    return type(value).__qualname__.encode()


def _digest(value: Any) -> int:
    return _digest_bytes(_as_bytes(value))


def _digest_bytes(value: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(value, digest_size=8).digest(), "little")


def _hexadecimal(number: int) -> str:
    return hashlib.blake2b(number.to_bytes(16, "little"), digest_size=_HASH_DIGITS // 2).hexdigest()
