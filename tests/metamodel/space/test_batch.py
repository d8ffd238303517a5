"""Global batch and samples per device, back and forth."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from metahp_tuning.batch_split import global_space, per_device_config, split_global, whole_numbers
from metamodel import recommend
from metamodel.space.batch import BatchLayout, as_seen_by_model
from store import History, InvalidArgumentError

COUNTS = st.integers(1, 16)


@given(per_device=st.integers(1, 4096), accumulation=COUNTS, world_size=COUNTS)
def test_a_global_batch_splits_into_what_it_was_made_of(per_device: int, accumulation: int, world_size: int) -> None:
    layout = BatchLayout(per_device, accumulation, world_size)
    assert split_global(layout.global_size, world_size, [accumulation]) == layout


@given(size=st.integers(1, 10_000), world_size=COUNTS, accumulations=st.lists(COUNTS, min_size=1), limit=st.integers(1, 512))
def test_a_split_never_exceeds_the_limit_and_uses_a_possible_accumulation(
    size: int, world_size: int, accumulations: list[int], limit: int
) -> None:
    found = split_global(size, world_size, accumulations, max_per_device=limit)
    assert 1 <= found.per_device <= limit
    assert found.accumulation in accumulations


def test_of_exact_splits_the_one_with_the_largest_device_batch_wins() -> None:
    assert split_global(64, 2, [1, 2, 4]) == BatchLayout(32, 1, 2)
    assert split_global(64, 2, [1, 2, 4], max_per_device=16) == BatchLayout(16, 2, 2)
    assert split_global(64, 1, [1, 2, 4], sizes=[8, 16]) == BatchLayout(16, 4, 1)


def test_a_batch_that_cannot_be_divided_comes_as_near_as_possible() -> None:
    assert split_global(50, 4) == BatchLayout(12, 1, 4)
    assert split_global(1, 8) == BatchLayout(1, 1, 8)
    assert split_global(8, 1, sizes=[16, 32], max_per_device=4) == BatchLayout(16, 1, 1), "nothing possible fits: the smallest"


def test_counts_that_are_none_are_answered() -> None:
    with pytest.raises(InvalidArgumentError, match="per_device must be a whole number, at least 1, but got 0"):
        BatchLayout(0)
    with pytest.raises(InvalidArgumentError, match=r"world_size must be a whole number, at least 1, but got 1\.5"):
        BatchLayout(8, 1, 1.5)
    with pytest.raises(InvalidArgumentError, match="List at least one"):
        split_global(8, 1, [])


def test_the_model_sees_the_global_batch_and_no_accumulation() -> None:
    per_device = {"batch_size": 16, "global_batch_size": 64, "gradient_accumulation_steps": 4, "learning_rate": 0.1}
    assert as_seen_by_model(per_device) == {"global_batch_size": 64, "learning_rate": 0.1}
    only = {"batch_size": 16, "gradient_accumulation_steps": 4}
    assert as_seen_by_model(only) == {"global_batch_size": 16, "gradient_accumulation_steps": 4}


def test_a_space_per_device_becomes_a_global_one() -> None:
    rate = FloatDistribution(1e-4, 0.1, log=True)
    one, four = BatchLayout(16), BatchLayout(16, 2, 2)
    assert global_space({"lr": rate, "bs": [16, 32]}, one) == {"lr": rate, "bs": [16, 32]}
    assert global_space({"lr": rate, "bs": [16, 32]}, four) == {"lr": rate, "global_batch_size": [64, 128]}
    assert global_space({"batch_size": CategoricalDistribution([16, 32])}, four) == {"global_batch_size": [64, 128]}
    assert global_space({"batch_size": IntDistribution(8, 64, log=True)}, four) == {"global_batch_size": IntDistribution(32, 256, log=True)}
    assert global_space({"batch_size": IntDistribution(8, 64, step=8)}, four) == {"global_batch_size": IntDistribution(32, 256, step=32)}
    assert global_space({"lr": rate}, four) == {"lr": rate}


def test_accumulation_in_a_space_offers_global_batches() -> None:
    layout = BatchLayout(16, 1, 2)
    assert global_space({"accumulate_grad_batches": [1, 2, 4]}, layout) == {"global_batch_size": [32, 64, 128]}
    both = {"batch_size": [16, 32], "accumulate_grad_batches": IntDistribution(1, 2)}
    assert global_space(both, layout) == {"global_batch_size": [32, 64, 128]}


def test_a_recommended_global_batch_becomes_what_the_host_sets() -> None:
    layout = BatchLayout(16, 1, 2)
    assert per_device_config({"global_batch_size": 64, "lr": 0.1}, layout) == {"batch_size": 32, "learning_rate": 0.1}
    assert per_device_config({"batch_size": 64}, layout) == {"batch_size": 32}, "one run on one device, pinned on two: the same batch"
    assert per_device_config({"lr": 0.1}, layout) == {"learning_rate": 0.1}
    only = {"accumulate_grad_batches": [1, 2, 4]}
    assert per_device_config({"global_batch_size": 128}, layout, only) == {"batch_size": 16, "gradient_accumulation_steps": 4}
    both = {"batch_size": [16, 32], "accumulate_grad_batches": [1, 2, 4]}
    assert per_device_config({"global_batch_size": 128}, layout, both) == {"batch_size": 32, "gradient_accumulation_steps": 2}
    capped = per_device_config({"global_batch_size": 128}, layout, both, max_per_device=20)
    assert capped == {"batch_size": 16, "gradient_accumulation_steps": 4}


def test_whole_numbers_are_read_from_lists_and_ranges() -> None:
    assert whole_numbers([4, 1, 2]) == [1, 2, 4]
    assert whole_numbers(CategoricalDistribution([1, 8])) == [1, 8]
    assert whole_numbers(IntDistribution(2, 6, step=2)) == [2, 4, 6]
    assert whole_numbers(IntDistribution(1, 1000)) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    assert whole_numbers(FloatDistribution(0.5, 1.0)) == []


def test_candidates_are_compared_by_their_global_batch(history: History) -> None:
    for task in ("a", "b"):
        for i, size in enumerate((8, 16, 32, 64, 128, 256, 512) * 2):
            hparams = {"batch_size": size // 2 if i % 2 else size, "global_batch_size": size}
            with history.start_run(task=task, objective="acc", direction="max", hparams=hparams) as run:
                run.log({"acc": 1 - abs(math.log2(size) - 6) / 10 + i / 1000}, step=1)
    by_global = [{"batch_size": 512 // size, "global_batch_size": size} for size in (8, 64, 512)]
    (best,) = recommend(history, "c", candidates=by_global)
    assert best.config == {"batch_size": 8, "global_batch_size": 64}
    assert best.evidence.untuned == ()
    (same,) = recommend(history, "c", candidates=[{"batch_size": size} for size in (8, 64, 512)])
    assert (same.config, same.prediction) == ({"batch_size": 64}, best.prediction)
