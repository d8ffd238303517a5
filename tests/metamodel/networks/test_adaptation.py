"""The mathematics of MAML and Reptile, against independent references."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from metamodel.gp.task_gps import TrainingTask
from metamodel.networks.adaptation import (
    Clock,
    Initialisation,
    PaddedTasks,
    Runs,
    Schedule,
    TaskSampler,
    adapt,
    fit_maml,
    fit_reptile,
    inner_step,
    meta_loss,
    one_cycle,
    pair_loss,
    predict,
    random_network,
    reptile_step,
    squared_loss,
)

E, B, N, M, D = 2, 3, 5, 7, 4
"""Members, tasks, runs adapted to, runs tested on, columns."""


def doubles(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def networks(seed: int = 0, n: int = E) -> list[Tensor]:
    return [p.double() for p in random_network(n, D, torch.Generator().manual_seed(seed))]


def batch() -> tuple[Runs, Runs]:
    weight = torch.ones(E, B, N, dtype=torch.float64)
    weight[0, 1, 3:] = 0.0
    support = Runs(doubles(E, B, N, D, seed=1).sigmoid(), doubles(E, B, N, seed=2), weight)
    query = Runs(doubles(E, B, M, D, seed=3).sigmoid(), doubles(E, B, M, seed=4), torch.ones(E, B, M, dtype=torch.float64))
    return support, query


def reference_loss(parameters: list[Tensor], rates: list[Tensor], support: Runs, query: Runs, n_steps: int) -> Tensor:
    """The same by the textbook: one member and one task at a time, with torch.func."""

    def own_loss(own: tuple[Tensor, ...], x: Tensor, y: Tensor, w: Tensor) -> Tensor:
        scores = predict(list(own), x)
        total, count = scores.sum() * 0, 0.0
        for i in range(len(y)):
            for j in range(len(y)):
                if y[i] > y[j] and w[i] * w[j] > 0:
                    total, count = total + torch.log1p(torch.exp(-(scores[i] - scores[j]))), count + 1.0
        return total / max(count, 1.0)

    losses = []
    for e in range(len(parameters[0])):
        for b in range(support.outcomes.shape[1]):
            own = tuple(p[e] for p in parameters)
            for _ in range(n_steps):
                gradient = torch.func.grad(own_loss)(own, support.inputs[e, b], support.outcomes[e, b], support.weight[e, b])
                own = tuple(p - r[e] * g for p, r, g in zip(own, rates, gradient, strict=True))
            losses.append((predict(list(own), query.inputs[e, b]) - query.outcomes[e, b]).square().mean())
    return torch.stack(losses).reshape(len(parameters[0]), -1).mean(1)


def test_the_second_order_gradient_is_that_of_the_textbook() -> None:
    support, query = batch()
    parameters = [p.requires_grad_() for p in networks()]
    rates = [torch.full((E, 1, 1), 0.3, dtype=torch.float64, requires_grad=True) for _ in parameters]
    ours, reference = (loss(parameters, rates, support, query, 3) for loss in (meta_loss, reference_loss))
    torch.testing.assert_close(ours, reference)
    everything = [*parameters, *rates]
    for left, right in zip(torch.autograd.grad(ours.sum(), everything), torch.autograd.grad(reference.sum(), everything), strict=True):
        torch.testing.assert_close(left, right)


def test_the_second_order_gradient_is_the_slope_of_finite_differences_and_the_first_order_one_is_not() -> None:
    support, query = batch()
    parameters = [p.requires_grad_() for p in networks()]
    rates = [torch.full((E, 1, 1), 0.5, dtype=torch.float64) for _ in parameters]
    direction = [doubles(*p.shape, seed=10 + i) for i, p in enumerate(parameters)]

    def slope(gradients: tuple[Tensor, ...]) -> float:
        return float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))

    def at(step: float) -> float:
        moved = [(p + step * d).detach() for p, d in zip(parameters, direction, strict=True)]
        return meta_loss([p.requires_grad_() for p in moved], rates, support, query, 2).sum().item()

    measured = (at(1e-6) - at(-1e-6)) / 2e-6
    second = slope(torch.autograd.grad(meta_loss(parameters, rates, support, query, 2).sum(), parameters))
    assert second == pytest.approx(measured, rel=1e-5)
    wide = [p[:, None].expand(-1, B, -1, -1) for p in parameters]
    adapted = [p.requires_grad_() for p in adapt(wide, [r[:, None] for r in rates], support, 2)]
    gradients = torch.autograd.grad(squared_loss(predict(adapted, query.inputs), query).mean(1).sum(), adapted)
    first = slope(tuple(g.sum(1) for g in gradients))
    assert abs(first - measured) > 1e-3 * abs(measured)


def test_the_loss_of_pairs_knows_the_order_only_and_nothing_of_ties_and_empty_slots() -> None:
    scores = torch.tensor([0.3, -0.2, 1.0, 5.0])
    runs = Runs(torch.zeros(4, 1), torch.tensor([2.0, 1.0, 1.0, 9.0]), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    by_hand = (math.log1p(math.exp(-0.5)) + math.log1p(math.exp(0.7))) / 2
    assert float(pair_loss(scores, runs)) == pytest.approx(by_hand)
    stretched = Runs(runs.inputs, runs.outcomes.exp() * 100, runs.weight)
    assert float(pair_loss(scores, stretched)) == float(pair_loss(scores, runs))
    assert float(pair_loss(scores[:1], Runs(runs.inputs[:1], runs.outcomes[:1], runs.weight[:1]))) == 0.0


def test_without_a_pair_that_differs_nothing_is_adapted() -> None:
    parameters = networks()
    rates = [torch.ones(E, 1, 1, dtype=torch.float64) for _ in parameters]
    for n in (0, 1, 3):
        runs = Runs(doubles(n, D), torch.ones(n, dtype=torch.float64), torch.ones(n, dtype=torch.float64))
        for before, after in zip(parameters, adapt(parameters, rates, runs, 4), strict=True):
            torch.testing.assert_close(before, after)


def test_adaptation_orders_the_runs_it_sees() -> None:
    parameters = networks()
    rates = [torch.full((E, 1, 1), 0.3, dtype=torch.float64) for _ in parameters]
    inputs = torch.eye(D, dtype=torch.float64)
    runs = Runs(inputs, torch.tensor([3.0, 1.0, 4.0, 2.0], dtype=torch.float64), torch.ones(D, dtype=torch.float64))
    scores = predict(adapt(parameters, rates, runs, 200), inputs)
    assert (scores.argsort(-1) == torch.tensor([1, 3, 0, 2])).all()


def test_reptile_moves_by_its_rate_towards_the_mean_of_what_was_trained() -> None:
    parameters, trained = networks(0), [torch.stack([p, p + 2.0], dim=1) for p in networks(1)]
    moved = reptile_step(parameters, trained, 0.25)
    for before, target, after in zip(parameters, networks(1), moved, strict=True):
        torch.testing.assert_close(after, before + 0.25 * (target + 1.0 - before))
    for target, after in zip(networks(1), reptile_step(parameters, trained, 1.0), strict=True):
        torch.testing.assert_close(after, target + 1.0)


def test_reptiles_inner_step_is_one_of_gradient_descent_on_each_task() -> None:
    _, query = batch()
    wide = [p[:, None].expand(-1, B, -1, -1).contiguous() for p in networks()]
    stepped = inner_step(wide, query, 0.1)
    for e in range(E):
        for b in range(B):
            own = [p[e, b].clone().requires_grad_() for p in wide]
            loss = (predict(own, query.inputs[e, b]) - query.outcomes[e, b]).square().mean()
            for p, g, after in zip(own, torch.autograd.grad(loss, own), stepped, strict=True):
                torch.testing.assert_close(after[e, b], (p - 0.1 * g).detach())


def past_tasks(n_tasks: int = 8, n_runs: int = 24, seed: int = 0) -> PaddedTasks:
    """Parabolas whose top lies near 0.7 in the first column; the others do not matter."""
    rng = np.random.default_rng(seed)
    tasks = []
    for _ in range(n_tasks):
        inputs = rng.random((n_runs, D))
        outcome = -np.square(inputs[:, 0] - 0.7 - 0.05 * rng.normal())
        tasks.append(TrainingTask(inputs, (outcome - outcome.mean()) / outcome.std()))
    return PaddedTasks.of(tasks)


def test_each_member_is_kept_from_its_own_tasks_and_a_task_with_few_runs_gives_few() -> None:
    tasks = PaddedTasks.of([TrainingTask(np.zeros((n, D)), np.zeros(n)) for n in (3, 24, 24, 24, 24)])
    sampler = TaskSampler(tasks, 3, 0, has_folds=True)
    for _ in range(5):
        for member, row in enumerate(sampler.tasks_of_step()):
            assert not (sampler.fold[row] == member).any()
    runs = sampler.runs(torch.tensor([[0], [1], [2]]), 8)
    assert runs.weight.sum(-1)[:, 0].tolist() == [3.0, 8.0, 8.0]
    assert (TaskSampler(tasks, 3, 0, has_folds=False).fold == -1).all()


@pytest.mark.parametrize(
    ("fit", "schedule"), [(fit_maml, Schedule(60, 1e-2, 3, 0.1)), (fit_reptile, Schedule(80, 0.5, 5, 0.1))], ids=["maml", "reptile"]
)
def test_what_is_learned_beats_the_random_start_on_a_new_task_and_is_the_same_again(fit: object, schedule: Schedule) -> None:
    def learned() -> Initialisation:
        sampler = TaskSampler(past_tasks(), 2, 0, has_folds=True)
        start = random_network(2, D, torch.Generator().manual_seed(0))
        return fit(start, sampler, schedule, Clock(schedule.n_outer, None, None))  # type: ignore[operator]

    first, again = learned(), learned()
    assert first.share_done == 1.0
    assert all(torch.equal(left, right) for left, right in zip(first.parameters, again.parameters, strict=True))
    new = past_tasks(1, 40, seed=9)
    few, rest = (Runs(new.inputs[0, part], new.scores[0, part], new.mask[0, part]) for part in (slice(0, 5), slice(5, None)))
    random = Initialisation(random_network(2, D, torch.Generator().manual_seed(0)), first.rates, first.n_steps)
    learned_error, random_error = (float(pair_loss(predict(start.adapted(few), rest.inputs), rest).mean()) for start in (first, random))
    assert learned_error < 0.8 * random_error


def test_a_training_without_time_ends_at_once_and_says_how_little_was_done() -> None:
    reported: list[float] = []
    clock = Clock(1000, 0.05, lambda share, _: reported.append(share))
    found = fit_maml(
        random_network(2, D, torch.Generator()), TaskSampler(past_tasks(), 2, 0, has_folds=True), Schedule(1000, 1e-3, 3, 0.1), clock
    )
    assert found.share_done < 1.0
    assert reported == sorted(reported)
    assert reported[-1] == 1.0


def test_step_sizes_rise_and_fall_to_nothing() -> None:
    assert one_cycle(0.1) == pytest.approx(1.0)
    assert one_cycle(0.0) < 0.1
    assert one_cycle(1.0) == pytest.approx(0.0)
