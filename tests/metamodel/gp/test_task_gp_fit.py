"""Learning what tasks share: the likelihood against SciPy, and what a fit finds."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from metamodel.gp.shared_function import SharedKernel
from metamodel.gp.task_gp_fit import fit_task_gps, joint_negative_log_likelihood, padded
from metamodel.gp.task_gps import TrainingTask
from tests.metamodel.gps import Dense, matern, shared_of, some_tasks, task_kernel_of


def drawn_tasks(n_tasks: int, n: int, seed: int, length: float = 0.3, shared: float = 0.0) -> list[TrainingTask]:
    """Tasks drawn from the very model: of task effects in the first column, and of one function that all share in the second."""
    rng = np.random.default_rng(seed)
    tasks = []
    phase = rng.random()
    for _ in range(n_tasks):
        inputs = rng.random((n, 2))
        covariance = matern(inputs[:, :1], inputs[:, :1], length) + 0.05 * np.eye(n)
        own = np.linalg.cholesky(covariance) @ rng.normal(size=n)
        tasks.append(TrainingTask(inputs, own + shared * np.sin(4 * (inputs[:, 1] + phase))))
    return tasks


def test_the_likelihood_is_that_of_one_normal_over_all_runs_and_padding_adds_nothing() -> None:
    tasks = [*some_tasks(3), *some_tasks(1, n=4, seed=9)]
    kernel, task_kernel = shared_of(np.random.default_rng(2).random((6, 2)), [0.5, 0.8]), task_kernel_of([0.4, 1.2])
    dense = Dense(tasks, kernel, task_kernel)
    want = -multivariate_normal(np.zeros(len(dense.scores)), dense.covariance).logpdf(dense.scores)
    inputs, scores, mask = padded(tasks, "cpu")
    inputs[~mask], scores[~mask] = 0.123, 55.0
    single = SharedKernel(kernel.inducing.float(), kernel.log_length.float(), kernel.log_amplitude.float())
    assert float(joint_negative_log_likelihood(single, task_kernel, inputs, scores, mask)) == pytest.approx(want, abs=2e-3)
    assert float(joint_negative_log_likelihood(kernel, task_kernel, inputs.double(), scores.double(), mask)) == pytest.approx(
        want, abs=1e-5
    )


def test_the_length_scales_of_task_effects_find_what_tells_tasks_apart() -> None:
    fitted = fit_task_gps(drawn_tasks(8, 30, 1))
    first, second = fitted.task_kernel.length.tolist()
    assert first == pytest.approx(0.3, rel=0.5)
    assert second > 2 * first


def test_the_shared_function_is_separated_from_task_effects() -> None:
    fitted = fit_task_gps(drawn_tasks(12, 30, 1, shared=1.5))
    assert fitted.shared_gp is not None
    grid = torch.stack([torch.full((21,), 0.5), torch.linspace(0, 1, 21)], 1)
    shared = fitted.shared_gp.mean(grid)
    effects, _ = fitted.predict(grid)
    assert float(shared.max() - shared.min()) > 2.0
    assert float((effects.max(1).values - effects.min(1).values).mean()) < 0.8


def test_without_evidence_the_shared_function_is_twice_as_smooth_as_task_effects() -> None:
    fitted = fit_task_gps([TrainingTask(np.full((1, 3), 0.5), np.zeros(1))])
    assert fitted.shared_gp is not None
    assert fitted.task_kernel.length.tolist() == pytest.approx([1.0] * 3, rel=0.05)
    assert fitted.shared_gp.kernel.log_length.exp().tolist() == pytest.approx([2.0] * 3, rel=0.05)


def test_nothing_shared_is_what_no_inducing_points_mean() -> None:
    fitted = fit_task_gps(drawn_tasks(4, 12, 1), n_inducing=0, n_steps=5)
    assert fitted.shared_gp is None
    assert fitted.amplitude == pytest.approx(float(fitted.task_kernel.amplitude))


def test_the_same_seed_gives_the_same_numbers() -> None:
    tasks = drawn_tasks(70, 6, 1)  # more than a step looks at, so that a draw decides
    first, again, other = (fit_task_gps(tasks, n_steps=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.task_kernel.log_length, again.task_kernel.log_length)
    assert first.shared_gp is not None
    assert again.shared_gp is not None
    assert torch.equal(first.shared_gp.evidence, again.shared_gp.evidence)
    assert not torch.equal(first.task_kernel.log_length, other.task_kernel.log_length)


def test_a_deadline_cuts_the_fit_short_and_says_how_far_it_came() -> None:
    fitted = fit_task_gps(drawn_tasks(3, 10, 1), n_steps=1_000_000, deadline_s=0.3)
    assert 1 <= fitted.n_steps_done < 1_000_000


def test_progress_reaches_the_end() -> None:
    reported: list[float] = []
    fit_task_gps(drawn_tasks(2, 6, 1), n_steps=4, progress=lambda share, _: reported.append(share))
    assert reported == sorted(reported)
    assert reported[-1] == pytest.approx(1.0)


def test_a_single_run_of_a_single_task_is_enough_for_a_fit() -> None:
    fitted = fit_task_gps([TrainingTask(np.full((1, 3), 0.5), np.zeros(1))], n_steps=3)
    assert all(math.isfinite(value) for value in fitted.task_kernel.log_length.tolist())


def test_where_single_precision_fails_the_likelihood_is_that_of_double_precision() -> None:
    rng = np.random.default_rng(0)
    inputs, scores, mask = padded([TrainingTask(rng.random((40, 2)), rng.normal(size=40)) for _ in range(3)], "cpu")
    task_kernel = task_kernel_of([0.5, 0.5])
    kernel = shared_of(rng.random((200, 2)) * 1e-3 + 0.5, [2e-3, 2e-3])
    parameters = [value.float().requires_grad_() for value in (kernel.log_length, kernel.log_amplitude)]
    single = SharedKernel(kernel.inducing.float(), *parameters)
    with pytest.raises(RuntimeError, match="positive-definite"):
        single.whitener()
    found = joint_negative_log_likelihood(single, task_kernel, inputs, scores, mask)
    assert found.dtype == torch.float32
    found.backward()
    assert all(torch.isfinite(value.grad).all() for value in parameters if value.grad is not None)
    exact = joint_negative_log_likelihood(single.double(), task_kernel.double(), inputs.double(), scores.double(), mask)
    assert float(found.detach()) == pytest.approx(float(exact.detach()), rel=1e-5)
