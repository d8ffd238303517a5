"""Task descriptors count where leaving tasks out shows that they help, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from metamodel.relatedness import Relatedness, fit_relatedness
from metamodel.task_gps import TrainingTask, fit_task_gps


def two_kinds(n_tasks: int, seed: int = 0) -> tuple[list[TrainingTask], np.ndarray]:
    """Half of the tasks want a large value, the others a small one."""
    rng = np.random.default_rng(seed)
    tasks, kinds = [], np.arange(n_tasks) % 2
    for kind in kinds:
        inputs = rng.random((25, 1))
        value = (inputs[:, 0] if kind else -inputs[:, 0]) + 0.05 * rng.normal(size=25)
        tasks.append(TrainingTask(inputs, norm.ppf((value.argsort().argsort() + 0.5) / 25)))
    return tasks, kinds


def test_a_descriptor_that_tells_the_kinds_apart_is_used() -> None:
    tasks, kinds = two_kinds(16)
    found = fit_relatedness([{"n_rows": 10.0 ** (2 + 3 * kind)} for kind in kinds], fit_task_gps(tasks))
    assert found.width is not None
    assert found.is_log == (True,)
    weights = found.weights({"n_rows": 200_000.0})
    assert weights.sum() == pytest.approx(1.0)
    assert weights[kinds == 1].sum() > 0.9


def test_a_descriptor_that_says_nothing_is_not_used() -> None:
    tasks, _ = two_kinds(16)
    noise = np.random.default_rng(3).normal(size=16)
    found = fit_relatedness([{"noise": float(value)} for value in noise], fit_task_gps(tasks))
    assert found.width is None
    assert np.allclose(found.weights({"noise": 2.0}), 1 / 16)


def test_few_tasks_unknown_descriptors_and_constants_weigh_all_the_same() -> None:
    tasks, kinds = two_kinds(6)
    few = fit_relatedness([{"kind": float(kind)} for kind in kinds], fit_task_gps(tasks))
    assert few.width is None
    tasks, kinds = two_kinds(16)
    found = fit_relatedness([{"kind": float(kind), "constant": 1.0} for kind in kinds], fit_task_gps(tasks))
    assert found.names == ("kind",)
    assert np.allclose(found.weights({"something": 1.0}), 1 / 16)
    none = fit_relatedness([{} for _ in tasks], fit_task_gps(tasks))
    assert np.allclose(none.weights({}), 1 / 16)


def test_a_task_left_out_gets_no_weight_and_plain_data_bring_everything_back() -> None:
    tasks, kinds = two_kinds(16)
    found = fit_relatedness([{"kind": float(kind)} for kind in kinds], fit_task_gps(tasks))
    keep = np.arange(16) != 3
    weights = found.weights({"kind": 1.0}, keep)
    assert weights[3] == 0
    assert weights.sum() == pytest.approx(1.0)
    back = Relatedness.from_json(found.to_json())
    assert np.array_equal(back.weights({"kind": 1.0}, keep), weights)
