"""Encoding: heterogeneous spaces become rows of numbers, and nothing that is plumbing becomes a column."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metamodel.space.dimensions import parse_space
from metamodel.space.encoding import OVERHANG, Encoder, fit_encoder, is_learnable, plain_numbers


def column_of(encoder: Encoder, name: str) -> slice:
    start = 0
    for column in encoder.columns:
        if column.name == name:
            return slice(start, start + column.width)
        start += column.width
    raise AssertionError(f"no column {name}")


def test_a_learning_rate_is_encoded_on_a_log_scale_over_the_range_seen() -> None:
    encoder = fit_encoder([[{"learning_rate": value} for value in (1e-4, 1e-3, 1e-2)]])
    assert encoder.encode([{"learning_rate": 1e-4}, {"learning_rate": 1e-3}, {"learning_rate": 1e-2}])[:, 0] == pytest.approx([0, 0.5, 1])


def test_evenly_spread_values_stay_linear_even_over_decades() -> None:
    values = np.random.default_rng(0).uniform(1e-5, 0.1, 200)
    encoder = fit_encoder([[{"weight_decay": float(value)} for value in values]])
    assert not encoder.columns[0].is_log
    log_encoder = fit_encoder([[{"weight_decay": float(10**value)} for value in np.random.default_rng(0).uniform(-5, -1, 200)]])
    assert log_encoder.columns[0].is_log


def test_a_weight_decay_of_zero_has_a_place_below_the_smallest_positive_one() -> None:
    encoder = fit_encoder([[{"weight_decay": value} for value in (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)]])
    encoded = encoder.encode([{"weight_decay": value} for value in (0.0, 1e-6, 1e-2)])[:, 0]
    assert encoded[0] == 0
    assert 0 < encoded[1] < encoded[2] == pytest.approx(1)


def test_labels_get_one_column_each_and_an_unknown_label_counts_as_missing() -> None:
    encoder = fit_encoder([[{"optimizer": "Adam"}, {"optimizer": "SGD"}], [{"optimizer": "SGD"}, {}]])
    rows = encoder.encode([{"optimizer": "Adam"}, {"optimizer": "SGD"}, {}, {"optimizer": "Lion"}])
    assert rows[0].tolist() == [1, 0, 0]
    assert rows[1].tolist() == [0, 1, 0]
    assert rows[2].tolist() == rows[3].tolist() == [0.5, 0.5, 1]


def test_tasks_that_tuned_different_names_share_one_encoder() -> None:
    encoder = fit_encoder([[{"learning_rate": 0.1}, {"learning_rate": 0.01}], [{"momentum": 0.5}, {"momentum": 0.9}]])
    assert encoder.names == ("learning_rate", "momentum")
    rows = encoder.encode([{"learning_rate": 0.1}, {"momentum": 0.9}])
    assert rows[0, column_of(encoder, "momentum")].tolist() == [0.5, 1]
    assert rows[1, column_of(encoder, "learning_rate")].tolist() == [0.5, 1]


def test_a_name_that_varies_only_between_tasks_is_no_column_unless_it_tells_kinds_of_tasks_apart() -> None:
    encoder = fit_encoder(
        [
            [{"learning_rate": 0.1, "hidden": 8, "model_family": "cnn"}, {"learning_rate": 0.2, "hidden": 8, "model_family": "cnn"}],
            [{"learning_rate": 0.1, "hidden": 16, "model_family": "rnn"}, {"learning_rate": 0.3, "hidden": 16, "model_family": "rnn"}],
        ]
    )
    assert encoder.names == ("learning_rate", "model_family")
    assert encoder.is_context.tolist() == [False, True, True]


@pytest.mark.parametrize("name", ["seed", "output_dir", "optimizer.lr", "logging_steps", "num_workers", "run_name", "_x"])
def test_nothing_is_learned_from_how_a_program_runs(name: str) -> None:
    assert not is_learnable(name)


@pytest.mark.parametrize("name", ["learning_rate", "dropout", "num_layers", "warmup_steps", "label_smoothing", "hidden_size", "beta1"])
def test_knobs_are_learned_from(name: str) -> None:
    assert is_learnable(name)


def test_identifiers_with_many_values_are_no_labels() -> None:
    assert fit_encoder([[{"note": f"try {i}"} for i in range(30)]]).columns == ()


def test_values_far_outside_the_range_are_bounded() -> None:
    encoder = fit_encoder([[{"dropout": 0.1}, {"dropout": 0.5}]])
    assert encoder.encode([{"dropout": 1e9}, {"dropout": -1e9}])[:, 0].tolist() == [1 + OVERHANG, -OVERHANG]


def test_nan_and_objects_count_as_missing() -> None:
    encoder = fit_encoder([[{"x": 1.0}, {"x": 2.0}, {"x": math.nan}, {"x": object()}, {}]])
    rows = encoder.encode([{"x": math.nan}, {"x": None}, {"x": [1]}])
    assert rows.tolist() == [[0.5, 1.0]] * 3


def test_a_new_name_of_the_space_extends_the_encoder_without_moving_known_columns() -> None:
    encoder = fit_encoder([[{"learning_rate": 0.1}, {"learning_rate": 0.01}]])
    longer = encoder.extended(parse_space({"dropout": [0.1, 0.2, 0.5], "lr": [1, 2]}), [{"dropout": 0.1}])
    assert longer.names == ("learning_rate", "dropout")
    assert longer.encode([{"learning_rate": 0.1, "dropout": 0.5}]).tolist() == [[1.0, 1.0]]


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["learning_rate", "dropout", "act", "flag", "n"]),
            st.one_of(st.floats(allow_nan=True), st.integers(), st.booleans(), st.text(max_size=3), st.none()),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_configurations_encode_to_finite_bounded_rows_and_survive_json(configs: list[dict[str, object]]) -> None:
    encoder = fit_encoder([configs])
    rows = encoder.encode(configs)
    assert rows.shape == (len(configs), encoder.width)
    assert np.isfinite(rows).all()
    assert rows.size == 0 or (rows.min() >= -OVERHANG and rows.max() <= 1 + OVERHANG)
    assert np.array_equal(Encoder.from_json(encoder.to_json()).encode(configs), rows)


def test_integers_drawn_on_a_log_scale_are_recognised_although_every_small_one_occurs() -> None:
    values = np.round(2 ** np.random.default_rng(0).uniform(4, 9, 1000)).astype(int)
    assert fit_encoder([[{"batch_size": int(value)} for value in values]]).columns[0].is_log
    even = np.random.default_rng(0).integers(16, 513, 1000)
    assert not fit_encoder([[{"batch_size": int(value)} for value in even]]).columns[0].is_log


def test_a_whole_number_that_no_float_can_hold_is_no_number() -> None:
    configs = [{"hidden": 10**400, "lr": 0.1}, {"hidden": 3, "lr": 0.2}, {"hidden": 5, "lr": 0.3}]
    encoder = fit_encoder([configs])
    assert set(encoder.names) == {"lr", "hidden"}
    assert np.isfinite(encoder.encode(configs)).all()
    assert plain_numbers([1, 2.5]).tolist() == [1.0, 2.5]  # type: ignore[union-attr]
    assert plain_numbers([1, 10**400]) is None
    assert plain_numbers([1, True]) is None
