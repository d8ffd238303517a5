from __future__ import annotations

import pytest

from metamodel.space.accuracy import hyperparameter_errors, mean_errors


def test_each_hyperparameter_is_compared_in_the_unit_people_think_in() -> None:
    found = hyperparameter_errors(
        {"learning_rate": 1e-3, "global_batch_size": 16, "num_layers": 2, "dropout": 0.3, "optimizer": "adam", "width": 64},
        {"learning_rate": 1e-2, "global_batch_size": 64, "num_layers": 4, "dropout": 0.1, "optimizer": "sgd", "width": 640, "other": 1},
        is_log=["width"],
    )
    assert found["learning_rate"] == {"log10_error": pytest.approx(1.0)}
    assert found["global_batch_size"] == {"exact": 0.0, "log2_error": pytest.approx(2.0)}
    assert found["num_layers"] == {"absolute_error": 2.0}
    assert found["dropout"] == {"absolute_error": pytest.approx(0.2)}
    assert found["optimizer"] == {"exact": 0.0}
    assert found["width"] == {"log10_error": pytest.approx(1.0)}
    assert "other" not in found


def test_numbers_without_a_logarithm_and_missing_values_are_left_out() -> None:
    assert hyperparameter_errors({"weight_decay": 0.0, "dropout": None}, {"weight_decay": 1e-2, "dropout": 0.1}) == {}


def test_the_mean_of_exact_matches_is_their_rate() -> None:
    errors = [hyperparameter_errors({"global_batch_size": size}, {"global_batch_size": 32}) for size in (32, 32, 64, 16)]
    assert mean_errors(errors) == {"global_batch_size": {"exact": 0.5, "log2_error": 0.5}}
    assert mean_errors([]) == {}
