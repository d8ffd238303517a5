"""What came of a training: how long it was, its outcome with several evaluation sets, and what is said where the objective is missing."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from hf_callbacks import MetaHPCallback
from hf_callbacks.divergence_watch import DivergenceWatch
from hf_callbacks.run_length import planned_epochs
from store import History, ObjectiveWarning


class Stream(IterableDataset):
    """Sentences whose number nobody knows."""

    def __init__(self, sentences: Any) -> None:
        self.sentences = sentences

    def __iter__(self) -> Any:
        return iter([self.sentences[i] for i in range(len(self.sentences))])


class Moment(TrainerCallback):
    """Notes at which step a warning was there."""

    def __init__(self, caught: list[Any]) -> None:
        self.caught = caught
        self.first: int | None = None

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.caught and self.first is None:
            self.first = state.global_step


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"num_train_epochs": 2}, 2.0),
        ({"num_train_epochs": 0.5}, 0.5),
        ({"num_train_epochs": 9, "max_steps": 1}, 0.25),
        ({"max_steps": 6}, 1.5),
        ({"max_steps": 2, "gradient_accumulation_steps": 2}, 1.0),
    ],
)
def test_a_training_is_as_long_as_its_full_passes_over_the_data(
    logged: Any, make_args: Any, options: dict[str, Any], expected: float
) -> None:
    options = {"per_device_train_batch_size": 4, **options}
    run = logged(**options)
    assert run.epochs_reached == expected
    assert planned_epochs(make_args(**options), 16) == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"max_steps": 3}, None),
        ({"max_steps": 10}, 2.5),  # passes of four steps: two whole ones tell how long the third is
        ({"max_steps": 5, "gradient_accumulation_steps": 2}, 2.5),
    ],
)
def test_of_a_stream_no_pass_is_claimed_that_was_not_seen(
    logged: Any, make_args: Any, sentences: Any, options: dict[str, Any], expected: float | None
) -> None:
    run = logged(train_dataset=Stream(sentences(16)), per_device_train_batch_size=4, eval_strategy="no", **options)
    assert run.epochs_reached == (None if expected is None else pytest.approx(expected))
    assert planned_epochs(make_args(**options), None) is None


@pytest.mark.parametrize("objective", [None, "eval_loss", "accuracy"])
def test_of_several_evaluation_sets_the_first_one_decides_and_that_is_said(
    history: History, make_trainer: Any, sentences: Any, compute_accuracy: Any, capsys: pytest.CaptureFixture[str], objective: str | None
) -> None:
    sets = {"near": sentences(8), "far": sentences(6)}
    one = make_trainer(MetaHPCallback(objective, history=history), compute_metrics=compute_accuracy)
    one.train()
    several = make_trainer(
        MetaHPCallback(objective, history=history), eval_dataset=sets, compute_metrics=compute_accuracy, num_train_epochs=2
    )
    several.train()
    first, second = history.runs()
    metric = "accuracy" if objective == "accuracy" else "loss"
    assert (second.objective, second.task_id) == (f"eval_{metric}", first.task_id)
    assert second.objective_last == history.metrics(second.id, f"eval_near_{metric}")[-1].value
    assert {f"eval_near_{metric}", f"eval_far_{metric}", f"eval_{metric}"} <= set(history.metric_names(second.id))
    said = f"metahp: eval_{metric} is logged once for each evaluation set, and eval_near_{metric} is used as the objective; pass objective="
    assert capsys.readouterr().err.count(said) == 1


def test_a_set_that_was_named_decides(history: History, make_trainer: Any, sentences: Any) -> None:
    sets = {"near": sentences(8), "far": sentences(6)}
    make_trainer(MetaHPCallback("eval_far_loss", history=history), eval_dataset=sets).train()
    (run,) = history.runs()
    assert run.objective_last == history.metrics(run.id, "eval_far_loss")[-1].value


def test_an_evaluation_of_several_sets_after_the_training_is_its_outcome(history: History, make_trainer: Any, sentences: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history), eval_strategy="no", eval_dataset={"near": sentences(8), "far": sentences(6)})
    with pytest.warns(ObjectiveWarning, match="only if"):
        trainer.train()
    found = trainer.evaluate()
    (run,) = history.runs()
    assert (run.objective, run.objective_best) == ("eval_loss", pytest.approx(found["eval_near_loss"]))


@pytest.mark.parametrize("is_several", [False, True])
@pytest.mark.parametrize("named", ["objective", "metric_for_best_model"])
def test_a_missing_objective_is_said_with_the_first_evaluation(
    history: History, make_trainer: Any, sentences: Any, compute_accuracy: Any, named: str, is_several: bool
) -> None:
    metric = "eval_acuracy" if is_several else "acuracy"
    callback = MetaHPCallback(metric if named == "objective" else None, "max" if named == "objective" else None, history=history)
    options: dict[str, Any] = {} if named == "objective" else {"metric_for_best_model": metric, "greater_is_better": True}
    if is_several:
        options["eval_dataset"] = {"near": sentences(8), "far": sentences(6)}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", ObjectiveWarning)
        moment = Moment(caught)
        trainer = make_trainer([callback, moment], compute_metrics=compute_accuracy, num_train_epochs=3, **options)
        if named == "objective":
            trainer.train()
        else:  # the Trainer needs it itself, and says so in its own words afterwards
            with pytest.raises(KeyError):
                trainer.train()
    (message,) = [str(item.message) for item in caught if issubclass(item.category, ObjectiveWarning)]
    listed = "eval_near_accuracy, eval_far_accuracy, eval_far_loss" if is_several else "eval_accuracy, eval_loss"
    assert "'eval_acuracy' was not among those of the first one; these were: " in message
    assert set(message.partition("these were: ")[2].partition(".")[0].split(", ")) >= set(listed.split(", "))
    assert "runtime" not in message
    if named == "objective":
        assert moment.first == 2, "before the second epoch"
        assert "accuracy'" in message.partition("choose another")[2]


def test_an_evaluation_without_labels_says_what_to_give_it(history: History, make_trainer: Any, sentences: Any) -> None:
    class Unlabelled(sentences):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            return {"input_ids": super().__getitem__(index)["input_ids"]}

    with pytest.warns(
        ObjectiveWarning, match="Give eval_dataset labels, for which the model returns a loss, or the Trainer compute_metrics"
    ) as caught:
        make_trainer(MetaHPCallback(history=history), eval_dataset=Unlabelled(8), num_train_epochs=2).train()
    assert len([item for item in caught if issubclass(item.category, ObjectiveWarning)]) == 1


def test_nan_of_one_evaluation_set_is_not_forgotten_for_another() -> None:
    watch = DivergenceWatch("eval_loss")
    watch.see({"eval_near_loss": float("nan")})
    watch.see({"eval_far_loss": 1.0})
    assert watch.is_diverged(None)
    watch.see({"grad_norm": 1.0})
    watch.see({"eval_near_loss": 1.0})
    assert not watch.is_diverged(None)
