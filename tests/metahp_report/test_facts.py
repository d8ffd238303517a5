from __future__ import annotations

from collections.abc import Callable

import numpy as np

from metahp_report.facts import percentile_ranks, read_facts, varied_names
from store import History, RunStatus


def test_a_rank_is_the_share_of_others_that_did_worse() -> None:
    found = percentile_ranks(np.array([0.1, 0.3, 0.2]), np.zeros(3, dtype=bool))
    assert found.tolist() == [0.0, 1.0, 0.5]


def test_ties_count_half_diverged_runs_beat_nobody_and_silent_ones_are_not_judged() -> None:
    found = percentile_ranks(np.array([0.5, 0.5, np.nan, np.nan, 0.9]), np.array([False, False, True, False, False]))
    np.testing.assert_allclose(found, [0.5, 0.5, 0.0, np.nan, 1.0])


def test_a_single_run_stands_nowhere() -> None:
    assert np.isnan(percentile_ranks(np.array([0.5]), np.zeros(1, dtype=bool))).all()


def test_only_what_varied_and_most_runs_know_is_a_hyperparameter_of_the_task() -> None:
    configs = [{"lr": 0.1, "same": 1, "rare": index} if index == 0 else {"lr": index, "same": 1, "list": [index]} for index in range(4)]
    assert varied_names(configs) == ("lr",)


def test_facts_hold_every_run_with_its_outcome_and_what_was_advised(opened: Callable[[], History]) -> None:
    with opened() as history:
        facts = read_facts(history)
    assert facts.n_runs == 50
    assert facts.n_by_status[RunStatus.DIVERGED] == facts.n_by_status[RunStatus.FAILED] == 2
    assert {task.name for task in facts.tasks} == {"wine", "digits"}
    assert [int(task.is_recommended.sum()) for task in facts.tasks] == [4, 4]
    assert {item.run_id for item in facts.advice} == {run.id for run in facts.runs() if run.recommendation_id}
    assert all(item.outcome is not None and item.changes == (("lr", 0.1, 0.001),) for item in facts.advice)


def test_the_plan_of_a_comparison_is_no_training_run(tmp_path: object) -> None:
    with History(f"{tmp_path}/h.db") as history:
        history.start_run(task="live comparisons", framework="comparison").finish()
        facts = read_facts(history)
    assert (facts.n_runs, facts.n_comparisons, facts.tasks) == (0, 1, ())
