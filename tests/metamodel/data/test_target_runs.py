"""What the runs of a task and of its siblings say about a run of one length and one definition of the objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from metamodel import TaskDescription, recommend
from metamodel.data.learning_tables import learning_table
from metamodel.data.siblings import siblings_of
from metamodel.data.target_runs import target_runs
from metamodel.recommendation import Decision, Unit
from store import History
from store.repeats import definition_of

SPACE = {"lr": FloatDistribution(1e-4, 1e-1, log=True)}
RATES = (1e-4, 1e-3, 3e-3, 1e-2, 1e-1)
PLAIN = TaskDescription(dataset_class="Digits", schema={"columns": ["x", "y"]}, model_class="Net", objective="val_loss", direction="min")


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    with History(tmp_path / "history.db") as opened:
        yield opened


def loss(lr: float, epoch: int, offset: float = 0.0) -> float:
    """Return a loss that a longer training and a rate near 3e-3 make smaller."""
    return offset + 0.1 * abs(np.log10(lr / 3e-3)) + 1.0 / epoch


def train(
    history: History,
    description: TaskDescription,
    rates: Sequence[float] = RATES,
    *,
    epochs: int = 12,
    passes: float | None = None,
    offset: float = 0.0,
) -> list[str]:
    ids = []
    for lr in rates:
        with history.start_run(task=description, hparams={"lr": lr, "max_epochs": epochs}, objective="val_loss") as run:
            for epoch in range(1, epochs + 1):
                run.log(val_loss=loss(lr, epoch, offset), step=100 * epoch - 1, epoch=epoch)
            run.update(epochs_reached=passes or epochs, steps_reached=100 * epochs)
        ids.append(run.id)
    return ids


def asked(history: History, description: TaskDescription = PLAIN, **options: Any) -> Any:
    table, task_id = learning_table(history), "target"
    for record in history.tasks():
        if record.identity == description.identity():
            task_id = record.id
    own, siblings = table.of_task(task_id), siblings_of(task_id, description, table.tasks)
    return target_runs(history, task_id, own, siblings, definition_of(description.comparability), **options).runs


def test_runs_of_the_same_length_and_definition_are_taken_as_they_are(history: History) -> None:
    train(history, PLAIN)
    found = asked(history, planned_epochs=12.0)
    np.testing.assert_allclose(found.values, [-loss(lr, 12) for lr in RATES])
    assert found.groups.n_asked == 5
    assert not found.related


def test_longer_runs_are_read_off_their_curves_at_the_length_asked_about(history: History) -> None:
    train(history, PLAIN)
    found = asked(history, planned_epochs=3.0)
    np.testing.assert_allclose(found.values, [-loss(lr, 3) for lr in RATES])
    assert found.related == {"of 12 epochs (read at epoch 3)": 5}
    assert found.is_level_known
    recommendation = recommend(history, PLAIN, SPACE, current={"lr": 1e-1, "max_epochs": 3}, planned_epochs=3.0)[0]
    low, high = recommendation.interval
    assert low <= loss(3e-3, 3) <= high + 0.1
    assert "5 runs of this task of 12 epochs (read at epoch 3)" in recommendation.reason


def test_quick_looks_count_by_their_order_only(history: History) -> None:
    train(history, PLAIN)
    train(history, PLAIN, (2e-4, 2e-3, 4e-3, 5e-2), epochs=1, passes=1.0)
    found = asked(history, planned_epochs=12.0)
    assert found.related == {"of 1 epoch (in order only)": 4}
    assert found.values[5:].min() > -2 * loss(1e-1, 12)  # brought to the level of the whole runs
    assert np.argsort(found.values[5:]).tolist() == [3, 0, 1, 2]
    recommendation = recommend(history, PLAIN, SPACE, current={"lr": 1e-4, "max_epochs": 12}, planned_epochs=12.0)[0]
    assert 1e-3 < recommendation.config["lr"] < 1e-2
    assert recommendation.decision is Decision.APPLY


def test_short_runs_do_not_widen_the_range_that_was_seen(history: History) -> None:
    train(history, PLAIN, (1e-4, 2e-4, 5e-4, 1e-3), epochs=12)
    train(history, PLAIN, (1e-2, 3e-2, 1e-1), epochs=1, passes=1.0)
    recommendation = recommend(history, PLAIN, SPACE, current={"lr": 1e-4}, planned_epochs=12.0)[0]
    assert recommendation.config["lr"] < 3e-3


def test_only_short_runs_give_no_level_for_a_long_one(history: History) -> None:
    train(history, PLAIN, epochs=1, passes=1.0)
    recommendation = recommend(history, PLAIN, SPACE, current={"lr": 1e-4}, planned_epochs=12.0)[0]
    assert recommendation.unit is Unit.RANK
    assert recommendation.evidence.n_runs == 0
    assert recommendation.evidence.n_related == 5


def test_the_first_steps_are_no_evidence_of_a_whole_training(history: History) -> None:
    train(history, PLAIN, epochs=1, passes=0.1)
    recommendation = recommend(history, PLAIN, SPACE, current={"lr": 1e-4}, planned_epochs=12.0)[0]
    assert recommendation.decision is Decision.ABSTAIN
    assert recommendation.evidence.left_out == {"shorter than a sixteenth of this run's 12 epochs": 5}


@pytest.mark.parametrize(
    "comparability", [{"label_smoothing_factor": 0.2}, {"loss": "SmoothL1Loss(beta=0.5)"}, {"validation": "2 batches"}]
)
def test_another_definition_of_the_objective_is_compared_within_itself(history: History, comparability: Mapping[str, Any]) -> None:
    other = replace(PLAIN, comparability=comparability)
    train(history, PLAIN, (1e-3, 1e-1))
    train(history, other, (1e-4, 3e-3, 1e-2), offset=-5.0)  # a smaller loss by definition
    assert len(history.tasks()) == 1
    found = asked(history)
    assert sum(found.related.values()) == 3
    assert found.values.max() < 0  # nobody keeps a loss below zero
    best = recommend(history, PLAIN, SPACE)[0]
    assert best.evidence.best_run_id == found.run_ids[0]
    np.testing.assert_allclose(asked(history, other).values[2:], [-loss(lr, 12, -5.0) for lr in (1e-4, 3e-3, 1e-2)])


def test_folds_are_pooled_and_count_for_the_evidence_floor(history: History) -> None:
    for fold, lr in enumerate(RATES):
        train(history, replace(PLAIN, fold={"fold": fold}), [lr], offset=0.01 * fold)
    recommendation = recommend(history, replace(PLAIN, fold={"fold": 9}), SPACE, current={"lr": 1e-1})[0]
    assert recommendation.evidence.n_siblings == recommendation.evidence.n_sibling_runs == 5
    assert recommendation.decision is Decision.APPLY
    assert 1e-3 < recommendation.config["lr"] < 1e-2
    assert "5 runs of 5 sibling tasks" in recommendation.reason


def test_a_sibling_is_no_source_task_besides(history: History) -> None:
    for fold in range(3):
        train(history, replace(PLAIN, fold={"fold": fold}), np.geomspace(1e-4, 1e-1, 9).tolist())
    evidence = recommend(history, replace(PLAIN, fold={"fold": 0}), SPACE)[0].evidence
    assert (evidence.n_runs, evidence.n_sibling_runs, evidence.n_siblings, evidence.n_tasks) == (9, 18, 2, 0)


def test_a_length_in_the_space_is_tuned_and_no_condition(history: History) -> None:
    for epochs in (2, 4, 12):
        train(history, PLAIN, RATES[:3], epochs=epochs)
    space = {**SPACE, "max_epochs": [2, 4, 12]}
    found = recommend(history, PLAIN, space, current={"lr": 1e-3, "max_epochs": 2}, planned_epochs=2.0)[0]
    assert found.config["max_epochs"] == 12


def test_what_defines_the_objective_is_not_tuned_for_it(history: History) -> None:
    for smoothing, lr in zip((0.0, 0.1, 0.2, 0.1, 0.0), RATES, strict=True):
        description = replace(PLAIN, comparability={"label_smoothing_factor": smoothing} if smoothing else {})
        with history.start_run(task=description, hparams={"lr": lr, "label_smoothing_factor": smoothing}, objective="val_loss") as run:
            run.log(val_loss=loss(lr, 12, smoothing))
    space = {**SPACE, "label_smoothing_factor": [0.0, 0.1, 0.2]}
    found = recommend(history, PLAIN, space, current={"lr": 1e-1, "label_smoothing_factor": 0.1})[0]
    assert set(found.config) == {"lr"}
    assert list(found.evidence.not_advised) == ["label_smoothing_factor"]
    by_itself = recommend(history, PLAIN, {"label_smoothing_factor": [0.0, 0.1, 0.2]})[0]
    assert by_itself.decision is Decision.ABSTAIN
    assert by_itself.reason == "label_smoothing_factor: it changes what val_loss means, so its values cannot be compared"


def test_a_task_that_was_split_off_by_hand_is_no_sibling(history: History) -> None:
    kept, moved = train(history, PLAIN, RATES[:2])
    history.split_task([moved], "cleaned")
    assert [task.name for task in learning_table(history).tasks if task.run_ids == (moved,)] == ["cleaned"]
    assert asked(history).run_ids == (kept,)
    assert not recommend(history, "cleaned", SPACE)[0].evidence.n_siblings


def test_a_task_that_is_asked_for_by_name_is_as_its_newest_run_has_it(history: History) -> None:
    train(history, PLAIN, RATES[:3])
    train(history, replace(PLAIN, comparability={"validation": "2 batches"}), RATES[3:], offset=7.0)
    (task,) = history.tasks()
    found = recommend(history, task.id, SPACE)[0]
    assert (found.evidence.n_runs, found.evidence.related) == (2, {"with the usual objective (in order only)": 3})


def test_early_stopped_runs_count_for_longer_ones_and_are_read_at_shorter_lengths(history: History) -> None:
    for lr in RATES:
        with history.start_run(task=PLAIN, hparams={"lr": lr, "max_epochs": 1000}, objective="val_loss") as run:
            for epoch in range(1, 9):
                run.log(val_loss=loss(lr, epoch), step=100 * epoch - 1, epoch=epoch)
            run.update(epochs_reached=8, steps_reached=800)
            run.finish("stopped")
    whole = asked(history, planned_epochs=1000.0)
    assert (whole.groups.n_asked, whole.related) == (5, {})
    short = asked(history, planned_epochs=2.0)
    assert short.related == {"of 8 epochs (read at epoch 2)": 5}
    np.testing.assert_allclose(short.values, [-loss(lr, 2) for lr in RATES])


@pytest.mark.parametrize(
    ("hparams", "passes"), [({"max_epochs": -1, "max_steps": 16}, 1.0), ({"num_train_epochs": 3.0, "max_steps": 770}, 7.7)]
)
def test_where_steps_decide_the_length_is_what_was_reached(history: History, hparams: dict[str, Any], passes: float) -> None:
    for lr in RATES:
        with history.start_run(task=PLAIN, hparams={"lr": lr, **hparams}, objective="val_loss") as run:
            run.log(val_loss=loss(lr, 1))
            run.update(epochs_reached=passes, steps_reached=100)
    assert asked(history, planned_epochs=passes).groups.n_asked == 5
    longer = recommend(history, PLAIN, SPACE, current={"lr": 1e-1}, planned_epochs=4 * passes)[0]
    assert longer.evidence.related == {f"of {passes:g} {'epoch' if passes == 1 else 'epochs'} (in order only)": 5}


def test_of_single_batches_and_epochs_the_curve_has_the_epochs(history: History) -> None:
    description = PLAIN.with_objective("train_loss", "min")
    with history.start_run(task=description, hparams={"lr": 1e-3, "max_epochs": 4}, objective="train_loss") as run:
        for step in range(40):
            run.log(train_loss=0.01, step=step)
            if step % 10 == 9:
                run.log(train_loss_epoch=4.0 / (step + 1), step=step)
        run.update(epochs_reached=4.0, steps_reached=40)
    assert history.objective_curves([run.id])[run.id] == ([0.25, 0.5, 0.75, 1.0], [0.4, 0.2, 4.0 / 30, 0.1])
