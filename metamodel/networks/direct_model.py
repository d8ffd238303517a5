"""The meta-model ``direct``: it says which configuration should be best, not what one reaches.

So that its recommendations can be weighed like all others, leaving tasks out tells how good configurations are that lie so and so far from
the predicted optimum; distances are in units of what the prediction of each hyperparameter missed there, so that one whose best value
differs from task to task hardly counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import LearningTable, TaskRuns, past_scores
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import N_OWN, Calibration
from metamodel.gp.gp_meta_model import FORMAT
from metamodel.gp.held_out import MIN_LEFT_OUT, Residuals, expected_order, measure_residuals, ranks
from metamodel.gp.kernels import one_thread
from metamodel.gp.meta_model import LearnedModel, encoder_of, teaching_tasks
from metamodel.gp.posterior import OwnRuns, Prediction
from metamodel.gp.task_gps import FloatArray, TrainingTask
from metamodel.networks.adaptation import Clock, Parameters, Tasks
from metamodel.networks.direct import N_STEPS, Descriptors, fit_direct, predicted_optimum
from metamodel.space.accuracy import hyperparameter_errors, mean_errors
from metamodel.space.dimensions import is_number
from metamodel.space.encoding import Encoder
from store.errors import ModelFileError

N_MEMBERS = 6
"""Networks of the ensemble, each without its own sixth of the tasks."""
MIN_MISS = 0.05
"""Least error of a column, in units of its range: a prediction that happened to be right a few times is not exact."""
USUAL_MISS = 0.25
"""Error of a column where no task could be left out."""
N_BINS = 20
SLOPE = 1e-3
"""Decrease of the expected score with distance where the measured one is level, so that nearer is better everywhere."""
MAX_LISTED = 12
"""A number with at most this many values in the history is one of these: a batch size, a number of layers."""


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


class DirectPosterior:
    """Scores of configurations by their distance from the predicted optimum.

    Args:
        optimum: Encoded, shape ``(d,)``.
        miss: Error of each column, shape ``(d,)``; infinite for one that does not count.
        quality: From distance to score.
        residual: Standard deviation of scores around that.
        own: Own runs, encoded with the model's columns.
    """

    def __init__(self, optimum: FloatArray, miss: FloatArray, quality: Quality, residual: float, own: OwnRuns) -> None:
        self._optimum, self._miss, self._quality, self._residual = optimum, miss, quality, residual
        self._incumbent: FloatArray | None = None
        self.own_scores: FloatArray | None = None
        if len(own.outcomes):
            scores = self._scores(own.inputs)
            self._incumbent = np.array([scores.max()])
            self.own_scores = expected_order(scores, residual, own.outcomes)

    @property
    def noise_variance(self) -> float:
        """Already part of the variance that ``predict`` returns."""
        return 0.0

    def predict(self, inputs: FloatArray, *, is_joint: bool = False) -> Prediction:
        """Predict scores, one rival; what they miss is taken as independent between configurations."""
        mean = self._scores(inputs)
        variance = np.full(len(mean), self._residual**2)
        covariance = np.diag(variance)[None] if is_joint else variance[None]
        return Prediction(mean[None], covariance, np.ones(1), self._incumbent)

    def mean(self, inputs: FloatArray) -> FloatArray:
        """Return the expected scores."""
        return self._scores(inputs)

    def _scores(self, inputs: FloatArray) -> FloatArray:
        return self._quality.at(distances(inputs[:, : len(self._optimum)], self._optimum, self._miss))


def distances(inputs: FloatArray, optimum: FloatArray, miss: FloatArray) -> FloatArray:
    """Return the root mean square distance of configurations ``(..., n, d)`` from an optimum ``(..., d)`` in units of ``miss``."""
    n_columns = max(int(np.isfinite(miss).sum()), 1)
    found: FloatArray = np.sqrt(np.square((inputs - optimum[..., None, :]) / miss).sum(-1) / n_columns)
    return found


@dataclass(frozen=True, eq=False)
class DirectModel(LearnedModel):
    """A network that regresses the best hyperparameters.

    Attributes:
        parameters: The ensemble, leading dimension ``e``.
        descriptors: How descriptions of tasks become inputs.
        miss: Error of each encoded column on tasks left out, shape ``(d,)``.
        quality: How good configurations are by distance.
        residuals: How far scores scatter around that.
        calibration: Width of intervals in units of that.
        encoder: How configurations become inputs.
        trained: Which part of the training was done.
        info: As for every model; ``accuracy`` is added.
    """

    parameters: Parameters
    descriptors: Descriptors
    miss: FloatArray
    quality: Quality
    residuals: Residuals
    calibration: Calibration
    encoder: Encoder
    trained: float
    info: Mapping[str, Any]
    kind: ClassVar[str] = "direct"
    about: ClassVar[str] = "a network that regresses the best hyperparameters of a task"

    @property
    def share_done(self) -> float:
        """Which part of the steps was done."""
        return self.trained

    @property
    def remark(self) -> str:
        """Say that outcomes are not predicted, and how they are judged instead."""
        how = (
            f"judged by how good configurations at such a distance from it were on {self.residuals.n_tasks} tasks left out"
            if self.residuals.n_tasks
            else f"and with fewer than {MIN_LEFT_OUT} tasks how good it is is not measured, so the intervals are a guess"
        )
        return "; ".join(["direct predicts the best configuration, not outcomes", how, *self.cut_short()])

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
        families = [family_of(task) for task in tasks]
        descriptors = Descriptors.fit([task.description for task in tasks], families)
        described = np.stack([descriptors.encode(task.description, family) for task, family in zip(tasks, families, strict=True)])
        rng = np.random.default_rng(seed)
        with one_thread():
            padded = Tasks.padded([_training(task, encoder).thinned(rng) for task in tasks], device)
            folds = torch.as_tensor(rng.permutation(len(tasks)) % N_MEMBERS if len(tasks) >= MIN_LEFT_OUT else np.full(len(tasks), -1))
            features = torch.as_tensor(described, dtype=torch.float32)
            clock = Clock(N_STEPS, deadline_s, progress)
            parameters, trained = fit_direct(padded, features.to(device), folds, N_MEMBERS, seed, clock)
            left_out = LeftOut.of(padded, features, folds, parameters, rng)
        miss, quality, residuals = left_out.judged(encoder)
        counts = {
            "kind": cls.kind,
            "n_runs": int(sum(int(task.has_outcome.sum()) for task in tasks)),
            "n_tasks": len(tasks),
            "n_finished": table.n_finished,
            "task_ids": [task.task_id for task in tasks],
            "descriptors": list(descriptors.names),
            "families": list(descriptors.families),
            "hyperparameters": list(encoder.names),
            "n_members": N_MEMBERS,
            "accuracy": accuracy(left_out, tasks, encoder),
            "coverage": residuals.to_json(),
            "seed": seed,
            "device": device,
        }
        return cls(parameters, descriptors, miss, quality, residuals, residuals.calibration, encoder, trained, {**info, **counts})

    def with_info(self, **more: Any) -> Self:
        """Return the same model that remembers more about its fit."""
        return replace(self, info={**self.info, **more})

    def posterior(self, own: OwnRuns, description: TaskDescription, n_extra: int, task_id: str | None) -> DirectPosterior:
        """Predict the optimum of a task from its description and its own runs; columns it has not learned are left out."""
        width = self.encoder.width
        known = OwnRuns(own.inputs[:, :width], own.outcomes, own.is_same_variant)
        described = torch.as_tensor(self.descriptors.encode(description, description.model_family), dtype=torch.float32)[None]
        inputs = torch.as_tensor(known.inputs, dtype=torch.float32)[None]
        outcomes = torch.as_tensor(ranks(known.outcomes), dtype=torch.float32)[None]
        found = predicted_optimum(self.parameters, described, inputs, outcomes, torch.ones(outcomes.shape))
        optimum = found.mean(0)[0].double().numpy()
        return DirectPosterior(optimum, self.miss, self.quality, self.residuals.at(len(known.outcomes)), known)

    def content(self) -> dict[str, Any]:
        """Return what is saved as JSON."""
        return {
            "format": FORMAT,
            "info": dict(self.info),
            "encoder": self.encoder.to_json(),
            "descriptors": self.descriptors.to_json(),
            "residuals": self.residuals.to_json(),
            "trained": self.trained,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""
        arrays = {"miss": self.miss, "distance": self.quality.distance, "score": self.quality.score}
        numbered = {f"parameter.{i}": tensor for i, tensor in enumerate(self.parameters)}
        return {**numbered, **{name: torch.as_tensor(values) for name, values in arrays.items()}}

    @classmethod
    def from_files(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], meta: Path) -> Self:
        """Rebuild a model from its files.

        Raises:
            ModelFileError: If they do not belong together.
        """
        parameters = [tensors[f"parameter.{i}"] for i in range(sum(name.startswith("parameter.") for name in tensors))]
        miss, distance, score = (tensors[name].double().numpy() for name in ("miss", "distance", "score"))
        encoder = Encoder.from_json(content["encoder"])
        if not encoder.width == len(miss) == parameters[-1].shape[-1]:
            raise ModelFileError(
                f"A meta-model's files must agree, but {str(meta)!r} has {encoder.width} columns and its network "
                f"{parameters[-1].shape[-1]}. Run `metahp refit`."
            )
        residuals = Residuals.from_json(content["residuals"])
        descriptors, trained = Descriptors.from_json(content["descriptors"]), float(content["trained"])
        quality = Quality(distance, score)
        return cls(parameters, descriptors, miss, quality, residuals, residuals.calibration, encoder, trained, content["info"])


def family_of(task: TaskRuns) -> str | None:
    """Return the model family of a task: what its description says, else that of most runs."""
    if task.description.model_family is not None:
        return task.description.model_family
    seen = Counter(str(config["model_family"]) for config in task.configs if config.get("model_family") is not None)
    return seen.most_common(1)[0][0] if seen else None


def _training(task: TaskRuns, encoder: Encoder) -> TrainingTask:
    keep = task.has_outcome
    inputs = encoder.encode([config for config, kept in zip(task.configs, keep, strict=True) if kept])
    return TrainingTask(inputs, past_scores(task.filled[keep]))


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Past tasks, each with what the network that never saw it predicts.

    Attributes:
        index: Which tasks these are, shape ``(T,)``.
        tasks: Their runs, on the CPU.
        order: A random order of the runs of each, missing ones last, shape ``(T, n)``.
        optima: Number of own runs -> predicted optimum of each, shape ``(T, d)``.
    """

    index: Tensor
    tasks: Tasks
    order: Tensor
    optima: Mapping[int, FloatArray]

    @classmethod
    def of(cls, tasks: Tasks, described: Tensor, fold: Tensor, parameters: Parameters, rng: np.random.Generator) -> LeftOut:
        """Predict every task that some network has not seen, knowing none, 4 and 16 of its runs."""
        index = (fold >= 0).nonzero()[:, 0]
        chosen = Tasks(*(tensor.cpu()[index] for tensor in (tasks.inputs, tasks.scores, tasks.mask)))
        order = torch.as_tensor(rng.random(tuple(chosen.mask.shape))).masked_fill(chosen.mask == 0, 2.0).argsort(-1)
        optima = {}
        for n_own in N_OWN if len(index) else ():
            own = order[:, :n_own]
            inputs = chosen.inputs.gather(1, own[..., None].expand(-1, -1, chosen.inputs.shape[-1]))
            known = (inputs, chosen.scores.gather(1, own), chosen.mask.gather(1, own))
            found = predicted_optimum(parameters, described[index], *known)
            optima[n_own] = found[fold[index], torch.arange(len(index))].double().numpy()
        return cls(index, chosen, order, optima)

    @property
    def best(self) -> FloatArray:
        """Encoded best run of each, shape ``(T, d)``."""
        best = self.tasks.scores.masked_fill(self.tasks.mask == 0, -torch.inf).argmax(1)
        found: FloatArray = self.tasks.inputs[torch.arange(len(best)), best].double().numpy()
        return found

    def judged(self, encoder: Encoder) -> tuple[FloatArray, Quality, Residuals]:
        """Return the error of each column, the quality by distance, and the residuals around it."""
        counts = ~encoder.is_context
        miss = np.where(counts, USUAL_MISS, np.inf)
        if not self.optima:
            return miss, Quality(np.array([0.0, 3.0]), np.array([1.0, -1.0])), Residuals()
        gaps = np.concatenate([optimum - self.best for optimum in self.optima.values()])
        miss = np.where(counts, np.maximum(np.sqrt(np.square(gaps).mean(0)), MIN_MISS), np.inf)
        inputs, scores = self.tasks.inputs.double().numpy(), self.tasks.scores.double().numpy()
        is_run = self.tasks.mask.numpy() > 0
        distance = {n: distances(inputs, optimum, miss) for n, optimum in self.optima.items()}
        everything = [(values[is_run], scores[is_run]) for values in distance.values()]
        quality = Quality.fit(*(np.concatenate(parts) for parts in zip(*everything, strict=True)))
        order = self.order.numpy()

        def missed(n_own: int) -> list[FloatArray]:
            rows = []
            for i, gap in enumerate(scores - quality.at(distance[n_own])):
                rest = order[i, n_own:]
                rows.append(gap[rest[is_run[i, rest]]])
            return rows

        return miss, quality, measure_residuals(missed)


