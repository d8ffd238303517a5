from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainerCallback

from hf_callbacks import MetaHPCallback
from hf_callbacks.divergence_watch import DivergenceWatch
from store import History, ObjectiveWarning, RunStatus

ROOT = Path(__file__).resolve().parents[2]


def failing(model: Any, error: BaseException, after: int = 1) -> Any:
    """Make a model raise from its ``after``-th training step on."""
    forward, calls = model.forward, []

    def fail(input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > after:
            raise error
        return forward(input_ids=input_ids, labels=labels, **kwargs)

    model.forward = fail
    return model


def poisoned(model: Any, after: int = 2) -> Any:
    """Make a model's loss NaN from its ``after``-th call on."""
    forward, calls = model.forward, []

    def poison(input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        calls.append(1)
        output = forward(input_ids=input_ids, labels=labels, **kwargs)
        if len(calls) > after:
            output.loss = output.loss * float("nan")
        return output

    model.forward = poison
    return model


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad batch"), RunStatus.FAILED),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), RunStatus.OOM),
        (KeyboardInterrupt(), RunStatus.INTERRUPTED),
    ],
)
def test_an_exception_inside_the_block_ends_the_run(
    history: History, make_trainer: Any, make_model: Any, error: BaseException, status: RunStatus
) -> None:
    with pytest.raises(type(error)), MetaHPCallback(history=history) as callback:
        make_trainer(callback, model=failing(make_model(), error)).train()
    (run,) = history.runs()
    assert run.status is status
    assert type(error).__name__ in str(run.error)


@pytest.fixture
def add_later(make_trainer: Any) -> Any:
    """A Trainer that gets its callback after it was built: the callback meets it inside train()."""

    def make(callback: MetaHPCallback, **changes: Any) -> Any:
        trainer = make_trainer(**changes)
        trainer.add_callback(callback)
        return trainer

    return make


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad batch"), RunStatus.FAILED),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), RunStatus.OOM),
        (KeyboardInterrupt(), RunStatus.INTERRUPTED),
    ],
)
def test_an_exception_the_program_catches_ends_the_run_at_once(
    history: History, make_trainer: Any, make_model: Any, error: BaseException, status: RunStatus
) -> None:
    trainer = make_trainer(MetaHPCallback(history=history), model=failing(make_model(), error))
    with pytest.raises(type(error)):
        trainer.train()
    (run,) = history.runs()
    assert run.status is status
    assert type(error).__name__ in str(run.error)


class Breaks(TrainerCallback):
    """Raises after some steps, from a place that nobody can watch in a first train() of an added callback."""

    def __init__(self, error: BaseException, after: int = 1) -> None:
        self.error, self.after = error, after

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step >= self.after:
            raise self.error


def breaking(trainer: Any, error: BaseException) -> Any:
    trainer.add_callback(Breaks(error))
    return trainer


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("bad batch"), RunStatus.FAILED),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), RunStatus.OOM),
        (KeyboardInterrupt(), RunStatus.INTERRUPTED),
    ],
)
def test_a_caught_exception_of_a_step_ends_the_run_of_a_callback_added_later(
    history: History, add_later: Any, make_model: Any, error: BaseException, status: RunStatus
) -> None:
    trainer = add_later(MetaHPCallback(history=history), model=failing(make_model(), error))
    with pytest.raises(type(error)):
        trainer.train()
    (run,) = history.runs()
    assert run.status is status
    assert type(error).__name__ in str(run.error)


def test_a_caught_exception_of_a_batch_or_an_evaluation_does_so_as_well(history: History, add_later: Any, sentences: Any) -> None:
    class Broken(sentences):
        def __getitem__(self, index: int) -> Any:
            raise LookupError("no such sample")

    for data in ({"train_dataset": Broken()}, {"eval_dataset": Broken(8)}):
        callback = MetaHPCallback(history=history)
        with pytest.raises(LookupError):
            add_later(callback, **data).train()
        run = history.run(callback.run_id or "")
        assert (run.status, run.error) == (RunStatus.FAILED, "LookupError: no such sample")


