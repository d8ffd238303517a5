from __future__ import annotations

import pickle
import warnings
from typing import Any

import pytest
import torch
from transformers import EarlyStoppingCallback, TrainerCallback

from hf_callbacks import MetaHPCallback
from store import (
    History,
    InvalidArgumentError,
    MetaHPWarning,
    ObjectiveError,
    ObjectiveWarning,
    RunStatus,
    Source,
)
from store.errors import NotAppliedWarning


def test_one_line_logs_a_whole_run(history: History, logged: Any) -> None:
    run = logged(learning_rate=1e-3, per_device_train_batch_size=4, num_train_epochs=2, gradient_accumulation_steps=2)
    assert run.status is RunStatus.COMPLETED
    assert run.framework == "transformers"
    assert (run.objective, run.direction) == ("eval_loss", "min")
    assert run.objective_best is not None
    assert run.objective_best_step in {2, 4}
    assert (run.epochs_reached, run.steps_reached) == (2.0, 4)
    assert run.model_class == "BertForSequenceClassification"
    assert run.model_family == "transformer"
    assert run.n_parameters is not None
    assert run.n_parameters > 1000
    assert run.wall_s is not None
    assert run.variant


def test_every_argument_is_recorded_with_who_set_it(logged: Any) -> None:
    run = logged(learning_rate=1e-3, per_device_train_batch_size=4)
    known = run.provenance
    assert (known["learning_rate"].value, known["learning_rate"].source) == (1e-3, Source.USER)
    assert (known["batch_size"].value, known["batch_size"].raw_name) == (4, "per_device_train_batch_size")
    assert (known["weight_decay"].value, known["weight_decay"].source) == (0.0, Source.DEFAULT)
    assert (known["lr_scheduler"].value, known["lr_scheduler"].source) == ("linear", Source.DEFAULT)
    assert known["num_epochs"].source is Source.USER
    assert known["greater_is_better"].value is None
    assert known["report_to"].source is Source.USER, "typed as none, which is also the default"
    untouched = {"accelerator_config", "debug", "adam_beta1", "max_grad_norm", "dataloader_pin_memory", "do_eval"}
    assert {name for name in untouched if known[name].source is not Source.DEFAULT} == set()


def test_the_model_configuration_is_recorded(logged: Any, make_model: Any) -> None:
    run = logged(model=make_model(hidden_dropout_prob=0.3))
    assert run.hparams["num_layers"] == 1
    assert (run.hparams["dropout"], run.provenance["dropout"].source) == (0.3, Source.USER)
    assert run.provenance["attention_probs_dropout_prob"].source is Source.DEFAULT


def test_what_is_in_force_is_read_back(logged: Any) -> None:
    run = logged(learning_rate=1e-3, weight_decay=0.1, per_device_train_batch_size=4, warmup_steps=2, gradient_accumulation_steps=2)
    assert run.provenance["learning_rate"].observed == pytest.approx(1e-3)
    assert run.provenance["weight_decay"].observed == pytest.approx(0.1)
    assert run.provenance["batch_size"].observed == 4
    assert run.hparams["global_batch_size"] == 8
    assert run.hparams["optimizer.class"] == "AdamW"
    assert run.hparams["lr_scheduler.class"] == "LambdaLR"


def test_an_optimizer_of_the_users_own_is_what_counts(logged: Any, make_model: Any) -> None:
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.2)
    run = logged(model=model, optimizers=(optimizer, None), learning_rate=1e-3)
    assert run.hparams["optimizer"] == "SGD"
    assert run.hparams["learning_rate"] == pytest.approx(0.05)
    assert run.hparams["weight_decay"] == pytest.approx(0.2)
    assert run.provenance["learning_rate"].source is Source.USER


def test_metrics_have_the_trainers_steps_and_epochs(history: History, logged: Any) -> None:
    run = logged(per_device_train_batch_size=4, num_train_epochs=2)
    losses = history.metrics(run.id, "loss")
    assert [item.step for item in losses] == list(range(1, 9))
    assert losses[3].epoch == pytest.approx(1.0)
    assert {"grad_norm", "learning_rate", "eval_loss", "train_runtime", "total_flos"} <= set(history.metric_names(run.id))
    assert "epoch" not in history.metric_names(run.id)


def test_a_validation_is_stored_once(history: History, logged: Any) -> None:
    run = logged(num_train_epochs=3)
    assert [item.step for item in history.metrics(run.id, "eval_loss")] == [2, 4, 6]


def test_an_evaluation_before_training_is_no_outcome(history: History, logged: Any) -> None:
    run = logged(eval_on_start=True, learning_rate=1.0, num_train_epochs=2)
    first = history.metrics(run.id, "eval_loss")[0]
    assert first.step == 0
    assert run.objective_best_step != 0


