"""A surrogate network that learns to learn: an initialisation from many tasks, adapted to one by a few gradient steps. Tensors in and out.

The network maps an encoded configuration to a score (the warped outcome, see ``observations.past_scores``). The runs of a new task enter
by their order alone, through the logistic loss of pairs (RankNet): nothing is known of the scale and offset of a new task, and any monotone
change of its units leaves the adapted network as it is. An empty set of runs has no pairs, so nothing is adapted.

*MAML* looks for the initialisation, and for the step size of each layer, from which the adapted network predicts the scores of the whole
task best; its gradient goes through the adaptation steps, second derivatives included. *Reptile* trains on one task for a few steps and
moves the initialisation towards where that ended; no derivative goes through anything.

Networks come in batches: every parameter has leading dimensions, ``(e, ...)`` for the members of an ensemble and then ``(e, b, ...)`` for
tasks. The networks of a batch do not touch each other, so the gradient of the sum of their losses is the gradient of each.

References:
    Finn, Abbeel & Levine, "Model-agnostic meta-learning for fast adaptation of deep networks", ICML 2017 (MAML).
    Antoniou, Edwards & Storkey, "How to train your MAML", ICLR 2019 (learned step sizes a layer).
    Nichol, Achiam & Schulman, "On first-order meta-learning algorithms", arXiv:1803.02999 (2018; Reptile, its serial version batched).
    Burges et al., "Learning to rank using gradient descent", ICML 2005 (the loss of pairs).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metamodel.gp.task_gps import TrainingTask

Parameters = list[Tensor]
"""Weight ``(..., n_in, n_out)`` and bias ``(..., 1, n_out)`` of each layer, in their order."""

N_MEMBERS = 6
"""Networks of an ensemble, each without its own sixth of the tasks."""
WIDTH, N_HIDDEN = 32, 2
INPUT_SCALE = 2.0
"""Inputs are centred and stretched from [0, 1] to [-1, 1]: all on one side of zero, a few gradient steps would hardly bend the network."""
MAX_SUPPORT = 16
"""Runs of a task that adaptation sees in training, at most; few-shot is what it has to be good at."""
TASKS_PER_STEP = 12
WARM_UP = 0.1
"""Part of a training in which the step size grows."""
GRADIENT_NORM = 10.0
"""Largest norm of a meta-gradient: a task on which the inner steps overshoot must not undo the others."""


@dataclass(frozen=True, slots=True, eq=False)
class PaddedTasks:
    """``T`` past tasks with up to ``n`` runs each.

    Attributes:
        inputs: Encoded runs, shape ``(T, n, d)``.
        scores: Their scores, shape ``(T, n)``.
        mask: 1 where there is a run, shape ``(T, n)``.
    """

    inputs: Tensor
    scores: Tensor
    mask: Tensor

    @classmethod
    def of(cls, tasks: Sequence[TrainingTask], device: str = "cpu") -> PaddedTasks:
        """Pad tasks to the length of the longest."""
        longest, width = max(len(task.scores) for task in tasks), tasks[0].inputs.shape[1]
        inputs, scores, mask = (torch.zeros(len(tasks), longest, *rest) for rest in ((width,), (), ()))
        for i, task in enumerate(tasks):
            n = len(task.scores)
            inputs[i, :n] = torch.as_tensor(task.inputs, dtype=torch.float32)
            scores[i, :n] = torch.as_tensor(task.scores, dtype=torch.float32)
            mask[i, :n] = 1.0
        return cls(inputs.to(device), scores.to(device), mask.to(device))

    def __len__(self) -> int:
        """Return the number of tasks ``T``."""
        return len(self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """Some runs of each task of a batch.

    Attributes:
        inputs: Shape ``(..., n, d)``.
        outcomes: Larger is better, any scale, shape ``(..., n)``.
        weight: 0 where there is no run, shape ``(..., n)``; a pair counts by the product of its two.
    """

    inputs: Tensor
    outcomes: Tensor
    weight: Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """How an initialisation is learned.

    Attributes:
        n_outer: Updates of the initialisation.
        rate: Largest step size of these: of Adam for MAML, towards the adapted networks for Reptile.
        n_inner: Steps on one task within an update.
        inner_rate: Their step size; for MAML where learning it starts.
    """

    n_outer: int
    rate: float
    n_inner: int
    inner_rate: float


MAML = Schedule(n_outer=200, rate=3e-3, n_inner=3, inner_rate=0.05)
REPTILE = Schedule(n_outer=300, rate=0.5, n_inner=5, inner_rate=0.05)
REPTILE_RATE = 0.1
"""Step size with which Reptile's networks are adapted to a new task: on the order of runs, whose loss is flatter than a squared error."""


