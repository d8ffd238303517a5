"""The meta-models ``maml`` and ``reptile``: an ensemble of surrogate networks, adapted to the runs of a task when it is asked about."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import LearningTable, past_scores
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import Calibration
from metamodel.gp.gp_meta_model import FORMAT
from metamodel.gp.held_out import MIN_LEFT_OUT, Residuals, expected_order, measure_residuals, ranks
from metamodel.gp.kernels import one_thread
from metamodel.gp.meta_model import LearnedModel, encoder_of, teaching_tasks
from metamodel.gp.posterior import VARIANT_CORRELATION, OwnRuns, Prediction
from metamodel.gp.task_gps import FloatArray, TrainingTask
from metamodel.networks.adaptation import (
    MAML,
    REPTILE,
    Clock,
    Initialisation,
    Parameters,
    Runs,
    Sampler,
    Tasks,
    fit_maml,
    fit_reptile,
    predict,
    random_network,
)
from metamodel.space.encoding import Encoder
from store.errors import ModelFileError

N_MEMBERS = 6
"""Networks of the ensemble, each without its own sixth of the tasks."""
STEPS_TRIED = (0, 1, 2, 3, 5, 8, 12, 20)
"""Numbers of adaptation steps among which leaving tasks out chooses; more would no longer be a few."""
N_OWN_TRIED = (4, 8, 16)
"""Numbers of own runs they are judged with."""


class NetworkPosterior:
    """The ensemble, adapted to a task.

    Args:
        parameters: Adapted networks, leading dimension ``e``.
        residual: Standard deviation of what such networks missed on tasks that were left out.
        own: Own runs, encoded with the model's columns.
    """

    def __init__(self, parameters: Parameters, residual: float, own: OwnRuns) -> None:
        self._parameters, self._residual = parameters, residual
        self._incumbent: FloatArray | None = None
        self.own_scores: FloatArray | None = None
        if len(own.outcomes):
            scores = self._scores(own.inputs)
            self._incumbent = scores.max(1)
            self.own_scores = expected_order(scores.mean(0), residual, own.outcomes)

    @property
    def noise_variance(self) -> float:
        """Already part of the variance that ``predict`` returns."""
        return 0.0

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict scores; what the networks miss is taken as independent between configurations, which is the careful assumption."""
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


