"""The meta-model ``direct``: predicts the best configuration, not the outcome of a configuration.

So that its recommendations can be weighed like all others, held-out tasks show how good configurations are at a distance from the predicted
optimum. Distances are in units of the error of each hyperparameter's prediction there, so that one whose best value differs from task to
task hardly counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import TaskRuns, past_scores
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import MIN_HELD_OUT_TASKS, N_OWN
from metamodel.gp.meta_model import MetaModel, Progress, encoded_task
from metamodel.gp.prediction import Prediction, TargetTaskData, TaskPosterior
from metamodel.networks.adaptation import N_MEMBERS, Clock, PaddedTasks, Parameters
from metamodel.networks.direct import N_DIRECT_STEPS, Descriptors, fit_direct, predicted_optimum
from metamodel.networks.held_out_tasks import HeldOutTasks
from metamodel.networks.residuals import Residuals, expected_scores, measure_residuals, ranks
from metamodel.space.accuracy import hyperparameter_errors, mean_errors
from metamodel.space.arrays import FloatArray
from metamodel.space.dimensions import MAX_LISTED_VALUES, is_number
from metamodel.space.encoding import Encoder
from store.errors import ModelFileError

MIN_MISS = 0.05
"""Least error of a column, in units of its range: a prediction that happened to be right a few times is not exact."""
USUAL_MISS = 0.25
"""Error of a column where no task could be held out."""
N_BINS = 20
SLOPE = 1e-3
"""Decrease of the expected score with distance where the measured one is level, so that nearer is better everywhere."""


@dataclass(frozen=True)
class Quality:
    """How good configurations are by their distance from the predicted optimum.

    Attributes:
        distance: Increasing, shape ``(b,)``.
        score: Expected score there, decreasing, shape ``(b,)``.
    """

    distance: FloatArray
    score: FloatArray

    def at(self, distance: FloatArray) -> FloatArray:
        """Return the expected score at distances of any shape; beyond the last it goes on falling slowly."""
        found: FloatArray = np.interp(distance, self.distance, self.score) - SLOPE * distance
        return found

    @classmethod
    def fit(cls, distance: FloatArray, score: FloatArray) -> Quality:
        """Fit a falling function by bins of equal count (pool adjacent violators)."""
        order = np.argsort(distance, kind="stable")
        blocks: list[tuple[float, float, int]] = []
        for part in np.array_split(order, min(N_BINS, len(order))):
            blocks.append((float(distance[part].mean()), float(score[part].mean()), len(part)))
            while len(blocks) > 1 and blocks[-1][1] > blocks[-2][1]:
                (x1, y1, n1), (x2, y2, n2) = blocks[-2:]
                n = n1 + n2
                blocks[-2:] = [((x1 * n1 + x2 * n2) / n, (y1 * n1 + y2 * n2) / n, n)]
        return cls(np.array([x for x, _, _ in blocks]), np.array([y for _, y, _ in blocks]))


class DirectPosterior(TaskPosterior):
    """Scores of configurations by their distance from the predicted optimum.

    Args:
        optimum: Encoded, shape ``(d,)``.
        miss: Error of each column, shape ``(d,)``; infinite for one that does not count.
        quality: From distance to score.
        residual: Standard deviation of scores around that.
        data: The target task's runs, encoded with the model's columns.
    """

    def __init__(self, optimum: FloatArray, miss: FloatArray, quality: Quality, residual: float, data: TargetTaskData) -> None:
        self._optimum, self._miss, self._quality, self._residual = optimum, miss, quality, residual
        self._incumbent: FloatArray | None = None
        self.target_scores: FloatArray | None = None
        if len(data.outcomes):
            scores = self.mean(data.inputs)
            self._incumbent = np.array([scores.max()])
            self.target_scores = expected_scores(scores, residual, data.outcomes)

    @property
    def noise_variance(self) -> float:
        """Already part of the variance that ``predict`` returns."""
        return 0.0

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict scores, as one component; residuals are taken as independent between configurations."""
        mean = self.mean(inputs)
        variance = np.full(len(mean), self._residual**2)
        covariance = np.diag(variance)[None] if is_joint else variance[None]
        return Prediction(mean[None], covariance, np.ones(1), self._incumbent)

    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected scores."""
        return self._quality.at(distances(inputs[:, : len(self._optimum)], self._optimum, self._miss))


def distances(inputs: FloatArray, optimum: FloatArray, miss: FloatArray) -> FloatArray:
    """Return the root mean square distance of configurations ``(..., n, d)`` from an optimum ``(..., d)`` in units of ``miss``."""
    n_columns = max(int(np.isfinite(miss).sum()), 1)
    found: FloatArray = np.sqrt(np.square((inputs - optimum[..., None, :]) / miss).sum(-1) / n_columns)
    return found


@dataclass(frozen=True, eq=False, kw_only=True)
class DirectModel(MetaModel):
    """A network that regresses the best hyperparameters.

    Attributes:
        parameters: The ensemble, leading dimension ``e``.
        descriptors: How descriptions of tasks become inputs.
        miss: Error of each encoded column on held-out tasks, shape ``(d,)``.
        quality: How good configurations are by distance.
        residuals: How far scores scatter around that.
        trained: Which part of the training was done.
    """

    parameters: Parameters
    descriptors: Descriptors
    miss: FloatArray
    quality: Quality
    residuals: Residuals
    trained: float
    kind: ClassVar[str] = "direct"
    about: ClassVar[str] = "a network that regresses the best hyperparameters of a task"

    @property
    def share_done(self) -> float:
        """Which part of the steps was done."""
        return self.trained

    @property
    def remark(self) -> str:
        """State that outcomes are not predicted, and where their estimates come from."""
        how = (
            f"outcomes are estimated from configurations at such a distance from it on {self.residuals.n_tasks} held-out tasks"
            if self.residuals.n_tasks
            else f"with fewer than {MIN_HELD_OUT_TASKS} tasks its error is not measured, so the intervals are a guess"
        )
        return "; ".join(["direct predicts the best configuration, not outcomes", how, *self.training_warnings()])

    @classmethod
    def learn(
        cls, tasks: Sequence[TaskRuns], encoder: Encoder, *, device: str, seed: int, deadline_s: float | None, progress: Progress | None
    ) -> Self:
        """Learn from trainable tasks; see ``MetaModel.learn``."""
        families = [family_of(task) for task in tasks]
        descriptors = Descriptors.fit([task.description for task in tasks], families)
        described = np.stack([descriptors.encode(task.description, family) for task, family in zip(tasks, families, strict=True)])
        rng = np.random.default_rng(seed)
        padded = PaddedTasks.of([encoded_task(task, encoder, past_scores).thinned(rng) for task in tasks], device)
        is_divided = len(tasks) >= MIN_HELD_OUT_TASKS
        folds = torch.as_tensor(rng.permutation(len(tasks)) % N_MEMBERS if is_divided else np.full(len(tasks), -1))
        features = torch.as_tensor(described, dtype=torch.float32)
        clock = Clock(N_DIRECT_STEPS, deadline_s, progress)
        parameters, trained = fit_direct(padded, features.to(device), folds, N_MEMBERS, seed, clock)
        optima = HeldOutOptima.of(padded, features, folds, parameters, rng)
        miss, quality, residuals = optima.errors(encoder)
        info = {
            "descriptors": list(descriptors.names),
            "families": list(descriptors.families),
            "n_members": N_MEMBERS,
            "accuracy": accuracy(optima, tasks, encoder),
            "coverage": residuals.to_json(),
        }
        return cls(
            encoder=encoder,
            calibration=residuals.calibration,
            info=info,
            parameters=parameters,
            descriptors=descriptors,
            miss=miss,
            quality=quality,
            residuals=residuals,
            trained=trained,
        )

    def posterior(self, data: TargetTaskData, description: TaskDescription, n_extra: int, task_id: str | None) -> DirectPosterior:
        """Predict the optimum of a task from its description and its runs; columns it has not learned are left out."""
        known = data.narrowed(self.encoder.width)
        described = torch.as_tensor(self.descriptors.encode(description, description.model_family), dtype=torch.float32)[None]
        inputs = torch.as_tensor(known.inputs, dtype=torch.float32)[None]
        outcomes = torch.as_tensor(ranks(known.outcomes), dtype=torch.float32)[None]
        found = predicted_optimum(self.parameters, described, inputs, outcomes, torch.ones(outcomes.shape))
        optimum = found.mean(0)[0].double().numpy()
        return DirectPosterior(optimum, self.miss, self.quality, self.residuals.at(len(known.outcomes)), known)

    def content(self) -> dict[str, Any]:
        """Return what is saved as JSON."""
        return {"descriptors": self.descriptors.to_json(), "residuals": self.residuals.to_json(), "trained": self.trained}

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""
        arrays = {"miss": self.miss, "distance": self.quality.distance, "score": self.quality.score}
        numbered = {f"parameter.{i}": tensor for i, tensor in enumerate(self.parameters)}
        return {**numbered, **{name: torch.as_tensor(values) for name, values in arrays.items()}}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], encoder: Encoder, meta: Path) -> Self:
        """Rebuild a model from its files.

        Raises:
            ModelFileError: If they do not belong together.
        """
        parameters = [tensors[f"parameter.{i}"] for i in range(sum(name.startswith("parameter.") for name in tensors))]
        miss, distance, score = (tensors[name].double().numpy() for name in ("miss", "distance", "score"))
        if not encoder.width == len(miss) == parameters[-1].shape[-1]:
            raise ModelFileError(
                f"A meta-model's files must agree, but {str(meta)!r} has {encoder.width} columns and its network "
                f"{parameters[-1].shape[-1]}. Run `metahp refit`."
            )
        residuals = Residuals.from_json(content["residuals"])
        return cls(
            encoder=encoder,
            calibration=residuals.calibration,
            info=content["info"],
            parameters=parameters,
            descriptors=Descriptors.from_json(content["descriptors"]),
            miss=miss,
            quality=Quality(distance, score),
            residuals=residuals,
            trained=float(content["trained"]),
        )


def family_of(task: TaskRuns) -> str | None:
    """Return the model family of a task: what its description says, else that of most runs."""
    if task.description.model_family is not None:
        return task.description.model_family
    seen = Counter(str(config["model_family"]) for config in task.configs if config.get("model_family") is not None)
    return seen.most_common(1)[0][0] if seen else None


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutOptima:
    """Held-out tasks, with the optimum that the network without each predicts.

    Attributes:
        held_out: The tasks.
        optima: Number of target runs -> predicted optimum of each, shape ``(T, d)``; empty without tasks.
    """

    held_out: HeldOutTasks
    optima: Mapping[int, FloatArray]

    @classmethod
    def of(cls, tasks: PaddedTasks, described: Tensor, fold: Tensor, parameters: Parameters, rng: np.random.Generator) -> HeldOutOptima:
        """Predict every task that some network was not trained on, from none, 4 and 16 of its runs."""
        held_out = HeldOutTasks.of(tasks, fold, rng)
        optima = {}
        for n_own in N_OWN if len(held_out) else ():
            runs = held_out.first_runs(n_own)
            found = predicted_optimum(parameters, described[held_out.index], runs.inputs, runs.outcomes, runs.weight)
            optima[n_own] = found[held_out.member, torch.arange(len(held_out))].double().numpy()
        return cls(held_out, optima)

    def errors(self, encoder: Encoder) -> tuple[FloatArray, Quality, Residuals]:
        """Return the error of each column, the quality by distance, and the residuals around it."""
        counts = ~encoder.is_context
        miss = np.where(counts, USUAL_MISS, np.inf)
        if not self.optima:
            return miss, Quality(np.array([0.0, 3.0]), np.array([1.0, -1.0])), Residuals()
        tasks = self.held_out.tasks
        gaps = np.concatenate([optimum - self.held_out.best for optimum in self.optima.values()])
        miss = np.where(counts, np.maximum(np.sqrt(np.square(gaps).mean(0)), MIN_MISS), np.inf)
        inputs, scores, is_run = tasks.inputs.double().numpy(), tasks.scores.double().numpy(), tasks.mask.numpy() > 0
        distance = {n: distances(inputs, optimum, miss) for n, optimum in self.optima.items()}
        everything = [(values[is_run], scores[is_run]) for values in distance.values()]
        quality = Quality.fit(*(np.concatenate(parts) for parts in zip(*everything, strict=True)))

        def residuals(n_own: int) -> list[FloatArray]:
            return self.held_out.other_residuals(torch.as_tensor(quality.at(distance[n_own])), n_own)

        return miss, quality, measure_residuals(residuals)


def accuracy(predicted: HeldOutOptima, tasks: Sequence[TaskRuns], encoder: Encoder) -> dict[str, Any]:
    """Measure how far predicted hyperparameters are from the best run of each held-out task.

    Returns:
        ``n_tasks``; ``after``: number of own runs -> name -> error; ``same_for_all``: the errors of the mean optimum of the other tasks,
        without anything of the task. Empty where no task could be held out.
    """
    if not predicted.optima:
        return {}
    configs = [config for task in tasks for config in task.configs]
    seen = {name: [config[name] for config in configs if name in config] for name in encoder.names}
    tuned = [column for column in encoder.columns if not column.is_context]
    is_log = [column.name for column in tuned if column.is_log]
    truth = [_best_config(tasks[int(i)]) for i in predicted.held_out.index]
    best = predicted.held_out.best
    mean = (best.sum(0) - best) / max(len(best) - 1, 1)

    def errors(optima: FloatArray) -> dict[str, dict[str, float]]:
        found = [decode(row, encoder, seen) for row in optima]
        return mean_errors([hyperparameter_errors(given, config, is_log) for given, config in zip(found, truth, strict=True)])

    after = {str(n_own): errors(optimum) for n_own, optimum in predicted.optima.items()}
    return {"n_tasks": len(truth), "after": after, "same_for_all": errors(mean)}


def _best_config(task: TaskRuns) -> Mapping[str, Any]:
    return task.configs[int(np.nanargmax(task.values))]


def decode(row: FloatArray, encoder: Encoder, seen: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Turn an encoded configuration into values.

    Args:
        row: Shape ``(d,)``.
        encoder: What encoded it.
        seen: Values each name had in the history; where they are few, the nearest is taken.

    Returns:
        Canonical name -> value, of names that were tuned.
    """
    config: dict[str, Any] = {}
    for column, start in encoder.places.values():
        part = row[start : start + column.width]
        if column.is_context or (column.can_miss and part[-1] > 0.5):
            continue
        if column.choices:
            config[column.name] = column.choices[int(np.argmax(part[: len(column.choices)]))]
            continue
        number = column.low + float(np.clip(part[0], 0.0, 1.0)) * (column.high - column.low)
        distinct = sorted({value for value in seen.get(column.name, ()) if is_number(value)})
        if 0 < len(distinct) <= MAX_LISTED_VALUES:
            scaled = column.encode(distinct)[:, 0]
            config[column.name] = distinct[int(np.argmin(np.abs(scaled - part[0])))]
        else:
            value = float(np.exp(number)) if column.is_log else number
            config[column.name] = round(value) if distinct and all(isinstance(item, int) for item in distinct) else value
    return config
