"""What the suite's networks learn: data made by formulas and small simulations, and digits. None of it is in the starter history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from compare_baselines.live.data import standardised

FloatArray = npt.NDArray[np.float64]
Made = tuple[FloatArray, npt.NDArray[np.int64] | FloatArray]
Part = tuple[npt.NDArray[np.float32], npt.NDArray[Any]]

N_SAMPLES = 2600
N_TRAIN, N_VAL = 1000, 600
"""The rest is the test split: a thousand samples resolve about one percent."""
PIXELS = 12


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Data split and standardised by the training part.

    Attributes:
        train: Inputs, shape ``(n, *input_shape)``, and targets, shape ``(n,)``: int64 classes, or float32 of unit variance.
        val: Likewise.
        test: Likewise.
        n_classes: Number of classes, None for regression.
    """

    train: Part
    val: Part
    test: Part
    n_classes: int | None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one sample."""
        return tuple(self.train[0].shape[1:])


@lru_cache(maxsize=4)
def load(name: str, seed: int) -> Split:
    """Make a data set, the same every time, and split it by a seed.

    Args:
        name: One of ``MAKERS``.
        seed: Seed of the split.
    """
    inputs, targets = MAKERS[name](np.random.default_rng([20261201, list(MAKERS).index(name)]))
    order = np.random.default_rng([seed, 7]).permutation(len(targets))
    n_train = min(N_TRAIN, len(targets) * 9 // 20)
    n_val = min(N_VAL, len(targets) // 5)
    train, val, test = np.split(order, [n_train, n_train + n_val])
    x = standardised(inputs, train)
    y = targets if targets.dtype == np.int64 else standardised(targets, train)
    n_classes = int(targets.max()) + 1 if targets.dtype == np.int64 else None
    return Split((x[train], y[train]), (x[val], y[val]), (x[test], y[test]), n_classes)


def _digits(rng: np.random.Generator) -> Made:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return bunch.images + 2.0 * rng.normal(size=bunch.images.shape), bunch.target.astype(np.int64)


def _flat_digits(rng: np.random.Generator) -> Made:
    images, labels = _digits(rng)
    return images.reshape(len(images), -1), labels


def _arm(rng: np.random.Generator) -> Made:
    """How far the hand of an arm with four joints is from its base, by angles and lengths of its parts."""
    angles, lengths = rng.uniform(-np.pi / 2, np.pi / 2, (N_SAMPLES, 4)), rng.uniform(0.4, 1.0, (N_SAMPLES, 4))
    turned = angles.cumsum(1)
    hand = np.hypot((lengths * np.cos(turned)).sum(1), (lengths * np.sin(turned)).sum(1))
    return np.concatenate([angles, lengths], 1), hand + 0.05 * rng.normal(size=N_SAMPLES)


def _tree(rng: np.random.Generator) -> Made:
    """Four classes by a random decision tree of depth six over twelve columns, one label in twelve wrong."""
    x = rng.normal(size=(N_SAMPLES, 12))
    node, leaves = np.zeros(N_SAMPLES, dtype=np.int64), rng.integers(4, size=64)
    for depth in range(6):
        columns, cuts = rng.integers(12, size=2**depth), 0.7 * rng.normal(size=2**depth)
        node = 2 * node + (x[np.arange(N_SAMPLES), columns[node]] > cuts[node])
    return x, np.where(rng.random(N_SAMPLES) < 1 / 12, rng.integers(4, size=N_SAMPLES), leaves[node]).astype(np.int64)


def _parity(rng: np.random.Generator) -> Made:
    """Whether an even number of three of eight columns is positive."""
    x = rng.uniform(-1, 1, (N_SAMPLES, 8))
    return x, ((x[:, :3] > 0).sum(1) % 2).astype(np.int64)


def _orbit(rng: np.random.Generator) -> Made:
    """The logarithm of an orbit's period by masses, axes, eccentricity and inclination, as it looks from the side."""
    mass, other = rng.uniform(0.5, 5, (2, N_SAMPLES))
    axis, eccentricity, tilt = rng.uniform(0.2, 4, N_SAMPLES), rng.uniform(0, 0.9, N_SAMPLES), rng.uniform(0, np.pi, N_SAMPLES)
    period = np.sqrt(axis**3 / (mass + other))
    seen = period * (1 + eccentricity * np.cos(2 * tilt)) * np.sqrt(1 - eccentricity**2)
    return np.stack([mass, other, axis, eccentricity, tilt], 1), np.log(seen) + 0.05 * rng.normal(size=N_SAMPLES)