@dataclass(frozen=True, eq=False)
class AdaptedModel(LearnedModel):
    """What ``maml`` and ``reptile`` share: everything but how the initialisation is learned.

    Attributes:
        start: The ensemble to start from.
        residuals: How much it misses after how many own runs.
        calibration: Width of intervals in units of that.
        encoder: How configurations become inputs.
        info: As for every model; ``n_adaptation_steps`` and ``coverage`` are added.
    """

    start: Initialisation
    residuals: Residuals
    calibration: Calibration
    encoder: Encoder
    info: Mapping[str, Any]
    kind: ClassVar[str] = ""

    @property
    def share_done(self) -> float:
        """Which part of the schedule was carried out."""
        return self.start.share_done

    @property
    def remark(self) -> str:
        """Say where intervals are a guess, or the training was too short."""
        few = f"{self.kind} has seen fewer than {MIN_LEFT_OUT} tasks, so how much it misses is not measured and its intervals are a guess"
        return "; ".join([*([] if self.residuals.n_tasks else [few]), *self.cut_short()])

    @classmethod
    @abstractmethod
    def learn(
        cls, start: Parameters, sampler: Sampler, deadline_s: float | None, progress: Callable[[float, str], None] | None
    ) -> Initialisation:
        """Learn the initialisation."""

    @classmethod
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
        """Learn from every task that can teach; the arguments are those of ``LearnedModel.fit``.

        Raises:
            NotEnoughHistoryError: If fewer than two tasks can teach, or no hyperparameter varied.
        """
        tasks = teaching_tasks(table)
        encoder = encoder_of(tasks)
        rng = np.random.default_rng(seed)
        training = []
        for task in tasks:
            keep = task.has_outcome
            inputs = encoder.encode([config for config, kept in zip(task.configs, keep, strict=True) if kept])
            training.append(TrainingTask(inputs, past_scores(task.filled[keep])))
        with one_thread():
            padded = Tasks.padded([task.thinned(rng) for task in training], device)
            sampler = Sampler(padded, N_MEMBERS, seed, has_folds=len(tasks) >= MIN_LEFT_OUT)
            start = cls.learn(_moved(random_network(N_MEMBERS, encoder.width, sampler.generator), device), sampler, deadline_s, progress)
            start = replace(start, parameters=_moved(start.parameters, "cpu"), rates=_moved(start.rates, "cpu"))
            judged = Judged.of(sampler, rng)
            start = replace(start, n_steps=judged.best_n_steps(start))
            residuals = judged.residuals(start)
        counts = {
            "kind": cls.kind,
            "n_runs": int(sum(len(task.scores) for task in training)),
            "n_tasks": len(tasks),
            "n_finished": table.n_finished,
            "task_ids": [task.task_id for task in tasks],
            "hyperparameters": list(encoder.names),
            "n_members": N_MEMBERS,
            "n_adaptation_steps": start.n_steps,
            "coverage": residuals.to_json(),
            "seed": seed,
            "device": device,
        }
        return cls(start, residuals, residuals.calibration, encoder, {**info, **counts})

    def with_info(self, **more: Any) -> Self:
        """Return the same model that remembers more about its fit."""
        return replace(self, info={**self.info, **more})

    def posterior(self, own: OwnRuns, description: TaskDescription, n_extra: int, task_id: str | None) -> NetworkPosterior:
        """Adapt the ensemble to the task's own runs; columns it has not learned are left out."""
        known = OwnRuns(own.inputs[:, : self.encoder.width], own.outcomes, own.is_same_variant)
        parameters = self.start.parameters
        if len(known.outcomes):
            weight = np.where(known.is_same_variant, 1.0, VARIANT_CORRELATION)
            seen = (known.inputs, ranks(known.outcomes), weight)
            runs = Runs(*(torch.as_tensor(values, dtype=torch.float32) for values in seen))
            parameters = self.start.adapted(runs)
        return NetworkPosterior(parameters, self.residuals.at(len(known.outcomes)), known)

    def content(self) -> dict[str, Any]:
        """Return what is saved as JSON."""
        return {
            "format": FORMAT,
            "info": dict(self.info),
            "encoder": self.encoder.to_json(),
            "residuals": self.residuals.to_json(),
            "n_steps": self.start.n_steps,
            "share_done": self.start.share_done,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""
        numbered = {"parameter": self.start.parameters, "rate": self.start.rates}
        return {f"{name}.{i}": tensor for name, tensors in numbered.items() for i, tensor in enumerate(tensors)}

    @classmethod
    def from_files(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], meta: Path) -> Self:
        """Rebuild a model from its files.

        Raises:
            ModelFileError: If they do not belong together.
        """
        n = len(tensors) // 2
        parameters, rates = ([tensors[f"{name}.{i}"] for i in range(n)] for name in ("parameter", "rate"))
        encoder = Encoder.from_json(content["encoder"])
        if parameters[0].shape[-2] != encoder.width:
            raise ModelFileError(
                f"A meta-model's files must agree, but {str(meta)!r} has {encoder.width} columns and its network "
                f"{parameters[0].shape[-2]}. Run `metahp refit`."
            )
        start = Initialisation(parameters, rates, int(content["n_steps"]), float(content["share_done"]))
        residuals = Residuals.from_json(content["residuals"])
        return cls(start, residuals, residuals.calibration, encoder, content["info"])


