"""Which trainings are one task under the Trainer and what builds on it: the rows of docs/tasks.md that concern this host."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
)

from hf_callbacks import MetaHPCallback, autoconfig
from store import History, RunRecord

SENTENCES = ["a warm day", "the cold rain", "seven green boats", "no boats today", "rain again", "a very long way home"]
N = 24


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(SENTENCES, trainers.WordLevelTrainer(special_tokens=["[UNK]", "[PAD]", "[EOS]"]))
    made = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", eos_token="[EOS]")
    made.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return made


def gpt2(**changes: Any) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "n_positions": 64, "n_embd": 8, "n_layer": 1, "n_head": 2, "bos_token_id": 2, "eos_token_id": 2}
    return GPT2LMHeadModel(GPT2Config(**{**sizes, **changes}))


@pytest.fixture
def model_path(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    place = str(tmp_path / "gpt2")
    gpt2().save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture
def quiet(options: dict[str, Any]) -> dict[str, Any]:
    return {**options, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 1}


def n_tasks(history: History) -> int:
    return len({run.task_id for run in history.runs()})


def trained(history: History, trainer: Any) -> RunRecord:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        trainer.train()
    return max(history.runs(), key=lambda run: run.id)


def asked_about(history: History, run: RunRecord) -> str:
    """Return the task that the recommendation behind a run was made for."""
    return str(history.recommendation(run.recommendation_id or "")["recommendation"]["task_id"])


# TRL: what its Trainers tokenise inside is described as the user passed it


def text() -> dict[str, Any]:
    return {"text": [f"{SENTENCES[i % 6]} {SENTENCES[i % 5]}" for i in range(N)]}


def messages() -> dict[str, Any]:
    turn = [[{"role": "user", "content": SENTENCES[i % 6]}, {"role": "assistant", "content": SENTENCES[i % 5]}] for i in range(N)]
    return {"messages": turn}


def prompt_completion() -> dict[str, Any]:
    return {"prompt": [SENTENCES[i % 6] for i in range(N)], "completion": [SENTENCES[i % 5] for i in range(N)]}


def questions() -> dict[str, Any]:
    return {"question": [SENTENCES[i % 6] for i in range(N)], "answer": [SENTENCES[i % 5] for i in range(N)]}


def preference() -> dict[str, Any]:
    rows = [(SENTENCES[i % 6], SENTENCES[i % 5], SENTENCES[(i + 1) % 5]) for i in range(N)]
    return {name: [row[index] for row in rows] for index, name in enumerate(("prompt", "chosen", "rejected"))}


TRL = [
    pytest.param("SFT", text, {}, {}, False, id="text"),
    pytest.param("SFT", messages, {}, {}, False, id="messages"),
    pytest.param("SFT", prompt_completion, {}, {}, False, id="prompt and completion"),
    pytest.param("SFT", text, {"packing": True}, {}, False, id="packing"),
    pytest.param("SFT", questions, {}, {"formatting_func": lambda row: f"{row['question']} {row['answer']}"}, False, id="formatted"),
    pytest.param("SFT", text, {}, {}, True, id="path"),
    pytest.param("DPO", preference, {}, {}, True, id="DPO, path"),
    pytest.param("Reward", preference, {}, {}, False, id="Reward"),
    pytest.param("Reward", preference, {}, {}, True, id="Reward, path"),
]


def trl_classes(kind: str) -> tuple[Any, Any]:
    trl = pytest.importorskip("trl", reason="trl is not installed")
    return getattr(trl, f"{kind}Config"), getattr(trl, f"{kind}Trainer")


def model_for(kind: str) -> Any:
    if kind == "Reward":
        return GPT2ForSequenceClassification(gpt2().config.__class__(**{**gpt2().config.to_dict(), "num_labels": 1, "pad_token_id": 1}))
    return gpt2()


@pytest.mark.parametrize(("kind", "rows", "settings", "inputs", "by_path"), TRL)
def test_autoconfig_before_and_the_callback_inside_trls_trainers_come_to_one_task(
    history: History,
    quiet: dict[str, Any],
    tokenizer: Any,
    model_path: str,
    kind: str,
    rows: Callable[[], Any],
    settings: dict[str, Any],
    inputs: dict[str, Any],
    by_path: bool,
) -> None:
    config, trainer = trl_classes(kind)
    data = Dataset.from_dict(rows())
    model = model_path if by_path else model_for(kind)
    with history.start_run(task="makes the history", hparams={"lr": 1.0}):
        pass
    settings = {**quiet, "max_length": 32, "bf16": False, **settings}
    given = {"model": model, "train_dataset": data}
    before = autoconfig(args_class=config, history=history, **given, **settings)
    run = trained(
        history,
        trainer(args=before, eval_dataset=data, processing_class=tokenizer, callbacks=[MetaHPCallback(history=history)], **given, **inputs),
    )
    assert asked_about(history, run) == run.task_id
