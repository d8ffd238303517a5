"""From a recommended global batch to what is written."""

from __future__ import annotations

import math
from typing import Any

from metahp_tuning.precedence import Constraint, Setting
from metahp_tuning.recommendation_query import TuningProblem, planned_changes
from metamodel import TaskDescription
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit
from metamodel.space.batch import BatchLayout
from store.hyperparameters import ACCUMULATION, PER_DEVICE_BATCH_SIZE
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
