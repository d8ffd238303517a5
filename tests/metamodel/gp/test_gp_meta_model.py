"""The default meta-model as a thing that is asked again and again."""

from __future__ import annotations

import numpy as np
import pytest

from metamodel.data.learning_tables import learning_table
from metamodel.data.run_groups import RunGroups
from metamodel.data.task import TaskDescription
from metamodel.gp.gp_meta_model import GPMetaModel
from metamodel.gp.prediction import TargetTaskData
from store import Curve, FinishedRun, History


@pytest.fixture
def model(history: History) -> GPMetaModel:
    chance = np.random.default_rng(0)
    runs = []
    for task in range(4):
        for i in range(8):
            rate = float(10 ** chance.uniform(-4, -1))
            value = -abs(np.log10(rate) + 2 + 0.2 * task)
            runs.append(FinishedRun(f"{task}-{i}", f"t{task}", {"lr": rate}, "acc", "max", {"acc": Curve([0], [value])}))
    history.add_finished_runs(runs)
    return GPMetaModel.fit(learning_table(history), {}, n_steps=20)


def test_what_is_believed_of_the_same_task_is_worked_out_once(model: GPMetaModel) -> None:
    own = model.info["task_ids"][0]
    first = model.prior({"log10_n_train": 3.0}, 0, own)
    assert model.prior({"log10_n_train": 3.0}, 0, own) is first
    others = [({"log10_n_train": 4.0}, 0, own), ({"log10_n_train": 3.0}, 1, own), ({"log10_n_train": 3.0}, 0, None)]
    assert all(model.prior(*question) is not first for question in others)


def test_questions_about_other_tasks_in_between_change_no_answer(model: GPMetaModel) -> None:
    inputs = np.linspace(0, 1, 5)[:, None]
    own = TargetTaskData(inputs, np.array([0.1, 0.5, 0.9, 0.4, 0.2]), RunGroups.asked(5))

    def asked() -> np.ndarray:
        return model.posterior(own, TaskDescription(), 0, model.info["task_ids"][0]).predict(inputs).mixture()[0]

    before = asked()
    for task_id in [*model.info["task_ids"][1:], None]:
        model.posterior(own, TaskDescription(n_train=100), 0, task_id)
    np.testing.assert_array_equal(asked(), before)


def test_a_model_that_forgets_tasks_is_made_once_and_knows_the_others(model: GPMetaModel) -> None:
    first, *rest = model.info["task_ids"]
    left = model.without_tasks({first, "unknown"})
    assert left is not None
    assert left is model.without_tasks({first})
    assert list(left.info["task_ids"]) == rest
    assert left.task_gps.n_tasks == len(left.relatedness.values) == len(rest)
    own = TargetTaskData(np.zeros((0, 1)), np.zeros(0), RunGroups.asked(0))
    ours, theirs = (one.posterior(own, TaskDescription(), 0, first).mean(np.linspace(0, 1, 5)[:, None]) for one in (left, model))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
    assert model.without_tasks({"unknown"}) is model
    assert model.without_tasks(model.info["task_ids"]) is None