@dataclass(frozen=True, slots=True, eq=False)
class Initialisation:
    """An ensemble of ``e`` networks to start from.

    Attributes:
        parameters: Leading dimension ``e``.
        rates: Step size of each parameter, shape ``(e, 1, 1)``.
        n_steps: Adaptation steps it is meant for.
        share_done: Which part of the schedule was carried out.
    """

    parameters: Parameters
    rates: Parameters
    n_steps: int
    share_done: float = 1.0

    def adapted(self, runs: Runs, n_steps: int | None = None) -> Parameters:
        """Adapt every member to runs of shape ``(n, ...)`` or ``(e, n, ...)``."""
        return adapt(self.parameters, self.rates, runs, self.n_steps if n_steps is None else n_steps)

    def member(self, index: Tensor) -> Initialisation:
        """Return some members, as often as they are named."""
        return Initialisation([p[index] for p in self.parameters], [r[index] for r in self.rates], self.n_steps, self.share_done)


def random_network(n_members: int, n_inputs: int, generator: torch.Generator, n_outputs: int = 1) -> Parameters:
    """Draw networks at random: He's scale for hidden layers, biases 0."""
    parameters: Parameters = []
    width = n_inputs
    for i, n_out in enumerate((*[WIDTH] * N_HIDDEN, n_outputs)):
        scale = math.sqrt((2.0 if i < N_HIDDEN else 1.0) / max(width, 1))
        parameters += [scale * torch.randn(n_members, width, n_out, generator=generator), torch.zeros(n_members, 1, n_out)]
        width = n_out
    return parameters


def outputs(parameters: Parameters, inputs: Tensor) -> Tensor:
    """Apply dense layers with ReLU between them, and a linear output: ``(..., n, n_in)`` to ``(..., n, n_out)``."""
    value = inputs
    for i in range(0, len(parameters), 2):
        value = value @ parameters[i] + parameters[i + 1]
        if i + 2 < len(parameters):
            value = torch.relu(value)
    return value


def predict(parameters: Parameters, inputs: Tensor) -> Tensor:
    """Return the scores of encoded configurations ``(..., n, d)``, shape ``(..., n)``."""
    return outputs(parameters, INPUT_SCALE * (inputs - 0.5))[..., 0]


def pair_loss(scores: Tensor, runs: Runs) -> Tensor:
    """Mean of ``log(1 + exp(-(s_i - s_j)))`` over the pairs in which run ``i`` is better than run ``j``.

    Args:
        scores: Predicted, shape ``(..., n)``.
        runs: What was observed.

    Returns:
        Shape ``(...)``; 0 where no pair of runs differs.
    """
    outcomes, weight = runs.outcomes, runs.weight
    is_better = (outcomes[..., :, None] > outcomes[..., None, :]) * weight[..., :, None] * weight[..., None, :]
    loss = torch.nn.functional.softplus(scores[..., None, :] - scores[..., :, None]) * is_better
    return loss.sum((-1, -2)) / is_better.sum((-1, -2)).clamp_min(1e-6)


def squared_loss(scores: Tensor, runs: Runs) -> Tensor:
    """Weighted mean squared error, shape ``(...)``; only for past tasks, whose outcomes are scores."""
    return ((scores - runs.outcomes).square() * runs.weight).sum(-1) / runs.weight.sum(-1).clamp_min(1e-6)


