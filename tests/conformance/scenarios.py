"""What happens in a training, as a script that any host can play: losses, evaluations, and the end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import Dataset

from store import RunStatus

N_TRAIN, N_EVAL = 16, 8
OBJECTIVE = "eval_accuracy"
SHARED_METRICS = ("loss", "eval_accuracy", "eval_loss")
"""Names both hosts log here; what else a host logs of its own accord is its own matter."""


class Points(Dataset):
    """Four numbers and a label each, in the form that both hosts' loaders understand."""

    def __init__(self, n: int) -> None:
        generator = torch.Generator().manual_seed(n)
        self.x = torch.randn(n, 4, generator=generator)
        self.labels = torch.arange(n) % 2

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"x": self.x[index], "labels": self.labels[index]}


@dataclass(frozen=True)
class Scenario:
    """One training.

    Attributes:
        name: As the tests show it.
        accuracies: The objective at the end of each epoch; numbers that 32 bits hold exactly.
        losses: Loss of each optimizer step, repeated from the start where there are more steps.
        status: How the run must end.
        error: What is raised in the forward pass, None for nothing.
        error_at: Batch in which it is raised, counted from 0.
        is_stopped_early: Whether early stopping ends it after the second evaluation that is no better.
        learning_rate: Hyperparameter, as the rest.
        task: Explicit name, None to recognise the task.
        recommended: A learning rate that a stored recommendation says, None for none.
    """

    name: str
    accuracies: tuple[float, ...] = (0.5, 0.75)
    losses: tuple[float, ...] = (0.9, 0.8, 0.7, 0.6)
    status: RunStatus = RunStatus.COMPLETED
    error: type[BaseException] | None = None
    error_at: int = 2
    is_stopped_early: bool = False
    learning_rate: float = 0.01
    weight_decay: float = 0.0
    batch_size: int = 4
    accumulation: int = 1
    clip: float = 0.5
    task: str | None = None
    recommended: float | None = None
    expected: dict[str, Any] = field(default_factory=dict)

    @property
    def n_epochs(self) -> int:
        """Epochs asked for."""
        return len(self.accuracies)

    def loss(self, step: int) -> float:
        """Loss of an optimizer step, counted from 0."""
        return self.losses[step % len(self.losses)]


SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("completed", expected={"objective_best": 0.75, "objective_best_step": 8, "steps_reached": 8, "epochs_reached": 2.0}),
        Scenario(
            "best before last",
            accuracies=(0.5, 0.875, 0.625),
            expected={"objective_best": 0.875, "objective_best_step": 8, "objective_last": 0.625, "objective_last_step": 12},
        ),
        Scenario("accumulated and decayed", weight_decay=0.1, batch_size=2, accumulation=4, expected={"steps_reached": 4}),
        Scenario("named task", task="points", expected={"task_name": "points"}),
        Scenario("NaN objective", accuracies=(0.5, math.nan), status=RunStatus.DIVERGED),
        Scenario("NaN loss", losses=(0.9, *[math.nan] * 7), status=RunStatus.DIVERGED),
        Scenario("crashed", status=RunStatus.FAILED, error=ValueError, expected={"error": "ValueError: in batch 2", "steps_reached": 2}),
        Scenario("out of memory", status=RunStatus.OOM, error=torch.cuda.OutOfMemoryError, error_at=5, expected={"objective_best": 0.5}),
        Scenario("interrupted", status=RunStatus.INTERRUPTED, error=KeyboardInterrupt),
        Scenario("stopped early", accuracies=(0.875, 0.75, 0.625, 0.5), status=RunStatus.STOPPED, is_stopped_early=True),
        Scenario("recommended", learning_rate=0.5, recommended=0.02, expected={"recommendation_id": "stored"}),
    )
}
