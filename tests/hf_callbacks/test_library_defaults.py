"""What a library's own subclass of the arguments fills in is a default, and what its user sets beside it is not."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from transformers import Seq2SeqTrainingArguments, TrainingArguments

from hf_callbacks.arguments import read_arguments
from metahp_tuning.configured_values import model_settings
from store import Source

CLASSES = {
    "transformers": ["TrainingArguments", "Seq2SeqTrainingArguments"],
    "trl": ["SFTConfig", "DPOConfig", "RewardConfig", "GRPOConfig"],
    "sentence_transformers": ["SentenceTransformerTrainingArguments"],
}


def made(package: str, name: str, folder: Path, **fields: Any) -> TrainingArguments:
    pytest.importorskip(package)
    return getattr(importlib.import_module(package), name)(output_dir=str(folder), use_cpu=True, **fields)  # type: ignore[no-any-return]


def of_the_user(args: TrainingArguments) -> set[str]:
    return {name for name, source in read_arguments(args).sources.items() if source is Source.USER}


@pytest.mark.parametrize(("package", "name"), [(package, name) for package, names in CLASSES.items() for name in names])
def test_only_what_was_passed_is_the_users(package: str, name: str, tmp_path: Path) -> None:
    assert of_the_user(made(package, name, tmp_path)) == {"output_dir", "use_cpu"}
    evaluated = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    assert of_the_user(made(package, name, tmp_path, learning_rate=3e-3, **evaluated)) == {
        *("output_dir", "use_cpu", "learning_rate", "eval_strategy", "save_strategy", "load_best_model_at_end")
    }


def test_a_value_other_than_the_one_that_is_filled_in_is_the_users(tmp_path: Path) -> None:
    assert "bf16" in of_the_user(made("trl", "SFTConfig", tmp_path, bf16=False))


def test_asking_again_changes_neither_the_arguments_nor_the_environment(tmp_path: Path) -> None:
    args = made("trl", "SFTConfig", tmp_path)
    before, environment = dict(vars(args)), dict(os.environ)
    read_arguments(args)
    assert vars(args) == before
    assert dict(os.environ) == environment


@dataclass
class CountingArguments(Seq2SeqTrainingArguments):
    """A user's own subclass, which notes how often it was set up."""

    folder: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.n_set_up = getattr(self, "n_set_up", 0) + 1
        self.folder = self.folder or "made"


def test_nothing_of_a_users_own_class_is_run_twice(tmp_path: Path) -> None:
    args = CountingArguments(output_dir=str(tmp_path), use_cpu=True)
    read_arguments(args)
    assert args.n_set_up == 1


def test_what_a_checkpoint_holds_is_a_default_and_what_is_passed_beside_it_is_not(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8, "vocab_size": 20}
    BertForSequenceClassification(BertConfig(**sizes, hidden_dropout_prob=0.3)).save_pretrained(tmp_path / "saved")
    model = BertForSequenceClassification.from_pretrained(tmp_path / "saved", attention_probs_dropout_prob=0.25)
    sources = {name: setting.source for name, setting in model_settings(model).items()}
    assert sources["dropout"] is sources["num_layers"] is Source.DEFAULT
    assert sources["attention_probs_dropout_prob"] is Source.USER
