"""Before the first run there is no history, and asking for advice makes none."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from hf_callbacks import MetaHPCallback, apply, autoconfig
from hf_callbacks.provenance import provenance_of, recommendation_id
from store import History, MetaHPWarning


@pytest.fixture
def first_args(tmp_path: Path, make_args: Any, make_model: Any, sentences: Any) -> TrainingArguments:
    """Arguments configured before there was a history, with a batch that the data limit."""
    place = tmp_path / "new" / "history.db"
    args = autoconfig(make_args(), model=make_model(), train_dataset=sentences(3), history=place)
    assert not place.parent.exists(), "asking made a history"
    return args


@pytest.mark.parametrize("is_pickled", [False, True])
def test_the_recommendation_is_saved_with_the_run(
    first_args: TrainingArguments, tmp_path: Path, make_trainer: Any, sentences: Any, is_pickled: bool
) -> None:
    args = pickle.loads(pickle.dumps(first_args)) if is_pickled else first_args
    assert args.per_device_train_batch_size == 3
    make_trainer(MetaHPCallback(history=tmp_path / "new" / "history.db"), args=args, train_dataset=sentences(3)).train()
    with History(tmp_path / "new" / "history.db") as history:
        (run,) = history.runs()
        assert run.recommendation_id == recommendation_id(first_args)
        stored = history.recommendation(run.recommendation_id or "")
    assert (stored["run_id"], stored["current"]["per_device_train_batch_size"]) == (run.id, 8)
    assert [(change["raw_name"], change["new"]) for change in stored["changes"]] == [("per_device_train_batch_size", 3)]


def test_what_waits_needs_nothing_of_ours(first_args: TrainingArguments, tmp_path: Path) -> None:
    assert provenance_of(first_args).pending
    torch.save(first_args, tmp_path / "training_args.bin")
    code = (
        "import sys, torch; args = torch.load('training_args.bin', weights_only=False); "
        "print(args.metahp, len(args.metahp_note['pending']), any(name in sys.modules for name in ('store', 'metamodel', 'hf_callbacks')))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [recommendation_id(first_args), "1", "False"]


def test_apply_makes_no_history_either(tmp_path: Path, make_trainer: Any) -> None:
    place = tmp_path / "history.db"
    trainer = make_trainer(MetaHPCallback(history=place))
    found = apply(trainer)
    assert found is not None
    assert not place.exists()
    trainer.train()
    with History(place) as history:
        (run,) = history.runs()
        assert history.recommendation(found.id)["run_id"] == run.id


def test_autoconfig_and_apply_both_wait(first_args: TrainingArguments, tmp_path: Path, make_trainer: Any, sentences: Any) -> None:
    place = tmp_path / "new" / "history.db"
    trainer = make_trainer(MetaHPCallback(history=place), args=first_args, train_dataset=sentences(3))
    second = apply(trainer)
    trainer.train()
    trainer.train()
    with History(place) as history:
        for name in (recommendation_id(first_args), second and second.id):
            assert history.recommendation(name or "")


def test_one_that_cannot_be_saved_costs_a_warning(
    first_args: TrainingArguments, tmp_path: Path, make_trainer: Any, sentences: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError("disk full")

    place = tmp_path / "new" / "history.db"
    trainer = make_trainer(MetaHPCallback(history=place), args=first_args, train_dataset=sentences(3))
    monkeypatch.setattr(History, "save_recommendation", refuse)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.train()
    ours = [str(item.message) for item in caught if issubclass(item.category, MetaHPWarning)]
    assert len(ours) == 1
    assert "disk full" in ours[0]
    with History(place) as history:
        (run,) = history.runs()
    assert run.steps_reached == 1


def test_a_dictionary_of_training_sets_does_not_limit_the_batch_to_their_number(
    tmp_path: Path, make_args: Any, make_model: Any, sentences: Any
) -> None:
    args = autoconfig(make_args(), model=make_model(), train_dataset={"a": sentences(6), "b": sentences(7)}, history=tmp_path / "h.db")
    assert args.per_device_train_batch_size == 8
