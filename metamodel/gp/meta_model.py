"""What every kind of meta-model is: something fitted to a history that can be saved, loaded, and queried about one task."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor

from metamodel.data.nouns import count
from metamodel.data.observations import LearningTable, TaskRuns
from metamodel.data.target_runs import comparable
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import Calibration
from metamodel.gp.kernels import one_thread
from metamodel.gp.model_files import meta_file, read_model_files, readable, write_model_files
from metamodel.gp.prediction import TargetTaskData, TaskPosterior
from metamodel.gp.task_gps import TrainingTask
from metamodel.space.arrays import FloatArray
from metamodel.space.encoding import Encoder, fit_encoder
from store.errors import NotEnoughHistoryError

MIN_TASKS_TO_FIT = 2
"""Tasks from which an automatic fit is worth its time: from fewer nothing is recommended, though a search may be guided by one."""
MIN_TASK_RUNS = 4
"""Runs a task needs before anything can be learned from it."""
MIN_SHARE_WITHOUT_WARNING = 0.5

Progress = Callable[[float, str], None]
"""Called with a fraction in [0, 1] and a text."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MetaModel(ABC):
    """One kind of meta-model, fitted.

    A kind overrides ``learn``, ``posterior``, ``share_done``, ``content``, ``tensors`` and ``from_content``, and has a line in ``kinds``.

    Attributes:
        kind: Its name in ``refit(model=...)`` and on the command line.
        about: What it is, in half a sentence.
        min_share: Part of the training below which it has learned nothing and must not be used.
        uses_target_columns: Whether it learns from hyperparameters that only the target task's runs have tuned.
        min_tasks: Source tasks it takes to learn anything.
        combines_with_starter: Whether the starter history can be mixed with it.
        encoder: How configurations become inputs.
        calibration: How wide its intervals must be.
        info: ``id created_utc kind n_runs n_tasks n_finished task_ids seed seconds device versions``, and what the kind adds.
    """

    kind: ClassVar[str]
    about: ClassVar[str]
    min_share: ClassVar[float] = 0.1
    uses_target_columns: ClassVar[bool] = False
    min_tasks: ClassVar[int] = MIN_TASKS_TO_FIT
    combines_with_starter: ClassVar[bool] = False
    encoder: Encoder
    calibration: Calibration
    info: Mapping[str, Any]

    @property
    def id(self) -> str:
        """Id, part of the file name."""
        return str(self.info["id"])

    @property
    def remark(self) -> str:
        """What a reader of its recommendations should know; empty where there is nothing."""
        return ""

    def training_warnings(self) -> list[str]:
        """Return a warning where too little time was left to learn; none otherwise."""
        if self.share_done >= MIN_SHARE_WITHOUT_WARNING:
            return []
        return [f"its training was cut to {self.share_done:.0%}: run `metahp refit --model {self.kind}`"]

    @property
    @abstractmethod
    def share_done(self) -> float:
        """Which part of the intended training it got, in [0, 1]; less where the time ran out."""

    def with_info(self, **more: Any) -> Self:
        """Return the same model that remembers more about its fit."""
        return replace(self, info={**self.info, **more})

    def without_tasks(self, ids: Collection[str]) -> Self | None:
        """Return the model without some tasks, or None if none remain.

        A kind that cannot take a task out of what it has learned returns itself.

        Args:
            ids: Ids of tasks, known to it or not.
        """
        return self

    @classmethod
    def fit(
        cls,
        table: LearningTable,
        info: Mapping[str, Any],
        *,
        device: str = "cpu",
        seed: int = 0,
        deadline_s: float | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> Self:
        """Learn from every trainable task.

        Args:
            table: What the history offers.
            info: What to remember about this fit; counts are added.
            device: Torch device.
            seed: Seed.
            deadline_s: Time for training in seconds, None for no limit.
            progress: Called with a fraction and a text.
            options: Of the kind; see its ``learn``.

        Raises:
            NotEnoughHistoryError: If fewer than ``min_tasks`` tasks are trainable, or no hyperparameter varied.
        """
        tasks = training_tasks(table, cls.min_tasks)
        encoder = encoder_of(tasks)
        with one_thread():
            model = cls.learn(tasks, encoder, device=device, seed=seed, deadline_s=deadline_s, progress=progress, **options)
        counts = {
            "kind": cls.kind,
            "n_runs": int(sum(int(task.has_outcome.sum()) for task in tasks)),
            "n_tasks": len(tasks),
            "n_finished": table.n_finished,
            "task_ids": [task.task_id for task in tasks],
            "hyperparameters": list(encoder.names),
            "seed": seed,
            "device": device,
        }
        return model.with_info(**info, **counts)

    @classmethod
    @abstractmethod
    def learn(
        cls, tasks: Sequence[TaskRuns], encoder: Encoder, *, device: str, seed: int, deadline_s: float | None, progress: Progress | None
    ) -> Self:
        """Learn from trainable tasks; ``info`` holds what only this kind remembers.

        Args:
            tasks: At least ``min_tasks`` of them.
            encoder: How their configurations become inputs.
            device: Torch device.
            seed: Seed.
            deadline_s: Time for training in seconds, None for no limit.
            progress: Called with a fraction and a text.
        """

    @abstractmethod
    def posterior(self, data: TargetTaskData, description: TaskDescription, n_extra: int, task_id: str | None) -> TaskPosterior:
        """Return the posterior of a task.

        Args:
            data: Its runs, encoded with ``n_extra`` columns more than the model has, after the model's; may be none.
            description: What is known of it.
            n_extra: How many columns only its own runs have.
            task_id: Its id, None if it has none yet.
        """

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return what this kind saves as JSON, in addition to ``info`` and ``encoder``."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], encoder: Encoder, meta: Path) -> Self:
        """Rebuild a model from ``content``, which has ``info``, and ``tensors``, read from the file ``meta``."""

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``<id>.safetensors`` and ``<id>.json`` into a folder, the JSON last: a model exists once its JSON does.

        Returns:
            Path of the JSON file.
        """
        content = {"info": dict(self.info), "encoder": self.encoder.to_json(), **self.content()}
        return write_model_files(folder, self.id, content, self.tensors())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MetaModel:
        """Read a model of any kind.

        Args:
            path: The JSON file, its safetensors file, or the folder of a history's models, for the newest one.

        Raises:
            ModelFileError: If a file is missing, damaged or of another format.
        """
        from metamodel.kinds import DEFAULT, class_of  # a table of names, which loads a kind when it is asked for

        meta = meta_file(path)
        content, tensors = read_model_files(meta)
        with readable(meta):
            kind: type[MetaModel] = class_of(str(content["info"].get("kind", DEFAULT)))
            return kind.from_content(content, tensors, Encoder.from_json(content["encoder"]), meta)


def is_trainable(task: TaskRuns) -> bool:
    """Say whether something can be learned from a task: enough runs with outcomes, and not all of them equal."""
    outcomes = task.filled[task.has_outcome]
    return len(outcomes) >= MIN_TASK_RUNS and len(np.unique(outcomes)) > 1


def encoder_of(tasks: Sequence[TaskRuns]) -> Encoder:
    """Return the encoder of trainable tasks.

    Raises:
        NotEnoughHistoryError: If no hyperparameter varied in any of them, as where one script ran with several seeds.
    """
    encoder = fit_encoder([task.configs for task in tasks])
    if encoder.width == 0:
        names = ", ".join(sorted(task.name for task in tasks))
        raise NotEnoughHistoryError(
            f"A meta-model needs a hyperparameter that varied within a task, but none did in {names}. Log runs with differing values."
        )
    return encoder


def encoded_task(task: TaskRuns, encoder: Encoder, score: Callable[[FloatArray], FloatArray]) -> TrainingTask:
    """Return a task's runs that have an outcome, encoded, with the scores of their oriented outcomes."""
    keep = task.has_outcome
    inputs = encoder.encode([config for config, is_kept in zip(task.configs, keep, strict=True) if is_kept])
    return TrainingTask(inputs, score(task.filled[keep]))


def training_tasks(table: LearningTable, least: int = MIN_TASKS_TO_FIT) -> list[TaskRuns]:
    """Return the trainable tasks.

    Args:
        table: What the history offers.
        least: How many there must be.

    Raises:
        NotEnoughHistoryError: If there are fewer; the message lists what there is.
    """
    tasks = [comparable(task) for task in table.tasks if is_trainable(task)]
    if len(tasks) >= least:
        return tasks
    found = ", ".join(f"{task.name} ({len(task)})" for task in table.tasks) or "none"
    left_out = table.describe_left_out()
    needed = f"{count(least, 'task')} with {MIN_TASK_RUNS} finished runs"
    raise NotEnoughHistoryError(
        f"A meta-model needs at least {needed} of differing outcome, but the history has {len(tasks)}; tasks (usable runs): {found}"
        + (f"; {left_out}" if left_out else "")
        + ". Log more runs with a MetaHPCallback; recommendations for a task with 4 runs of its own work without a meta-model."
    )
