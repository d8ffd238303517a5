"""Task descriptors count where the tasks themselves show that they are informative, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest

from metamodel.gp.gp_meta_model import task_effects
from metamodel.gp.relatedness import DESCRIPTOR_MARGIN, MIN_CORRELATION, Relatedness, fit_relatedness
from metamodel.gp.task_gp_fit import fit_task_gps
from metamodel.gp.task_gps import TrainingTask
from tests.metamodel.gps import ranked


def two_kinds(n_tasks: int, seed: int = 0) -> tuple[list[TrainingTask], np.ndarray]:
    """Half of the tasks are best at a large value, the others at a small one."""
    rng = np.random.default_rng(seed)
    tasks, kinds = [], np.arange(n_tasks) % 2
    for kind in kinds:
        inputs = rng.random((25, 1))
        tasks.append(ranked(inputs, (inputs[:, 0] if kind else -inputs[:, 0]) + 0.05 * rng.normal(size=25)))
    return tasks, kinds


def effects_of(tasks: list[TrainingTask]) -> np.ndarray:
    return task_effects(fit_task_gps(tasks))


@pytest.fixture(scope="module")
def sixteen() -> tuple[np.ndarray, np.ndarray]:
    """Effects of sixteen tasks of two kinds, and their kinds."""
    tasks, kinds = two_kinds(16)
    return effects_of(tasks), kinds


def test_a_descriptor_that_tells_the_kinds_apart_is_used(sixteen: tuple[np.ndarray, np.ndarray]) -> None:
    effects, kinds = sixteen
    found = fit_relatedness([{"n_rows": 10.0 ** (2 + 3 * kind)} for kind in kinds], effects)
    assert found.informative == ["n_rows"]
    assert found.correlation > 0.8
    assert found.is_log == (True,)
    weights = found.weights({"n_rows": 200_000.0})
    assert weights.sum() == pytest.approx(1.0)
    assert weights[kinds == 1].sum() > 0.9


def test_one_informative_descriptor_among_others_is_found(sixteen: tuple[np.ndarray, np.ndarray]) -> None:
    effects, kinds = sixteen
    noise = np.random.default_rng(3).normal(size=(16, 3))
    features = [{"kind": float(k), **{f"noise{j}": float(v) for j, v in enumerate(row)}} for k, row in zip(kinds, noise, strict=True)]
    found = fit_relatedness(features, effects)
    assert found.informative[0] == "kind"
    assert found.inverse_widths[0] > 5 * found.inverse_widths[1:].max()


def test_an_uninformative_descriptor_is_not_used() -> None:
    rng = np.random.default_rng(5)
    found = fit_relatedness([{"noise": float(value)} for value in rng.normal(size=16)], rng.normal(size=(16, 40)))
    assert found.informative == []
    assert found.correlation == 0 or found.correlation >= MIN_CORRELATION
    assert np.allclose(found.weights({"noise": 2.0}), 1 / 16)


def test_few_tasks_unknown_descriptors_and_constants_weigh_all_the_same(sixteen: tuple[np.ndarray, np.ndarray]) -> None:
    effects, kinds = sixteen
    few = fit_relatedness([{"kind": float(kind)} for kind in kinds[:6]], effects[:6])
    assert few.informative == []
    found = fit_relatedness([{"kind": float(kind), "constant": 1.0} for kind in kinds], effects)
    assert found.names == ("kind",)
    assert np.allclose(found.weights({"something": 1.0}), 1 / 16)
    none = fit_relatedness([{} for _ in kinds], effects)
    assert np.allclose(none.weights({}), 1 / 16)
    assert none.regression({}, np.arange(16)) == (pytest.approx(np.zeros(16)), 1.0)


def test_a_held_out_task_gets_no_weight_and_plain_data_bring_everything_back(sixteen: tuple[np.ndarray, np.ndarray]) -> None:
    effects, kinds = sixteen
    found = fit_relatedness([{"kind": float(kind)} for kind in kinds], effects)
    keep = np.arange(16) != 3
    weights = found.weights({"kind": 1.0}, keep)
    assert weights[3] == 0
    assert weights.sum() == pytest.approx(1.0)
    back = Relatedness.from_json(found.to_json())
    assert np.array_equal(back.weights({"kind": 1.0}, keep), weights)
    assert np.array_equal(back.regression({"kind": 1.0}, np.arange(16))[0], found.regression({"kind": 1.0}, np.arange(16))[0])


def known(correlation: float = 0.6, widths: tuple[float, float] = (0.5, 0.2)) -> Relatedness:
    values = np.random.default_rng(1).normal(size=(9, 2))
    return Relatedness(("a", "b"), (False, False), np.array([1.0, 2.0]), np.array([2.0, 0.5]), values, np.array(widths), correlation)


def test_the_regression_on_task_effects_is_that_of_a_normal_distribution_over_tasks() -> None:
    relatedness, index = known(), np.array([0, 2, 3, 5, 8])
    weights, left_open = relatedness.regression({"a": 1.4, "b": 2.2}, index)
    rows = np.concatenate([relatedness.values[index], [[0.2, 0.4]]])
    kernel = np.exp(-0.5 * (np.square(rows[:, None] - rows[None]) * [0.5, 0.2]).sum(-1))
    covariance = 0.4 * np.eye(6) + 0.6 * kernel
    gain = np.linalg.solve(covariance[:5, :5], covariance[:5, 5])
    assert np.allclose(weights, gain, atol=1e-6)
    assert left_open == pytest.approx(1 - covariance[:5, 5] @ gain, abs=1e-6)


def test_far_outside_of_what_was_seen_a_task_counts_as_the_outermost_one() -> None:
    relatedness, index = known(), np.arange(9)
    outermost = relatedness.values.max(0) + DESCRIPTOR_MARGIN
    at_the_edge = {"a": float(1 + 2 * outermost[0]), "b": float(2 + 0.5 * outermost[1])}
    assert np.allclose(relatedness.weights({"a": 1e9, "b": 1e9}), relatedness.weights(at_the_edge))
    assert relatedness.regression({"a": 1e9, "b": 1e9}, index)[1] < 1.0


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(AssertionError, match="task_effects must have shape"):
        fit_relatedness([{}, {}], np.zeros((3, 4)))
