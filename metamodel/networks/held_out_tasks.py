"""Source tasks with the ensemble member that never saw each: what networks predict of tasks they were not trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from metamodel.networks.adaptation import PaddedTasks, Runs
from metamodel.space.arrays import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutTasks:
    """Tasks that one member of an ensemble was not trained on, ``T`` of them, on the CPU.

    Attributes:
        index: Which of the source tasks these are, shape ``(T,)``.
        member: The member that did not see each, shape ``(T,)``.
        tasks: Their runs.
        order: A random order of the runs of each, missing ones last, shape ``(T, n)``.
    """

    index: Tensor
    member: Tensor
    tasks: PaddedTasks
    order: Tensor

    @classmethod
    def of(cls, tasks: PaddedTasks, fold: Tensor, rng: np.random.Generator) -> HeldOutTasks:
        """Take the tasks with a member that did not see them; ``fold`` names it, -1 for none, shape ``(T,)``."""
        index = (fold >= 0).nonzero()[:, 0]
        chosen = PaddedTasks(*(tensor[index.to(tensor.device)].cpu() for tensor in (tasks.inputs, tasks.scores, tasks.mask)))
        order = torch.as_tensor(rng.random(tuple(chosen.mask.shape))).masked_fill(chosen.mask == 0, 2.0).argsort(-1)
        return cls(index, fold[index], chosen, order)

    def __len__(self) -> int:
        """Return the number of tasks ``T``."""
        return len(self.index)

    def first_runs(self, n: int) -> Runs:
        """Return the first ``n`` runs of each in the random order."""
        own = self.order[:, :n]
        inputs = self.tasks.inputs.gather(1, own[..., None].expand(-1, -1, self.tasks.inputs.shape[-1]))
        return Runs(inputs, self.tasks.scores.gather(1, own), self.tasks.mask.gather(1, own))

    def other_residuals(self, predicted: Tensor, n: int) -> list[FloatArray]:
        """Return, for each task, true less predicted scores of the runs after the first ``n``.

        Args:
            predicted: Predicted scores of all runs, shape ``(T, n_runs)``.
            n: How many runs were known to the prediction.
        """
        rest = self.order[:, n:]
        gap = (self.tasks.scores - predicted).gather(1, rest)
        is_run = self.tasks.mask.gather(1, rest) > 0
        return [row[real].double().numpy() for row, real in zip(gap, is_run, strict=True)]

    @property
    def best(self) -> FloatArray:
        """Encoded best run of each, shape ``(T, d)``."""
        best = self.tasks.scores.masked_fill(self.tasks.mask == 0, -torch.inf).argmax(1)
        found: FloatArray = self.tasks.inputs[torch.arange(len(best)), best].double().numpy()
        return found
