from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from hf_callbacks import MetaHPCallback, autoconfig
from hf_callbacks.provenance import provenance_of, recommendation_id
from metamodel.recommendation import load_recommendation, save_recommendation
from store import (
    History,
    HistoryPathError,
    InvalidArgumentError,
    ObjectiveError,
    Source,
    SpaceError,
    UnknownHyperparameterError,
    UnknownRecommendationError,
)


@pytest.fixture
def configure(taught: History, options: dict[str, Any], make_model: Any, sentences: Any) -> Callable[..., TrainingArguments]:
    """Call autoconfig with the taught history, the model and the data of these tests."""

    def call(args: Any = None, **keywords: Any) -> TrainingArguments:
        given = {"model": make_model(), "train_dataset": sentences(), "history": taught, **keywords}
        return autoconfig(args, **given) if args is not None else autoconfig(**{**options, **given})

    return call


def test_the_tenth_run_is_configured_by_those_before(
    history: History, logged: Any, make_args: Any, make_trainer: Any, make_model: Any, sentences: Any
) -> None:
    for rate in (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        logged(learning_rate=rate, per_device_train_batch_size=4, num_train_epochs=2)
    own = make_args(num_train_epochs=2)
    args = autoconfig(own, model=make_model(), train_dataset=sentences(), history=history)
    assert recommendation_id(args) is not None
    callback = MetaHPCallback(history=history)
    make_trainer(callback, args=args).train()
    run = history.run(callback.run_id or "")
    assert run.recommendation_id == recommendation_id(args)
    assert run.hparams["learning_rate"] == pytest.approx(args.learning_rate)
    assert history.recommendation(run.recommendation_id or "")["run_id"] == run.id
    assert len(history.tasks()) == 1


def test_what_nobody_set_is_chosen_and_said(configure: Any, make_args: Any, taught: History, capfd: pytest.CaptureFixture[str]) -> None:
    own = make_args()
    args = configure(own)
    assert 1e-3 < args.learning_rate < 1e-1
    assert own.learning_rate == 5e-5, "the user's object is left alone"
    said = capfd.readouterr()
    assert "learning_rate 5e-05 -> 0.0" in said.err
    assert f"METAHP_PIN={recommendation_id(args)}" in said.err
    assert said.out == ""
    stored = taught.recommendation(recommendation_id(args) or "")
    assert {change["raw_name"] for change in stored["changes"]} == set(provenance_of(args).rewrites)


def test_a_chosen_value_is_recorded_with_what_the_user_had(configure: Any, make_args: Any, make_trainer: Any, taught: History) -> None:
    args = configure(make_args())
    callback = MetaHPCallback(history=taught)
    make_trainer(callback, args=args).train()
    rate = taught.run(callback.run_id or "").provenance["learning_rate"]
    assert (rate.source, rate.requested) == (Source.METAHP, 5e-5)
    assert rate.observed == pytest.approx(args.learning_rate)


def test_keywords_are_explicit_and_win(configure: Any) -> None:
    args = configure(learning_rate=3e-5)
    assert args.learning_rate == 3e-5


def test_a_keyword_that_equals_the_default_is_explicit_too(configure: Any, capfd: pytest.CaptureFixture[str]) -> None:
    args = configure(learning_rate=5e-5)
    assert args.learning_rate == 5e-5
    assert "learning_rate stays 5e-05: set by you; list it in space to have it tuned" in capfd.readouterr().err


def test_a_field_that_differs_from_the_default_is_explicit(configure: Any, make_args: Any) -> None:
    assert configure(make_args(learning_rate=2e-5)).learning_rate == 2e-5


def test_naming_a_field_in_space_permits_to_rewrite_it(configure: Any) -> None:
    args = configure(learning_rate=3e-5, space={"lr": FloatDistribution(1e-5, 1e-1, log=True)})
    assert args.learning_rate > 1e-3
    assert provenance_of(args).rewrites["learning_rate"].requested == 3e-5


def test_what_keep_names_stays(configure: Any, make_args: Any, capfd: pytest.CaptureFixture[str]) -> None:
    args = configure(make_args(), keep="lr")
    assert args.learning_rate == 5e-5
    assert "learning_rate stays 5e-05: named in keep" in capfd.readouterr().err


def test_a_batch_never_exceeds_the_data(configure: Any, make_args: Any, sentences: Any, make_model: Any, history: History) -> None:
    args = autoconfig(make_args(), model=make_model(), train_dataset=sentences(3), history=history)
    assert args.per_device_train_batch_size == 3
    assert provenance_of(args).rewrites["per_device_train_batch_size"].source is Source.CONSTRAINT


def test_without_evidence_nothing_changes_and_it_says_so(
    history: History, make_args: Any, make_model: Any, sentences: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    own = make_args()
    args = autoconfig(own, model=make_model(), train_dataset=sentences(), history=history)
    assert args.to_dict() == own.to_dict()
    assert "metahp: nothing changed; not enough history (no run with an outcome)" in capfd.readouterr().err


def test_without_model_and_data_it_asks_for_them(history: History, make_args: Any, capfd: pytest.CaptureFixture[str]) -> None:
    autoconfig(make_args(), history=history)
    assert "Pass model= and train_dataset= so that the task can be recognised." in capfd.readouterr().err


def test_a_dry_run_changes_nothing_and_says_what_it_would(configure: Any, make_args: Any, capfd: pytest.CaptureFixture[str]) -> None:
    own = make_args()
    assert configure(own, mode="dry-run") is own
    said = capfd.readouterr().err
    assert "learning_rate 5e-05 -> " in said
    assert "Dry run: nothing was rewritten." in said


def test_a_pinned_recommendation_is_applied_again(configure: Any, make_args: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first = configure(make_args())
    monkeypatch.setenv("METAHP_PIN", recommendation_id(first) or "")
    again = configure(make_args())
    assert again.learning_rate == first.learning_rate
    assert recommendation_id(again) == recommendation_id(first)


def test_a_second_call_starts_from_the_users_values(configure: Any, make_args: Any) -> None:
    twice = configure(configure(make_args()))
    assert provenance_of(twice).rewrites["learning_rate"].requested == 5e-5


def test_a_bare_callback_takes_over_task_and_objective(history: History, make_args: Any, make_trainer: Any, compute_accuracy: Any) -> None:
    args = autoconfig(make_args(), task="reviews", objective="accuracy", history=history)
    callback = MetaHPCallback(history=history)
    make_trainer(callback, args=args, compute_metrics=compute_accuracy).train()
    run = history.run(callback.run_id or "")
    assert (run.task_name, run.objective, run.direction) == ("reviews", "eval_accuracy", "max")
    assert run.recommendation_id == recommendation_id(args)


def test_subclasses_are_kept(configure: Any, options: dict[str, Any]) -> None:
    ready = configure(Seq2SeqTrainingArguments(**options, predict_with_generate=True))
    built = configure(args_class=Seq2SeqTrainingArguments, predict_with_generate=True)
    for args in (ready, built):
        assert isinstance(args, Seq2SeqTrainingArguments)
        assert args.predict_with_generate is True
        assert args.learning_rate > 1e-3


def test_off_returns_what_was_given(configure: Any, make_args: Any, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP", "off")
    own = make_args()
    assert configure(own) is own
    built = configure(learning_rate=1e-4)
    assert type(built) is TrainingArguments
    assert built.to_dict() == TrainingArguments(**options, learning_rate=1e-4).to_dict()
    replaced = configure(own, weight_decay=0.5)
    assert (type(replaced), replaced.weight_decay) == (TrainingArguments, 0.5)


def test_off_is_silent_and_opens_nothing(
    make_args: Any, isolated_history: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METAHP", "off")
    autoconfig(make_args(), mode="no such mode")
    assert not isolated_history.exists()
    assert capfd.readouterr().err == ""


def test_an_error_of_ours_leaves_the_arguments_alone(
    configure: Any, make_args: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no matrix today")

    monkeypatch.setattr("metamodel.recommend", broken)
    own = make_args()
    assert configure(own) is own
    assert "nothing changed; the recommendation failed with RuntimeError: no matrix today" in caplog.text


def test_values_the_host_refuses_leave_the_arguments_alone(
    configure: Any,
    make_args: Any,
    taught: History,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    recommendation = load_recommendation(taught, recommendation_id(configure(make_args())) or "")
    impossible = replace(recommendation, id="impossible", config={"learning_rate": 0.01, "lr_scheduler_type": "reduce_lr_on_plateau"})
    save_recommendation(taught, impossible)
    monkeypatch.setenv("METAHP_PIN", "impossible")
    capfd.readouterr()
    own = make_args(eval_strategy="no")
    assert configure(own, space={"learning_rate": [0.01], "lr_scheduler_type": ["reduce_lr_on_plateau"]}) is own
    assert "nothing changed after all; the recommended values were refused by TrainingArguments" in caplog.text
    assert "->" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [("resume_from_checkpoint", "out/checkpoint-1", "resumes from checkpoint-1"), ("deepspeed", "ds.json", "could not be read")],
)
def test_what_is_already_fixed_is_left_alone(
    configure: Any, make_args: Any, field: str, value: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    own = make_args()
    setattr(own, field, value)  # set afterwards: building with deepspeed= needs the package
    assert configure(own).learning_rate == 5e-5
    said = capfd.readouterr().err
    assert "metahp: nothing changed; " in said
    assert reason in said


def test_an_unknown_name_in_space_is_answered_with_the_nearest(configure: Any) -> None:
    with pytest.raises(
        UnknownHyperparameterError,
        match=r"TrainingArguments, but got 'learning_rat'; nearest are 'learning_rate'\. Did you mean 'learning_rate'\?",
    ):
        configure(space={"learning_rat": [0.1]})


def test_an_unknown_name_in_keep_is_told(configure: Any) -> None:
    with pytest.raises(UnknownHyperparameterError, match="'weight_dekay'"):
        configure(keep=("weight_dekay",))


def test_a_malformed_space_is_told(configure: Any) -> None:
    with pytest.raises(SpaceError, match="'learning_rate' got an empty one"):
        configure(space={"learning_rate": []})


def test_a_wrong_mode_is_told(configure: Any) -> None:
    with pytest.raises(InvalidArgumentError, match=r"one of 'best', 'explore', 'dry-run', but got 'fast'"):
        configure(mode="fast")


def test_something_else_than_arguments_is_told() -> None:
    with pytest.raises(InvalidArgumentError, match="must be TrainingArguments or a subclass, but got dict"):
        autoconfig({"learning_rate": 0.1})  # type: ignore[arg-type]
    with pytest.raises(InvalidArgumentError, match="args_class must be TrainingArguments or a subclass"):
        autoconfig(args_class=dict)  # type: ignore[arg-type]


def test_an_objective_of_unknown_direction_is_told(configure: Any) -> None:
    with pytest.raises(ObjectiveError, match="'eval_zorp' does not imply it"):
        configure(objective="zorp")


def test_an_unknown_pin_is_told(configure: Any, make_args: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP_PIN", "nonsense")
    with pytest.raises(UnknownRecommendationError, match="nonsense"):
        configure(make_args())


def test_a_history_that_is_a_directory_is_told(configure: Any, make_args: Any, tmp_path: Path) -> None:
    with pytest.raises(HistoryPathError):
        configure(make_args(), history=tmp_path)


def test_a_default_place_that_cannot_be_used_stops_nothing(
    make_args: Any, make_model: Any, sentences: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("METAHP_HISTORY")
    (tmp_path / "data").write_text("a file where the user's data directory should be")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    own = make_args()
    assert autoconfig(own, model=make_model(), train_dataset=sentences()) is own
    assert "nothing changed; opening the history failed with" in caplog.text
