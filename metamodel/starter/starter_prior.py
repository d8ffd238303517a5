"""The starter history: what a recommendation rests on until the user's own runs take over.

Thousands of small networks, trained by us (``studies/starter``), are shipped with a model that is fitted to them already, so that the first
run of a user has a prior and nothing is fitted for it. It applies only to what it was trained on: networks of four families, trained from
scratch by SGD, Adam or AdamW, no larger than its own. Messages name it as the source, its intervals are wider than measured among its own
tasks, and it is not used any more once the user has enough other tasks.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from metamodel.data.observations import TaskRuns
from metamodel.data.task import TaskDescription
from metamodel.gp.gp_meta_model import GPMetaModel
from metamodel.gp.meta_model import MetaModel
from metamodel.gp.mixture import MixturePrior
from metamodel.gp.prior import HistoryPrior, Prior, TaskWeighting
from metamodel.space.arrays import FloatArray
from metamodel.space.encoding import Encoder
from metamodel.starter.recoding import RecodedPrior, Recoding, merged_column
from metamodel.starter.scope import FAMILIES, family_of, optimizer_of, out_of_scope_message, planned_steps
from store.errors import ModelFileError
from store.hyperparameters import Scale, has_scale
from store.names import Direction

logger = logging.getLogger(__name__)

FOLDER = "data"
TASKS = "tasks.json"

STARTER_EQUIVALENT_TASKS = 4.0
"""How many tasks of the user the whole starter counts as; with ``m`` of them, their share is ``m / (m + STARTER_EQUIVALENT_TASKS)``."""
INTERVAL_INFLATION = 1.5
"""Factor on the widths that its own tasks ask for: a user's network is further from them than they are from each other."""
MAX_LENGTH_RATIO = 10
"""How many times the steps of its own longest run are in scope: longer training needs smaller learning rates."""
UNKNOWN_OPTIMIZER = {"Adam": 0.7, "SGD": 0.3}
"""Shares of the two kinds where the optimizer is not known."""
ABSENT = {"weight_decay": 0.0, "dropout": 0.0, "warmup_ratio": 0.0, "lr_scheduler": "constant"}
"""What a run without such a hyperparameter does."""
USUAL_MOMENTUM = 0.9
"""SGD whose momentum is no hyperparameter mostly has this one written into the code; without any a larger rate would have been right."""


@dataclass(frozen=True)
class StarterEncoder(Encoder):
    """Encodes configurations as those of the starter are meant: one spelling of an optimizer, and what is absent is not used."""

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> FloatArray:
        """Encode ``n`` configurations, shape ``(n, d)``."""
        return super().encode([completed(config) for config in configs])


@dataclass(frozen=True, eq=False, kw_only=True)
class StarterModel(GPMetaModel):
    """The shipped model with per-task weights, mixed with the model of the user's other tasks where there is one.

    Attributes:
        task_weights: Weight of each task in this query, shape ``(T,)``; 0 for those that are not used.
        shipped: The encoder that its tasks were learned with.
        users: Model of the user's other tasks, None where there are too few.
    """

    task_weights: FloatArray
    shipped: Encoder
    users: GPMetaModel | None = None

    def _new_prior(self, features: Mapping[str, float], n_extra: int, without: str | None) -> Prior:
        weights = self.task_weights * self.relatedness.weights(features, self.task_weights > 0)
        used = np.flatnonzero(weights)
        tasks, weightings = self.task_gps.chosen(used), [TaskWeighting.mixture(weights[used] / weights.sum())]
        if self.users is None:
            return HistoryPrior(tasks, weightings, n_extra)
        unknown = tuple(column for column in self.users.encoder.columns if column.name not in self.shipped.names)
        seen = Encoder((*self.shipped.columns, *unknown))
        n_columns = self.encoder.width + n_extra
        shipped = HistoryPrior(tasks, weightings, seen.width - self.shipped.width + n_extra)
        starter = RecodedPrior(shipped, Recoding(self.encoder, seen), n_columns)
        users = RecodedPrior(self.users.prior(features, n_extra, without), Recoding(self.encoder, self.users.encoder), n_columns)
        n_users = len(set(self.users.info["task_ids"]) - {without})
        share = n_users / (n_users + STARTER_EQUIVALENT_TASKS)
        log_weights = np.concatenate([users.log_weights + math.log(share), starter.log_weights + math.log(1 - share)])
        return MixturePrior([users, starter], log_weights)

    def content(self) -> dict[str, Any]:
        """Refuse to be saved: what ships is packed by ``studies.starter.pack``, and the user's model has files of its own."""
        raise AssertionError("a model of the starter history answers one query and is never saved")


