from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamodel.data.learning_tables import learning_table
from metamodel.data.observations import REPETITION, build_table, past_scores, rank_scores, single_task_scores
from store import Curve, FinishedRun, History, ObjectiveWarning


def finished(task: str, number: int, value: float) -> FinishedRun:
    return FinishedRun(f"{task}-{number}", task, {"lr": 0.1 * (number + 1)}, "acc", "max", {"acc": Curve([0], [value])})


def test_a_new_run_reads_only_its_own_task_again(history: History) -> None:
    history.add_finished_runs(finished(task, i, 0.1 * i) for task in ("a", "b") for i in range(5))
    before = {task.name: task for task in learning_table(history).tasks}
    history.add_finished_runs([finished("a", 5, 0.9)])
    after = {task.name: task for task in learning_table(history).tasks}
    assert after["b"] is before["b"]
    assert len(after["a"]) == len(before["a"]) + 1


def test_reading_task_by_task_gives_what_reading_all_at_once_gives(history: History) -> None:
    history.add_finished_runs(finished(task, i, float("nan") if i == 0 else 0.1 * i) for task in ("a", "b", "c") for i in range(4))
    history.start_run(task="a", hparams={"lr": 0.5}, objective="acc").finish("failed")
    history.merge_tasks("a", "b")
    found = learning_table(history)
    expected = build_table(history.runs(), {task.id: task for task in history.tasks()})
    assert (found.left_out, found.n_finished) == (expected.left_out, expected.n_finished)
    assert [task.run_ids for task in found.tasks] == [task.run_ids for task in expected.tasks]
    for left, right in zip(found.tasks, expected.tasks, strict=True):
        assert left.configs == right.configs
        np.testing.assert_array_equal(left.values, right.values)


def test_the_same_run_again_is_observed_once_and_other_draws_are_observed_each(history: History) -> None:
    for seed, value in ((1, 0.5), (1, 0.5), (2, 0.5), (1, 0.6), (None, 0.7), (None, 0.7)):
        with history.start_run(task="a", hparams={"lr": 0.1, "seed": seed}, objective="acc", direction="max") as run:
            run.log(acc=value)
    found = learning_table(history)
    assert found.tasks[0].values.tolist() == [0.5, 0.5, 0.6, 0.7, 0.7]
    assert found.left_out == {REPETITION: 1}


def test_the_state_of_a_task_changes_with_its_runs_only(history: History) -> None:
    history.add_finished_runs([finished("a", 0, 0.1), finished("b", 0, 0.2)])
    before = history.task_states()
    history.add_finished_runs([finished("a", 1, 0.3)])
    changed = {history.task(task_id).name for task_id, state in history.task_states().items() if state != before[task_id]}
    assert changed == {"a"}


def test_scores_of_a_past_task_keep_the_order_and_remember_what_fell_far_behind() -> None:
    values = np.array([0.1, 0.88, 0.9, 0.91, 0.92])
    scores = past_scores(values)
    assert (np.diff(scores) > 0).all()
    assert scores[0] < rank_scores(values)[0]
    assert np.allclose(past_scores(3.0 + 7.0 * values), scores)


def test_one_extreme_outcome_leaves_the_others_their_differences_and_equal_ones_have_none() -> None:
    scores = past_scores(np.array([-1e300, *np.linspace(0, 1, 30)]))
    assert np.isfinite(scores).all()
    assert np.ptp(scores[1:]) > 1.5
    assert np.allclose(past_scores(np.full(4, 2.0)), 0.0)


@given(st.lists(st.floats(-1e6, 1e6, allow_nan=False), min_size=1, max_size=30))
def test_scores_of_a_task_alone_keep_the_order(values: list[float]) -> None:
    outcomes = np.round(np.array(values), 3)
    scores = single_task_scores(outcomes)
    assert np.isfinite(scores).all()
    order = np.argsort(outcomes, kind="stable")
    assert (np.diff(scores[order]) >= -1e-9).all()


def test_scores_of_a_task_alone_keep_distances_near_the_best_and_draw_in_what_is_far_behind() -> None:
    scores = single_task_scores(np.array([-1e9, 0.0, 1.0, 2.0, 2.1]))
    assert scores[4] - scores[3] == pytest.approx(0.1 * (scores[3] - scores[2]))
    assert scores[1] - scores[0] < 30 * (scores[2] - scores[1])


def test_losses_over_many_orders_of_magnitude_are_read_as_logarithms() -> None:
    scores = single_task_scores(-np.array([1e-6, 1e-4, 1e-2, 1.0]))
    assert np.diff(scores) == pytest.approx(np.full(3, scores[1] - scores[0]))
    assert single_task_scores(np.full(4, 0.3)).tolist() == [0.0] * 4


def test_runs_judged_by_one_metric_under_several_names_are_evidence_together(history: History) -> None:
    for i, name in enumerate(["val_loss_epoch", "val_loss", "val_loss/dataloader_idx_0"]):
        run = history.start_run(task="a", hparams={"lr": 0.1 * (i + 1)}, objective=name)
        run.log({name: 1.0 + i})
        run.finish()
    (task,) = learning_table(history).tasks
    assert (task.objective, sorted(task.values)) == ("val_loss", [-3.0, -2.0, -1.0])
    assert learning_table(history).of_task(task.task_id, "val_loss_epoch") is task


def test_a_run_whose_objective_was_logged_for_single_batches_only_is_not_said_to_have_logged_nothing(history: History) -> None:
    run = history.start_run(task="a", hparams={"lr": 0.1}, objective="val_loss")
    run.log(val_loss=0.5, step=3, is_partial=True)
    with pytest.warns(ObjectiveWarning, match="logged only where it is no outcome"):
        run.finish()
    told = learning_table(history).describe_left_out()
    assert told == "runs left out: 1 x objective 'val_loss' without an outcome (logged were: val_loss)"
