"""The real data of the live tasks: from files in a folder, or whole from the Hugging Face hub.

Files of ``--data-dir`` (or of ``datasets/`` in it): ``imdb.parquet`` (columns ``split``, ``text``, ``label``), ``cifar10_jpeg.npz`` (packed
JPEGs: ``train_bytes``, ``train_offsets``, ``y_train``, the same for ``test``), ``titanic.csv`` (the 12 usual columns) and
``electricity.csv`` (the load of each hour in the order of time, in its last column of numbers, one named ``imputed`` apart).

On the hub: ``stanfordnlp/imdb`` (Maas et al. 2011), ``uoft-cs/cifar10`` (Krizhevsky 2009), ``julien-c/titanic-survival``, and the hourly
electricity of ``autogluon/chronos_datasets`` (the Monash archive, Godahewa et al. 2021; the clients' sum).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from store.errors import InvalidArgumentError

FILES = {"imdb": "imdb.parquet", "cifar10": "cifar10_jpeg.npz", "titanic": "titanic.csv", "electricity": "electricity.csv"}
"""Data set -> its file in a data folder."""
HUB_FILES = {
    "imdb": ("stanfordnlp/imdb", ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet")),
    "cifar10": ("uoft-cs/cifar10", ("plain_text/train-00000-of-00001.parquet", "plain_text/test-00000-of-00001.parquet")),
    "titanic": ("julien-c/titanic-survival", ("titanic.csv",)),
    "electricity": ("autogluon/chronos_datasets", ("monash_electricity_hourly/train-00000-of-00001.parquet",)),
}
"""Data set -> its repository on the Hugging Face hub and the files there."""


@dataclass(frozen=True, slots=True, eq=False)
class Reviews:
    """Texts with labels, 1 for a good review."""

    train: Sequence[tuple[str, int]]
    test: Sequence[tuple[str, int]]


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images ``(n, 32, 32, 3)``, bytes, with labels ``(n,)``."""

    train: npt.NDArray[np.uint8]
    y_train: npt.NDArray[np.int64]
    test: npt.NDArray[np.uint8]
    y_test: npt.NDArray[np.int64]


def data_file(folder: Path, dataset: str) -> Path:
    """Return the file of a data set in a folder.

    Raises:
        InvalidArgumentError: If it is not there.
    """
    name = FILES[dataset]
    for path in (folder / name, folder / "datasets" / name):
        if path.is_file():
            return path
    raise InvalidArgumentError(
        f"A data folder must hold {', '.join(FILES.values())}, but {folder} has no {name}. Pass another --data-dir, leave it out to load "
        "from the Hugging Face hub, or leave the task out of --tasks."
    )