@dataclass(frozen=True, slots=True, eq=False)
class StarterPrior:
    """What the starter contributes to one query.

    Attributes:
        model: Its model, mixed with that of the user's other tasks where there is one.
        tasks: Its tasks in scope, with their runs.
    """

    model: StarterModel
    tasks: tuple[TaskRuns, ...]

    def combined_with(self, users: MetaModel) -> StarterPrior:
        """Return the same, mixed with the model of the user's other tasks.

        Args:
            users: Fitted to at least two other tasks, of a kind that combines with the starter.
        """
        if not isinstance(users, GPMetaModel):
            raise AssertionError(f"the starter history cannot be mixed with a model of kind {users.kind}")
        model, known = self.model, {column.name: column for column in users.encoder.columns}
        shared = [merged_column(column, known[column.name]) if column.name in known else column for column in model.shipped.columns]
        unknown = [column for column in users.encoder.columns if column.name not in model.shipped.names]
        widths = {
            n: tuple(np.maximum(width, users.calibration.half_widths.get(n, width)).tolist())
            for n, width in model.calibration.half_widths.items()
        }
        mixed = replace(
            model,
            encoder=StarterEncoder((*shared, *unknown)),
            calibration=replace(model.calibration, half_widths=widths),
            info=users.info,
            users=users,
        )
        return replace(self, model=mixed)