def adapt(parameters: Parameters, rates: Parameters, runs: Runs, n_steps: int, *, is_second_order: bool = False) -> Parameters:
    """Take gradient steps on the order of the runs of each task.

    Args:
        parameters: Networks, one for each task of the batch (or broadcast to them).
        rates: Step size of each parameter, broadcast likewise.
        runs: Runs of the tasks.
        n_steps: Number of steps.
        is_second_order: Keep the graph, so that a gradient can go through the steps.
    """
    if not is_second_order:
        parameters = [p.detach().requires_grad_() for p in parameters]
    with torch.enable_grad():
        for _ in range(n_steps):
            loss = pair_loss(predict(parameters, runs.inputs), runs).sum()
            gradients = torch.autograd.grad(loss, parameters, create_graph=is_second_order)
            parameters = [p - rate * g for p, rate, g in zip(parameters, rates, gradients, strict=True)]
            if not is_second_order:
                parameters = [p.detach().requires_grad_() for p in parameters]
    return parameters if is_second_order else [p.detach() for p in parameters]


def meta_loss(parameters: Parameters, rates: Parameters, support: Runs, query: Runs, n_steps: int) -> Tensor:
    """Return MAML's loss: the error of networks adapted to the support at the query, as a function one can differentiate twice.

    Args:
        parameters: Leading dimension ``e``.
        rates: Shape ``(e, 1, 1)``.
        support: Runs that are adapted to, shape ``(e, b, n, ...)``.
        query: Runs with their scores, shape ``(e, b, m, ...)``.
        n_steps: Adaptation steps.

    Returns:
        Shape ``(e,)``, mean over the ``b`` tasks.
    """
    n_tasks = support.outcomes.shape[1]
    own = [p[:, None].expand(-1, n_tasks, -1, -1) for p in parameters]
    adapted = adapt(own, [r[:, None] for r in rates], support, n_steps, is_second_order=True)
    return squared_loss(predict(adapted, query.inputs), query).mean(1)


class TaskSampler:
    """Draws tasks and runs of them; member ``i`` of the ensemble never sees the tasks of fold ``i``, so that each task has a judge.

    Args:
        tasks: The past tasks.
        n_members: Members of the ensemble.
        seed: Seed.
        has_folds: Whether tasks are left out; with few tasks there are none to spare.
    """

    def __init__(self, tasks: PaddedTasks, n_members: int, seed: int, *, has_folds: bool) -> None:
        self.tasks = tasks
        self.generator = torch.Generator().manual_seed(seed)
        folds = torch.arange(len(tasks)) % n_members
        self.fold = folds[torch.randperm(len(tasks), generator=self.generator)] if has_folds else torch.full((len(tasks),), -1)
        self._seen = [(self.fold != i).nonzero()[:, 0] for i in range(n_members)]
        self.n_per_step = min(TASKS_PER_STEP, *(len(seen) for seen in self._seen))

    def tasks_of_step(self) -> Tensor:
        """Draw tasks for each member, shape ``(e, b)``."""
        chosen = [seen[torch.randperm(len(seen), generator=self.generator)[: self.n_per_step]] for seen in self._seen]
        return torch.stack(chosen)

    def runs(self, index: Tensor, n: int) -> Runs:
        """Draw ``n`` runs of each task without replacement, shape ``(e, b, n, ...)``; fewer where a task has fewer."""
        mask = self.tasks.mask[index]
        order = torch.rand(mask.shape, generator=self.generator).to(mask.device).masked_fill(mask == 0, 2.0).argsort(-1)[..., :n]
        inputs = self.tasks.inputs[index].gather(2, order[..., None].expand(-1, -1, -1, self.tasks.inputs.shape[-1]))
        return Runs(inputs, self.tasks.scores[index].gather(2, order), mask.gather(2, order))

    def support(self, index: Tensor) -> Runs:
        """Draw from none to ``MAX_SUPPORT`` runs of each task, small numbers more often."""
        runs = self.runs(index, MAX_SUPPORT)
        n = torch.rand(index.shape, generator=self.generator).square().mul_(MAX_SUPPORT + 1).floor().to(runs.weight.device)
        position = torch.arange(runs.weight.shape[-1], device=runs.weight.device)
        return Runs(runs.inputs, runs.outcomes, runs.weight * (position < n[..., None]))

    def whole(self, index: Tensor) -> Runs:
        """Return all runs of each task."""
        return Runs(self.tasks.inputs[index], self.tasks.scores[index], self.tasks.mask[index])