def _spirals(rng: np.random.Generator) -> Made:
    """Three interleaved spirals in the plane, among four columns of noise."""
    arm, along = rng.integers(3, size=N_SAMPLES), rng.uniform(0.3, 2.2, N_SAMPLES)
    angle = 2 * np.pi * (arm / 3 + along / 1.6)
    plane = np.stack([along * np.cos(angle), along * np.sin(angle)], 1) + 0.06 * rng.normal(size=(N_SAMPLES, 2))
    return np.concatenate([plane, 0.5 * rng.normal(size=(N_SAMPLES, 4))], 1), arm.astype(np.int64)


def _grid() -> tuple[FloatArray, FloatArray]:
    rows, columns = np.meshgrid(np.arange(PIXELS, dtype=float), np.arange(PIXELS, dtype=float), indexing="ij")
    return rows[None], columns[None]


def _shapes(rng: np.random.Generator) -> Made:
    """A disc, a square, a cross or a ring, somewhere in noise."""
    kind, (rows, columns) = rng.integers(4, size=N_SAMPLES), _grid()
    centre, radius = rng.uniform(4, 8, (2, N_SAMPLES, 1, 1)), rng.uniform(2, 3.5, (N_SAMPLES, 1, 1))
    down, right = np.abs(rows - centre[0]), np.abs(columns - centre[1])
    distance = np.hypot(down, right)
    drawn = np.stack(
        [
            distance < radius,
            np.maximum(down, right) < 0.85 * radius,
            (np.minimum(down, right) < 0.8) & (np.maximum(down, right) < radius),
            np.abs(distance - radius) < 0.8,
        ]
    )
    return drawn[kind, np.arange(N_SAMPLES)] + 0.6 * rng.normal(size=(N_SAMPLES, PIXELS, PIXELS)), kind.astype(np.int64)


def _textures(rng: np.random.Generator) -> Made:
    """Noise smoothed along rows, columns, one or the other diagonal, or not at all."""
    kind = rng.integers(5, size=N_SAMPLES)
    noise = rng.normal(size=(N_SAMPLES, PIXELS, PIXELS))
    steps = [(0, 1), (1, 0), (1, 1), (1, -1), (0, 0)]
    smooth = np.stack([noise + np.roll(noise, step, (1, 2)) for step in steps]) / np.sqrt([2, 2, 2, 2, 4])[:, None, None, None]
    return smooth[kind, np.arange(N_SAMPLES)] + 0.5 * rng.normal(size=noise.shape), kind.astype(np.int64)


def _counting(rng: np.random.Generator) -> Made:
    """How many bright spots there are, up to eight."""
    count, (rows, columns) = rng.integers(1, 9, size=N_SAMPLES), _grid()
    pictures = 0.25 * rng.normal(size=(N_SAMPLES, PIXELS, PIXELS))
    for i in range(8):
        place = rng.uniform(0.5, PIXELS - 1.5, (2, N_SAMPLES, 1, 1))
        spot = np.exp(-(np.square(rows - place[0]) + np.square(columns - place[1])) / 0.8)
        pictures += spot * (i < count)[:, None, None]
    return pictures, count.astype(float)


def _ellipses(rng: np.random.Generator) -> Made:
    """How elongated a tilted ellipse is."""
    rows, columns = _grid()
    centre, angle = rng.uniform(4.5, 6.5, (2, N_SAMPLES, 1, 1)), rng.uniform(0, np.pi, (N_SAMPLES, 1, 1))
    long, ratio = rng.uniform(3, 5, (N_SAMPLES, 1, 1)), rng.uniform(0.2, 1.0, (N_SAMPLES, 1, 1))
    down, right = rows - centre[0], columns - centre[1]
    along, across = down * np.cos(angle) + right * np.sin(angle), right * np.cos(angle) - down * np.sin(angle)
    filled = np.hypot(along / long, across / (long * ratio)) < 1
    return filled + 0.4 * rng.normal(size=(N_SAMPLES, PIXELS, PIXELS)), ratio[:, 0, 0]


