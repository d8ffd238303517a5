"""From a recommended global batch to what is written."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from metahp_tuning.precedence import Constraint, Setting
from metahp_tuning.recommendation_query import TuningProblem, earlier_objective, planned_changes, with_earlier_definition
from metamodel import TaskDescription
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit
from metamodel.space.batch import BatchLayout
from store import History
from store.hyperparameters import ACCUMULATION, PER_DEVICE_BATCH_SIZE
from store.names import Direction
from store.statuses import Source


def planned(recommended: int, allowed: tuple[str, ...], accumulation: int = 1, high: int | None = None) -> dict[str, tuple[Any, Source]]:
    settings = {PER_DEVICE_BATCH_SIZE: Setting("batch_size", 8), ACCUMULATION: Setting("gradient_accumulation_steps", accumulation)}
    problem = TuningProblem(
        description=TaskDescription(name="t"),
        space={"global_batch_size": [16, 256]},
        allowed={name: settings[name] for name in allowed},
        constraints=[] if high is None else [Constraint(PER_DEVICE_BATCH_SIZE, high, "the data set has samples")],
        layout=BatchLayout(8, accumulation, 1),
        current={},
        mode="best",
        variant=None,
        max_fit_s=1.0,
    )
    found = Recommendation(
        "r", {"global_batch_size": recommended}, 0.5, (0.4, 0.6), 0.4, 0.9, 1.0, Unit.RANK, Evidence(), Decision.APPLY, "better"
    )
    assert not math.isnan(found.prediction)
    return {change.name: (change.new, change.source) for change in planned_changes(found, problem, splits_by_accumulation=True)}


def test_a_batch_is_split_by_accumulation_only_where_that_may_be_written() -> None:
    assert planned(256, (PER_DEVICE_BATCH_SIZE,), accumulation=2) == {PER_DEVICE_BATCH_SIZE: (128, Source.METAHP)}


def test_a_limit_that_accumulation_makes_up_for_is_no_constraint() -> None:
    found = planned(256, (PER_DEVICE_BATCH_SIZE, ACCUMULATION), high=100)
    assert found == {PER_DEVICE_BATCH_SIZE: (64, Source.METAHP), ACCUMULATION: (4, Source.METAHP)}


def test_a_batch_below_the_recommended_one_is_a_constraint() -> None:
    assert planned(256, (PER_DEVICE_BATCH_SIZE,), high=100) == {PER_DEVICE_BATCH_SIZE: (100, Source.CONSTRAINT)}


def test_what_was_merged_by_hand_keeps_its_objective_and_its_definition(tmp_path: Path) -> None:
    kept = TaskDescription(
        dataset_class="D", model_class="M", n_classes=2, objective="val_loss", direction="min", comparability={"loss": "Own"}
    )
    merged = replace(kept, n_classes=3)
    with History(tmp_path / "history.db") as history:
        for description in (kept, merged):
            with history.start_run(task=description, hparams={"lr": 0.1}, objective="val_loss") as run:
                run.log(val_loss=1.0)
        history.merge_tasks(*(task.id for task in history.tasks()))
        for description in (kept, merged):
            plain = replace(description, comparability={})
            assert with_earlier_definition(history, plain, ("loss",)).comparability == {"loss": "Own"}
            assert earlier_objective(history, plain.with_objective(None, None)) == ("val_loss", Direction.MIN)
