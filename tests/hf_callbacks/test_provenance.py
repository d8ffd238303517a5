from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from hf_callbacks.arguments import read_arguments, rewritten
from hf_callbacks.provenance import Provenance, Rewrite, noted_class, plain_class, provenance_of, recommendation_id, with_provenance
from store import Source

NOTE = Provenance("r-1", frozenset({"weight_decay"}), {"learning_rate": Rewrite(5e-5, 0.01)})


class HandWritten(TrainingArguments):
    """A subclass with a constructor of its own, as older scripts have."""

    def __init__(self, *args: Any, extra: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra = extra


@pytest.fixture
def noted(make_args: Any) -> TrainingArguments:
    return with_provenance(make_args(learning_rate=0.01), NOTE)


def test_the_note_survives_dataclasses_replace(noted: TrainingArguments) -> None:
    twin = dataclasses.replace(noted, num_train_epochs=7)
    assert provenance_of(twin) == NOTE
    assert (twin.num_train_epochs, twin.learning_rate) == (7, 0.01)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_the_note_survives_pickling(noted: TrainingArguments, protocol: int) -> None:
    twin = pickle.loads(pickle.dumps(noted, protocol=protocol))
    assert provenance_of(twin) == NOTE
    assert type(twin) is TrainingArguments


def test_the_note_survives_training_args_bin(tmp_path: Path, make_trainer: Any, noted: TrainingArguments) -> None:
    make_trainer(args=noted).save_model(str(tmp_path / "saved"))
    loaded = torch.load(tmp_path / "saved" / "training_args.bin", weights_only=False)
    assert recommendation_id(loaded) == "r-1"
    assert isinstance(loaded, TrainingArguments)
    assert loaded.learning_rate == 0.01


@pytest.mark.slow
def test_a_saved_file_needs_nothing_of_ours(tmp_path: Path, noted: TrainingArguments) -> None:
    torch.save(noted, tmp_path / "training_args.bin")
    code = (
        "import sys, torch; args = torch.load('training_args.bin', weights_only=False); "
        "print(args.metahp, args.learning_rate, 'hf_callbacks' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["r-1", "0.01", "False"]


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_keep_note_and_class(noted: TrainingArguments, duplicate: Any) -> None:
    twin = duplicate(noted)
    assert type(twin) is type(noted)
    assert recommendation_id(dataclasses.replace(twin, seed=1)) == "r-1"


def test_noted_arguments_are_of_the_hosts_class_in_every_respect(noted: TrainingArguments, make_args: Any) -> None:
    assert isinstance(noted, TrainingArguments)
    assert type(noted).__name__ == "TrainingArguments"
    assert noted_class(TrainingArguments) is type(noted)
    assert plain_class(type(noted)) is TrainingArguments
    assert noted.to_dict() == make_args(learning_rate=0.01).to_dict()
    assert TrainingArguments(**noted.to_dict()).learning_rate == 0.01
    assert noted.to_sanitized_dict()["metahp"] == "r-1"
    assert "learning_rate=0.01" in str(noted)


def test_a_subclass_keeps_its_own_class(options: dict[str, Any]) -> None:
    noted = with_provenance(Seq2SeqTrainingArguments(**options, predict_with_generate=True), NOTE)
    twin = dataclasses.replace(noted, learning_rate=0.5)
    assert isinstance(twin, Seq2SeqTrainingArguments)
    assert twin.predict_with_generate is True
    assert recommendation_id(twin) == "r-1"


def test_a_hand_written_constructor_is_kept(options: dict[str, Any]) -> None:
    noted = with_provenance(HandWritten(**options, extra=3), NOTE)
    assert (noted.extra, recommendation_id(noted)) == (3, "r-1")  # type: ignore[attr-defined]
    assert recommendation_id(dataclasses.replace(noted, learning_rate=0.5)) == "r-1"
    assert pickle.loads(pickle.dumps(noted)).extra == 3


def test_a_rewritten_field_has_the_users_own_value_as_requested(noted: TrainingArguments) -> None:
    read = read_arguments(noted)
    assert read.sources["learning_rate"] is Source.METAHP
    assert read.requested["learning_rate"] == 5e-5
    assert read.sources["weight_decay"] is Source.USER, "passed as a keyword, though it equals the default"
    assert "metahp" not in read.values
    assert "metahp_note" not in read.values


def test_a_field_the_user_changes_afterwards_is_the_users(noted: TrainingArguments) -> None:
    read = read_arguments(dataclasses.replace(noted, learning_rate=0.3))
    assert read.sources["learning_rate"] is Source.USER
    assert "learning_rate" not in read.requested


def test_arguments_that_were_never_advised_carry_at_most_what_was_typed(make_args: Any) -> None:
    assert not provenance_of(make_args()).carries_advice()
    assert provenance_of(TrainingArguments(**make_args().to_dict())) == Provenance()
    assert recommendation_id(make_args()) is None


def test_rewriting_runs_the_hosts_own_checks(make_args: Any) -> None:
    with pytest.raises(ValueError, match="save and eval strategy to match"):
        rewritten(make_args(save_strategy="steps"), {"load_best_model_at_end": True})


def test_a_class_that_refuses_its_own_fields_is_copied(options: dict[str, Any]) -> None:
    @dataclasses.dataclass
    class Exclusive(TrainingArguments):
        generation_batch_size: int | None = None
        steps_per_generation: int | None = None

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.generation_batch_size is not None and self.steps_per_generation is not None:
                raise ValueError("pass one of the two")
            self.generation_batch_size, self.steps_per_generation = 8, 1

    twin = rewritten(Exclusive(**options), {"learning_rate": 0.5, "lr_scheduler_type": "cosine"})
    assert (twin.learning_rate, twin.lr_scheduler_type.value) == (0.5, "cosine")
    assert isinstance(twin, Exclusive)


def test_a_live_accelerator_is_not_torn_down(options: dict[str, Any]) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    args = TrainingArguments(**options)
    Accelerator(cpu=True, gradient_accumulation_steps=3)
    before = dict(AcceleratorState._shared_state)
    try:
        assert rewritten(args, {"learning_rate": 0.5}).learning_rate == 0.5
        assert dict(AcceleratorState._shared_state) == before
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()


def test_a_new_metric_brings_its_own_direction(make_args: Any) -> None:
    args = make_args(metric_for_best_model="loss")
    assert args.greater_is_better is False
    assert rewritten(args, {"metric_for_best_model": "accuracy"}).greater_is_better is True
