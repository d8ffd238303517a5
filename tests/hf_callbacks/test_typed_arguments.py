"""What a user typed is kept and recorded as theirs, the library's default among it."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, TrainingArguments

from hf_callbacks import MetaHPCallback, apply, autoconfig
from hf_callbacks.arguments import read_arguments
from hf_callbacks.provenance import provenance_of
from store import History, Source


@dataclasses.dataclass
class WithDefaultOfItsOwn(TrainingArguments):
    learning_rate: float = 0.001


class HandWritten(TrainingArguments):
    def __init__(self, output_dir: str, rate: float = 5e-5, **kwargs: Any) -> None:
        super().__init__(output_dir, learning_rate=rate, **kwargs)


def test_a_typed_default_is_kept_and_nothing_else_is(taught: History, make_model: Any, sentences: Any, make_args: Any) -> None:
    given = {"model": make_model(), "train_dataset": sentences(), "history": taught}
    assert autoconfig(make_args(learning_rate=5e-5), **given).learning_rate == 5e-5
    assert autoconfig(make_args(), **given).learning_rate != 5e-5
    assert autoconfig(make_args(learning_rate=5e-5), space={"learning_rate": [0.01]}, **given).learning_rate == 0.01
    assert autoconfig(make_args(learning_rate=5e-5), seed=3, **given).learning_rate == 5e-5, "keywords beside ready-made arguments"


def test_a_typed_default_is_kept_by_apply(taught: History, make_trainer: Any, capfd: pytest.CaptureFixture[str]) -> None:
    trainer = make_trainer(MetaHPCallback(history=taught), learning_rate=5e-5)
    apply(trainer)
    assert trainer.args.learning_rate == 5e-5
    assert "learning_rate stays 5e-05: set by you" in capfd.readouterr().err


def test_a_typed_default_is_recorded_as_the_users(history: History, make_trainer: Any) -> None:
    callback = MetaHPCallback(history=history)
    make_trainer(callback, learning_rate=5e-5).train()
    run = history.run(callback.run_id or "")
    assert [run.provenance[name].source for name in ("learning_rate", "weight_decay")] == [Source.USER, Source.DEFAULT]


@pytest.mark.parametrize("cls", [TrainingArguments, Seq2SeqTrainingArguments, WithDefaultOfItsOwn])
def test_of_every_subclass_only_what_was_typed_is_the_users(cls: type[TrainingArguments], tmp_path: Path) -> None:
    args = cls(str(tmp_path), weight_decay=0.0)
    assert provenance_of(args).explicit == {"output_dir", "weight_decay"}
    assert read_arguments(args).sources["learning_rate"] is Source.DEFAULT


def test_what_a_hand_written_constructor_passes_on_is_not_typed(tmp_path: Path) -> None:
    assert provenance_of(HandWritten(str(tmp_path), weight_decay=0.0)).explicit == {"output_dir", "weight_decay"}


@pytest.mark.parametrize("twin", [copy.copy, copy.deepcopy, lambda args: pickle.loads(pickle.dumps(args))])
def test_copies_and_pickles_keep_the_note(twin: Any, tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), learning_rate=5e-5)
    assert provenance_of(twin(args)) == provenance_of(args)
    assert twin(args).to_dict() == args.to_dict()


def test_who_hands_over_every_field_has_typed_none(tmp_path: Path) -> None:
    args = TrainingArguments(str(tmp_path), learning_rate=1e-3)
    for twin in (dataclasses.replace(args, seed=1), TrainingArguments(**args.to_dict())):
        assert provenance_of(twin).explicit == frozenset()
        assert read_arguments(twin).sources["learning_rate"] is Source.USER
        assert read_arguments(twin).sources["weight_decay"] is Source.DEFAULT


@pytest.mark.parametrize("option", ["--learning_rate=5e-5", "--learning-rate 5e-5"])
def test_of_a_parser_the_command_line_counts(option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "--output_dir", str(tmp_path), *option.split()])
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    assert provenance_of(args).explicit == {"output_dir", "learning_rate"}
    assert read_arguments(args).sources["weight_decay"] is Source.DEFAULT


def test_of_a_file_its_entries_count(tmp_path: Path) -> None:
    (tmp_path / "args.json").write_text(json.dumps({"output_dir": str(tmp_path), "learning_rate": 5e-5}))
    (args,) = HfArgumentParser(TrainingArguments).parse_json_file(str(tmp_path / "args.json"))
    assert provenance_of(args).explicit == {"output_dir", "learning_rate"}


def test_what_a_library_constructs_is_not_typed(tmp_path: Path, make_model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    from transformers import Trainer

    assert provenance_of(Trainer(make_model()).args).explicit == frozenset()


def test_where_it_cannot_be_known_the_message_names_keep(
    taught: History, make_model: Any, sentences: Any, make_args: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    given = {"model": make_model(), "train_dataset": sentences(), "history": taught}
    seen = make_args()
    unseen = TrainingArguments(**seen.to_dict())
    autoconfig(seen, **given)
    assert "keep=" not in capfd.readouterr().err
    autoconfig(unseen, **given)
    assert "if you typed it, keep=('learning_rate'" in capfd.readouterr().err
    autoconfig(unseen, space={"learning_rate": [0.01, 0.02]}, **given)
    assert "keep=" not in capfd.readouterr().err


def test_the_constructor_looks_as_before(tmp_path: Path) -> None:
    for cls in (TrainingArguments, Seq2SeqTrainingArguments, HandWritten):
        assert inspect.signature(cls).parameters.keys() == {*inspect.signature(cls.__init__).parameters} - {"self"}
    with pytest.raises(TypeError, match="no_such"):
        TrainingArguments(str(tmp_path), no_such=1)  # type: ignore[call-arg]


def test_switched_off_nothing_of_the_host_is_patched() -> None:
    code = (
        "from transformers import Trainer, TrainingArguments\n"
        "from hf_callbacks import MetaHPCallback, apply, autoconfig\nMetaHPCallback()\n"
        "print('__new__' in vars(Trainer), '__new__' in vars(TrainingArguments))"
    )
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "METAHP": "off"}, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_switched_off_later_nothing_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METAHP", "off")
    assert "metahp_note" not in vars(TrainingArguments(str(tmp_path), learning_rate=5e-5))
