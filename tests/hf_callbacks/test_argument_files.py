"""Arguments as scripts get them: parsed from a command line, from JSON or YAML, and of subclasses with fields of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from transformers import HfArgumentParser, Seq2SeqTrainer, Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration, TrainingArguments

from hf_callbacks import MetaHPCallback, autoconfig
from hf_callbacks.provenance import provenance_of
from store import History, Source

SPACE = {"weight_decay": [0.05]}


@dataclass
class PreferenceArguments(TrainingArguments):
    """As TRL makes them: defaults of its own, more fields, and checks that depend on each other."""

    learning_rate: float = field(default=1e-6, metadata={"help": "Smaller than usual."})
    beta: float = 0.1
    max_prompt_length: int | None = 512
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.max_length is None:
            self.max_length = 2 * (self.max_prompt_length or 0)
        if self.max_prompt_length and self.max_length < self.max_prompt_length:
            raise ValueError("max_length must not be smaller than max_prompt_length")
        super().__post_init__()


@pytest.fixture
def taught_t(history: History) -> History:
    for index, (rate, beta, decay) in enumerate(
        [(1e-6, 0.1, 0.0), (1e-5, 0.2, 0.01), (1e-4, 0.3, 0.02), (1e-3, 0.4, 0.03), (1e-2, 0.5, 0.05), (1e-2, 0.5, 0.05)]
    ):
        made = {"learning_rate": rate, "beta": beta, "weight_decay": decay}
        with history.start_run(task="t", hparams=made, objective="eval_loss") as run:
            run.log({"eval_loss": 1.0 - 0.1 * index}, step=1, epoch=1.0)
    return history


def test_arguments_from_a_command_line(taught_t: History, tmp_path: Path) -> None:
    words = ["--output_dir", str(tmp_path), "--use_cpu", "--report_to", "none", "--warmup_steps", "0.2", "--eval_strategy", "epoch"]
    (own,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses(words)
    found = autoconfig(own, task="t", history=taught_t)
    assert found.learning_rate > 1e-4
    assert found.warmup_steps == 0.2, "what differs from the default was set by the user"


@pytest.mark.parametrize("kind", ["json", "yaml"])
def test_arguments_from_a_file(taught_t: History, tmp_path: Path, kind: str) -> None:
    values = {"output_dir": str(tmp_path), "use_cpu": True, "report_to": "none", "learning_rate": 2e-5, "eval_strategy": "epoch"}
    path = tmp_path / f"args.{kind}"
    lines = [f"{key}: {json.dumps(value)}".replace("2e-05", "2.0e-05") for key, value in values.items()]  # else text, to YAML
    path.write_text(json.dumps(values) if kind == "json" else "\n".join(lines))
    parser = HfArgumentParser(TrainingArguments)
    (own,) = parser.parse_json_file(str(path)) if kind == "json" else parser.parse_yaml_file(str(path))
    found = autoconfig(own, task="t", history=taught_t)
    assert found.learning_rate == 2e-5
    assert found.weight_decay > 0
    assert autoconfig(**{**values, "learning_rate": 5e-5}, task="t", history=taught_t).learning_rate == 5e-5, "a keyword is explicit"


def test_a_parser_can_be_made_for_rewritten_arguments(taught_t: History, make_args: Any, tmp_path: Path) -> None:
    found = autoconfig(make_args(), task="t", history=taught_t)
    (again,) = HfArgumentParser(type(found)).parse_args_into_dataclasses(["--output_dir", str(tmp_path), "--use_cpu"])
    assert isinstance(again, TrainingArguments)


def test_a_subclass_keeps_its_fields_its_defaults_and_its_checks(taught_t: History, options: dict[str, Any]) -> None:
    found = autoconfig(args_class=PreferenceArguments, **options, max_prompt_length=64, task="t", history=taught_t)
    assert isinstance(found, PreferenceArguments)
    assert (found.max_prompt_length, found.max_length) == (64, 128)
    assert provenance_of(found).rewrites["learning_rate"].requested == 1e-6, "its own default counts as a default"
    tuned = autoconfig(PreferenceArguments(**options), space={"beta": [0.1, 0.5]}, task="t", history=taught_t)
    assert tuned.beta == 0.5
    with pytest.raises(ValueError, match="max_length must not be smaller"):
        autoconfig(args_class=PreferenceArguments, **options, max_prompt_length=64, max_length=8, task="t", history=taught_t)


def test_sequence_to_sequence_arguments_train(taught_t: History, options: dict[str, Any]) -> None:
    rows = [{"input_ids": [1, 2, 3, 4], "labels": [4, 3, 1]} for _ in range(8)]
    model = T5ForConditionalGeneration(
        T5Config(vocab_size=8, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, decoder_start_token_id=0)
    )
    own = Seq2SeqTrainingArguments(**options, predict_with_generate=True, generation_max_length=4)
    args = autoconfig(own, model=model, train_dataset=rows, task="t", history=taught_t)
    assert isinstance(args, Seq2SeqTrainingArguments)
    callback = MetaHPCallback(task="t", history=taught_t)
    Seq2SeqTrainer(model, args, train_dataset=rows, eval_dataset=rows, callbacks=[callback]).train()
    run = taught_t.run(callback.run_id or "")
    assert run.provenance["learning_rate"].source is Source.METAHP
    assert run.hparams["predict_with_generate"] is True
    assert run.description["architecture"] == "t5"
