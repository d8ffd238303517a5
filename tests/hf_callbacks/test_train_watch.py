from __future__ import annotations

import gc
import inspect
import pickle
import weakref
from typing import Any

import pytest
from transformers import Trainer, TrainerCallback

from hf_callbacks import MetaHPCallback
from hf_callbacks.train_watch import calling_trainer, is_watched, watch
from store import History, RunStatus


class Own(Trainer):
    """A Trainer of the user's with a train() of its own."""

    def train(self, *args: Any, note: str = "", **kwargs: Any) -> Any:
        self.note = note
        return super().train(*args, **kwargs)


def test_a_watched_trainer_is_of_the_users_class_in_every_respect(make_trainer: Any, history: History) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    assert is_watched(type(trainer))
    assert isinstance(trainer, Trainer)
    assert type(trainer).__qualname__ == "Trainer"
    assert next(iter(inspect.signature(trainer.train).parameters)) == "resume_from_checkpoint"
    before = type(trainer)
    watch(trainer)
    assert type(trainer) is before, "watching twice would tell twice"


def test_a_subclass_with_its_own_train_keeps_it(make_args: Any, make_model: Any, sentences: Any, history: History) -> None:
    trainer = Own(
        make_model(), make_args(), train_dataset=sentences(), eval_dataset=sentences(8), callbacks=[MetaHPCallback(history=history)]
    )
    trainer.train(note="mine")
    assert trainer.note == "mine"
    assert history.runs()[0].status is RunStatus.COMPLETED


def test_a_watched_trainer_is_not_kept_alive(make_trainer: Any, history: History) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    reference = weakref.ref(trainer)
    gc.disable()
    try:
        del trainer
        assert reference() is None, "a cycle through us would keep the model in the GPU's memory"
    finally:
        gc.enable()


def test_a_pickle_names_the_users_own_class(make_trainer: Any, history: History) -> None:
    trainer = make_trainer(MetaHPCallback(history=history))
    for name in list(vars(trainer)):  # most of a Trainer cannot be pickled, with or without us
        delattr(trainer, name)
    twin = pickle.loads(pickle.dumps(trainer))
    assert type(twin) is Trainer


def test_the_trainer_is_known_in_its_events_and_nowhere_else(make_trainer: Any) -> None:
    seen = []

    class Looks(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            seen.append(calling_trainer())

    trainer = make_trainer(Looks())
    trainer.train()
    assert seen == [trainer]
    assert calling_trainer() is None


def test_off_watches_nothing(make_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP", "off")
    assert type(make_trainer(MetaHPCallback())) is Trainer
