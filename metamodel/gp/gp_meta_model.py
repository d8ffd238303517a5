"""The meta-model as a thing one can fit, save, load and ask. Files are safetensors and JSON, never pickle."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import LearningTable, rank_scores
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import Calibration, calibrate
from metamodel.gp.kernels import one_thread
from metamodel.gp.meta_model import LearnedModel, encoder_of, teaching_tasks
from metamodel.gp.mixture import against_alone
from metamodel.gp.model_files import meta_file, read_model_files, readable
from metamodel.gp.posterior import OwnRuns, Posterior
from metamodel.gp.prior import HistoryPrior, Prior, views_of
from metamodel.gp.relatedness import Relatedness, fit_relatedness
from metamodel.gp.shared_function import MAX_INDUCING, SharedFunction, SharedKernel, choose_inducing
from metamodel.gp.task_gp_fit import N_STEPS, fit_task_gps
from metamodel.gp.task_gps import Hyperparameters, TaskGPs, TrainingTask
from metamodel.space.encoding import Encoder, FloatArray
from store.errors import ModelFileError

FORMAT = 3
"""Version of the files; a reader refuses others with the way out."""
MAX_ASKED_TASKS = 64
"""Past tasks one answer looks at, the most related ones; the work grows with their number."""

_OWN = ("log_length", "log_amplitude", "log_noise")
_SHARED_KERNEL = ("inducing", "log_length", "log_amplitude")
_SHARED = ("precision", "evidence")


@dataclass(frozen=True, eq=False)
class MetaModel(LearnedModel):
    """What was learned from a history: the default kind, past tasks as Gaussian processes.

    Attributes:
        task_gps: The past tasks as Gaussian processes.
        relatedness: Which of them are like a new one.
        calibration: How wide its intervals must be.
        encoder: How configurations become inputs.
        info: ``id created_utc kind n_runs n_tasks n_finished task_ids seed seconds device versions``.
    """

    task_gps: TaskGPs
    relatedness: Relatedness
    calibration: Calibration
    encoder: Encoder
    info: Mapping[str, Any]
    kind: ClassVar[str] = "metahp"
    about: ClassVar[str] = "past tasks as Gaussian processes, the new one as one more draw of them"
    min_share: ClassVar[float] = 0.0
    knows_own_columns: ClassVar[bool] = True
    min_tasks: ClassVar[int] = 1

    @property
    def share_done(self) -> float:
        """Which part of the intended gradient steps was done."""
        return self.task_gps.n_steps_done / N_STEPS

    def with_info(self, **more: Any) -> Self:
        """Return the same model that remembers more about its fit."""
        return replace(self, info={**self.info, **more})

    @classmethod
    def fit(
        cls,
        table: LearningTable,
        info: Mapping[str, Any],
        *,
        n_steps: int = N_STEPS,
        n_inducing: int = MAX_INDUCING,
        score: Callable[[FloatArray], FloatArray] = rank_scores,
        device: str = "cpu",
        seed: int = 0,
        deadline_s: float | None = None,
        progress: Callable[[float, str], None] | None = None,
    ) -> MetaModel:
        """Learn from every task that can teach.

        Args:
            table: What the history offers.
            info: What to remember about this fit; counts are added here.
            n_steps: Gradient steps.
            n_inducing: Points that stand for the runs of all tasks; see ``fit_task_gps``.
            score: Maps the oriented outcomes of a task to what is learned.
            device: Torch device.
            seed: Seed.
            deadline_s: Time for training in seconds, None for no limit.
            progress: Called with a fraction and a text.

        Raises:
            NotEnoughHistoryError: If no task can teach, or no hyperparameter varied.
        """
        tasks = teaching_tasks(table, cls.min_tasks)
        encoder = encoder_of(tasks)
        training = []
        for task in tasks:
            keep = task.has_outcome
            inputs = encoder.encode([config for config, kept in zip(task.configs, keep, strict=True) if kept])
            training.append(TrainingTask(inputs, score(task.filled[keep])))
        with one_thread():
            task_gps = fit_task_gps(
                training, n_steps=n_steps, n_inducing=n_inducing, device=device, seed=seed, deadline_s=deadline_s, progress=progress
            )
            features = [task.description.numeric_features() for task in tasks]
            relatedness = fit_relatedness(features, own_parts(task_gps), seed)
            calibration = calibrate(task_gps, relatedness, features, seed)
        counts = {
            "kind": cls.kind,
            "n_runs": int(sum(len(task.scores) for task in training)),
            "n_tasks": len(tasks),
            "n_finished": table.n_finished,
            "task_ids": [task.task_id for task in tasks],
            "descriptors": relatedness.telling,
            "hyperparameters": list(encoder.names),
            "coverage": calibration.to_json(),
            "seed": seed,
            "device": device,
        }
        return cls(task_gps, relatedness, calibration, encoder, {**info, **counts})

    @property
    def remark(self) -> str:
        """Say where the past tasks hardly tell of each other, so that the history counts little."""
        return "" if self.calibration.trust > 0.5 else "the other tasks hardly foretell each other, so they count little"

    def prior(self, features: Mapping[str, float], n_extra: int = 0, without: str | None = None) -> Prior:
        """Return what is believed of a task before its own runs.

        Args:
            features: What is known of it, as ``TaskDescription.numeric_features`` gives it.
            n_extra: Encoded columns that only its own runs have.
            without: Id of the task itself: its own runs are evidence of their own, and must not count twice.

        The last one is kept: a search asks about the same task before each run.
        """
        key = (tuple(sorted(features.items())), n_extra, without)
        if key not in self._last_prior:
            self._last_prior.clear()
            self._last_prior[key] = self._new_prior(features, n_extra, without)
        return self._last_prior[key]

    @cached_property
    def _last_prior(self) -> dict[tuple[object, ...], Prior]:
        return {}

    def _new_prior(self, features: Mapping[str, float], n_extra: int, without: str | None) -> Prior:
        tasks, index = self.task_gps, np.arange(self.task_gps.n_tasks)
        # A task whose runs have two objectives is there twice.
        own = [i for i, task_id in enumerate(self.info["task_ids"]) if task_id == without]
        if own and len(own) < tasks.n_tasks:
            tasks, index = tasks.without(*own), np.delete(index, own)
        if len(index) > MAX_ASKED_TASKS:
            keep = np.isin(np.arange(self.task_gps.n_tasks), index)
            weights = self.relatedness.weights(features, keep)[index]
            # Among equals a fixed draw, so that the same question has the same answer.
            shuffled = np.random.default_rng(0).permutation(len(index))
            rows = np.sort(shuffled[np.argsort(-weights[shuffled], kind="stable")[:MAX_ASKED_TASKS]])
            tasks, index = tasks.chosen(rows), index[rows]
        return HistoryPrior(tasks, views_of(self.relatedness, features, index), n_extra, self.calibration.trust)

    def forgetting(self, ids: Collection[str]) -> Self | None:
        """Return the same as if some tasks had never been, None where no other is left; their say in hyperparameters stays.

        Args:
            ids: Ids of tasks, known or not.

        The last one is kept, as is its last prior: a search asks before each run.
        """
        known = list(self.info["task_ids"])
        index = [i for i, task_id in enumerate(known) if task_id in ids]
        if not index:
            return self
        if len(index) == len(known):
            return None
        if tuple(index) not in self._last_forgetting:
            self._last_forgetting.clear()
            self._last_forgetting[tuple(index)] = self._left_by(index)
        return self._last_forgetting[tuple(index)]

    @cached_property
    def _last_forgetting(self) -> dict[tuple[int, ...], Self]:
        return {}

    def _left_by(self, index: Sequence[int]) -> Self:
        relatedness = replace(self.relatedness, values=np.delete(self.relatedness.values, index, axis=0))
        info = {**self.info, "task_ids": [task_id for i, task_id in enumerate(self.info["task_ids"]) if i not in index]}
        return replace(self, task_gps=self.task_gps.without(*index), relatedness=relatedness, info=info)

    def posterior(self, own: OwnRuns, description: TaskDescription, n_extra: int, task_id: str | None) -> Posterior:
        """Return the prior, conditioned on the task's own runs, beside what these say alone."""
        return against_alone(self.prior(description.numeric_features(), n_extra, task_id), own, self.calibration.trust)

    def content(self) -> dict[str, Any]:
        """Return what is saved as JSON."""
        return {
            "format": FORMAT,
            "info": dict(self.info),
            "encoder": self.encoder.to_json(),
            "relatedness": self.relatedness.to_json(),
            "calibration": self.calibration.to_json(),
            "n_steps": self.task_gps.n_steps_done,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""
        gps = self.task_gps
        found = {"inputs": gps.inputs, "scores": gps.scores, "mask": gps.mask}
        found |= {name: getattr(gps.own, name) for name in _OWN}
        if gps.common is not None:
            found |= {f"shared_{name}": getattr(gps.common.kernel, name) for name in _SHARED_KERNEL}
            found |= {f"shared_{name}": getattr(gps.common, name) for name in _SHARED}
        return found

    @classmethod
    def from_files(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], meta: Path) -> Self:
        """Rebuild a model from its files.

        Raises:
            ModelFileError: If they do not belong together.
        """
        own, common = Hyperparameters(*(tensors[name] for name in _OWN)), None
        if "shared_precision" in tensors:
            kernel = SharedKernel(*(tensors[f"shared_{name}"] for name in _SHARED_KERNEL))
            common = SharedFunction(kernel, *(tensors[f"shared_{name}"] for name in _SHARED))
        task_gps = TaskGPs(tensors["inputs"], tensors["scores"], tensors["mask"], own, common, int(content["n_steps"]))
        encoder = Encoder.from_json(content["encoder"])
        relatedness = Relatedness.from_json(content["relatedness"])
        n_tasks = len(content["info"]["task_ids"])
        if encoder.width != task_gps.n_inputs or not n_tasks == task_gps.n_tasks == len(relatedness.values):
            raise ModelFileError(
                f"A meta-model's files must agree, but {str(meta)!r} has {encoder.width} columns and {n_tasks} tasks, its tensors "
                f"{task_gps.n_inputs} and {task_gps.n_tasks}. Run `metahp refit`."
            )
        return cls(task_gps, relatedness, Calibration.from_json(content["calibration"]), encoder, content["info"])

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LearnedModel:
        """Read a model of any kind.

        Args:
            path: The JSON file, the safetensors file beside it, or the folder of a history's models, for the newest one.

        Raises:
            ModelFileError: If a file is missing, damaged or of another format.
        """
        from metamodel.kinds import class_of

        meta = meta_file(path)
        content, tensors = read_model_files(meta, FORMAT)
        with readable(meta):
            return class_of(str(content["info"].get("kind", cls.kind))).from_files(content, tensors, meta)


def own_parts(tasks: TaskGPs) -> FloatArray:
    """Return what sets each task apart from all, at up to ``MAX_INDUCING`` configurations that stand for all runs, shape ``(T, p)``."""
    if tasks.common is None:
        at = torch.as_tensor(choose_inducing(tasks.inputs[tasks.mask].double().numpy(), np.random.default_rng(0)))
    else:
        at = tasks.common.kernel.inducing
    index = np.arange(tasks.n_tasks)
    parts = [tasks.chosen(index[i : i + MAX_ASKED_TASKS]).predict(at)[0] for i in range(0, len(index), MAX_ASKED_TASKS)]
    found = torch.cat(parts).double().numpy()
    # Without a shared function, what all have in common is in every own part, and sets none apart.
    return found if tasks.common is not None else found - found.mean(0)
