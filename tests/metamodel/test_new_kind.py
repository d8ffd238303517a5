"""A kind of meta-model is one class and one line in ``metamodel.kinds``: a toy one is fitted, saved, loaded and asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from optuna.distributions import FloatDistribution

from metamodel import MetaModel, TaskDescription, current_model, kinds, recommend, refit
from metamodel.data.observations import TaskRuns, past_scores
from metamodel.gp.calibration import Calibration
from metamodel.gp.meta_model import Progress, encoded_task
from metamodel.gp.prediction import Prediction, TargetTaskData, TaskPosterior
from metamodel.space.encoding import Encoder
from store import History


class ToyPosterior(TaskPosterior):
    """A linear score with unit variance."""

    noise_variance = 0.0

    def __init__(self, slope: np.ndarray) -> None:
        self.slope, self.target_scores = slope, None

    def predict(self, inputs: np.ndarray, *, is_joint: bool = False) -> Prediction:
        mean, variance = self.mean(inputs), np.ones(len(inputs))
        return Prediction(mean[None], np.diag(variance)[None] if is_joint else variance[None], np.ones(1))

    def mean(self, inputs: np.ndarray) -> np.ndarray:
        return inputs @ self.slope


@dataclass(frozen=True, eq=False, kw_only=True)
class ToyModel(MetaModel):
    """Scores rise or fall with each column, as they do on average over all runs."""

    slope: np.ndarray
    kind: ClassVar[str] = "toy"
    about: ClassVar[str] = "a linear trend"

    @property
    def share_done(self) -> float:
        return 1.0

    @classmethod
    def learn(
        cls, tasks: Sequence[TaskRuns], encoder: Encoder, *, device: str, seed: int, deadline_s: float | None, progress: Progress | None
    ) -> Self:
        training = [encoded_task(task, encoder, past_scores) for task in tasks]
        slope = sum(((task.inputs - 0.5).T @ task.scores for task in training), np.zeros(encoder.width))
        return cls(encoder=encoder, calibration=Calibration({}, {}), info={}, slope=slope)

    def posterior(self, data: TargetTaskData, description: TaskDescription, n_extra: int, task_id: str | None) -> ToyPosterior:
        return ToyPosterior(self.slope)

    def content(self) -> dict[str, Any]:
        return {}

    def tensors(self) -> dict[str, torch.Tensor]:
        return {"slope": torch.as_tensor(self.slope)}

    @classmethod
    def from_content(cls, content: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], encoder: Encoder, meta: Path) -> Self:
        return cls(encoder=encoder, calibration=Calibration({}, {}), info=content["info"], slope=tensors["slope"].numpy())


def test_a_class_and_a_line_make_a_kind(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(kinds._CLASS_PATHS, "toy", f"{__name__}:ToyModel")
    monkeypatch.setattr("metamodel.fitting.KINDS", (*kinds.KINDS, "toy"))
    for task in ("a", "b"):
        for i in range(8):
            with history.start_run(task=task, hparams={"lr": 10.0 ** (-5 + i / 2)}, objective="acc", direction="max") as run:
                run.log(acc=i / 10)
    fitted = refit(history, "cpu", model="toy")
    assert (fitted.info["kind"], fitted.info["n_tasks"], fitted.info["n_runs"]) == ("toy", 2, 16)
    loaded = MetaModel.load(history.models_path)
    assert isinstance(loaded, ToyModel)
    np.testing.assert_array_equal(loaded.slope, fitted.slope)
    assert current_model(history) is fitted
    (found,) = recommend(history, "c", {"lr": FloatDistribution(1e-5, 1e-1, log=True)}, max_fit_s=0)
    assert found.evidence.model_id == fitted.id
    assert found.config["lr"] > 1e-3