@pytest.mark.parametrize("is_several", [False, True], ids=["one data set", "several data sets"])
def test_an_evaluation_the_program_tries_inside_the_training_ends_nothing(history: History, add_later: Any, is_several: bool) -> None:
    class Tries(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            broken = [{"input_ids": [1, 2]}, {"input_ids": [1, 2, 3]}]
            with pytest.raises(ValueError, match="expected sequence of length 2"):
                trainer.evaluate(eval_dataset={"one": broken} if is_several else broken)

    trainer = add_later(MetaHPCallback(history=history))
    trainer.add_callback(Tries())
    trainer.train()
    (run,) = history.runs()
    assert run.status is RunStatus.COMPLETED
    assert run.objective_best is not None, "what came after the failed evaluation is missing"


def test_an_added_callback_with_auto_find_batch_size_has_one_run(history: History, add_later: Any, make_model: Any) -> None:
    model = make_model()
    forward, sizes = model.forward, []

    def small_only(input_ids: Any = None, labels: Any = None, **kwargs: Any) -> Any:
        sizes.append(len(input_ids))
        if len(input_ids) > 4:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        return forward(input_ids=input_ids, labels=labels, **kwargs)

    model.forward = small_only
    sizes_asked = {"per_device_train_batch_size": 5, "per_device_eval_batch_size": 2}
    trainer = add_later(MetaHPCallback(history=history), model=model, auto_find_batch_size=True, **sizes_asked)
    trainer.train()
    (run,) = history.runs()
    assert (run.status, run.hparams["batch_size"]) == (RunStatus.COMPLETED, trainer.state.train_batch_size)
    assert run.hparams["batch_size"] < 5 == max(sizes)


def test_a_run_that_fails_says_how_far_it_came_although_nothing_was_logged(history: History, make_trainer: Any, make_model: Any) -> None:
    changes = {"logging_strategy": "no", "eval_strategy": "no", "per_device_train_batch_size": 4}
    trainer = make_trainer(MetaHPCallback(history=history), model=failing(make_model(), ValueError("bad batch"), after=3), **changes)
    with pytest.raises(ValueError, match="bad batch"), pytest.warns(ObjectiveWarning, match="eval_strategy is 'no'"):
        trainer.train()
    (run,) = history.runs()
    assert (run.steps_reached, run.epochs_reached) == (3, 0.75)


def test_an_exception_that_ends_the_program_is_recorded_and_passed_on(
    history: History, add_later: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[BaseException] = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append(error))
    before = sys.excepthook
    trainer = breaking(add_later(MetaHPCallback(history=history)), ValueError("bad batch"))
    with pytest.raises(ValueError, match="bad batch") as caught:
        trainer.train()
    assert sys.excepthook is not before
    sys.excepthook(caught.type, caught.value, caught.tb)
    assert told == [caught.value]
    assert sys.excepthook is before
    (run,) = history.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, "ValueError: bad batch")


def test_the_excepthook_is_given_back_after_training(history: History, make_trainer: Any) -> None:
    before = sys.excepthook
    make_trainer(MetaHPCallback(history=history)).train()
    assert sys.excepthook is before


