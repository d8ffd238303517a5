"""The starter history: what a recommendation rests on until the user's own runs take over.

Thousands of small networks, trained by us (``studies/starter``), are shipped with a model that is fitted to them already, so
that the first run of a user has something to start from and nothing is fitted for it. It speaks only about what it knows: networks of
four families, trained from scratch by SGD, Adam or AdamW, of bounded size. It says that it is not the user's own history, its intervals
are wider than measured among its own tasks, and it leaves once the user's own tasks know more.
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
from typing import Any, NamedTuple

import numpy as np

from metamodel.data.observations import TaskRuns
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import Calibration
from metamodel.gp.gp_meta_model import MetaModel
from metamodel.gp.mixture import Rivals
from metamodel.gp.prior import HistoryPrior, Prior, View
from metamodel.space.encoding import Encoder, FloatArray
from metamodel.starter.recoding import Recoded, Recoding, together
from metamodel.starter.scope import FAMILIES, family_of, optimizer_of, planned_steps, silent_about
from store.errors import ModelFileError
from store.names import Direction

logger = logging.getLogger(__name__)

FOLDER = "data"
TASKS = "tasks.json"

LIKE_OWN_TASKS = 4.0
"""How many tasks of one's own the whole starter counts as; with ``m`` of them, they have ``m / (m + LIKE_OWN_TASKS)`` of the weight."""
WIDER = 1.5
"""How much wider intervals are than the starter's own tasks ask for: a user's network is further from them than they from each other."""
TIMES_LONGEST = 10
"""How many times the steps of its own longest run it speaks about: longer training wants smaller learning rates."""
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


@dataclass(frozen=True, eq=False)
class StarterModel(MetaModel):
    """The shipped model, with a say for each of its tasks; beside it, where there is one, the model of the user's own other tasks.

    Attributes:
        say: How much each task counts in this question, shape ``(T,)``; 0 for those that are not asked.
        shipped: The encoder that its tasks were learned with.
        own: Model of the user's own tasks, None where there are too few.
    """

    say: FloatArray
    shipped: Encoder
    own: MetaModel | None = None

    def _new_prior(self, features: Mapping[str, float], n_extra: int, without: str | None) -> Prior:
        weights = self.say * self.relatedness.weights(features, self.say > 0)
        asked = np.flatnonzero(weights)
        views = [View.mixture(weights[asked] / weights.sum())]
        if self.own is None:
            return HistoryPrior(self.task_gps.chosen(asked), views, n_extra)
        unknown = tuple(column for column in self.own.encoder.columns if column.name not in self.shipped.names)
        seen = Encoder((*self.shipped.columns, *unknown))
        n_columns = self.encoder.width + n_extra
        shipped = HistoryPrior(self.task_gps.chosen(asked), views, seen.width - self.shipped.width + n_extra)
        starter = Recoded(shipped, Recoding(self.encoder, seen), n_columns)
        own = Recoded(self.own.prior(features, n_extra, without), Recoding(self.encoder, self.own.encoder), n_columns)
        n_own = len(set(self.own.info["task_ids"]) - {without})
        share = n_own / (n_own + LIKE_OWN_TASKS)
        return Rivals([own, starter], np.concatenate([own.log_weights + math.log(share), starter.log_weights + math.log(1 - share)]))

    def content(self) -> dict[str, Any]:
        """Refuse to be saved: what ships is packed by ``studies.starter.pack``, and the model beside it has files of its own."""
        raise AssertionError("a model of the starter history answers one question and is never saved")


