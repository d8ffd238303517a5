"""The meta-models ``maml`` and ``reptile``: an ensemble of surrogate networks, adapted to the runs of a task when it is queried."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import TaskRuns, past_scores
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import MIN_HELD_OUT_TASKS
from metamodel.gp.meta_model import MetaModel, Progress, encoded_task
from metamodel.gp.prediction import Prediction, TargetTaskData, TaskPosterior
from metamodel.networks.adaptation import (
    MAML,
    N_MEMBERS,
    REPTILE,
    Clock,
    Initialisation,
    PaddedTasks,
    Parameters,
    Runs,
    TaskSampler,
    fit_maml,
    fit_reptile,
    predict,
    random_network,
)
from metamodel.networks.held_out_tasks import HeldOutTasks
from metamodel.networks.residuals import Residuals, expected_scores, measure_residuals, ranks
from metamodel.space.arrays import FloatArray
from metamodel.space.encoding import Encoder
from store.errors import ModelFileError

STEPS_TRIED = (0, 1, 2, 3, 5, 8, 12, 20)
"""Candidate numbers of adaptation steps, chosen by cross-validation over tasks."""
N_TARGET_RUNS_TRIED = (4, 8, 16)
"""Numbers of target runs with which they are compared."""


class NetworkPosterior(TaskPosterior):
    """The ensemble, adapted to a task.

    Args:
        parameters: Adapted networks, leading dimension ``e``.
        residual: Standard deviation of the residuals of such networks on held-out tasks.
        data: The target task's runs, encoded with the model's columns.
    """

    def __init__(self, parameters: Parameters, residual: float, data: TargetTaskData) -> None:
        self._parameters, self._residual = parameters, residual
        self._incumbent: FloatArray | None = None
        self.target_scores: FloatArray | None = None
        if len(data.outcomes):
            scores = self._scores(data.inputs)
            self._incumbent = scores.max(1)
            self.target_scores = expected_scores(scores.mean(0), residual, data.outcomes)

    @property
    def noise_variance(self) -> float:
        """Already part of the variance that ``predict`` returns."""
        return 0.0

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict scores; residuals are taken as independent between configurations, which is the careful assumption."""
        mean = self._scores(inputs)
        variance = np.full(mean.shape, self._residual**2)
        covariance = variance[:, :, None] * np.eye(len(inputs)) if is_joint else variance
        return Prediction(mean, covariance, np.full(len(mean), 1 / len(mean)), self._incumbent)

    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected scores."""
        found: FloatArray = self._scores(inputs).mean(0)
        return found

    def _scores(self, inputs: FloatArray) -> FloatArray:
        width = self._parameters[0].shape[-2]
        points = torch.as_tensor(inputs[:, :width], dtype=torch.float32)
        with torch.no_grad():
            found: FloatArray = predict(self._parameters, points.expand(len(self._parameters[0]), -1, -1)).double().numpy()
        return found


@dataclass(frozen=True, eq=False, kw_only=True)
class AdaptedModel(MetaModel):
    """What ``maml`` and ``reptile`` share: everything but how the initialisation is learned.

    Attributes:
        start: The ensemble to start from.
        residuals: How far its predictions are off after how many target runs.
    """

    start: Initialisation
    residuals: Residuals
    kind: ClassVar[str] = ""

    @property
    def share_done(self) -> float:
        """Which part of the schedule was carried out."""
        return self.start.share_done

    @property
    def remark(self) -> str:
        """Name intervals that are a guess, and a training that was too short."""
        few = f"{self.kind} was trained on fewer than {MIN_HELD_OUT_TASKS} tasks, so its intervals are a guess"
        return "; ".join([*([] if self.residuals.n_tasks else [few]), *self.training_warnings()])

    @classmethod
    @abstractmethod
    def learn_initialisation(
        cls, start: Parameters, sampler: TaskSampler, deadline_s: float | None, progress: Progress | None
    ) -> Initialisation:
        """Learn the initialisation."""

    @classmethod
    def learn(
        cls, tasks: Sequence[TaskRuns], encoder: Encoder, *, device: str, seed: int, deadline_s: float | None, progress: Progress | None
    ) -> Self:
        """Learn from trainable tasks; see ``MetaModel.learn``."""
        rng = np.random.default_rng(seed)
        padded = PaddedTasks.of([encoded_task(task, encoder, past_scores).thinned(rng) for task in tasks], device)
        sampler = TaskSampler(padded, N_MEMBERS, seed, has_folds=len(tasks) >= MIN_HELD_OUT_TASKS)
        network = _moved(random_network(N_MEMBERS, encoder.width, sampler.generator), device)
        start = cls.learn_initialisation(network, sampler, deadline_s, progress)
        start = replace(start, parameters=_moved(start.parameters, "cpu"), rates=_moved(start.rates, "cpu"))
        held_out = HeldOutTasks.of(padded, sampler.fold, rng)
        start = replace(start, n_steps=best_n_steps(start, held_out))
        residuals = measure_residuals(lambda n_runs: held_out_residuals(start, held_out, n_runs, start.n_steps))
        info = {"n_members": N_MEMBERS, "n_adaptation_steps": start.n_steps, "coverage": residuals.to_json()}
        return cls(encoder=encoder, calibration=residuals.calibration, info=info, start=start, residuals=residuals)

    def posterior(self, data: TargetTaskData, description: TaskDescription, n_extra: int, task_id: str | None) -> NetworkPosterior:
        """Adapt the ensemble to the task's runs; columns it has not learned are left out."""
        known = data.narrowed(self.encoder.width)
        parameters = self.start.parameters
        if len(known.outcomes):
            seen = (known.inputs, ranks(known.outcomes), known.groups.correlation)
            parameters = self.start.adapted(Runs(*(torch.as_tensor(values, dtype=torch.float32) for values in seen)))
        return NetworkPosterior(parameters, self.residuals.at(len(known.outcomes)), known)

    def content(self) -> dict[str, Any]:
        """Return what is saved as JSON."""
        return {"residuals": self.residuals.to_json(), "n_steps": self.start.n_steps, "share_done": self.start.share_done}

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""
        numbered = {"parameter": self.start.parameters, "rate": self.start.rates}
        return {f"{name}.{i}": tensor for name, tensors in numbered.items() for i, tensor in enumerate(tensors)}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], encoder: Encoder, meta: Path) -> Self:
        """Rebuild a model from its files.

        Raises:
            ModelFileError: If they do not belong together.
        """
        n = len(tensors) // 2
        parameters, rates = ([tensors[f"{name}.{i}"] for i in range(n)] for name in ("parameter", "rate"))
        if parameters[0].shape[-2] != encoder.width:
            raise ModelFileError(
                f"A meta-model's files must agree, but {str(meta)!r} has {encoder.width} columns and its network "
                f"{parameters[0].shape[-2]}. Run `metahp refit`."
            )
        start = Initialisation(parameters, rates, int(content["n_steps"]), float(content["share_done"]))
        residuals = Residuals.from_json(content["residuals"])
        return cls(encoder=encoder, calibration=residuals.calibration, info=content["info"], start=start, residuals=residuals)


