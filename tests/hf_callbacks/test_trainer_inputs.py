from __future__ import annotations

import gc
import inspect
import weakref
from typing import Any

import pytest
from transformers import Trainer, TrainingArguments

from hf_callbacks import MetaHPCallback
from hf_callbacks.trainer_inputs import given_arguments, given_datasets
from store import History


class Prepared(Trainer):
    """Makes other data and other arguments of what it is given, as TRL's Trainers do."""

    def __init__(self, model: Any, args: Any = None, train_dataset: Any = None, **kwargs: Any) -> None:
        rows = [{name: row[name] for name in ("input_ids", "labels")} for row in train_dataset]
        super().__init__(model, TrainingArguments(**args.to_dict()), train_dataset=rows, **kwargs)


class Passing(Prepared):
    """Names none of its arguments, and one of its own."""

    def __init__(self, note: str, *args: Any, **kwargs: Any) -> None:
        self.note = note
        super().__init__(*args, **kwargs)


class Making(Prepared):
    """Has a ``__new__`` of its own."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Making:
        return super().__new__(cls, *args, **kwargs)


@pytest.mark.parametrize(("cls", "before"), [(Prepared, ()), (Passing, ("mine",)), (Making, ())])
@pytest.mark.parametrize("is_positional", [True, False])
def test_what_was_passed_is_known_after_a_constructor_prepared_it(
    history: History, make_args: Any, make_model: Any, sentences: Any, cls: type[Trainer], before: tuple[Any, ...], is_positional: bool
) -> None:
    args, data, rest = make_args(), sentences(), {"eval_dataset": sentences(8), "callbacks": [MetaHPCallback(history=history)]}
    given = (args, data) if is_positional else ()
    trainer = cls(*before, make_model(), *given, **rest, **({} if is_positional else {"args": args, "train_dataset": data}))
    assert given_datasets(trainer) == (data, rest["eval_dataset"])
    assert given_arguments(trainer) is args
    assert trainer.train_dataset is not data


def test_data_that_are_put_into_a_built_trainer_count(make_trainer: Any, history: History, sentences: Any) -> None:
    trainer, other = make_trainer(MetaHPCallback(history=history)), sentences(20)
    trainer.train_dataset = other
    assert given_datasets(trainer)[0] is other


def test_the_host_looks_as_before_and_keeps_nothing_alive(make_args: Any, make_model: Any, sentences: Any) -> None:
    assert list(inspect.signature(Trainer).parameters)[:3] == ["model", "args", "data_collator"]
    data = sentences()
    trainer, reference = Trainer(make_model(), make_args(), train_dataset=data, eval_dataset=data), weakref.ref(data)
    del data, trainer
    gc.collect()
    assert reference() is None
