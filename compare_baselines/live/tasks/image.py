"""Images: CIFAR-10 by a ResNet-50 (He et al. 2016), through ``transformers.Trainer``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torchmetrics.functional.classification import multiclass_accuracy
from transformers import ResNetConfig, ResNetForImageClassification

from compare_baselines.live.data import load_images
from compare_baselines.live.tasks.base import LiveTask, Training
from compare_baselines.live.tasks.trainer import train_with_trainer

N_CLASSES = 10


@dataclass(frozen=True, slots=True)
class ImageScale:
    """What a size means: images of each split and the widths of the stages; depths and bottlenecks are always those of ResNet-50."""

    n_train: int
    n_val: int
    n_test: int
    embedding_size: int
    hidden_sizes: tuple[int, ...]


IMAGE_SCALES = {
    "tiny": ImageScale(1000, 400, 500, 8, (16, 32, 64, 128)),
    "small": ImageScale(4000, 1500, 2000, 16, (32, 64, 128, 256)),
    "full": ImageScale(45_000, 5_000, 10_000, 64, (256, 512, 1024, 2048)),
}


class Pixels(torch.utils.data.Dataset[dict[str, Any]]):
    """Images as the model takes them: ``pixel_values`` of shape ``(3, 32, 32)``, standardised by channel."""

    def __init__(self, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self.images = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
        self.labels = [int(label) for label in labels]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return pixels and label."""
        return {"pixel_values": self.images[index].float() / 127.5 - 1.0, "labels": self.labels[index]}


class Image(LiveTask):
    """ResNet-50 on CIFAR-10, from scratch."""

    name = "image"
    about = "CIFAR-10, ResNet-50"
    objective = "accuracy"
    direction = "max"
    metrics = ("accuracy", "top5_accuracy")
    logged_objective = "eval_accuracy"
    grid = {"learning_rate": (0.01, 0.001, 0.0001), "batch_size": (32, 64, 128), "epochs": (10, 20, 30)}  # noqa: RUF012  # fixed
    defaults = {"learning_rate": 5e-5, "batch_size": 8, "epochs": 3}  # noqa: RUF012  # those of TrainingArguments
    same_data = ("cifar", "live image")
    model_family = "cnn"
    optimizer = "adamw_torch"
    epoch_shares = {"tiny": 0.2, "small": 0.2}  # noqa: RUF012  # fixed

    def prepare(self, training: Training) -> None:
        """Decode and split."""
        _prepared(training.folder, training.size, training.seed)

    def train(self, config: Mapping[str, Any], training: Training) -> None:
        """Train."""
        scale = IMAGE_SCALES[training.size]
        make_config: Callable[..., ResNetConfig] = ResNetConfig  # its signature leaves out what every configuration takes
        train_with_trainer(
            self,
            config,
            training,
            make_model=lambda: ResNetForImageClassification(
                make_config(embedding_size=scale.embedding_size, hidden_sizes=list(scale.hidden_sizes), num_labels=N_CLASSES)
            ),
            data=_prepared(training.folder, training.size, training.seed),
            compute_metrics=_metrics,
            dataloader_num_workers=8 if training.size == "full" else 0,
            bf16=training.size == "full" and torch.cuda.is_available() and torch.cuda.is_bf16_supported(),
        )


def _metrics(prediction: Any) -> dict[str, float]:
    """Return top-1 and top-5 accuracy."""
    logits, labels = torch.as_tensor(prediction.predictions), torch.as_tensor(prediction.label_ids)
    if not torch.isfinite(logits).all():
        return {"accuracy": float("nan"), "top5_accuracy": float("nan")}
    return {
        name: float(multiclass_accuracy(logits, labels, num_classes=N_CLASSES, top_k=k, average="micro"))
        for name, k in (("accuracy", 1), ("top5_accuracy", 5))
    }


@lru_cache(maxsize=2)
def _prepared(folder: Path | None, size: str, seed: int) -> tuple[Pixels, Pixels, Pixels]:
    scale = IMAGE_SCALES[size]
    images = load_images(folder)
    order = np.random.default_rng(seed).permutation(len(images.y_train))
    n_val = min(scale.n_val, len(order) // 4)
    val, train = order[:n_val], order[n_val : n_val + scale.n_train]
    test = np.random.default_rng(0).permutation(len(images.y_test))[: scale.n_test]
    return (
        Pixels(images.train[train], images.y_train[train]),
        Pixels(images.train[val], images.y_train[val]),
        Pixels(images.test[test], images.y_test[test]),
    )
