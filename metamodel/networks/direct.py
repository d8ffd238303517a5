"""The best hyperparameters of a task, regressed directly: its description and runs in, the optimum out. Tensors in, tensors out.

A fully connected network with ReLU and a linear output reads the description of a task, its model family, and the configurations and
standings of its runs so far, as a set of ``MAX_SET`` slots, the best run first and the rest empty; a new task has an empty set. It
answers with the encoded configuration that should be best.

There are as many optima to learn from as past tasks, so each is shown again and again with other runs in the set, and the target is
the best of a random part of its runs: an optimum is known only as well as it was searched for, and the network regresses its mean.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metamodel.data.task import TaskDescription
from metamodel.gp.relatedness import is_informative
from metamodel.networks.adaptation import GRADIENT_NORM, Clock, PaddedTasks, Parameters, one_cycle, outputs, random_network
from metamodel.space.arrays import FloatArray

MAX_SET = 16
"""Runs that the network reads; of more, the best."""
N_DIRECT_STEPS, RATE, WEIGHT_DECAY = 400, 3e-3, 1e-2
SHARE_OF_RUNS = 0.7
"""Part of a task's runs whose best is the target of one draw."""
UNKNOWN_SHARE = 0.5
"""How often a description is withheld in training, so that a task without one is nothing new."""
EMPTY_SHARE = 0.25
"""How often no run is shown, so that a new task is nothing new either."""


@dataclass(frozen=True, slots=True, eq=False)
class Descriptors:
    """Turns descriptions of tasks into numbers.

    Attributes:
        names: Numbers that are read, ``f`` of them.
        centre: Their means over the past tasks, shape ``(f,)``.
        scale: Their standard deviations, shape ``(f,)``.
        families: Model families that are told apart.
    """

    names: tuple[str, ...]
    centre: FloatArray
    scale: FloatArray
    families: tuple[str, ...]

    @classmethod
    def fit(cls, descriptions: Sequence[TaskDescription], families: Sequence[str | None]) -> Descriptors:
        """Choose what most past tasks have and what differs between them."""
        features = [item.numeric_features() for item in descriptions]
        names = [name for name in sorted({name for item in features for name in item}) if is_informative(name, features)]
        table = np.array([[item.get(name, np.nan) for name in names] for item in features]).reshape(len(features), len(names))
        centre, scale = (np.nanmean(table, axis=0), np.nanstd(table, axis=0)) if names else (np.zeros(0), np.zeros(0))
        return cls(tuple(names), centre, scale, tuple(sorted({family for family in families if family is not None})))

    @property
    def width(self) -> int:
        """Number of inputs."""
        return len(self.names) + len(self.families)

    def encode(self, description: TaskDescription, family: str | None) -> FloatArray:
        """Encode one description, shape ``(width,)``; what is not known is 0, the mean."""
        features = description.numeric_features()
        row = np.array([features.get(name, np.nan) for name in self.names], dtype=np.float64)
        # One task far outside the others must not drive the network where it has learned nothing.
        numbers = np.clip(np.nan_to_num((row - self.centre) / self.scale), -3.0, 3.0) if self.names else row
        return np.concatenate([numbers, [float(family == known) for known in self.families]])

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "names": list(self.names),
            "centre": self.centre.tolist(),
            "scale": self.scale.tolist(),
            "families": list(self.families),
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Descriptors:
        """Rebuild from ``to_json``."""
        centre, scale = (np.asarray(content[key], dtype=np.float64) for key in ("centre", "scale"))
        return cls(tuple(content["names"]), centre, scale, tuple(content["families"]))


