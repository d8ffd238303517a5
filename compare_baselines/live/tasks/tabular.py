"""Tables: who survived the Titanic, by a random forest (Breiman 2001), recorded through ``History.start_run`` without any Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split
from torchmetrics.functional.classification import binary_accuracy, binary_auroc

from compare_baselines.live.data import load_titanic
from compare_baselines.live.tasks.base import LiveTask, Training
from metamodel.data.task import TaskDescription

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Part = tuple[FloatArray, IntArray]


class Tabular(LiveTask):
    """A random forest on the Titanic's passengers; small enough to be the real thing in every size."""

    name = "tabular"
    about = "Titanic, random forest"
    objective = "accuracy"
    direction = "max"
    metrics = ("accuracy", "auc_roc")
    logged_objective = "accuracy"
    grid = {"n_estimators": (100, 200, 300), "max_depth": (10, 20, 30), "min_samples_split": (2, 5, 10)}  # noqa: RUF012  # fixed
    defaults = {"n_estimators": 100, "max_depth": None, "min_samples_split": 2}  # noqa: RUF012  # those of scikit-learn
    same_data = ("titanic", "live tabular")
    model_family = "other"

    def prepare(self, training: Training) -> None:
        """Encode and split."""
        _prepared(training.folder, training.seed)

    def train(self, config: Mapping[str, Any], training: Training) -> None:
        """Fit, validate, and measure on the test split."""
        (x, y), val, test = _prepared(training.folder, training.seed)
        model = RandomForestClassifier(**dict(config), random_state=training.seed, n_jobs=1)
        description = TaskDescription(
            name=self.history_name(training.size),
            dataset_class="table",
            n_train=len(y),
            n_val=len(val[1]),
            input_shape=(x.shape[1],),
            n_classes=2,
            model_class=type(model).__name__,
            model_family="other",
            objective=self.objective,
            direction=self.direction,
        )
        run = training.history.start_run(
            task=description,
            hparams=dict(config),
            objective=self.objective,
            direction=self.direction,
            model_class=type(model).__name__,
            model_family="other",
        )
        with run:
            training.opened(run)
            model.fit(x, y)
            run.log(_metrics(model, val), step=1)
        run.log_after_end({f"test_{name}": value for name, value in _metrics(model, test).items()}, step=1)


def _metrics(model: RandomForestClassifier, part: Part) -> dict[str, float]:
    """Return accuracy and the area under the ROC curve."""
    share, target = torch.as_tensor(model.predict_proba(part[0])[:, 1]), torch.as_tensor(part[1])
    return {"accuracy": float(binary_accuracy(share, target)), "auc_roc": float(binary_auroc(share, target))}


@lru_cache(maxsize=4)
def _prepared(folder: Path | None, seed: int) -> tuple[Part, Part, Part]:
    """Return training, validation and test part: 60, 20 and 20 %; the seed decides which rows train and which validate."""
    columns, survived = load_titanic(folder)
    rows = np.arange(len(survived))
    rest, test = train_test_split(rows, test_size=0.2, random_state=0, stratify=survived)
    train, val = train_test_split(rest, test_size=0.25, random_state=seed, stratify=survived[rest])
    inputs = _encoded(columns, train)
    return (inputs[train], survived[train]), (inputs[val], survived[val]), (inputs[test], survived[test])


def _encoded(columns: Mapping[str, list[Any]], train: IntArray) -> FloatArray:
    """Return numbers: labels one-hot, what is missing as the median of the training rows with a column that marks it."""
    found: list[FloatArray] = []
    for values in columns.values():
        known = [value for value in values if value is not None]
        if known and isinstance(known[0], str):
            found += [np.array([value == label for value in values], np.float64) for label in sorted({value for value in known if value})]
            continue
        numbers = np.array([np.nan if value is None else float(value) for value in values], np.float64)
        is_missing = np.isnan(numbers)
        if is_missing.any():
            found.append(is_missing.astype(np.float64))
            numbers = np.where(is_missing, np.nanmedian(numbers[train]), numbers)
        found.append(numbers)
    return np.stack(found, axis=1)
