from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import TrainerCallback

from hf_callbacks import MetaHPCallback, apply, autoconfig
from hf_callbacks.provenance import Provenance, Rewrite, provenance_of, recommendation_id, with_provenance
from hf_callbacks.trainer_host import TrainerHost
from metahp_tuning.host import check_request
from store import History, RunStatus, Source

SPACE = {"learning_rate": [1e-2], "per_device_train_batch_size": [4]}


class Stopper(TrainerCallback):
    """Stop the program in the second epoch."""

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 5:
            raise KeyboardInterrupt


@pytest.fixture
def stopped(taught: History, make_trainer: Any, make_args: Any, make_model: Any, sentences: Any) -> str:
    """Checkpoint of a run whose learning rate and batch a recommendation chose, and that was stopped in its second epoch."""
    args = make_args(save_strategy="epoch", num_train_epochs=2)
    args = autoconfig(args, model=make_model(), train_dataset=sentences(), history=taught, space=SPACE)
    with pytest.raises(KeyboardInterrupt):
        make_trainer([MetaHPCallback(history=taught), Stopper()], args=args).train()
    return str(Path(args.output_dir) / "checkpoint-4")


@pytest.fixture
def newest(taught: History) -> Callable[[], Any]:
    return lambda: next(run for run in taught.runs(newest_first=True) if run.framework == "transformers")


