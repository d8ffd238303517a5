"""The meta-model as a thing one can fit, save, load and ask. Files are safetensors and JSON, never pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metamodel.calibration import Calibration, calibrate
from metamodel.encoding import Encoder, fit_encoder
from metamodel.kernels import one_thread
from metamodel.observations import LearningTable, TaskRuns, past_scores
from metamodel.prior import HistoryPrior
from metamodel.relatedness import Relatedness, fit_relatedness
from metamodel.task_gps import N_STEPS, FloatArray, Hyperparameters, TaskGPs, TrainingTask, fit_task_gps
from store.errors import ModelFileError, NotEnoughHistoryError

FORMAT = 2
"""Version of the files; a reader refuses others with the way out."""
MIN_TASK_RUNS = 4
"""Runs a task needs before it can teach anything about others."""
MIN_TASKS = 2
"""Tasks needed before there is something to transfer."""
MAX_ASKED_TASKS = 64
"""Past tasks one answer looks at, the most related ones; the work grows with their number."""

_SHARED = ("log_length", "log_amplitude", "log_noise", "mean")


def is_teaching(task: TaskRuns) -> bool:
    """Say whether a task can teach: enough runs with outcomes, and not all of them equal."""
    outcomes = task.filled[task.has_outcome]
    return len(outcomes) >= MIN_TASK_RUNS and len(np.unique(outcomes)) > 1


@dataclass(frozen=True, eq=False)
class MetaModel:
    """What was learned from a history.

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

    @property
    def id(self) -> str:
        """Id, part of the file name."""
        return str(self.info["id"])

    @classmethod
    def fit(
        cls,
        table: LearningTable,
        info: Mapping[str, Any],
        *,
        n_steps: int = N_STEPS,
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
            device: Torch device.
            seed: Seed.
            deadline_s: Time for training in seconds, None for no limit.
            progress: Called with a fraction and a text.

        Raises:
            NotEnoughHistoryError: If fewer than two tasks can teach.
        """
        tasks = [task for task in table.tasks if is_teaching(task)]
        if len(tasks) < MIN_TASKS:
            found = ", ".join(f"{task.name} ({len(task)})" for task in table.tasks) or "none"
            left_out = table.describe_left_out()
            raise NotEnoughHistoryError(
                f"A meta-model needs at least {MIN_TASKS} tasks with {MIN_TASK_RUNS} finished runs of differing outcome, but the history "
                f"has {len(tasks)}; tasks (usable runs): {found}"
                + (f"; {left_out}" if left_out else "")
                + ". Log more runs with a MetaHPCallback; recommendations for a task with 4 runs of its own work without a meta-model."
            )
        encoder = fit_encoder([task.configs for task in tasks])
        training = []
        for task in tasks:
            keep = task.has_outcome
            inputs = encoder.encode([config for config, kept in zip(task.configs, keep, strict=True) if kept])
            training.append(TrainingTask(inputs, past_scores(task.filled[keep])))
        with one_thread():
            task_gps = fit_task_gps(training, n_steps=n_steps, device=device, seed=seed, deadline_s=deadline_s, progress=progress)
            features = [task.description.numeric_features() for task in tasks]
            relatedness = fit_relatedness(features, task_gps, seed)
            calibration = calibrate(task_gps, relatedness, features, seed)
        counts = {
            "kind": "metahp",
            "n_runs": int(sum(len(task.scores) for task in training)),
            "n_tasks": len(tasks),
            "n_finished": table.n_finished,
            "task_ids": [task.task_id for task in tasks],
            "descriptors": list(relatedness.names) if relatedness.width is not None else [],
            "hyperparameters": list(encoder.names),
            "coverage": calibration.to_json(),
            "seed": seed,
            "device": device,
        }
        return cls(task_gps, relatedness, calibration, encoder, {**info, **counts})

    def prior(self, features: Mapping[str, float], n_extra: int = 0, without: str | None = None) -> HistoryPrior:
        """Return what is believed of a task before its own runs.

        Args:
            features: What is known of it, as ``TaskDescription.numeric_features`` gives it.
            n_extra: Encoded columns that only its own runs have.
            without: Id of the task itself: its own runs are evidence of their own, and must not count twice.
        """
        keep = np.array([task_id != without for task_id in self.info["task_ids"]], dtype=bool)
        weights: FloatArray = self.relatedness.weights(features, keep if keep.any() else None)
        chosen = np.flatnonzero(weights)
        if len(chosen) > MAX_ASKED_TASKS:
            # Among equals a fixed draw, so that the same question has the same answer.
            shuffled = np.random.default_rng(0).permutation(chosen)
            chosen = np.sort(shuffled[np.argsort(-weights[shuffled], kind="stable")[:MAX_ASKED_TASKS]])
        return HistoryPrior(self.task_gps.chosen(chosen), weights[chosen] / weights[chosen].sum(), n_extra)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write ``<id>.safetensors`` and ``<id>.json`` into a folder, the JSON last: a model exists once its JSON does.

        Returns:
            Path of the JSON file.
        """
        from safetensors.torch import save_file

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        weights, meta = folder / f"{self.id}.safetensors", folder / f"{self.id}.json"
        content = {
            "format": FORMAT,
            "info": dict(self.info),
            "encoder": self.encoder.to_json(),
            "relatedness": self.relatedness.to_json(),
            "calibration": self.calibration.to_json(),
            "n_steps": self.task_gps.n_steps_done,
        }
        shared = {name: getattr(self.task_gps.shared, name) for name in _SHARED}
        tensors = {"inputs": self.task_gps.inputs, "scores": self.task_gps.scores, "mask": self.task_gps.mask, **shared}
        partial = folder / f".{self.id}.{os.getpid()}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, partial)
        os.replace(partial, weights)
        partial_meta = folder / f".{self.id}.{os.getpid()}.json"
        partial_meta.write_text(json.dumps(content, indent=1), encoding="utf-8")
        os.replace(partial_meta, meta)
        return meta

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MetaModel:
        """Read a model.

        Args:
            path: The JSON file, the safetensors file beside it, or the folder of a history's models, for the newest one.

        Raises:
            ModelFileError: If a file is missing, damaged or of another format.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        found = Path(path)
        meta = max(found.glob("*.json"), default=found / "model.json") if found.is_dir() else found.with_suffix(".json")
        try:
            content = json.loads(meta.read_text(encoding="utf-8"))
            if content.get("format") != FORMAT:
                raise ModelFileError(
                    f"A meta-model must have format {FORMAT}, but {str(meta)!r} has {content.get('format')!r}. Run `metahp refit`."
                )
            tensors = load_file(meta.with_suffix(".safetensors"))
            shared = Hyperparameters(*(tensors[name] for name in _SHARED))
            task_gps = TaskGPs(tensors["inputs"], tensors["scores"], tensors["mask"], shared, int(content["n_steps"]))
            encoder = Encoder.from_json(content["encoder"])
            relatedness = Relatedness.from_json(content["relatedness"])
            n_tasks = len(content["info"]["task_ids"])
            if encoder.width != task_gps.n_inputs or not n_tasks == task_gps.n_tasks == len(relatedness.values):
                raise ModelFileError(
                    f"A meta-model's files must agree, but {str(meta)!r} has {encoder.width} columns and {n_tasks} tasks, its tensors "
                    f"{task_gps.n_inputs} and {task_gps.n_tasks}. Run `metahp refit`."
                )
            return cls(task_gps, relatedness, Calibration.from_json(content["calibration"]), encoder, content["info"])
        except ModelFileError:
            raise
        except (OSError, SafetensorError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise ModelFileError(
                f"A meta-model must be a readable pair of .json and .safetensors, but {str(meta)!r} is not: {error}. Run `metahp refit`."
            ) from error
