"""The demonstration's data: real data sets that ship with scikit-learn, split, standardised and served as a Lightning data module.

Nothing is downloaded. Tables keep one dimension, images two; a family of models decides for itself what it makes of that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from compare_baselines.live.data import standardised
from store.errors import InvalidArgumentError

VALIDATION_SHARE = 0.4
"""Large on purpose: of 150 irises 60 validate, so one flower is 1.7 % and not 5 %."""

PATCH_SIZE = 8
"""Edge of a photo patch in pixels, the size of a digit."""

PATCHES_PER_PHOTO = 500
"""With two photos about as many samples as the other data sets have; more would only cost time."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """One data set in memory.

    Attributes:
        name: Short name.
        inputs: Raw inputs, shape ``(n, *input_shape)``, float32: one dimension for a table, two for an image.
        targets: Shape ``(n,)``; int64 class indices, or float32 values for regression.
        n_classes: Number of classes, None for regression.
    """

    name: str
    inputs: NDArray[np.float32]
    targets: NDArray[np.int64] | NDArray[np.float32]
    n_classes: int | None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.inputs.shape[1:])

    @property
    def objective(self) -> str:
        """Name of the metric to optimise: validation accuracy, or mean squared error in units of the training variance."""
        return "val_loss" if self.n_classes is None else "val_acc"


def _table(load: Callable[..., tuple[NDArray[np.float64], NDArray[np.int64]]]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return load(return_X_y=True)


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    bunch = datasets.load_digits()
    return bunch.images, bunch.target


def _photos() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Grey patches of scikit-learn's two sample photographs; the class is the photo a patch was cut from."""
    rng = np.random.default_rng(0)
    inputs, targets = [], []
    for label, photo in enumerate(datasets.load_sample_images().images):
        grey = np.asarray(photo, dtype=np.float64).mean(axis=2)
        rows = rng.integers(0, grey.shape[0] - PATCH_SIZE, PATCHES_PER_PHOTO)
        columns = rng.integers(0, grey.shape[1] - PATCH_SIZE, PATCHES_PER_PHOTO)
        for row, column in zip(rows, columns, strict=True):
            patch = grey[row : row + PATCH_SIZE, column : column + PATCH_SIZE]
            # Without its own mean: brightness by itself would separate the photos, and every model would be perfect.
            inputs.append(patch - patch.mean())
            targets.append(label)
    return np.stack(inputs), np.asarray(targets)


_LOADERS: dict[str, Callable[[], tuple[NDArray[np.float64], NDArray[np.int64]]]] = {
    "breast_cancer": lambda: _table(datasets.load_breast_cancer),
    "diabetes": lambda: _table(datasets.load_diabetes),
    "digits": _digits,
    "iris": lambda: _table(datasets.load_iris),
    "photos": _photos,
    "wine": lambda: _table(datasets.load_wine),
}
_REGRESSION = frozenset({"diabetes"})

DATASETS = tuple(_LOADERS)
"""Names of the data sets."""


@cache
def load_dataset(name: str) -> DataSet:
    """Load a data set by name; the result is shared, so do not change its arrays.

    Raises:
        InvalidArgumentError: If there is no data set of this name.
    """
    if name not in _LOADERS:
        raise InvalidArgumentError(f"A data set must be one of {', '.join(DATASETS)}, but got {name!r}. Use one of these names.")
    inputs, targets = _LOADERS[name]()
    if name in _REGRESSION:
        return DataSet(name, inputs.astype(np.float32), targets.astype(np.float32), None)
    return DataSet(name, inputs.astype(np.float32), targets.astype(np.int64), len(np.unique(targets)))


class DemoData(L.LightningDataModule):
    """Training and validation loaders of one data set.

    Inputs, and the targets of a regression, are standardised with mean and deviation of the training part.

    Args:
        dataset: Name of the data set, one of ``DATASETS``.
        batch_size: Samples per training batch.
        seed: Decides which samples validate; runs to be compared must share it.
    """

    def __init__(self, dataset: str, batch_size: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.data = load_dataset(dataset)
        self.train_set: TensorDataset | None = None
        self.val_set: TensorDataset | None = None

    def setup(self, stage: str) -> None:
        """Split and standardise; the loaders are made later, so a batch size changed after this still counts."""
        data = self.data
        train, val = train_test_split(
            np.arange(len(data.targets)),
            test_size=VALIDATION_SHARE,
            random_state=self.hparams["seed"],
            stratify=None if data.n_classes is None else data.targets,
        )
        inputs = torch.from_numpy(standardised(data.inputs, train))
        targets = torch.from_numpy(data.targets) if data.n_classes is not None else torch.from_numpy(standardised(data.targets, train))
        self.train_set = TensorDataset(inputs[train], targets[train])
        self.val_set = TensorDataset(inputs[val], targets[val])

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the shuffled training loader with the batch size now in ``hparams``."""
        return DataLoader(_ready(self.train_set), batch_size=self.hparams["batch_size"], shuffle=True)

    def val_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """Return the validation loader; its batch size is fixed, since no result depends on it."""
        return DataLoader(_ready(self.val_set), batch_size=512)


def _ready(part: TensorDataset | None) -> TensorDataset:
    if part is None:
        raise InvalidArgumentError("The data must be split before a loader is asked for, but setup() was not called. Call setup('fit').")
    return part
