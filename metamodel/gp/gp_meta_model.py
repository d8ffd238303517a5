"""The default kind of meta-model: source tasks as Gaussian processes, the target task as one more draw of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from metamodel.data.observations import TaskRuns, rank_scores
from metamodel.data.task import TaskDescription
from metamodel.gp.calibration import Calibration, calibrate
from metamodel.gp.meta_model import MetaModel, Progress, encoded_task
from metamodel.gp.mixture import posterior_with_single_task_component
from metamodel.gp.posterior import Posterior
from metamodel.gp.prediction import TargetTaskData
from metamodel.gp.prior import HistoryPrior, Prior, task_weightings
from metamodel.gp.relatedness import Relatedness, fit_relatedness
from metamodel.gp.shared_function import MAX_INDUCING, SharedFunction, SharedKernel, choose_inducing
from metamodel.gp.task_gp_fit import N_STEPS, fit_task_gps
from metamodel.gp.task_gps import TaskGPs, TaskKernel
from metamodel.space.arrays import FloatArray
from metamodel.space.encoding import Encoder
from store.errors import ModelFileError

MAX_SOURCE_TASKS = 64
"""Source tasks one query looks at, the most related ones; the work grows with their number."""
MIN_TRUST_WITHOUT_REMARK = 0.5

_TASK_KERNEL = ("log_length", "log_amplitude", "log_noise")
_SHARED_KERNEL = ("inducing", "log_length", "log_amplitude")
_SHARED = ("precision", "evidence")


@dataclass(frozen=True, eq=False, kw_only=True)
class GPMetaModel(MetaModel):
    """The default kind, source tasks as Gaussian processes.

    Attributes:
        task_gps: The source tasks as Gaussian processes.
        relatedness: Which of them are like a new one.
    """

    task_gps: TaskGPs
    relatedness: Relatedness
    kind: ClassVar[str] = "metahp"
    about: ClassVar[str] = "past tasks as Gaussian processes, the new one as one more draw of them"
    min_share: ClassVar[float] = 0.0
    uses_target_columns: ClassVar[bool] = True
    min_tasks: ClassVar[int] = 1
    combines_with_starter: ClassVar[bool] = True

    @property
    def share_done(self) -> float:
        """Which part of the intended gradient steps was done."""
        return self.task_gps.n_steps_done / N_STEPS

    @property
    def remark(self) -> str:
        """Name a history whose tasks do not predict each other."""
        if self.calibration.trust > MIN_TRUST_WITHOUT_REMARK:
            return ""
        return "past tasks do not predict each other, so they get little weight"

    @classmethod
    def learn(
        cls,
        tasks: Sequence[TaskRuns],
        encoder: Encoder,
        *,
        device: str,
        seed: int,
        deadline_s: float | None,
        progress: Progress | None,
        n_steps: int = N_STEPS,
        n_inducing: int = MAX_INDUCING,
        score: Callable[[FloatArray], FloatArray] = rank_scores,
    ) -> Self:
        """Learn from trainable tasks; see ``MetaModel.learn``.

        Args:
            tasks: The tasks.
            encoder: How their configurations become inputs.
            device: Torch device.
            seed: Seed.
            deadline_s: Time for training in seconds, None for no limit.
            progress: Called with a fraction and a text.
            n_steps: Gradient steps.
            n_inducing: Points that stand for the runs of all tasks; see ``fit_task_gps``.
            score: Maps the oriented outcomes of a task to what is learned.
        """
        training = [encoded_task(task, encoder, score) for task in tasks]
        task_gps = fit_task_gps(
            training, n_steps=n_steps, n_inducing=n_inducing, device=device, seed=seed, deadline_s=deadline_s, progress=progress
        )
        features = [task.description.numeric_features() for task in tasks]
        relatedness = fit_relatedness(features, task_effects(task_gps), seed)
        calibration = calibrate(task_gps, relatedness, features, seed)
        info = {"descriptors": relatedness.informative, "coverage": calibration.to_json()}
        return cls(encoder=encoder, calibration=calibration, info=info, task_gps=task_gps, relatedness=relatedness)

    def prior(self, features: Mapping[str, float], n_extra: int = 0, without: str | None = None) -> Prior:
        """Return the prior of a task.

        Args:
            features: What is known of it, as ``TaskDescription.numeric_features`` gives it.
            n_extra: Encoded columns that only its own runs have.
            without: Id of the task itself: the posterior conditions on its runs, and they must not count twice.

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
        target = [i for i, task_id in enumerate(self.info["task_ids"]) if task_id == without]
        if target and len(target) < tasks.n_tasks:
            tasks, index = tasks.without(*target), np.delete(index, target)
        if len(index) > MAX_SOURCE_TASKS:
            keep = np.isin(np.arange(self.task_gps.n_tasks), index)
            weights = self.relatedness.weights(features, keep)[index]
            # Among equals a fixed draw, so that the same query has the same answer.
            shuffled = np.random.default_rng(0).permutation(len(index))
            rows = np.sort(shuffled[np.argsort(-weights[shuffled], kind="stable")[:MAX_SOURCE_TASKS]])
            tasks, index = tasks.chosen(rows), index[rows]
        return HistoryPrior(tasks, task_weightings(self.relatedness, features, index), n_extra, self.calibration.trust)

    def without_tasks(self, ids: Collection[str]) -> Self | None:
        """Return the model without some tasks, or None if none remain. GP hyperparameters are not refitted.

        Args:
            ids: Ids of tasks, known to it or not.

        The last one is kept, as is its last prior: a search asks before each run.
        """
        known = list(self.info["task_ids"])
        index = tuple(i for i, task_id in enumerate(known) if task_id in ids)
        if not index:
            return self
        if len(index) == len(known):
            return None
        if index not in self._last_without:
            self._last_without.clear()
            self._last_without[index] = replace(
                self,
                task_gps=self.task_gps.without(*index),
                relatedness=replace(self.relatedness, values=np.delete(self.relatedness.values, index, axis=0)),
                info={**self.info, "task_ids": [task_id for i, task_id in enumerate(known) if i not in index]},
            )
        return self._last_without[index]

    @cached_property
    def _last_without(self) -> dict[tuple[int, ...], Self]:
        return {}

    def posterior(self, data: TargetTaskData, description: TaskDescription, n_extra: int, task_id: str | None) -> Posterior:
        """Condition the prior on the task's runs, with a single-task GP as one more component."""
        prior = self.prior(description.numeric_features(), n_extra, task_id)
        return posterior_with_single_task_component(prior, data, self.calibration.trust)

    def content(self) -> dict[str, Any]:
        """Return what is saved as JSON."""
        return {
            "relatedness": self.relatedness.to_json(),
            "calibration": self.calibration.to_json(),
            "n_steps": self.task_gps.n_steps_done,
        }

    def tensors(self) -> dict[str, Tensor]:
        """Return what is saved as safetensors."""
        gps = self.task_gps
        found = {"inputs": gps.inputs, "scores": gps.scores, "mask": gps.mask}
        found |= {name: getattr(gps.task_kernel, name) for name in _TASK_KERNEL}
        if gps.shared_gp is not None:
            found |= {f"shared_{name}": getattr(gps.shared_gp.kernel, name) for name in _SHARED_KERNEL}
            found |= {f"shared_{name}": getattr(gps.shared_gp, name) for name in _SHARED}
        return found

    @classmethod
    def from_content(cls, content: Mapping[str, Any], tensors: Mapping[str, Tensor], encoder: Encoder, meta: Path) -> Self:
        """Rebuild a model from its files.

        Raises:
            ModelFileError: If they do not belong together.
        """
        task_kernel, shared_gp = TaskKernel(*(tensors[name] for name in _TASK_KERNEL)), None
        if "shared_precision" in tensors:
            kernel = SharedKernel(*(tensors[f"shared_{name}"] for name in _SHARED_KERNEL))
            shared_gp = SharedFunction(kernel, *(tensors[f"shared_{name}"] for name in _SHARED))
        task_gps = TaskGPs(tensors["inputs"], tensors["scores"], tensors["mask"], task_kernel, shared_gp, int(content["n_steps"]))
        relatedness = Relatedness.from_json(content["relatedness"])
        n_tasks = len(content["info"]["task_ids"])
        if encoder.width != task_gps.n_inputs or not n_tasks == task_gps.n_tasks == len(relatedness.values):
            raise ModelFileError(
                f"A meta-model's files must agree, but {str(meta)!r} has {encoder.width} columns and {n_tasks} tasks, its tensors "
                f"{task_gps.n_inputs} and {task_gps.n_tasks}. Run `metahp refit`."
            )
        calibration = Calibration.from_json(content["calibration"])
        return cls(encoder=encoder, calibration=calibration, info=content["info"], task_gps=task_gps, relatedness=relatedness)


def task_effects(tasks: TaskGPs) -> FloatArray:
    """Return what sets each task apart from all, at up to ``MAX_INDUCING`` configurations that stand for all runs, shape ``(T, p)``."""
    if tasks.shared_gp is None:
        at = torch.as_tensor(choose_inducing(tasks.inputs[tasks.mask].double().numpy(), np.random.default_rng(0)))
    else:
        at = tasks.shared_gp.kernel.inducing
    index = np.arange(tasks.n_tasks)
    parts = [tasks.chosen(index[i : i + MAX_SOURCE_TASKS]).predict(at)[0] for i in range(0, len(index), MAX_SOURCE_TASKS)]
    found = torch.cat(parts).double().numpy()
    # Without a shared function, what all have in common is in every task effect, and sets none apart.
    return found if tasks.shared_gp is not None else found - found.mean(0)