class StarterFiles:
    """The shipped files; each family is read when it is first asked.

    Args:
        folder: Where they are.

    Raises:
        ModelFileError: If the list of tasks is missing or damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._families: dict[str, Family] = {}
        try:
            self.about: dict[str, Any] = json.loads((folder / TASKS).read_text(encoding="utf-8"))
            self._listed: dict[str, list[dict[str, Any]]] = self.about["families"]
        except (OSError, ValueError, KeyError) as error:
            raise ModelFileError(f"The starter history must be readable, but {str(folder / TASKS)!r} is not: {error}.") from error

    def family(self, name: str) -> Family:
        """Return a family.

        Raises:
            ModelFileError: If its files are missing or damaged.
        """
        if name not in self._families:
            self._families[name] = Family(name, self._folder, self._listed[name], self.about["labels"])
        return self._families[name]


class Family:
    """The networks of one family: the model fitted to them, and the runs behind it.

    Args:
        name: Its name.
        folder: Where the files are.
        listed: Its tasks, ``T`` of them, as ``tasks.json`` describes them.
        labels: Name -> the labels that numbers in the files stand for.
    """

    def __init__(self, name: str, folder: Path, listed: Sequence[Mapping[str, Any]], labels: Mapping[str, Sequence[str]]) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        loaded = MetaModel.load(folder / f"{name}.json")
        path = folder / f"{name}-runs.safetensors"
        try:
            self._arrays: dict[str, FloatArray] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise ModelFileError(f"The runs of the starter history must be readable, but {str(path)!r} is not: {error}.") from error
        if not isinstance(loaded, GPMetaModel) or len(listed) != loaded.task_gps.n_tasks:
            raise ModelFileError(f"The model of the starter history must hold its {len(listed)} tasks, but {name}.json does not.")
        self.name, self.model = name, loaded
        self.longest = max(int(task["longest"]) for task in listed)
        self._listed, self._labels = listed, labels
        self._made: dict[int, TaskRuns] = {}

    def task_weights(self, optimizer: str | None) -> FloatArray:
        """Return the weight of each task for a kind of optimizer, ``SGD`` or ``Adam`` (None: not known), shape ``(T,)``."""
        shares = UNKNOWN_OPTIMIZER if optimizer is None else {optimizer: 1.0}
        return np.array([shares.get(task["kind"], 0.0) for task in self._listed])

    def task(self, index: int) -> TaskRuns:
        """Return one task with the runs it was learned from."""
        if index not in self._made:
            self._made[index] = self._task(index)
        return self._made[index]

    def _task(self, index: int) -> TaskRuns:
        about = self._listed[index]
        description = TaskDescription.from_dict(about["description"])
        values = self._arrays["values"][index].astype(np.float64)
        n = int(np.count_nonzero(~np.isneginf(values)))  # the rest is padding
        configs: list[dict[str, Any]] = [{"model_family": description.model_family} for _ in range(n)]
        for key, array in self._arrays.items():
            name = key.removeprefix("config.")
            if name == key:
                continue
            for config, value in zip(configs, array[index, :n].tolist(), strict=True):
                if not math.isnan(value):
                    config[name] = self._labels[name][int(value)] if name in self._labels else _number(name, value)
        return TaskRuns(
            about["id"],
            about["id"],
            str(description.objective),
            Direction(str(description.direction)),
            description,
            tuple(f"{about['id']} {i}" for i in range(n)),
            tuple(configs),
            values[:n],
            np.isnan(values[:n]),
            np.zeros(n, dtype=bool),
            (None,) * n,
        )


def _number(name: str, value: float) -> float | int:
    return int(value) if has_scale(name, Scale.INTEGER) else float(f"{value:.6g}")  # single precision ends there


@lru_cache(maxsize=1)
def _files() -> StarterFiles:
    return StarterFiles(Path(str(files("metamodel.starter"))) / FOLDER)


@lru_cache(maxsize=len(FAMILIES))
def shipped(family: str) -> Family | None:
    """Return a family as installed; None, with a warning, where its files are missing or damaged."""
    try:
        return _files().family(family)
    except ModelFileError as error:
        logger.warning("The starter history cannot be used, so without runs of your own there is no recommendation: %s", error)
        return None


def load_starter_prior(description: TaskDescription, current: Mapping[str, Any]) -> StarterPrior | str:
    """Load the starter's prior for a task, where it is used at all (``starter_applies``).

    Args:
        description: The task.
        current: The user's own configuration by canonical name; its optimizer decides which networks are comparable.

    Returns:
        The prior, or why there is none, as half a sentence; empty where its files cannot be read.
    """
    message = out_of_scope_message(description, current)
    if message:
        return message
    family = shipped(str(family_of(description, current)))
    if family is None:
        return ""
    steps, most = planned_steps(description, current), MAX_LENGTH_RATIO * family.longest
    if steps is not None and steps > most:
        return (
            f"the starter history does not apply: it knows short training, up to {most:,} steps of {family.name} networks are in scope, "
            f"and this one takes {steps:,}"
        )
    optimizer = optimizer_of(current.get("optimizer"))
    task_weights = family.task_weights("Adam" if optimizer == "AdamW" else optimizer)
    tasks = tuple(family.task(int(i)) for i in np.flatnonzero(task_weights))
    return StarterPrior(_weighted(family.model, task_weights), tasks)


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with one spelling of its optimizer, and with what is absent as not used."""
    result = {**ABSENT, **config}
    if "optimizer" in result:
        result["optimizer"] = optimizer_of(result["optimizer"]) or result["optimizer"]
        if result["optimizer"] == "SGD":
            result.setdefault("momentum", USUAL_MOMENTUM)
    return result


def _weighted(model: GPMetaModel, task_weights: FloatArray) -> StarterModel:
    encoder = StarterEncoder(model.encoder.columns)
    wider = {n: tuple(INTERVAL_INFLATION * width for width in widths) for n, widths in model.calibration.half_widths.items()}
    return StarterModel(
        encoder=encoder,
        calibration=replace(model.calibration, half_widths=wider, trust=1.0),
        info=model.info,
        task_gps=model.task_gps,
        relatedness=model.relatedness,
        task_weights=task_weights,
        shipped=encoder,
    )