def test_a_hook_installed_on_top_of_ours_stays(history: History, make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import TrainerCallback

    told = []
    monkeypatch.setattr(sys, "excepthook", lambda kind, error, trace: told.append("first"))

    class Other(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            below = sys.excepthook
            self.hook = lambda *info: (told.append("theirs"), below(*info))
            sys.excepthook = self.hook

    other = Other()
    make_trainer([MetaHPCallback(history=history), other]).train()
    assert sys.excepthook is other.hook
    sys.excepthook(ValueError, ValueError("later"), None)
    assert told == ["theirs", "first"]
    assert history.runs()[0].status is RunStatus.COMPLETED


def test_a_dropped_callback_leaves_the_chain(history: History, add_later: Any) -> None:
    before = sys.excepthook

    def attempt() -> None:
        trainer = breaking(add_later(MetaHPCallback(history=history)), ValueError("caught"))
        with pytest.raises(ValueError, match="caught"):
            trainer.train()

    attempt()
    gc.collect()
    assert sys.excepthook is before


def test_a_caught_exception_is_closed_by_the_next_training(history: History, add_later: Any) -> None:
    trainer = breaking(add_later(MetaHPCallback(history=history)), ValueError("caught"))
    with pytest.raises(ValueError, match="caught"):
        trainer.train()
    trainer.remove_callback(Breaks)
    trainer.train()
    first, second = sorted(history.runs(), key=lambda run: run.id)
    assert (first.status, second.status) == (RunStatus.FAILED, RunStatus.COMPLETED)
    assert first.error is not None


def test_a_next_training_that_never_begins_is_not_the_end_of_the_one_before(history: History, add_later: Any) -> None:
    trainer = breaking(add_later(MetaHPCallback(history=history)), ValueError("caught"))
    with pytest.raises(ValueError, match="caught"):
        trainer.train()
    trainer.get_train_dataloader = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    first, second = sorted(history.runs(), key=lambda run: run.id)
    assert (first.status, second.status) == (RunStatus.FAILED, RunStatus.FAILED)
    assert "ZeroDivisionError" not in str(first.error)
    assert "ZeroDivisionError" in str(second.error)


def test_training_again_inside_the_handler_names_the_exception(history: History, add_later: Any) -> None:
    trainer = breaking(add_later(MetaHPCallback(history=history)), RuntimeError("CUDA out of memory"))
    try:
        trainer.train()
    except RuntimeError:
        trainer.remove_callback(Breaks)
        trainer.train()
    statuses = [run.status for run in sorted(history.runs(), key=lambda run: run.id)]
    assert statuses == [RunStatus.OOM, RunStatus.COMPLETED]


def test_nan_hidden_from_the_logged_loss_is_divergence(history: History, make_trainer: Any, make_model: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history), model=poisoned(make_model()), eval_strategy="no", per_device_train_batch_size=4)
    with pytest.warns(ObjectiveWarning, match="eval_strategy is 'no'"):
        trainer.train()
    (run,) = history.runs()
    losses = [item.value for item in history.metrics(run.id, "loss")]
    assert all(value == value for value in losses), "the host hides NaN losses; if it no longer does, this test says nothing"
    assert run.status is RunStatus.DIVERGED


def test_nan_is_found_in_the_weights_when_nothing_was_logged(history: History, make_trainer: Any, make_model: Any) -> None:
    trainer = make_trainer(
        MetaHPCallback(history=history), model=poisoned(make_model()), eval_strategy="no", per_device_train_batch_size=4, logging_steps=500
    )
    with pytest.warns(ObjectiveWarning, match="eval_strategy is 'no'"):
        trainer.train()
    assert history.runs()[0].status is RunStatus.DIVERGED


def test_a_nan_objective_is_divergence(history: History, logged: Any, make_model: Any) -> None:
    run = logged(model=poisoned(make_model(), after=0))
    assert run.status is RunStatus.DIVERGED
    assert run.objective_last is not None
    assert run.objective_last != run.objective_last


def test_one_bad_gradient_is_forgiven_by_a_good_evaluation() -> None:
    watch = DivergenceWatch()
    watch.see({"loss": 0.5, "grad_norm": float("nan")})
    assert watch.is_diverged(None)
    watch.see({"eval_loss": 0.4})
    assert not watch.is_diverged(None)


def test_a_nan_evaluation_forgives_nothing() -> None:
    watch = DivergenceWatch()
    watch.see({"grad_norm": float("inf")})
    watch.see({"eval_loss": float("nan"), "eval_accuracy": 0.5})
    assert watch.is_diverged(None)


SCRIPT = """
import os, sys, torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments
from hf_callbacks import MetaHPCallback

torch.set_num_threads(1)
assert not any(name.split(".")[0] in ("lightning", "pytorch_lightning") for name in sys.modules), "hf_callbacks loaded lightning"
data = [{"input_ids": torch.arange(1, 6), "labels": torch.tensor(i % 2)} for i in range(16)]

class End(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        HOW

model = BertForSequenceClassification(BertConfig(
    vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=8))
args = TrainingArguments(output_dir=sys.argv[1], use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
                         eval_strategy="epoch")
Trainer(model=model, args=args, train_dataset=data, eval_dataset=data, callbacks=[MetaHPCallback(), End()]).train()
"""


def run_script(tmp_path: Path, how: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("HOW", how))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, str(script), str(tmp_path / "out")], env=environment, capture_output=True, text=True)


@pytest.mark.slow
def test_a_script_that_crashes_is_recorded_and_keeps_its_traceback(tmp_path: Path, isolated_history: Path) -> None:
    done = run_script(tmp_path, "raise ZeroDivisionError('boom')")
    assert done.returncode == 1
    assert "ZeroDivisionError: boom" in done.stderr
    with History(isolated_history) as history:
        (run,) = history.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, "ZeroDivisionError: boom")


@pytest.mark.slow
def test_a_script_that_is_killed_is_not_completed(tmp_path: Path, isolated_history: Path) -> None:
    done = run_script(tmp_path, "os.kill(os.getpid(), 9)")
    assert done.returncode == -signal.SIGKILL
    with History(isolated_history) as history:
        (run,) = history.runs()
    assert run.status is RunStatus.STALE
