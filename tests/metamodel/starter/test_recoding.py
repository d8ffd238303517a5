"""Rows of one encoder's columns become what another encoder would have made of the same configurations."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamodel.data.run_groups import RunGroups
from metamodel.gp.posterior import Posterior
from metamodel.gp.prediction import TargetTaskData
from metamodel.gp.prior import HistoryPrior, TaskWeighting
from metamodel.gp.task_gps import TrainingTask
from metamodel.space.encoding import Column, Encoder
from metamodel.starter.recoding import RecodedPrior, Recoding, merged_column
from tests.metamodel.gps import task_kernel_of, with_shared

RATE = Column("learning_rate", low=np.log(1e-5), high=np.log(1e-1), is_log=True)
NARROW = Column("learning_rate", low=np.log(1e-3), high=np.log(1e-2), is_log=True)
PLAIN = Column("learning_rate", low=0.0, high=0.1, can_miss=True)
DROPOUT = Column("dropout", low=0.0, high=0.6)
OURS = Column("optimizer", choices=("Adam", "SGD"))
THEIRS = Column("optimizer", choices=("adamw_torch", "torch.optim.SGD"), can_miss=True)

configs = st.fixed_dictionaries(
    {"learning_rate": st.floats(1e-5, 1e-1), "dropout": st.floats(0.0, 0.6), "optimizer": st.sampled_from(["Adam", "SGD"])}
)


@given(st.lists(configs, min_size=1, max_size=5))
@pytest.mark.parametrize("target", [(RATE, DROPOUT, OURS), (NARROW, DROPOUT), (OURS, PLAIN), (DROPOUT, NARROW)])
def test_a_recoded_row_is_what_the_other_encoder_makes_of_the_configuration(
    target: tuple[Column, ...], drawn: list[dict[str, object]]
) -> None:
    source, wanted = Encoder((DROPOUT, OURS, RATE)), Encoder(target)
    np.testing.assert_allclose(Recoding(source, wanted)(source.encode(drawn)), wanted.encode(drawn), atol=1e-9)


def test_a_label_is_spelt_as_the_other_encoder_knows_it() -> None:
    recode = Recoding(Encoder((Column("optimizer", choices=("AdamW", "SGD")),)), Encoder((THEIRS,)))
    found = recode(np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    np.testing.assert_array_equal(found, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.5, 0.5, 1.0]])


def test_what_is_missing_stays_missing() -> None:
    source = Encoder((PLAIN,))
    found = Recoding(source, Encoder((Column("learning_rate", low=0.0, high=1.0, can_miss=True),)))(
        source.encode([{}, {"learning_rate": 0.1}])
    )
    np.testing.assert_allclose(found, [[0.5, 1.0], [0.1, 0.0]])


def test_numbers_where_the_other_has_labels_are_looked_up() -> None:
    source = Encoder((Column("batch_size", low=np.log(8), high=np.log(512), is_log=True),))
    wanted = Encoder((Column("batch_size", choices=(16, 64)),))
    np.testing.assert_allclose(Recoding(source, wanted)(source.encode([{"batch_size": 16}, {"batch_size": 64}])), [[1, 0], [0, 1]])


def test_further_columns_are_handed_on() -> None:
    source = Encoder((RATE, DROPOUT))
    rows = np.array([[0.5, 0.5, 7.0, 8.0]])
    np.testing.assert_allclose(Recoding(source, Encoder((DROPOUT,)))(rows), [[0.5, 7.0, 8.0]])


def test_a_column_that_is_nowhere_is_a_mistake() -> None:
    with pytest.raises(AssertionError, match="none for dropout"):
        Recoding(Encoder((RATE,)), Encoder((DROPOUT,)))


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [(NARROW, RATE, np.log(1e-5), np.log(1e-1)), (RATE, NARROW, np.log(1e-5), np.log(1e-1)), (PLAIN, RATE, 0.0, 0.1)],
)
def test_a_column_for_two_holds_what_both_have_seen(first: Column, second: Column, low: float, high: float) -> None:
    found = merged_column(first, second)
    assert (found.low, found.high, found.is_log) == (pytest.approx(low), pytest.approx(high), first.is_log)


def test_labels_of_both_have_a_place() -> None:
    assert merged_column(OURS, THEIRS).choices == ("Adam", "SGD", "adamw_torch", "torch.optim.SGD")


def test_where_one_has_numbers_and_the_other_labels_the_second_is_asked_as_it_is() -> None:
    labels = Column("learning_rate", choices=("auto", 0.1))
    source = Encoder((merged_column(RATE, labels),))
    rows = source.encode([{"learning_rate": "auto"}, {"learning_rate": 0.1}])
    np.testing.assert_array_equal(Recoding(source, Encoder((labels,)))(rows), rows)
    np.testing.assert_allclose(Recoding(source, Encoder((RATE,)))(rows), [[0.5], [1.0]])


def test_what_one_of_two_may_miss_can_be_missing() -> None:
    source = Encoder((merged_column(RATE, PLAIN),))
    rows = source.encode([{}, {"learning_rate": 0.01}])
    np.testing.assert_allclose(Recoding(source, Encoder((PLAIN,)))(rows), [[0.5, 1.0], [0.1, 0.0]])
    np.testing.assert_allclose(Recoding(source, Encoder((RATE,)))(rows), [[0.5], [0.75]])


def test_a_recoded_prior_answers_as_the_prior_does_in_its_own_columns() -> None:
    rng = np.random.default_rng(0)
    tasks = [TrainingTask(x := rng.random((12, 2)), np.sin(3 * x[:, 0]) - x[:, 1] + 0.1 * rng.normal(size=12)) for _ in range(3)]
    prior = HistoryPrior(with_shared(tasks, None, task_kernel_of([0.5, 2.0])), [TaskWeighting.mixture(np.full(3, 1 / 3))])
    source, target = Encoder((DROPOUT, RATE)), Encoder((NARROW, DROPOUT))
    recode = Recoding(source, target)
    rows, asked = rng.random((5, 2)), rng.random((7, 2))
    outcomes, same = rng.random(5), RunGroups.asked(5)
    seen = Posterior(RecodedPrior(prior, recode, source.width), TargetTaskData(rows, outcomes, same))
    plain = Posterior(prior, TargetTaskData(recode(rows), outcomes, same))
    np.testing.assert_allclose(seen.mean(asked), plain.mean(recode(asked)), atol=1e-6)
    ours, theirs = seen.predict(asked, is_joint=True), plain.predict(recode(asked), is_joint=True)
    np.testing.assert_allclose(ours.mean, theirs.mean, atol=1e-9)
    np.testing.assert_allclose(ours.covariance, theirs.covariance, atol=1e-9)
    np.testing.assert_allclose(ours.weights, theirs.weights, atol=1e-9)