def _pulses(rng: np.random.Generator) -> Made:
    """A pulse every few moments: regular, with one left out, with one too early, or irregular throughout."""
    length, kind = 48, rng.integers(4, size=N_SAMPLES)
    period, start = rng.uniform(7, 10, N_SAMPLES), rng.uniform(0, 6, N_SAMPLES)
    times = start[:, None] + period[:, None] * np.arange(7)
    which = rng.integers(1, 4, N_SAMPLES)
    chosen = np.arange(7) == which[:, None]
    times = times - np.where(chosen & (kind == 2)[:, None], 0.4 * period[:, None], 0.0)
    times = times + np.where((kind == 3)[:, None], 1.6 * rng.normal(size=times.shape), 0.0)
    height = np.where(chosen & (kind == 1)[:, None], 0.0, 1.0)
    moments = np.arange(length)
    signal = (height[:, :, None] * np.exp(-np.square(moments - times[:, :, None]))).sum(1)
    return signal + 0.15 * rng.normal(size=(N_SAMPLES, length)), kind.astype(np.int64)


def _adding(rng: np.random.Generator) -> Made:
    """The sum of the two marked numbers of a sequence (Hochreiter and Schmidhuber 1997)."""
    length = 14
    values, marks = rng.uniform(-1, 1, (N_SAMPLES, length)), np.zeros((N_SAMPLES, length))
    first, second = rng.integers(length // 2, size=N_SAMPLES), rng.integers(length // 2, length, size=N_SAMPLES)
    index = np.arange(N_SAMPLES)
    marks[index, first] = marks[index, second] = 1
    return np.stack([values, marks], 2), values[index, first] + values[index, second]


def _mackey_glass(rng: np.random.Generator) -> Made:
    """A chaotic series of Mackey and Glass (1977), twelve steps ahead, with noise."""
    delay, n = 17, 2 * N_SAMPLES + 200
    series = np.full(n + delay, 1.2)
    for t in range(delay, n + delay - 1):
        series[t + 1] = series[t] + 0.2 * series[t - delay] / (1 + series[t - delay] ** 10) - 0.1 * series[t]
    windows = np.lib.stride_tricks.sliding_window_view(series[-2 * N_SAMPLES - 60 :], 32)[::2][:N_SAMPLES]
    return windows[:, :20, None] + 0.03 * rng.normal(size=(N_SAMPLES, 20, 1)), windows[:, 31].copy()


def _lorenz(rng: np.random.Generator) -> Made:
    """Where a particle of Lorenz' (1963) attractor goes next, from its last twelve places."""
    place = rng.normal(size=(N_SAMPLES, 3)) * [8, 8, 6] + [0, 0, 25]
    path = []
    for t in range(360):
        x, y, z = place.T
        place = place + 0.005 * np.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], 1)
        if t >= 240 and t % 8 == 0:
            path.append(place)
    windows = np.stack(path, 1)
    return windows[:, :11] + 0.3 * rng.normal(size=windows[:, :11].shape), windows[:, 14, 0].copy()


def _one_hot(symbols: npt.NDArray[np.int64], n: int) -> FloatArray:
    return np.eye(n)[symbols]


def _brackets(rng: np.random.Generator) -> Made:
    """Whether a text of two kinds of brackets is balanced; half of the texts are, the others have one bracket changed."""
    texts = np.zeros((N_SAMPLES, 12), dtype=np.int64)
    for text in texts:
        stack: list[int] = []
        for t in range(12):
            must_close, must_open = len(stack) == 12 - t, not stack
            if must_open or (not must_close and rng.random() < 0.5):
                stack.append(int(rng.integers(2)))
                text[t] = stack[-1]
            else:
                text[t] = 2 + stack.pop()
    label = rng.integers(2, size=N_SAMPLES)
    where = rng.integers(12, size=N_SAMPLES)
    index = np.arange(N_SAMPLES)
    texts[index, where] = np.where(label == 1, texts[index, where], (texts[index, where] + rng.integers(1, 4, N_SAMPLES)) % 4)
    return _one_hot(texts, 4), label.astype(np.int64)


def _recall(rng: np.random.Generator) -> Made:
    """Which of six symbols came right after the mark."""
    symbols = rng.integers(6, size=(N_SAMPLES, 14))
    where, index = rng.integers(12, size=N_SAMPLES), np.arange(N_SAMPLES)
    label = symbols[index, where + 1].copy()
    symbols[index, where] = 6
    return _one_hot(symbols, 7), label


