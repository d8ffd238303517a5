"""Which of the names that were logged are offered as an objective."""

from __future__ import annotations

import math

import pytest

from store.metric_hints import as_arguments, usable_metrics


@pytest.mark.parametrize(
    ("logged", "like", "expected"),
    [
        ({"train_loss_step": 1.0, "train_loss_epoch": 1.0, "val_acc": 0.5}, None, ["train_loss", "val_acc"]),
        ({"val_loss": 1.0, "val_acc": 0.5, "valid_accuracy": 0.5}, "val_accuracy", ["valid_accuracy", "val_acc", "val_loss"]),
        ({"val_loss_epoch": 1.0, "val_acc": 0.5}, "val_loss", ["val_acc"]),
        ({"lr": 0.1, "lr-AdamW": 0.1, "learning_rate": 0.1, "epoch": 3, "step": 10, "grad_norm": 2.0, "loss": 1.0}, None, ["loss"]),
        ({"eval_runtime": 1.0, "eval_samples_per_second": 9.0, "eval_steps_per_second": 1.0, "eval_loss": 1.0}, None, ["eval_loss"]),
        ({"a": math.nan, "b": math.inf, "c": None, "d": "text"}, None, ["c"]),
        ({}, "val_loss", []),
    ],
)
def test_only_names_that_work_are_offered_and_the_nearest_comes_first(
    logged: dict[str, object], like: str | None, expected: list[str]
) -> None:
    assert usable_metrics(logged, like) == expected


def test_a_name_that_says_no_direction_is_offered_with_one() -> None:
    assert as_arguments("val_acc") == "objective='val_acc'"
    assert as_arguments("quux") == "objective='quux' with direction='min' or 'max'"
