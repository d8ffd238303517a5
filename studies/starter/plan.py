"""Which networks the starter trains: the tasks, and for each the configurations, all drawn from one seed."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from studies.starter.data import DataSpec, StarterDataset

SEED = 20261122
LEARNING_RATES = (1e-5, 1e-1)
WEIGHT_DECAYS = (1e-6, 1e-1)
BATCH_SIZES = (8, 512)
MAX_DROPOUT = 0.6
MAX_WARM_UP = 0.3
NUM_LAYERS = (1, 6)
SCHEDULES = ("constant", "linear", "cosine")
WIDTHS = {"mlp": (16, 512), "cnn": (4, 24), "rnn": (8, 32), "transformer": (8, 32)}


@dataclass(frozen=True, slots=True)
class Regime:
    """How the networks of a task are drawn.

    Attributes:
        epochs: Fewest and most.
        n_groups: Groups for SGD, and for Adam and AdamW, half each.
        group: Configurations trained in one pass; each has its own part of the range of learning rates.
        least_batches: Batches an epoch has at least, where a data set is so small that the largest batch would be all of it.
        max_seconds: What a group may cost on one slow core by ``estimated_seconds``; larger draws are drawn again.
    """

    epochs: tuple[int, int]
    n_groups: tuple[int, int]
    group: int = 8
    least_batches: int = 1
    max_seconds: float = 3.0


MLP_REGIME = Regime((5, 150), (8, 8), max_seconds=12.0)
SHORT = {"cnn": Regime((4, 32), (4, 4)), "rnn": Regime((4, 32), (3, 5)), "transformer": Regime((4, 32), (2, 6))}
LONG = {
    "cnn": Regime((15, 150), (2, 2), 16, 4, 14.0),
    "rnn": Regime((15, 150), (1, 3), 16, 4, 12.0),
    "transformer": Regime((15, 150), (1, 3), 16, 4, 9.0),
}
"""Dozens of steps, and hundreds: how long one trains decides which learning rates are good."""
N_LONG = {"cnn": 4, "rnn": 3, "transformer": 1}
"""Of each family, so many data sets are learned at length as well."""
LEFT_OUT = frozenset(
    {
        "classification-12f-8c-4000-12",
        "sparse-uncorrelated-700-13",
        "photos-flat",
        "classification-16f-3c-3000-20",
        "classification-100f-4c-700-21",
        "teacher-3c-3000-22",
        "classification-20f-4c-4000-24",
        "teacher-2000-25",
        "gaussian-quantiles-3000-27",
        "checkerboard-4000-28",
        "teacher-2c-2500-29",
    }
)
"""Data sets that can be made and are not trained yet: those that cost most. Every other draw stays as it is if they come in."""


@dataclass(frozen=True, slots=True)
class StarterTask:
    """One data set learned by one family of networks.

    Attributes:
        data: The data set.
        family: One of ``NETWORK_FAMILIES``.
        objective: What tuning is judged by: ``val_accuracy`` or ``val_loss``.
        is_long: Whether it is one of the trainings at length.
    """

    data: DataSpec
    family: str
    objective: str
    is_long: bool = False

    @property
    def name(self) -> str:
        """Name, unique."""
        return f"{self.data.name} {self.family}" + (" long" if self.is_long else "")

    @property
    def regime(self) -> Regime:
        """How its networks are drawn."""
        return MLP_REGIME if self.family == "mlp" else (LONG if self.is_long else SHORT)[self.family]

    @property
    def direction(self) -> str:
        """``min`` or ``max``."""
        return "max" if self.objective == "val_accuracy" else "min"

    @property
    def seed(self) -> int:
        """Seed of everything drawn for this task."""
        return zlib.crc32(f"{SEED} {self.data.name} {self.family}".encode())


@dataclass(frozen=True, slots=True)
class Group:
    """Configurations trained in one pass, with the seeds of their weights and the seed of batches and dropout."""

    configs: tuple[dict[str, Any], ...]
    seeds: tuple[int, ...]
    seed: int


def starter_tasks() -> list[StarterTask]:
    """Return every task, the families in turn: what is done at any moment is a fair part of all."""
    by_family = {"mlp": _tables(), "cnn": _pictures_and_signals(), "rnn": _sequences(1), "transformer": _sequences(2)}
    tasks = []
    for family, specs in by_family.items():
        for i, spec in enumerate(specs):
            if spec.name in LEFT_OUT:
                continue
            # Some watch the loss of a classification; the others its accuracy.
            objective = "val_loss" if _is_regression(spec) or i % 4 == 3 else "val_accuracy"
            tasks.append((i / len(specs), StarterTask(spec, family, objective)))
            if i < N_LONG.get(family, 0):
                tasks.append((i / len(specs), StarterTask(spec, family, objective, is_long=True)))
    return [task for _, task in sorted(tasks, key=lambda pair: pair[0])]


def _is_regression(spec: DataSpec) -> bool:
    named = spec.options.get("which") in {"diabetes", "edges", "next value", "count"}
    return named or bool(spec.options.get("is_regression")) or (spec.make == "teacher" and "n_classes" not in spec.options)


def groups(task: StarterTask, data: StarterDataset) -> list[Group]:
    """Draw the configurations of a task."""
    rng = np.random.default_rng(task.seed)
    found = []
    for kind, count in zip(("SGD", "Adam"), task.regime.n_groups, strict=True):
        for _ in range(count):
            shared = _shared(task, data, rng)
            size = task.regime.group
            strata = rng.permutation(size)
            configs = tuple(_config(kind, shared, (strata[i] + rng.random()) / size, i, rng) for i in range(size))
            seeds = tuple(int(seed) for seed in rng.integers(2**31, size=size))
            found.append(Group(configs, seeds, int(rng.integers(2**31))))
    return found


def _config(kind: str, shared: dict[str, Any], unit: float, index: int, rng: np.random.Generator) -> dict[str, Any]:
    low, high = LEARNING_RATES
    # A learning rate that is written down like this comes back from any file as it went in.
    rate = float(f"{low * (high / low) ** unit:.4g}")
    decay = 0.0 if rng.random() < 0.25 else float(f"{WEIGHT_DECAYS[0] * (WEIGHT_DECAYS[1] / WEIGHT_DECAYS[0]) ** rng.random():.3g}")
    dropout = 0.0 if rng.random() < 0.25 else round(float(rng.uniform(0, MAX_DROPOUT)), 3)
    warm_up = 0.0 if rng.random() < 0.5 else round(float(rng.uniform(0, MAX_WARM_UP)), 3)
    momentum = round(1 - 10.0 ** rng.uniform(-2, 0), 4)
    return {
        "learning_rate": rate,
        "weight_decay": decay,
        "dropout": dropout,
        "warmup_ratio": warm_up,
        "lr_scheduler": str(rng.choice(SCHEDULES)),
        "optimizer": kind if kind == "SGD" else ("Adam", "AdamW")[index % 2],
        "momentum": momentum if kind == "SGD" else None,
        **shared,
    }


def _shared(task: StarterTask, data: StarterDataset, rng: np.random.Generator) -> dict[str, Any]:
    largest = BATCH_SIZES[1] if task.regime.least_batches == 1 else min(BATCH_SIZES[1], len(data.train_y) // task.regime.least_batches)
    while True:
        shared = {
            "num_layers": _log_integer(*NUM_LAYERS, rng),
            "hidden_size": _width(task.family, rng),
            "batch_size": min(_log_integer(BATCH_SIZES[0], largest, rng), len(data.train_y)),
            "num_epochs": _log_integer(*task.regime.epochs, rng),
        }
        if estimated_seconds(task.family, data, shared, task.regime.group) <= task.regime.max_seconds:
            return shared


def _log_integer(low: int, high: int, rng: np.random.Generator) -> int:
    return int(np.clip(round(math.exp(rng.uniform(math.log(low - 0.49), math.log(high + 0.49)))), low, high))


def _width(family: str, rng: np.random.Generator) -> int:
    width = _log_integer(*WIDTHS[family], rng)
    return max(8, width // 4 * 4) if family == "transformer" else width  # heads must divide it


def estimated_seconds(family: str, data: StarterDataset, shared: dict[str, Any], group: int = 8) -> float:
    """Return about what a group costs on one slow core: overhead of its steps, and work of its samples."""
    layers, width, size = shared["num_layers"], shared["hidden_size"], shared["batch_size"]
    positions = math.prod(data.input_shape) if family == "cnn" else data.input_shape[0]
    steps = math.ceil(len(data.train_y) / size)
    samples = 3 * len(data.train_y) + len(data.val_y)
    if family == "mlp":
        n_parameters = width * (math.prod(data.input_shape) + (layers - 1) * width)
        step, sample = 2 + 1.2 * layers + 1.5e-4 * n_parameters, 2e-5 * layers * width
    else:
        step = {"cnn": 3 * layers, "rnn": positions * layers, "transformer": 8 * layers}[family]
        sample = {"cnn": 1.2e-4, "rnn": 2.3e-4, "transformer": 2.3e-4}[family] * positions * layers * (width + 8)
    return float(shared["num_epochs"] * (steps * step + samples * sample * group / 8) / 1000)


def _made(which: str, n: int, seed: int, **options: Any) -> DataSpec:
    size = f"{n}-{seed}"
    if which == "classification":
        label = f"{options['n_features']}f-{options['n_classes']}c"
        return DataSpec(f"classification-{label}-{size}", "classification", n, {"n_clusters_per_class": 1, **options}, seed)
    return DataSpec(f"{which.replace('_', '-')}-{size}", "generator", n, {"which": which, **options}, seed)


def _tables() -> list[DataSpec]:
    bundled = [DataSpec(which, "bundled", 0, {"which": which}, 0) for which in ("iris", "breast_cancer", "diabetes")]
    return [
        bundled[1],
        _made("classification", 600, 1, n_features=10, n_informative=5, n_classes=2, flip_y=0.05),
        _made("regression", 500, 2, is_regression=True, n_features=20, n_informative=10, noise=20.0),
        _made("classification", 2000, 3, n_features=30, n_informative=10, n_classes=5, class_sep=1.2, flip_y=0.02),
        bundled[2],
        _made("moons", 400, 4, noise=0.25, n_noise=2),
        _made("friedman1", 800, 5, is_regression=True, n_features=10, noise=1.0),
        _made("classification", 800, 6, n_features=20, n_informative=6, n_classes=3, is_imbalanced=True, flip_y=0.1),
        bundled[0],
        _made("gaussian_quantiles", 900, 7, n_features=8, n_classes=4),
        _made("classification", 400, 8, n_features=60, n_informative=12, n_classes=2, class_sep=0.7),
        _made("hastie_10_2", 1200, 9),
        _made("friedman2", 600, 10, is_regression=True, noise=30.0),
        _made("blobs", 500, 11, n_features=6, centers=8, cluster_std=4.0),
        _made("classification", 4000, 12, n_features=12, n_informative=8, n_classes=8, n_redundant=2, class_sep=1.0),
        _made("sparse_uncorrelated", 700, 13, is_regression=True, n_features=15),
        _made("classification", 300, 14, n_features=8, n_informative=4, n_classes=2, is_imbalanced=True, flip_y=0.2),
        DataSpec("photos-flat", "photo patches", 900, {"which": "photo"}, 15),
        _made("circles", 500, 16, noise=0.15, factor=0.6, n_noise=4),
        _made("swiss_roll", 700, 17, is_regression=True, noise=0.5),
        _made("classification", 1000, 18, n_features=40, n_informative=20, n_classes=10, class_sep=1.5),
        _made("friedman3", 500, 19, is_regression=True, noise=0.2),
        _made("classification", 3000, 20, n_features=16, n_informative=10, n_classes=3, n_clusters_per_class=3, class_sep=0.8),
        _made("classification", 700, 21, n_features=100, n_informative=30, n_classes=4, class_sep=2.0, flip_y=0.05),
        DataSpec("teacher-3c-3000-22", "teacher", 3000, {"n_features": 12, "n_classes": 3}, 22),
        DataSpec("checkerboard-2400-23", "checkerboard", 2400, {"n_squares": 3, "n_noise": 1}, 23),
        _made("classification", 4000, 24, n_features=20, n_informative=8, n_classes=4, n_clusters_per_class=5, class_sep=1.2),
        DataSpec("teacher-2000-25", "teacher", 2000, {"n_features": 8, "depth": 2, "noise": 0.05}, 25),
        DataSpec("teacher-6c-5000-26", "teacher", 5000, {"n_features": 25, "n_classes": 6, "depth": 2}, 26),
        _made("gaussian_quantiles", 3000, 27, n_features=10, n_classes=5),
        DataSpec("checkerboard-4000-28", "checkerboard", 4000, {"n_squares": 4, "noise": 0.0}, 28),
        DataSpec("teacher-2c-2500-29", "teacher", 2500, {"n_features": 40, "n_classes": 2, "depth": 3, "noise": 0.3}, 29),
    ]


def _pictures_and_signals() -> list[DataSpec]:
    def made(make: str, label: str, n: int, seed: int, **options: Any) -> DataSpec:
        return DataSpec(f"{make.replace(' ', '-')}-{label}-{n}-{seed}", make, n, options, seed)

    return [
        made("photo patches", "photo", 500, 31, which="photo"),
        made("bars", "direction", 400, 32, n_classes=4, noise=0.6),
        made("waves", "frequency", 500, 33, which="frequency", length=16, n_classes=4, noise=0.7),
        made("bars", "place", 400, 34, is_regression=True, noise=0.8),
        made("photo patches", "half", 400, 35, which="brighter half", noise=0.5),
        DataSpec("breast_cancer", "bundled", 0, {"which": "breast_cancer"}, 36),
        made("waves", "form", 600, 37, which="form", length=24, noise=0.3),
        made("bars", "direction", 600, 38, n_classes=8, noise=0.4),
        made("waves", "next", 400, 39, which="next value", length=16, noise=0.2),
        made("photo patches", "edges", 400, 40, which="edges", noise=0.3),
        _made("classification", 500, 41, n_features=16, n_informative=8, n_classes=3, class_sep=1.2),
        made("photo patches", "photo", 300, 42, which="photo", noise=1.0),
        made("waves", "frequency", 300, 43, which="frequency", length=12, n_classes=2, noise=1.0),
        _made("friedman1", 500, 44, is_regression=True, n_features=12, noise=0.5),
    ]


def _sequences(which: int) -> list[DataSpec]:
    """Data read token by token; the two families that do so get different draws of the same kinds."""
    base = 50 * which

    def made(make: str, label: str, n: int, seed: int, **options: Any) -> DataSpec:
        return DataSpec(f"{make.replace(' ', '-')}-{label}-{n}-{base + seed}", make, n, options, base + seed)

    return [
        made("tokens", "most", 500, 1, which="most", length=9, n_symbols=4, noise=0.05),
        made("waves", "frequency", 400, 2, which="frequency", length=10, n_classes=3, noise=0.4),
        made("tokens", "count", 400, 3, which="count", length=8, n_symbols=3, noise=0.1),
        made("tokens", "order", 500, 4, which="order", length=8, n_symbols=5, noise=0.1),
        DataSpec("iris", "bundled", 0, {"which": "iris"}, base + 5),
        made("waves", "next", 500, 6, which="next value", length=10, noise=0.1),
        made("bars", "direction", 400, 7, n_classes=4, noise=0.4),
        made("photo patches", "photo", 500, 8, which="photo"),
        _made("classification", 400, base + 9, n_features=8, n_informative=5, n_classes=3, class_sep=1.2),
        made("waves", "form", 500, 10, which="form", length=12, noise=0.2),
        made("photo patches", "edges", 300, 11, which="edges", noise=0.2),
        DataSpec("diabetes", "bundled", 0, {"which": "diabetes"}, base + 12),
        made("tokens", "most", 300, 13, which="most", length=6, n_symbols=3, noise=0.0),
        _made("classification", 600, base + 14, n_features=6, n_informative=5, n_classes=2, is_imbalanced=True, n_redundant=0, flip_y=0.05),
    ]


def describe(task: StarterTask, data: StarterDataset) -> dict[str, Any]:
    """Return what is known of a task before training, as ``TaskDescription`` has it."""
    features: dict[str, float] = {} if data.class_imbalance is None else {"class_imbalance": round(data.class_imbalance, 4)}
    return {
        "name": task.name,
        "n_train": len(data.train_y),
        "n_val": len(data.val_y),
        "input_shape": list(data.input_shape),
        "n_classes": data.n_classes,
        "model_family": task.family,
        "is_pretrained": False,
        "objective": task.objective,
        "direction": task.direction,
        "features": features,
    }


def n_networks(tasks: Sequence[StarterTask]) -> int:
    """Return how many networks are trained in all."""
    return sum(task.regime.group * sum(task.regime.n_groups) for task in tasks)