class Clock:
    """Says how far a training is, by its steps or by its time, whichever is further.

    Step sizes follow it, so that a training with little time is a short one, and not one that was torn off.
    """

    def __init__(self, n_steps: int, deadline_s: float | None, progress: Callable[[float, str], None] | None) -> None:
        self._n_steps, self._deadline_s, self._progress = n_steps, deadline_s, progress
        self._started = time.monotonic()

    def share(self, step: int) -> float:
        """Return how far it is after so many steps, in [0, 1]."""
        spent = 0.0 if self._deadline_s is None else (time.monotonic() - self._started) / max(self._deadline_s, 1e-3)
        share = min(max(step / self._n_steps, spent), 1.0)
        if self._progress is not None:
            self._progress(share, "learning to learn from past runs")
        return share


def one_cycle(share: float) -> float:
    """Return the step size at a point of the training, as part of the largest: up for a tenth of it, then down along a cosine."""
    if share < WARM_UP:
        return 0.04 + 0.96 * share / WARM_UP
    return 0.5 + 0.5 * math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))


def fit_maml(start: Parameters, sampler: TaskSampler, schedule: Schedule, clock: Clock) -> Initialisation:
    """Learn an initialisation and step sizes by gradients through the adaptation.

    Args:
        start: Networks to begin with, on the device of the tasks.
        sampler: PaddedTasks.
        schedule: How long and how fast.
        clock: When to end at the latest.
    """
    parameters = [p.detach().clone().requires_grad_() for p in start]
    shape = (len(start[0]), 1, 1)
    logs = [torch.full(shape, math.log(schedule.inner_rate), device=p.device).requires_grad_() for p in start]
    # Step sizes live on a log scale and have a longer way to go than weights.
    peaks = (schedule.rate, 3 * schedule.rate)
    optimizer = torch.optim.Adam([{"params": parameters}, {"params": logs}], lr=schedule.rate)
    step = 0
    while (share := clock.share(step)) < 1.0:
        step += 1
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * one_cycle(share)
        index = sampler.tasks_of_step()
        loss = meta_loss(parameters, [log.exp() for log in logs], sampler.support(index), sampler.whole(index), schedule.n_inner).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_([*parameters, *logs], GRADIENT_NORM)
        optimizer.step()
    rates = [log.detach().exp() for log in logs]
    return Initialisation([p.detach() for p in parameters], rates, schedule.n_inner, step / schedule.n_outer)


def fit_reptile(start: Parameters, sampler: TaskSampler, schedule: Schedule, clock: Clock) -> Initialisation:
    """Learn an initialisation by moving it towards networks trained on single tasks.

    Within a past task the scores are known, so its inner steps are on their squared error, by mini-batches; the way towards the trained
    networks shortens linearly to nothing, as in the paper.
    """
    parameters = [p.detach().clone() for p in start]
    step = 0
    while (share := clock.share(step)) < 1.0:
        step += 1
        index = sampler.tasks_of_step()
        trained = [p[:, None].expand(-1, index.shape[1], -1, -1) for p in parameters]
        for _ in range(schedule.n_inner):
            trained = inner_step(trained, sampler.runs(index, MAX_SUPPORT), schedule.inner_rate)
        parameters = reptile_step(parameters, trained, schedule.rate * (1 - share))
    rates = [torch.full((len(p), 1, 1), REPTILE_RATE, device=p.device) for p in parameters]
    return Initialisation(parameters, rates, schedule.n_inner, step / schedule.n_outer)


def inner_step(parameters: Parameters, runs: Runs, rate: float) -> Parameters:
    """Take one gradient step on the squared error of scores."""
    parameters = [p.detach().requires_grad_() for p in parameters]
    gradients = torch.autograd.grad(squared_loss(predict(parameters, runs.inputs), runs).sum(), parameters)
    return [(p - rate * g).detach() for p, g in zip(parameters, gradients, strict=True)]


def reptile_step(parameters: Parameters, trained: Parameters, rate: float) -> Parameters:
    """Move an initialisation ``(e, ...)`` towards the mean over tasks of trained networks ``(e, b, ...)``."""
    return [p + rate * (t.mean(1) - p) for p, t in zip(parameters, trained, strict=True)]