def _languages(rng: np.random.Generator) -> Made:
    """Which of five languages a word is from: each has its own favourite pairs of twelve letters."""
    label, words = rng.integers(5, size=N_SAMPLES), np.zeros((N_SAMPLES, 9), dtype=np.int64)
    odds = rng.dirichlet(np.full(12, 0.5), (5, 12)).cumsum(-1)
    words[:, 0] = rng.integers(12, size=N_SAMPLES)
    for t in range(1, 9):
        words[:, t] = np.minimum((rng.random((N_SAMPLES, 1)) > odds[label, words[:, t - 1]]).sum(1), 11)
    return _one_hot(words, 12), label.astype(np.int64)


def _lookup(rng: np.random.Generator) -> Made:
    """The value that belongs to a key, from a list of four pairs and the key at its end."""
    keys = np.argsort(rng.random((N_SAMPLES, 6)), 1)[:, :4]
    values, asked = rng.integers(4, size=(N_SAMPLES, 4)), rng.integers(4, size=N_SAMPLES)
    index = np.arange(N_SAMPLES)
    pairs = np.concatenate([_one_hot(keys, 6), _one_hot(values, 4)], 2)
    last = np.concatenate([_one_hot(keys[index, asked], 6), np.zeros((N_SAMPLES, 4))], 1)
    return np.concatenate([pairs, last[:, None]], 1), values[index, asked]


def _marked_sum(rng: np.random.Generator) -> Made:
    """The sum of the numbers of one colour among twelve of three colours."""
    numbers, colours = rng.uniform(0, 1, (N_SAMPLES, 12)), rng.integers(3, size=(N_SAMPLES, 12))
    total = (numbers * (colours == 0)).sum(1)
    return np.concatenate([numbers[:, :, None], _one_hot(colours, 3)], 2), total


def _range(rng: np.random.Generator) -> Made:
    """How far the largest of ten numbers is from the smallest."""
    numbers = rng.normal(size=(N_SAMPLES, 10)) * rng.uniform(0.5, 1.5, (N_SAMPLES, 1)) + rng.normal(size=(N_SAMPLES, 1))
    return numbers[:, :, None], numbers.max(1) - numbers.min(1)


def _distinct(rng: np.random.Generator) -> Made:
    """How many different symbols of eight there are in a text of eight: few, some or many."""
    symbols = rng.integers(8, size=(N_SAMPLES, 8))
    n_different = (_one_hot(symbols, 8).sum(1) > 0).sum(1)
    return _one_hot(symbols, 8), np.digitize(n_different, [5, 6]).astype(np.int64)


def _clouds(rng: np.random.Generator) -> Made:
    """Whether fourteen points lie on a circle, a line, a cross or nowhere in particular."""
    kind, along = rng.integers(4, size=N_SAMPLES), rng.uniform(-1, 1, (N_SAMPLES, 14))
    side = rng.integers(2, size=(N_SAMPLES, 14))
    forms = np.stack(
        [
            np.stack([np.cos(np.pi * along), np.sin(np.pi * along)], 2),
            np.stack([1.4 * along, np.zeros_like(along)], 2),
            np.stack([1.2 * along * side, 1.2 * along * (1 - side)], 2),
            rng.normal(size=(N_SAMPLES, 14, 2)) * 0.7,
        ]
    )[kind, np.arange(N_SAMPLES)]
    turn = rng.uniform(0, np.pi, N_SAMPLES)
    matrix = np.stack([np.stack([np.cos(turn), -np.sin(turn)], 1), np.stack([np.sin(turn), np.cos(turn)], 1)], 1)
    return forms @ matrix + 0.2 * rng.normal(size=forms.shape), kind.astype(np.int64)


MAKERS: Mapping[str, Callable[[np.random.Generator], Made]] = {
    "flat-digits": _flat_digits,
    "arm": _arm,
    "tree": _tree,
    "parity": _parity,
    "orbit": _orbit,
    "spirals": _spirals,
    "shapes": _shapes,
    "textures": _textures,
    "counting": _counting,
    "ellipses": _ellipses,
    "pulses": _pulses,
    "digits": _digits,
    "adding": _adding,
    "mackey-glass": _mackey_glass,
    "lorenz": _lorenz,
    "brackets": _brackets,
    "recall": _recall,
    "languages": _languages,
    "lookup": _lookup,
    "marked-sum": _marked_sum,
    "range": _range,
    "distinct": _distinct,
    "clouds": _clouds,
    "digit-rows": _digits,
}
"""Name -> maker. Order counts: it is part of the seed."""