def test_metric_for_best_model_is_the_objective(logged: Any, compute_accuracy: Any) -> None:
    run = logged(compute_metrics=compute_accuracy, metric_for_best_model="accuracy", greater_is_better=True)
    assert (run.objective, run.direction) == ("eval_accuracy", "max")
    assert run.objective_last is not None


@pytest.mark.parametrize("name", ["accuracy", "eval_accuracy"])
def test_an_objective_is_accepted_with_and_without_prefix(history: History, logged: Any, compute_accuracy: Any, name: str) -> None:
    run = logged(MetaHPCallback(name, history=history), compute_metrics=compute_accuracy)
    assert (run.objective, run.direction) == ("eval_accuracy", "max")
    assert run.objective_best is not None


def test_an_objective_never_logged_is_answered_with_the_names_that_were(history: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback("accuracy", history=history))
    with pytest.warns(ObjectiveWarning, match=r"'eval_accuracy' was not among those of the first one; these were: eval_loss\."):
        trainer.train()
    assert history.runs()[0].status is RunStatus.COMPLETED


@pytest.mark.parametrize(("n_epochs", "expected"), [(2, 0.5), (1, None)])
def test_an_objective_that_may_still_come_is_missed_once_and_the_end_has_it_right(
    history: History, make_trainer: Any, capfd: pytest.CaptureFixture[str], n_epochs: int, expected: float | None
) -> None:
    calls: list[int] = []

    def seldom(prediction: Any) -> dict[str, float]:
        calls.append(1)
        return {"f1": 0.5} if len(calls) == 2 else {"length": 3.0}

    trainer = make_trainer(MetaHPCallback("f1", history=history), compute_metrics=seldom, num_train_epochs=n_epochs)
    with pytest.warns(ObjectiveWarning, match="Unless one has it later, this run will have no outcome") as caught:
        trainer.train()
    assert len([item for item in caught if issubclass(item.category, ObjectiveWarning)]) == 1
    assert history.runs()[0].objective_best == expected
    ended = "ended without an outcome, since 'eval_f1' was not logged; trainer.evaluate() can still log it"
    assert capfd.readouterr().err.count(ended) == (expected is None)
    trainer.evaluate()
    assert history.runs()[0].objective_best == 0.5


def test_without_evaluation_there_is_one_warning_and_no_objective(history: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history), eval_strategy="no", eval_dataset=None)
    with pytest.warns(ObjectiveWarning, match=r"eval_strategy is 'no'.*Pass eval_strategy='epoch'") as caught:
        trainer.train()
    assert len([item for item in caught if issubclass(item.category, MetaHPWarning)]) == 1
    assert history.runs()[0].objective is None


def test_an_unknown_direction_is_asked_for_at_once() -> None:
    with pytest.raises(ObjectiveError, match=r"'eval_zorp' does not imply it.*Pass direction='min'"):
        MetaHPCallback("zorp")
    assert MetaHPCallback("zorp", "max").direction == "max"


def test_a_direction_that_contradicts_the_name_is_questioned(history: History, make_trainer: Any) -> None:
    def error(prediction: Any) -> dict[str, float]:
        return {"rmse": 1.0}

    trainer = make_trainer(MetaHPCallback(history=history), compute_metrics=error, metric_for_best_model="rmse")
    with pytest.warns(ObjectiveWarning, match=r"greater_is_better=True contradicts what the name 'eval_rmse' says \(min\)"):
        trainer.train()
    assert history.runs()[0].direction == "max"


def test_a_direction_must_be_one() -> None:
    with pytest.raises(ObjectiveError, match=r"'min' or 'max', but got 'up'"):
        MetaHPCallback("accuracy", "up")


def test_a_task_must_be_a_name_or_a_description() -> None:
    with pytest.raises(InvalidArgumentError, match=r"name, a TaskDescription or None, but got int: 3"):
        MetaHPCallback(task=3)  # type: ignore[arg-type]


def test_a_named_task_groups_runs(history: History, logged: Any, sentences: Any) -> None:
    first = logged(MetaHPCallback(task="reviews", history=history))
    second = logged(MetaHPCallback(task="reviews", history=history), train_dataset=sentences(20))
    assert first.task_id == second.task_id
    assert first.task_name == "reviews"


