"""A training that fails between the call of train() and its first event is a run as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainerCallback

from hf_callbacks import MetaHPCallback, autoconfig
from store import History, RunStatus, Source


class NoLoader(Trainer):
    """A Trainer whose data cannot be loaded."""

    error: BaseException = FileNotFoundError("shard 3 is gone")

    def get_train_dataloader(self) -> Any:
        raise self.error


@pytest.fixture
def fails(make_model: Any, make_args: Any, sentences: Any, history: History) -> Any:
    """Train with data that cannot be loaded, and return the callback."""

    def fail(error: BaseException = NoLoader.error, *, resume: Any = None, **changes: Any) -> MetaHPCallback:
        callback = MetaHPCallback(history=history)
        trainer = NoLoader(make_model(), make_args(**changes), train_dataset=sentences(), eval_dataset=sentences(8), callbacks=[callback])
        trainer.error = error
        with pytest.raises(type(error)):
            trainer.train(resume_from_checkpoint=resume)
        return callback

    return fail


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (FileNotFoundError("shard 3 is gone"), RunStatus.FAILED),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), RunStatus.OOM),
        (KeyboardInterrupt(), RunStatus.INTERRUPTED),
    ],
)
def test_it_is_recorded_with_its_cause(history: History, fails: Any, error: BaseException, status: RunStatus) -> None:
    callback = fails(error, learning_rate=3e-4)
    (run,) = history.runs()
    assert (run.id, run.status) == (callback.run_id, status)
    assert type(error).__name__ in str(run.error)
    assert not run.steps_reached
    assert (run.hparams["learning_rate"], run.provenance["learning_rate"].source) == (3e-4, Source.USER)
    assert run.provenance["learning_rate"].observed is None, "nothing was in force yet"


def test_it_belongs_to_the_task_of_the_trainings_that_worked(history: History, fails: Any, logged: Any) -> None:
    whole = logged()
    fails()
    broken = next(run for run in history.runs() if run.id != whole.id)
    assert (broken.task_id, broken.model_class, broken.n_parameters) == (whole.task_id, whole.model_class, whole.n_parameters)


def test_an_optimizer_that_cannot_be_made_is_recorded(history: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history), optim="adamw_torch", adam_beta1=2.0)
    with pytest.raises(ValueError, match="beta"):
        trainer.train()
    (run,) = history.runs()
    assert (run.status, run.hparams["adam_beta1"]) == (RunStatus.FAILED, 2.0)


def test_another_callback_that_fails_first_is_recorded(history: History, make_trainer: Any) -> None:
    class Tracker(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            raise ConnectionError("no server")

    trainer = make_trainer([Tracker(), MetaHPCallback(history=history)])
    with pytest.raises(ConnectionError):
        trainer.train()
    (run,) = history.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, "ConnectionError: no server")


def test_a_data_set_that_cannot_even_be_counted_is_recorded(history: History, make_trainer: Any, sentences: Any) -> None:
    class Gone(sentences):
        is_gone = False

        def __len__(self) -> int:
            if self.is_gone:
                raise OSError("stale file handle")
            return super().__len__()

        def __getitem__(self, index: int) -> Any:
            raise OSError("stale file handle")

    trainer = make_trainer(MetaHPCallback(history=history), train_dataset=Gone())
    trainer.train_dataset.is_gone = True
    with pytest.raises(OSError, match="stale"):
        trainer.train()
    (run,) = history.runs()
    assert (run.status, run.error) == (RunStatus.FAILED, "OSError: stale file handle")


def test_the_next_training_is_a_run_of_its_own(history: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    loader = trainer.get_train_dataloader
    trainer.get_train_dataloader = lambda: 1 / 0
    with pytest.raises(ZeroDivisionError):
        trainer.train()
    trainer.get_train_dataloader = loader
    trainer.train()
    first, second = sorted(history.runs(), key=lambda run: run.id)
    assert (first.status, second.status) == (RunStatus.FAILED, RunStatus.COMPLETED)
    assert (first.steps_reached or 0, second.steps_reached) == (0, 2)


def test_what_a_recommendation_wrote_is_told_apart(taught: History, make_model: Any, make_args: Any, sentences: Any) -> None:
    model, data = make_model(), sentences()
    args = autoconfig(make_args(), model=model, train_dataset=data, history=taught)
    callback = MetaHPCallback(history=taught)
    trainer = NoLoader(model, args, train_dataset=data, eval_dataset=sentences(8), callbacks=[callback])
    with pytest.raises(FileNotFoundError):
        trainer.train()
    run = taught.run(callback.run_id or "")
    assert (run.recommendation_id, run.provenance["learning_rate"].source) == (args.metahp, Source.METAHP)
    assert run.provenance["learning_rate"].requested == 5e-5


def test_a_resumption_that_fails_leaves_the_run_as_it_was(history: History, logged: Any, fails: Any, options: dict[str, Any]) -> None:
    whole = logged(save_strategy="epoch")
    (checkpoint,) = Path(options["output_dir"]).glob("checkpoint-*")
    callback = fails(resume=str(checkpoint))
    broken = history.run(callback.run_id or "")
    assert (broken.status, broken.parent_run_id) == (RunStatus.FAILED, whole.id)
    assert history.run(whole.id) == whole


def test_a_checkpoint_that_is_not_there_is_recorded(history: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    with pytest.raises(ValueError, match="valid checkpoint"):
        trainer.train(resume_from_checkpoint=True)
    (run,) = history.runs()
    assert run.status is RunStatus.FAILED
    assert run.parent_run_id is None


def test_off_records_nothing(fails: Any, history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP", "off")
    fails()
    assert history.runs() == []