def hub_files(dataset: str) -> list[Path]:
    """Return a data set's files from the Hugging Face hub, downloaded once into its cache.

    Raises:
        InvalidArgumentError: If the hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    repository, names = HUB_FILES[dataset]
    try:
        return [Path(hf_hub_download(repository, name, repo_type="dataset")) for name in names]
    except Exception as error:  # the hub's client has many errors for a missing network
        raise InvalidArgumentError(no_hub(repository, error)) from error


def no_hub(what: str, error: Exception) -> str:
    """Say in one sentence that something could not be loaded from the hub."""
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return (
        f"{what} must be loaded from the Hugging Face hub, but that failed: {reason:.200} Pass --data-dir with local files and --size "
        "small or tiny, which need no network, or set HF_ENDPOINT behind a proxy."
    )


@lru_cache(maxsize=2)
def load_reviews(folder: Path | None) -> Reviews:
    """Return the IMDB reviews.

    Raises:
        InvalidArgumentError: If the file is missing or malformed, or the hub cannot be reached.
    """
    import pyarrow.parquet as parquet

    if folder is None:
        train, test = (_texts(parquet.read_table(path), path) for path in hub_files("imdb"))
        return Reviews(train, test)
    path = data_file(folder, "imdb")
    table = parquet.read_table(path)
    if "split" not in table.column_names:
        raise InvalidArgumentError(_wrong_columns(path, ("split", "text", "label"), table.column_names))
    parts = table["split"].to_pylist()
    rows = _texts(table, path)
    return Reviews(
        [row for row, part in zip(rows, parts, strict=True) if part == "train"],
        [row for row, part in zip(rows, parts, strict=True) if part != "train"],
    )


def _texts(table: Any, path: Path) -> list[tuple[str, int]]:
    if not {"text", "label"} <= set(table.column_names):
        raise InvalidArgumentError(_wrong_columns(path, ("text", "label"), table.column_names))
    return list(zip(table["text"].to_pylist(), (int(label) for label in table["label"].to_pylist()), strict=True))


@lru_cache(maxsize=2)
def load_images(folder: Path | None) -> Images:
    """Return CIFAR-10.

    Raises:
        InvalidArgumentError: If the file is missing or malformed, or the hub cannot be reached.
    """
    if folder is None:
        import pyarrow.parquet as parquet

        tables = [parquet.read_table(path) for path in hub_files("cifar10")]
        parts = [(_decoded([row["bytes"] for row in table["img"].to_pylist()]), np.asarray(table["label"], np.int64)) for table in tables]
        return Images(*parts[0], *parts[1])
    path = data_file(folder, "cifar10")
    archive = np.load(path)
    needed = ("train_bytes", "train_offsets", "y_train", "test_bytes", "test_offsets", "y_test")
    if not set(needed) <= set(archive.files):
        raise InvalidArgumentError(_wrong_columns(path, needed, archive.files))

    def part(name: str) -> npt.NDArray[np.uint8]:
        packed, offsets = archive[f"{name}_bytes"], archive[f"{name}_offsets"]
        return _decoded([packed[start:end].tobytes() for start, end in pairwise(offsets)])

    return Images(part("train"), archive["y_train"].astype(np.int64), part("test"), archive["y_test"].astype(np.int64))


def _decoded(files: Sequence[bytes]) -> npt.NDArray[np.uint8]:
    from PIL import Image

    return np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files])


@lru_cache(maxsize=2)
def load_titanic(folder: Path | None) -> tuple[Mapping[str, list[Any]], npt.NDArray[np.int64]]:
    """Return the passengers, column name -> values with None where missing, and who survived.

    Raises:
        InvalidArgumentError: If the file is missing or malformed, or the hub cannot be reached.
    """
    from pyarrow import csv

    path = hub_files("titanic")[0] if folder is None else data_file(folder, "titanic")
    table = csv.read_csv(path, convert_options=csv.ConvertOptions(strings_can_be_null=True))
    short = {"Siblings/Spouses Aboard": "SibSp", "Parents/Children Aboard": "Parch"}
    columns = {short.get(name, name): table[name].to_pylist() for name in table.column_names}
    needed = ("Survived", "Pclass", "Sex", "Age", "SibSp", "Parch", "Fare")
    if not set(needed) <= set(columns):
        raise InvalidArgumentError(_wrong_columns(path, needed, list(columns)))
    survived = np.asarray(columns.pop("Survived"), np.int64)
    return {name: values for name, values in columns.items() if name in {*needed, "Embarked"}}, survived


@lru_cache(maxsize=2)
def load_electricity(folder: Path | None) -> npt.NDArray[np.float64]:
    """Return the hourly load in the order of time, shape ``(n,)``.

    Raises:
        InvalidArgumentError: If the file is missing or malformed, or the hub cannot be reached.
    """
    if folder is None:
        import pyarrow.parquet as parquet

        series = parquet.read_table(hub_files("electricity")[0])["target"].to_pylist()
        shortest = min(len(each) for each in series)
        total: npt.NDArray[np.float64] = np.asarray([each[-shortest:] for each in series], np.float64).sum(axis=0)
        return total
    from pyarrow import csv, types

    path = data_file(folder, "electricity")
    table = csv.read_csv(path)
    numbers = [
        item.name for item in table.schema if (types.is_floating(item.type) or types.is_integer(item.type)) and item.name != "imputed"
    ]
    if not numbers:
        raise InvalidArgumentError(_wrong_columns(path, ("a column of numbers, the load",), table.column_names))
    load: npt.NDArray[np.float64] = np.asarray(table[numbers[-1]].to_numpy(), np.float64)
    return load


def _wrong_columns(path: Path, needed: Sequence[str], found: Sequence[str]) -> str:
    return f"{path} must have {', '.join(needed)}, but has {', '.join(found)}. Pass another --data-dir."


def standardised(values: npt.NDArray[Any], train: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Standardise each column with the mean and deviation that it has in some rows.

    Args:
        values: Shape ``(n, ...)``.
        train: Row indices, shape ``(n_train,)``.

    Returns:
        The shape of ``values``. A column that is constant in the training rows (a digit's corner) is only centred. Values end at five
        deviations: a pixel that is nearly always empty has a tiny one, and must not become the largest input of all.
    """
    mean, deviation = values[train].mean(axis=0), values[train].std(axis=0)
    scaled = (values - mean) / np.where(deviation > 1e-6, deviation, 1.0)
    return np.asarray(np.clip(scaled, -5.0, 5.0), dtype=np.float32)