def test_one_callback_logs_every_training(history: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    trainer.train()
    trainer.train()
    assert [run.status for run in history.runs()] == [RunStatus.COMPLETED, RunStatus.COMPLETED]


def test_only_world_process_zero_writes(history: History, make_trainer: Any) -> None:
    class SecondProcess(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            state.is_world_process_zero = False

    make_trainer([SecondProcess(), MetaHPCallback(history=history)]).train()
    assert history.runs() == []


def test_off_leaves_no_trace(
    make_trainer: Any, isolated_history: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("METAHP", "off")
    callback = MetaHPCallback()
    make_trainer(callback).train()
    assert callback.run_id is None
    assert not isolated_history.exists()
    assert "metahp" not in capfd.readouterr().err


def test_the_default_history_is_used_and_closed(make_trainer: Any, isolated_history: Any) -> None:
    make_trainer(MetaHPCallback()).train()
    with History(isolated_history) as history:
        assert [run.status for run in history.runs()] == [RunStatus.COMPLETED]


def test_a_history_that_cannot_be_used_stops_no_training(tmp_path: Any, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=tmp_path))
    with pytest.warns(MetaHPWarning, match=r"could not log in on_train_begin: HistoryPathError.*Training goes on") as caught:
        trainer.train()
    assert trainer.state.global_step == 2
    assert len([item for item in caught if issubclass(item.category, MetaHPWarning)]) == 1


def test_warnings_as_errors_stop_no_training(tmp_path: Any, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetaHPWarning)
        trainer.train()
    assert trainer.state.global_step == 2


def test_a_smaller_batch_found_by_the_host_is_one_run(history: History, make_trainer: Any, make_model: Any) -> None:
    model = make_model()
    forward = model.forward

    def small_memory(input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        if model.training and len(input_ids) > 5:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return forward(input_ids=input_ids, labels=labels, **kwargs)

    model.forward = small_memory
    callback = MetaHPCallback(history=history)
    make_trainer(callback, model=model, auto_find_batch_size=True, per_device_train_batch_size=7).train()
    (run,) = history.runs()
    assert run.status is RunStatus.COMPLETED
    batch = run.provenance["batch_size"]
    found = 3 if batch.value == 3 else 5  # older versions of Accelerate halve, newer ones take nine tenths
    assert (batch.value, batch.requested, batch.source) == (found, 7, Source.CONSTRAINT)
    assert run.hparams["global_batch_size"] == found


def test_a_search_logs_each_trial_and_a_pruned_one_is_stopped(history: History, make_trainer: Any, make_model: Any) -> None:
    optuna = pytest.importorskip("optuna")
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    class SecondIsPruned(optuna.pruners.BasePruner):
        def prune(self, study: Any, trial: Any) -> bool:
            return bool(trial.number == 1)

    trainer = make_trainer(
        MetaHPCallback(history=history), model_init=lambda: make_model(), num_train_epochs=2, metric_for_best_model="loss"
    )
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)},
        backend="optuna",
        n_trials=2,
        pruner=SecondIsPruned(),
    )
    first, second = sorted(history.runs(), key=lambda run: run.id)
    assert (first.status, second.status) == (RunStatus.COMPLETED, RunStatus.STOPPED)
    assert first.hparams["learning_rate"] != second.hparams["learning_rate"]
    assert first.provenance["learning_rate"].source is Source.USER
    assert first.task_id == second.task_id


def test_a_run_that_ends_before_its_last_step_is_stopped(history: History, make_trainer: Any) -> None:
    stopping = EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=100.0)
    trainer = make_trainer(
        [stopping, MetaHPCallback(history=history)], num_train_epochs=9, load_best_model_at_end=True, save_strategy="epoch"
    )
    trainer.train()
    (run,) = history.runs()
    assert run.status is RunStatus.STOPPED
    assert run.epochs_reached == 2.0


def test_a_recommended_value_that_is_not_in_force_is_a_loud_warning(
    history: History, make_trainer: Any, make_args: Any, make_model: Any
) -> None:
    from hf_callbacks.provenance import Provenance, Rewrite, with_provenance

    args = with_provenance(make_args(learning_rate=0.01), Provenance("r1", frozenset(), {"learning_rate": Rewrite(5e-5, 0.01)}))
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    trainer = make_trainer(MetaHPCallback(history=history), args=args, model=model, optimizers=(optimizer, None))
    with pytest.warns(NotAppliedWarning, match=r"learning_rate is 0\.5 and 0\.01 was recommended; the Trainer uses an optimizer you"):
        trainer.train()
    run = history.runs()[0]
    assert run.provenance["learning_rate"].observed == 0.5
    assert run.hparams["learning_rate"] == 0.5


def test_a_callback_can_be_sent_to_another_process(history: History, logged: Any) -> None:
    callback = MetaHPCallback("accuracy", task="t", history=history)
    logged(callback)
    twin = pickle.loads(pickle.dumps(callback))
    assert (twin.objective, twin.task, twin.run_id) == ("accuracy", "t", None)
    assert str(twin.history) == str(history.path)