@dataclass(frozen=True, eq=False)
class MamlModel(AdaptedModel):
    """Model-agnostic meta-learning, second order."""

    kind: ClassVar[str] = "maml"
    about: ClassVar[str] = "networks whose initialisation is learned through the adaptation itself (Finn et al. 2017, second order)"

    @classmethod
    def learn(
        cls, start: Parameters, sampler: Sampler, deadline_s: float | None, progress: Callable[[float, str], None] | None
    ) -> Initialisation:
        """Learn the initialisation and the step sizes."""
        return fit_maml(start, sampler, MAML, Clock(MAML.n_outer, deadline_s, progress))


@dataclass(frozen=True, eq=False)
class ReptileModel(AdaptedModel):
    """Reptile."""

    kind: ClassVar[str] = "reptile"
    about: ClassVar[str] = "networks whose initialisation is moved towards networks trained on single tasks (Nichol et al. 2018)"

    @classmethod
    def learn(
        cls, start: Parameters, sampler: Sampler, deadline_s: float | None, progress: Callable[[float, str], None] | None
    ) -> Initialisation:
        """Learn the initialisation."""
        return fit_reptile(start, sampler, REPTILE, Clock(REPTILE.n_outer, deadline_s, progress))


@dataclass(frozen=True, eq=False)
class Judged:
    """Past tasks with the member that never saw each.

    Attributes:
        tasks: Those that were left out by a member, ``T`` of them, on the CPU.
        member: Which member that is, shape ``(T,)``.
        order: A random order of the runs of each task, missing ones last, shape ``(T, n)``.
    """

    tasks: Tasks
    member: Tensor
    order: Tensor

    @classmethod
    def of(cls, sampler: Sampler, rng: np.random.Generator) -> Judged:
        """Take the tasks that a sampler kept from some member."""
        chosen = (sampler.fold >= 0).nonzero()[:, 0]
        everything = (sampler.tasks.inputs, sampler.tasks.scores, sampler.tasks.mask)
        tasks = Tasks(*(tensor[chosen.to(tensor.device)].cpu() for tensor in everything))
        draws = torch.as_tensor(rng.random(tuple(tasks.mask.shape)))
        return cls(tasks, sampler.fold[chosen], draws.masked_fill(tasks.mask == 0, 2.0).argsort(-1))

    def missed(self, start: Initialisation, n_own: int, n_steps: int) -> list[FloatArray]:
        """Return what each member, adapted to ``n_own`` runs, misses of the scores of the others; tasks with too few are left out."""
        if not len(self.tasks):
            return []
        own, rest = self.order[:, :n_own], self.order[:, n_own:]
        tasks = self.tasks
        inputs = tasks.inputs.gather(1, own[..., None].expand(-1, -1, tasks.inputs.shape[-1]))
        runs = Runs(inputs, tasks.scores.gather(1, own), tasks.mask.gather(1, own))
        adapted = start.member(self.member).adapted(runs, n_steps if n_own else 0)
        with torch.no_grad():
            gap = (tasks.scores - predict(adapted, tasks.inputs)).gather(1, rest)
        is_run = tasks.mask.gather(1, rest) > 0
        return [row[real].double().numpy() for row, real in zip(gap, is_run, strict=True)]

    def best_n_steps(self, start: Initialisation) -> int:
        """Return the number of adaptation steps with the smallest error on tasks left out; as trained where there are none."""
        if not len(self.tasks):
            return start.n_steps

        def error(n_steps: int) -> float:
            rows = [row for n_own in N_OWN_TRIED for row in self.missed(start, n_own, n_steps) if len(row)]
            return float(np.mean([np.square(row).mean() for row in rows])) if rows else 0.0

        return min(STEPS_TRIED, key=lambda n_steps: (error(n_steps), n_steps))

    def residuals(self, start: Initialisation) -> Residuals:
        """Measure how much the networks miss after how many own runs."""
        return measure_residuals(lambda n_own: self.missed(start, n_own, start.n_steps))


def _moved(parameters: Sequence[Tensor], device: str) -> Parameters:
    return [parameter.to(device) for parameter in parameters]
