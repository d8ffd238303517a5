"""What the starter's networks learn: data that ships with scikit-learn, and its generators in many sizes and difficulties.

``digits`` and ``wine`` are not among them: the demonstration advises on these two, and its first advice must come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn import datasets

from compare_baselines.live.data import standardised

FloatArray = NDArray[np.float64]

PATCH = 8
"""Edge of a picture in pixels."""
MAX_VALIDATION = 400
STARTER_VALIDATION_SHARE = 0.4


@dataclass(frozen=True, slots=True)
class DataSpec:
    """One data set.

    Attributes:
        name: Short name, unique.
        make: Which maker of this module or generator of scikit-learn.
        n: Samples, training and validation together; bundled data have their own number.
        options: Arguments of the maker.
        seed: Seed of the generator and of the split.
    """

    name: str
    make: str
    n: int = 1000
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class StarterDataset:
    """Data split and standardised by the training part.

    Attributes:
        train_x: Shape ``(n, *input_shape)``: one dimension for a table or signal, two for a picture.
        train_y: Shape ``(n,)``: int64 classes or float32 values of unit variance.
        val_x: As ``train_x``.
        val_y: As ``train_y``.
        n_classes: Number of classes, None for regression.
    """

    train_x: NDArray[np.float32]
    train_y: NDArray[Any]
    val_x: NDArray[np.float32]
    val_y: NDArray[Any]
    n_classes: int | None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train_x.shape[1:])

    @property
    def class_imbalance(self) -> float | None:
        """Share of the largest class over that of the smallest in the training part, None for regression."""
        if self.n_classes is None:
            return None
        counts = np.bincount(self.train_y, minlength=self.n_classes)
        return float(counts.max() / max(1, counts.min()))


def load(spec: DataSpec) -> StarterDataset:
    """Make, split and standardise one data set; the same spec gives the same data everywhere."""
    inputs, targets, is_regression = _MAKERS[spec.make](spec)
    rng = np.random.default_rng([spec.seed, 1])
    order = rng.permutation(len(targets))
    n_val = min(MAX_VALIDATION, round(STARTER_VALIDATION_SHARE * len(targets)))
    val, train = order[:n_val], order[n_val:]
    x = standardised(inputs, train)
    if is_regression:
        y: NDArray[Any] = standardised(targets, train)
        return StarterDataset(x[train], y[train], x[val], y[val], None)
    classes, y = np.unique(targets, return_inverse=True)
    y = y.astype(np.int64)
    return StarterDataset(x[train], y[train], x[val], y[val], len(classes))


_Made = tuple[FloatArray, NDArray[Any], bool]


def _bundled(spec: DataSpec) -> _Made:
    inputs, targets = getattr(datasets, f"load_{spec.options['which']}")(return_X_y=True)
    return inputs, targets, spec.options["which"] == "diabetes"


def _classification(spec: DataSpec) -> _Made:
    options = dict(spec.options)
    if options.pop("is_imbalanced", False):
        n_classes = options["n_classes"]
        options["weights"] = [0.5**i for i in range(n_classes)]
        options["weights"] = [weight / sum(options["weights"]) for weight in options["weights"]]
    inputs, targets = datasets.make_classification(spec.n, random_state=spec.seed, **options)
    return inputs, targets, False


def _generator(spec: DataSpec) -> _Made:
    """Any other generator of scikit-learn; extra columns of noise make it harder."""
    options = dict(spec.options)
    make, is_regression, n_noise = options.pop("which"), options.pop("is_regression", False), options.pop("n_noise", 0)
    found = getattr(datasets, f"make_{make}")(n_samples=spec.n, random_state=spec.seed, **options)
    rng = np.random.default_rng([spec.seed, 2])
    inputs = np.concatenate([found[0], rng.normal(size=(spec.n, n_noise))], axis=1)
    return inputs, np.asarray(found[1]), is_regression


def _photo_patches(spec: DataSpec) -> _Made:
    """Grey patches of the two sample photographs; the label is the photograph, the brighter half or the contrast."""
    rng = np.random.default_rng([spec.seed, 3])
    inputs, photo = [], []
    for label, image in enumerate(datasets.load_sample_images().images):
        grey = np.asarray(image, dtype=np.float64).mean(axis=2)
        rows = rng.integers(0, grey.shape[0] - PATCH, spec.n // 2)
        columns = rng.integers(0, grey.shape[1] - PATCH, spec.n // 2)
        for row, column in zip(rows, columns, strict=True):
            patch = grey[row : row + PATCH, column : column + PATCH]
            inputs.append((patch - patch.mean()) / (patch.std() + 4.0))
            photo.append(label)
    x = np.stack(inputs)
    noisy = x + spec.options.get("noise", 0.0) * rng.normal(size=x.shape)
    which = spec.options["which"]
    if which == "photo":
        return noisy, np.asarray(photo), False
    if which == "brighter half":
        halves = np.stack([x[:, : PATCH // 2].mean((1, 2)), x[:, :, : PATCH // 2].mean((1, 2))], axis=1)
        return noisy, 2 * (halves[:, 0] > 0) + (halves[:, 1] > 0), False
    edges = np.abs(np.diff(x, axis=2)).mean((1, 2)) - np.abs(np.diff(x, axis=1)).mean((1, 2))
    return noisy, edges, True


def _bars(spec: DataSpec) -> _Made:
    """Pictures of one bright bar in noise; the label is its direction, or where it stands."""
    rng = np.random.default_rng([spec.seed, 4])
    n_classes, noise = spec.options.get("n_classes", 4), spec.options.get("noise", 0.5)
    angle = rng.integers(n_classes, size=spec.n)
    grid = np.arange(PATCH) - (PATCH - 1) / 2
    rows, columns = np.meshgrid(grid, grid, indexing="ij")
    theta = np.pi * angle / n_classes
    offset = rng.uniform(-2, 2, spec.n)
    distance = rows[None] * np.cos(theta)[:, None, None] + columns[None] * np.sin(theta)[:, None, None] - offset[:, None, None]
    pictures = np.exp(-np.square(distance)) + noise * rng.normal(size=(spec.n, PATCH, PATCH))
    if spec.options.get("is_regression", False):
        return pictures, offset, True
    return pictures, angle, False


def _waves(spec: DataSpec) -> _Made:
    """Sampled waves of random phase in noise; the label is the frequency, the form, or the next value."""
    rng = np.random.default_rng([spec.seed, 5])
    length, noise = spec.options.get("length", 16), spec.options.get("noise", 0.5)
    which = spec.options["which"]
    n_classes = spec.options.get("n_classes", 3)
    kind = rng.integers(n_classes, size=spec.n)
    frequency = (1 + kind) if which == "frequency" else rng.uniform(1, 4, spec.n)
    time = np.arange(length + 1)[None] / length
    angle = 2 * np.pi * (np.asarray(frequency, dtype=float)[:, None] * time + rng.random((spec.n, 1)))
    wave = np.sin(angle)
    if which == "form":
        forms = [np.sin(angle), np.sign(np.sin(angle)), 2 / np.pi * np.arcsin(np.sin(angle))]
        wave = np.stack(forms)[kind % 3, np.arange(spec.n)]
    observed = wave[:, :length] + noise * rng.normal(size=(spec.n, length))
    if which == "next value":
        return observed, wave[:, length], True
    return observed, kind, False


def _tokens(spec: DataSpec) -> _Made:
    """Short sequences of symbols as one-hot rows; the label is what occurs most, first of a pair, or how many of one there are."""
    rng = np.random.default_rng([spec.seed, 6])
    length, n_symbols = spec.options.get("length", 10), spec.options.get("n_symbols", 4)
    symbols = rng.integers(n_symbols, size=(spec.n, length))
    rows = np.eye(n_symbols)[symbols]
    counts = rows.sum(1)
    which = spec.options["which"]
    flip = rng.random(spec.n) < spec.options.get("noise", 0.0)
    if which == "count":
        return rows, counts[:, 0] + spec.options.get("noise", 0.0) * 3 * rng.normal(size=spec.n), True
    if which == "most":
        label = (counts + 1e-3 * np.arange(n_symbols)).argmax(1)
    else:  # order: whether symbol 0 first occurs before symbol 1
        first = np.where((symbols == 0).any(1), (symbols == 0).argmax(1), length)
        second = np.where((symbols == 1).any(1), (symbols == 1).argmax(1), length)
        label = (first < second).astype(np.int64)
    return rows, np.where(flip, rng.integers(label.max() + 1, size=spec.n), label), False


def _teacher(spec: DataSpec) -> _Made:
    """The outputs of a random deep network for random inputs: surfaces that one hidden layer finds hard."""
    rng = np.random.default_rng([spec.seed, 7])
    n_features, width, depth = spec.options["n_features"], 24, spec.options.get("depth", 3)
    inputs = rng.normal(size=(spec.n, n_features))
    hidden = inputs
    for i in range(depth):
        weights = rng.normal(size=(hidden.shape[1], width)) * (2.0 if i else 1.5) / np.sqrt(hidden.shape[1])
        hidden = np.tanh(hidden @ weights + 0.3 * rng.normal(size=width))
    n_classes = spec.options.get("n_classes")
    outputs = hidden @ rng.normal(size=(width, n_classes or 1))
    outputs = (outputs - outputs.mean(0)) / outputs.std(0) + spec.options.get("noise", 0.1) * rng.normal(size=outputs.shape)
    return (inputs, outputs[:, 0], True) if n_classes is None else (inputs, outputs.argmax(1), False)


def _checkerboard(spec: DataSpec) -> _Made:
    """Black and white squares in the plane, among columns of noise."""
    rng = np.random.default_rng([spec.seed, 8])
    n_squares = spec.options.get("n_squares", 3)
    plane = rng.random((spec.n, 2))
    label = np.floor(plane * n_squares).astype(np.int64).sum(1) % 2
    flip = rng.random(spec.n) < spec.options.get("noise", 0.02)
    return np.concatenate([plane, rng.random((spec.n, spec.options.get("n_noise", 0)))], axis=1), label ^ flip, False


_MAKERS: Mapping[str, Callable[[DataSpec], _Made]] = {
    "bundled": _bundled,
    "classification": _classification,
    "generator": _generator,
    "photo patches": _photo_patches,
    "bars": _bars,
    "waves": _waves,
    "tokens": _tokens,
    "teacher": _teacher,
    "checkerboard": _checkerboard,
}