def read_set(inputs: Tensor, outcomes: Tensor, mask: Tensor) -> Tensor:
    """Lay runs out as the network reads them: best first, in ``MAX_SET`` slots of configuration, standing and a 1 for "there is one".

    Args:
        inputs: Encoded runs, shape ``(..., n, d)``.
        outcomes: Larger is better, any scale, shape ``(..., n)``.
        mask: 1 where there is a run, shape ``(..., n)``.

    Returns:
        Shape ``(..., MAX_SET * (d + 2))``. A standing is the share of the runs of the set that are worse, ties by half, in [-1, 1].
    """
    order = outcomes.masked_fill(mask == 0, -torch.inf).argsort(dim=-1, descending=True, stable=True)[..., :MAX_SET]
    inputs = inputs.gather(-2, order[..., None].expand(*order.shape, inputs.shape[-1]))
    outcomes, mask = outcomes.gather(-1, order), mask.gather(-1, order)
    sign = torch.sign(outcomes[..., :, None] - outcomes[..., None, :])
    n = mask.sum(-1, keepdim=True)
    standing = (sign * mask[..., None, :]).sum(-1) / (n - 1).clamp_min(1.0)
    slots = torch.cat([2 * inputs - 1, standing[..., None], torch.ones_like(standing)[..., None]], dim=-1) * mask[..., None]
    missing = MAX_SET - slots.shape[-2]
    if missing > 0:
        slots = torch.cat([slots, slots.new_zeros(*slots.shape[:-2], missing, slots.shape[-1])], dim=-2)
    return slots.flatten(-2)


def fit_direct(tasks: PaddedTasks, described: Tensor, fold: Tensor, n_members: int, seed: int, clock: Clock) -> tuple[Parameters, float]:
    """Train the ensemble.

    Args:
        tasks: The past tasks.
        described: Their encoded descriptions, shape ``(T, f)``.
        fold: Member that must not see a task, -1 for none, shape ``(T,)``.
        n_members: Networks.
        seed: Seed.
        clock: When to end at the latest.

    Returns:
        Parameters with leading dimension ``n_members``, and which part of the steps was done.
    """
    generator = torch.Generator().manual_seed(seed)
    device, (n_tasks, longest, width) = tasks.inputs.device, tasks.inputs.shape
    start = random_network(n_members, described.shape[1] + MAX_SET * (width + 2), generator, width)
    start[-1] += 0.5  # the middle of every range
    parameters = [p.to(device).requires_grad_() for p in start]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=WEIGHT_DECAY)
    sees = (fold[None, :] != torch.arange(n_members)[:, None]).float().to(device)
    shape = (n_members, n_tasks, longest)
    inputs, scores = tasks.inputs.expand(n_members, -1, -1, -1), tasks.scores.expand(n_members, -1, -1)
    step = 0
    while (share := clock.share(step)) < 1.0:
        step += 1
        optimizer.param_groups[0]["lr"] = RATE * one_cycle(share)
        draw = torch.rand(shape[:2], generator=generator)
        size = ((draw - EMPTY_SHARE) / (1 - EMPTY_SHARE) * MAX_SET).ceil().clamp_min(0)
        draws = torch.rand(shape, generator=generator).to(device).masked_fill(tasks.mask == 0, 2.0)
        shown = (draws.argsort(-1).argsort(-1) < size.to(device)[..., None]) * tasks.mask
        is_known = (torch.rand(shape[:2], generator=generator) > UNKNOWN_SHARE).to(device)
        features = described.expand(n_members, -1, -1) * is_known[..., None]
        found = outputs(parameters, torch.cat([features, read_set(inputs, scores, shown)], dim=-1))
        part = (torch.rand(shape, generator=generator).to(device) < SHARE_OF_RUNS) * tasks.mask
        best = scores.masked_fill(part == 0, -torch.inf).argmax(-1)
        target = inputs.gather(2, best[..., None, None].expand(-1, -1, 1, width))[:, :, 0]
        loss = ((found - target).square().mean(-1) * sees).sum(1) / sees.sum(1).clamp_min(1.0)
        optimizer.zero_grad()
        loss.sum().backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, GRADIENT_NORM)
        optimizer.step()
    return [p.detach().cpu() for p in parameters], step / N_DIRECT_STEPS


def predicted_optimum(parameters: Parameters, described: Tensor, inputs: Tensor, outcomes: Tensor, mask: Tensor) -> Tensor:
    """Return the optimum each network expects.

    Args:
        parameters: Leading dimension ``e``.
        described: Shape ``(t, f)``, or ``(e, t, f)``.
        inputs: Encoded runs known of each task, shape ``(t, n, d)``; ``n`` may be 0.
        outcomes: Shape ``(t, n)``.
        mask: Shape ``(t, n)``.

    Returns:
        Encoded configurations, shape ``(e, t, d)``.
    """
    known = torch.cat([described, read_set(inputs, outcomes, mask)], dim=-1)
    with torch.no_grad():
        return outputs(parameters, known.expand(len(parameters[0]), *known.shape[-2:]))