@dataclass(frozen=True, eq=False, kw_only=True)
class MamlModel(AdaptedModel):
    """Model-agnostic meta-learning, second order."""

    kind: ClassVar[str] = "maml"
    about: ClassVar[str] = "networks whose initialisation is learned through the adaptation itself (Finn et al. 2017, second order)"

    @classmethod
    def learn_initialisation(
        cls, start: Parameters, sampler: TaskSampler, deadline_s: float | None, progress: Progress | None
    ) -> Initialisation:
        """Learn the initialisation and the step sizes."""
        return fit_maml(start, sampler, MAML, Clock(MAML.n_outer, deadline_s, progress))


@dataclass(frozen=True, eq=False, kw_only=True)
class ReptileModel(AdaptedModel):
    """Reptile."""

    kind: ClassVar[str] = "reptile"
    about: ClassVar[str] = "networks whose initialisation is moved towards networks trained on single tasks (Nichol et al. 2018)"

    @classmethod
    def learn_initialisation(
        cls, start: Parameters, sampler: TaskSampler, deadline_s: float | None, progress: Progress | None
    ) -> Initialisation:
        """Learn the initialisation."""
        return fit_reptile(start, sampler, REPTILE, Clock(REPTILE.n_outer, deadline_s, progress))


def held_out_residuals(start: Initialisation, held_out: HeldOutTasks, n_runs: int, n_steps: int) -> list[FloatArray]:
    """Return the residuals of each member, adapted to ``n_runs`` runs of a task it was not trained on, at the other runs of the task."""
    if not len(held_out):
        return []
    adapted = start.member(held_out.member).adapted(held_out.first_runs(n_runs), n_steps if n_runs else 0)
    with torch.no_grad():
        predicted = predict(adapted, held_out.tasks.inputs)
    return held_out.other_residuals(predicted, n_runs)


def best_n_steps(start: Initialisation, held_out: HeldOutTasks) -> int:
    """Return the number of adaptation steps with the smallest error on held-out tasks; as trained where there are none."""
    if not len(held_out):
        return start.n_steps

    def error(n_steps: int) -> float:
        rows = [row for n_runs in N_TARGET_RUNS_TRIED for row in held_out_residuals(start, held_out, n_runs, n_steps) if len(row)]
        return float(np.mean([np.square(row).mean() for row in rows])) if rows else 0.0

    return min(STEPS_TRIED, key=lambda n_steps: (error(n_steps), n_steps))


def _moved(parameters: Sequence[Tensor], device: str) -> Parameters:
    return [parameter.to(device) for parameter in parameters]