def accuracy(left_out: LeftOut, tasks: Sequence[TaskRuns], encoder: Encoder) -> dict[str, Any]:
    """Measure how far predicted hyperparameters are from the best run of each task that was left out.

    Returns:
        ``n_tasks``; ``after``: number of own runs -> name -> error; ``same_for_all``: the errors of the mean optimum of the other tasks,
        which knows nothing of the task. Empty where no task could be left out.
    """
    if not left_out.optima:
        return {}
    configs = [config for task in tasks for config in task.configs]
    seen = {name: [config[name] for config in configs if name in config] for name in encoder.names}
    tuned = [column for column in encoder.columns if not column.is_context]
    is_log = [column.name for column in tuned if column.is_log]
    truth = [_best_config(tasks[int(i)]) for i in left_out.index]
    best = left_out.best
    mean = (best.sum(0) - best) / max(len(best) - 1, 1)

    def errors(optima: FloatArray) -> dict[str, dict[str, float]]:
        found = [decode(row, encoder, seen) for row in optima]
        return mean_errors([hyperparameter_errors(given, config, is_log) for given, config in zip(found, truth, strict=True)])

    after = {str(n_own): errors(optimum) for n_own, optimum in left_out.optima.items()}
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
        if 0 < len(distinct) <= MAX_LISTED:
            scaled = column.encode(distinct)[:, 0]
            config[column.name] = distinct[int(np.argmin(np.abs(scaled - part[0])))]
        else:
            value = float(np.exp(number)) if column.is_log else number
            config[column.name] = round(value) if distinct and all(isinstance(item, int) for item in distinct) else value
    return config