def test_a_resumed_run_goes_on_with_its_stored_values(
    stopped: str, taught: History, make_trainer: Any, make_args: Any, newest: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    first = newest()
    capfd.readouterr()
    trainer = make_trainer(MetaHPCallback(history=taught), args=make_args(num_train_epochs=2))
    trainer.train(resume_from_checkpoint=stopped)
    said = capfd.readouterr().err
    expected = "learning_rate 5e-05 -> 0.01, per_device_train_batch_size 8 -> 4, as in the run that is resumed from checkpoint-4"
    assert f"{expected} (it followed recommendation {first.recommendation_id})" in said
    run = newest()
    assert (run.id, run.attempt, run.recommendation_id) == (first.id, 1, first.recommendation_id)
    rate, batch = run.provenance["learning_rate"], run.provenance["batch_size"]
    assert (rate.value, rate.observed, rate.source, rate.requested) == (pytest.approx(1e-2), pytest.approx(1e-2), Source.RESUME, 5e-5)
    assert (batch.value, batch.observed) == (4, 4)
    assert run.status is RunStatus.COMPLETED
    assert [(item.attempt, item.step) for item in taught.metrics(run.id, "eval_loss")] == [(0, 4), (1, 8)]


def test_what_was_predicted_since_is_taken_back(stopped: str, taught: History, make_trainer: Any, make_args: Any, newest: Any) -> None:
    stored = newest().recommendation_id
    since = {
        "learning_rate": Rewrite(5e-5, 3e-3),
        "per_device_train_batch_size": Rewrite(8, 2),
        "max_grad_norm": Rewrite(1.0, 0.5),
    }
    args = make_args(num_train_epochs=2, learning_rate=3e-3, per_device_train_batch_size=2, max_grad_norm=0.5)
    trainer = make_trainer(MetaHPCallback(history=taught), args=with_provenance(args, Provenance("later", frozenset(), since)))
    trainer.train(resume_from_checkpoint=stopped)
    assert (trainer.args.learning_rate, trainer.args.per_device_train_batch_size) == (1e-2, 4)
    assert trainer.args.max_grad_norm == 1.0
    assert newest().recommendation_id == stored


def test_autoconfig_with_a_checkpoint_predicts_nothing(
    stopped: str, taught: History, make_args: Any, make_model: Any, sentences: Any, newest: Any
) -> None:
    args = make_args(num_train_epochs=2, resume_from_checkpoint=stopped)
    found = autoconfig(args, model=make_model(), train_dataset=sentences(), history=taught)
    assert (found.learning_rate, found.per_device_train_batch_size) == (1e-2, 4)
    assert recommendation_id(found) == newest().recommendation_id
    assert provenance_of(found).rewrites["learning_rate"].source is Source.RESUME


def test_an_explicit_value_that_conflicts_is_named_once(
    stopped: str, taught: History, make_trainer: Any, make_args: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    trainer = make_trainer(MetaHPCallback(history=taught), args=make_args(num_train_epochs=2, learning_rate=0.5))
    trainer.train(resume_from_checkpoint=stopped)
    assert trainer.args.learning_rate == 1e-2
    said = capfd.readouterr().err
    assert said.count("learning_rate=0.5 of this call is not used: the run goes on with 0.01") == 1


def test_a_checkpoint_written_without_us_resumes_and_saves(history: History, make_trainer: Any, make_args: Any) -> None:
    args = make_args(save_strategy="epoch", num_train_epochs=1)
    make_trainer(args=args).train()
    trainer = make_trainer(MetaHPCallback(history=history), args=make_args(save_strategy="epoch", num_train_epochs=2))
    trainer.train(resume_from_checkpoint=True)
    assert trainer.state.global_step == 4
    (run,) = history.runs()
    assert (run.attempt, run.parent_run_id, run.status) == (0, None, RunStatus.COMPLETED)
    states = json.loads((Path(args.output_dir) / "checkpoint-4" / "trainer_state.json").read_text())["stateful_callbacks"]
    assert states["MetaHPCallback"]["attributes"]["resumed_from"]["run_id"] == run.id


def test_another_history_gets_a_run_that_names_its_parent(
    stopped: str, tmp_path: Path, make_trainer: Any, make_args: Any, newest: Any
) -> None:
    with History(tmp_path / "elsewhere.db") as elsewhere:
        make_trainer(MetaHPCallback(history=elsewhere), args=make_args(num_train_epochs=2)).train(resume_from_checkpoint=stopped)
        (run,) = elsewhere.runs()
    assert run.parent_run_id == newest().id
    assert run.hparams["learning_rate"] == pytest.approx(1e-2)


def test_the_hosts_own_restoring_of_callbacks_is_survived(
    stopped: str, taught: History, make_trainer: Any, make_args: Any, newest: Any
) -> None:
    args = make_args(num_train_epochs=2, restore_callback_states_from_checkpoint=True)
    make_trainer(MetaHPCallback(history=taught), args=args).train(resume_from_checkpoint=stopped)
    assert (newest().attempt, newest().status) == (1, RunStatus.COMPLETED)


def test_apply_leaves_a_trainer_that_resumes_alone(stopped: str, taught: History, make_trainer: Any, make_args: Any) -> None:
    args = make_args(num_train_epochs=2, resume_from_checkpoint=stopped)
    trainer = make_trainer(MetaHPCallback(history=taught), args=args)
    assert apply(trainer, space={"learning_rate": [3e-3]}) is None
    trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    assert trainer.args.learning_rate == 1e-2


def test_another_number_of_processes_keeps_the_global_batch(stopped: str, make_trainer: Any, make_args: Any) -> None:
    state = Path(stopped) / "trainer_state.json"
    kept = json.loads(state.read_text())
    kept["stateful_callbacks"]["MetaHPCallback"]["attributes"]["resumed_from"] |= {"global_batch_size": 16, "world_size": 4}
    state.write_text(json.dumps(kept))
    trainer = make_trainer(args=make_args(num_train_epochs=2))
    TrainerHost(trainer, check_request()).resume(stopped)
    assert trainer.args.per_device_train_batch_size == 16


def test_a_completed_run_that_is_trained_further_is_another_run(history: History, make_trainer: Any, make_args: Any) -> None:
    args = make_args(save_strategy="epoch", num_train_epochs=1)
    make_trainer(MetaHPCallback(history=history), args=args).train()
    further = make_args(save_strategy="epoch", num_train_epochs=2)
    make_trainer(MetaHPCallback(history=history), args=further).train(resume_from_checkpoint=True)
    first, second = sorted(history.runs(), key=lambda run: run.id)
    assert (second.parent_run_id, second.attempt, second.steps_reached) == (first.id, 1, 4)
    assert (first.parent_run_id, first.attempt, first.steps_reached, first.status) == (None, 0, 2, RunStatus.COMPLETED)