class Voice(NamedTuple):
    """What the starter contributes to one question: its model, beside that of the user's own tasks where there is one, and its own runs."""

    model: StarterModel
    tasks: tuple[TaskRuns, ...]

    def beside(self, own: MetaModel) -> Voice:
        """Return the same with the model of the user's own tasks beside the starter's.

        Args:
            own: Fitted to at least two other tasks.
        """
        model, known = self.model, {column.name: column for column in own.encoder.columns}
        shared = [together(column, known[column.name]) if column.name in known else column for column in model.shipped.columns]
        unknown = [column for column in own.encoder.columns if column.name not in model.shipped.names]
        widths = {
            n: tuple(np.maximum(width, own.calibration.half_widths.get(n, width)).tolist())
            for n, width in model.calibration.half_widths.items()
        }
        calibration = replace(model.calibration, half_widths=widths)
        return self._replace(
            model=replace(model, encoder=StarterEncoder((*shared, *unknown)), calibration=calibration, info=own.info, own=own)
        )


class Starter:
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
        """Return what is known of a family.

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
        if not isinstance(loaded, MetaModel) or len(listed) != loaded.task_gps.n_tasks:
            raise ModelFileError(f"The model of the starter history must hold its {len(listed)} tasks, but {name}.json does not.")
        self.name, self.model = name, loaded
        self.longest = max(int(task["longest"]) for task in listed)
        self._listed, self._labels = listed, labels
        self._made: dict[int, TaskRuns] = {}

    def say(self, kind: str | None) -> FloatArray:
        """Return how much each task counts for a kind of optimizer (None: not known), shape ``(T,)``."""
        shares = UNKNOWN_OPTIMIZER if kind is None else {kind: 1.0}
        return np.array([shares.get(task["kind"], 0.0) for task in self._listed])

    def task(self, index: int) -> TaskRuns:
        """Return one task with the runs that its process has seen."""
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


_WHOLE = frozenset({"num_layers", "hidden_size", "batch_size", "num_epochs"})


def _number(name: str, value: float) -> float | int:
    return int(value) if name in _WHOLE else float(f"{value:.6g}")  # single precision ends there


@lru_cache(maxsize=1)
def _files() -> Starter:
    return Starter(Path(str(files("metamodel.starter"))) / FOLDER)


@lru_cache(maxsize=len(FAMILIES))
def shipped(family: str) -> Family | None:
    """Return what this installation knows of a family; None, with a warning, where its files are missing or damaged."""
    try:
        return _files().family(family)
    except ModelFileError as error:
        logger.warning("The starter history cannot be used, so without runs of your own there is no recommendation: %s", error)
        return None


def consult(description: TaskDescription, current: Mapping[str, Any]) -> Voice | str:
    """Ask the starter history what it has to say, where it is asked at all (``is_wanted``).

    Args:
        description: The task.
        current: The user's own configuration by canonical name; its optimizer decides which networks are comparable.

    Returns:
        Its voice, or why it has none, as half a sentence; empty where its files cannot be read.
    """
    silent = silent_about(description, current)
    if silent:
        return silent
    family = shipped(str(family_of(description, current)))
    if family is None:
        return ""
    steps = planned_steps(description, current)
    if steps is not None and steps > TIMES_LONGEST * family.longest:
        return (
            f"the starter history says nothing: it knows short training and speaks of up to {TIMES_LONGEST * family.longest:,} steps of "
            f"{family.name} networks, and this one takes {steps:,}"
        )
    kind = optimizer_of(current.get("optimizer"))
    say = family.say("Adam" if kind == "AdamW" else kind)
    tasks = tuple(family.task(int(i)) for i in np.flatnonzero(say))
    return Voice(_speaking(family.model, say), tasks)


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration with one spelling of its optimizer, and with what is absent as not used."""
    result = {**ABSENT, **config}
    if "optimizer" in result:
        result["optimizer"] = optimizer_of(result["optimizer"]) or result["optimizer"]
        if result["optimizer"] == "SGD":
            result.setdefault("momentum", USUAL_MOMENTUM)
    return result


def _speaking(model: MetaModel, say: FloatArray) -> StarterModel:
    encoder = StarterEncoder(model.encoder.columns)
    wider = {n: tuple(WIDER * width for width in widths) for n, widths in model.calibration.half_widths.items()}
    calibration = Calibration(wider, model.calibration.coverage, model.calibration.n_tasks)
    return StarterModel(model.task_gps, model.relatedness, calibration, encoder, model.info, say, encoder)
