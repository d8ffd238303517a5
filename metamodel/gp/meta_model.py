"""What every kind of meta-model is: something fitted to a history that can be saved, loaded, and asked about one task."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from torch import Tensor

from metamodel.data.observations import LearningTable, TaskRuns
from metamodel.data.task import TaskDescription
from metamodel.explanation import count
from metamodel.gp.calibration import Calibration
from metamodel.gp.model_files import write_model_files
from metamodel.gp.posterior import OwnRuns, Prediction
from metamodel.gp.task_gps import FloatArray
from metamodel.space.encoding import Encoder, fit_encoder
from store.errors import NotEnoughHistoryError

MIN_TASKS = 2
"""Tasks from which an automatic fit is worth its time: from fewer nothing is recommended, though a search may be guided by one."""
MIN_TASK_RUNS = 4
"""Runs a task needs before it can teach anything about others."""


class TaskPosterior(Protocol):
    """What a meta-model believes of one task, its own runs seen.

    Attributes:
        own_scores: Score of each own run, shape ``(n,)``, increasing in its outcome; None without own runs.
    """

    own_scores: FloatArray | None

    @property
    def noise_variance(self) -> float:
        """Variance of an outcome around what is predicted of its configuration, in normal scores."""

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict the score of ``n`` encoded configurations, shape ``(n, d)``; ``is_joint``: with their whole covariance."""

    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected score of ``n`` encoded configurations, shape ``(n,)``."""


class LearnedModel(ABC):
    """One kind of meta-model, fitted.

    Attributes:
        kind: Its name in ``refit(model=...)`` and on the command line.
        about: What it is, in half a sentence.
        min_share: Part of the training below which it knows nothing and must not answer.
        knows_own_columns: Whether it learns from hyperparameters that only the task's own runs have tuned.
        min_tasks: Past tasks it takes to learn anything.
        encoder: How configurations become inputs.
        calibration: How wide its intervals must be.
        info: ``id created_utc kind n_runs n_tasks n_finished task_ids seed seconds device versions``, and what the kind adds.
    """

    kind: ClassVar[str]
    about: ClassVar[str]
    min_share: ClassVar[float] = 0.1
    knows_own_columns: ClassVar[bool] = False
    min_tasks: ClassVar[int] = MIN_TASKS
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

    def cut_short(self) -> list[str]:
        """Return a remark where too little time was left to learn; none otherwise."""
        if self.share_done >= 0.5:
            return []
        return [f"its training was cut to {self.share_done:.0%}: run `metahp refit --model {self.kind}`"]

    @property
    @abstractmethod
    def share_done(self) -> float:
        """Which part of the intended training it got, in [0, 1]; less where the time ran out."""

    @abstractmethod
    def with_info(self, **more: Any) -> Self:
        """Return the same model that remembers more about its fit."""

    @classmethod
    @abstractmethod
    def fit(
        cls,
        table: LearningTable,
        info: Mapping[str, Any],
        *,
        device: str = "cpu",
        seed: int = 0,
        deadline_s: float | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> Self:
        """Learn from every task that can teach.

        Args:
            table: What the history offers.
            info: What to remember about this fit; counts are added.
            device: Torch device.
            seed: Seed.
            deadline_s: Time for training in seconds, None for no limit.
            progress: Called with a fraction and a text.

        Raises:
            NotEnoughHistoryError: If fewer than ``min_tasks`` tasks can teach.
        """

    @abstractmethod
    def posterior(self, own: OwnRuns, description: TaskDescription, n_extra: int, task_id: str | None) -> TaskPosterior:
        """Return what is believed of a task.

        Args:
            own: Its own runs, encoded with ``n_extra`` columns more than the model has, after the model's; may be none.
            description: What is known of it.
            n_extra: How many columns only its own runs have.
            task_id: Its id, None if it has none yet.
        """

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """Return what is saved as JSON, ``info`` and ``encoder`` among it."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""

    @classmethod
    @abstractmethod
    def from_files(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], meta: Path) -> Self:
        """Rebuild a model from ``content`` and ``tensors``, read from the file ``meta``."""

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``<id>.safetensors`` and ``<id>.json`` into a folder, the JSON last: a model exists once its JSON does.

        Returns:
            Path of the JSON file.
        """
        return write_model_files(folder, self.id, self.content(), self.tensors())


def is_teaching(task: TaskRuns) -> bool:
    """Say whether a task can teach: enough runs with outcomes, and not all of them equal."""
    outcomes = task.filled[task.has_outcome]
    return len(outcomes) >= MIN_TASK_RUNS and len(np.unique(outcomes)) > 1


def encoder_of(tasks: Sequence[TaskRuns]) -> Encoder:
    """Return the encoder of teaching tasks.

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


def teaching_tasks(table: LearningTable, least: int = MIN_TASKS) -> list[TaskRuns]:
    """Return the tasks that can teach.

    Args:
        table: What the history offers.
        least: How many there must be.

    Raises:
        NotEnoughHistoryError: If there are fewer, saying what there is.
    """
    tasks = [task for task in table.tasks if is_teaching(task)]
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
