"""Who decides a value: explicit user value > hard constraint > meta-model > default."""

from __future__ import annotations

import math
from typing import Any

import pytest

from metahp_tuning.messages import start_message
from metahp_tuning.precedence import Change, Constraint, Setting, check_keep, check_names, plan_changes, rewritable
from metamodel.explanation import describe_prediction, format_value
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit
from store import Source
from store.errors import InvalidArgumentError, UnknownHyperparameterError
from store.values import same_value

SETTINGS = {
    "learning_rate": Setting("lr", 1e-3, Source.DEFAULT),
    "per_device_batch_size": Setting("per_device_batch_size", 32, Source.USER),
    "num_layers": Setting("num_layers", 2, Source.DEFAULT),
}


def advice(decision: Decision = Decision.APPLY, **config: Any) -> Recommendation:
    evidence = Evidence(n_runs=5, n_tasks=3, n_other_runs=40)
    return Recommendation("r1", config, 0.93, (0.7, 0.99), 0.4, 0.8, 0.98, Unit.RANK, evidence, decision, "because")


def test_without_a_space_only_safe_defaults_may_change_and_the_rest_is_named() -> None:
    allowed, kept = rewritable(SETTINGS, None, ())
    assert set(allowed) == {"learning_rate"}
    assert [(item.name, item.reason) for item in kept] == [("per_device_batch_size", "set by you; list it in space to have it tuned")]


def test_listing_a_name_is_permission_whoever_set_it() -> None:
    allowed, kept = rewritable(SETTINGS, ["per_device_batch_size", "num_layers"], ())
    assert set(allowed) == {"per_device_batch_size", "num_layers"}
    assert kept == []


def test_keep_wins_over_the_space_and_takes_raw_or_canonical_names() -> None:
    for keep in (("learning_rate",), "lr"):
        allowed, kept = rewritable(SETTINGS, ["lr", "bs"], keep)
        assert set(allowed) == {"per_device_batch_size"}
        assert kept[0].reason == "named in keep"


def test_a_recommendation_rewrites_only_what_it_may_and_what_differs() -> None:
    allowed, _ = rewritable(SETTINGS, None, ())
    changes = plan_changes(allowed, advice(learning_rate=0.02, batch_size=64, num_layers=5))
    assert [(item.raw_name, item.old, item.new, item.source) for item in changes] == [("lr", 1e-3, 0.02, Source.METAHP)]
    assert plan_changes(allowed, advice(learning_rate=1e-3 * (1 + 1e-12))) == []


def test_an_abstaining_recommendation_changes_nothing() -> None:
    assert plan_changes(SETTINGS, advice(Decision.ABSTAIN, learning_rate=0.02)) == []


def test_a_hard_constraint_caps_the_recommendation_and_says_so() -> None:
    limit = Constraint("per_device_batch_size", 100, "the data set has 100 samples")
    (change,) = plan_changes({"per_device_batch_size": SETTINGS["per_device_batch_size"]}, advice(batch_size=128), [limit])
    assert (change.new, change.source, change.reason) == (100, Source.CONSTRAINT, "the data set has 100 samples")


def test_a_hard_constraint_never_caps_an_explicit_value_without_a_recommendation() -> None:
    limit = Constraint("per_device_batch_size", 16, "too large")
    assert plan_changes({"per_device_batch_size": SETTINGS["per_device_batch_size"]}, advice(Decision.ABSTAIN), [limit]) == []


def test_an_unknown_name_is_answered_with_the_names_there_are_and_the_nearest() -> None:
    with pytest.raises(UnknownHyperparameterError, match=r"got 'droput'; it has: dropout, lr. Did you mean 'dropout'\?"):
        check_names(["droput"], ["lr", "dropout"], "Net.hparams")
    check_names(["learning_rate"], ["lr"], "Net.hparams")


def test_keep_must_hold_names() -> None:
    with pytest.raises(InvalidArgumentError, match="keep must list hyperparameter names, but got 3"):
        check_keep([3])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("a", "b", "same"), [(1, 1.0, True), (True, 1, True), (0.1, 0.1 + 1e-12, True), ("a", "b", False), (math.nan, 1, False)]
)
def test_values_are_compared_with_the_tolerance_of_text(a: object, b: object, same: bool) -> None:
    assert same_value(a, b) is same


def test_the_message_names_old_new_gain_evidence_and_id() -> None:
    changes = [Change("learning_rate", "lr", 1e-3, 0.0123456, Source.METAHP, "because")]
    text = start_message(advice(learning_rate=0.0123456), changes, objective="val_acc", note="fitted just now")
    assert text.splitlines()[0] == "metahp: lr 0.001 -> 0.01235"
    assert "expected better than 93% of random configurations (80 % interval 70% to 99%), your own values 40%; because" in text
    assert "fitted just now" in text
    assert "METAHP_PIN=r1" in text


def test_the_message_of_an_abstention_says_that_nothing_changed_and_why() -> None:
    text = start_message(advice(Decision.ABSTAIN), [])
    assert text.splitlines()[0] == "metahp: nothing changed; because"


def test_a_prediction_in_units_names_the_objective() -> None:
    recommendation = Recommendation("r", {}, 0.91, (0.95, 0.85), 0.8, 0.9, 1.0, Unit.OBJECTIVE, Evidence(), Decision.APPLY, "x")
    assert describe_prediction(recommendation, "val_acc") == "expected val_acc 0.91 (80 % interval 0.85 to 0.95), your own values 0.8"


def test_numbers_are_written_for_reading_and_everything_else_as_it_is() -> None:
    assert [format_value(value) for value in (0.000123456, 64, "adam", math.inf, True)] == ["0.0001235", "64", "adam", "inf", "True"]
