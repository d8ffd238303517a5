"""Which trainings are one task under the Trainer and what builds on it: the rows of docs/tasks.md that concern this host."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
)

from hf_callbacks import MetaHPCallback, apply, autoconfig
from hf_callbacks.objective import EvaluationObjective, of_first_set
from metamodel.data.siblings import are_siblings
from metamodel.data.task import TaskDescription
from store import History, RunRecord, Source

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


def test_plain_arguments_that_trl_turns_into_its_own_keep_their_recommendation(pinned: Any, quiet: dict[str, Any], tokenizer: Any) -> None:
    _, trainer = trl_classes("SFT")
    history: History = pinned(learning_rate=0.02)
    data = Dataset.from_dict(text())
    args = autoconfig(TrainingArguments(bf16=False, **quiet), task="t", history=history, space={"learning_rate": [0.02]})
    callback = MetaHPCallback(history=history)
    run = trained(history, trainer(gpt2(), args, train_dataset=data, eval_dataset=data, processing_class=tokenizer, callbacks=[callback]))
    rate = run.provenance["learning_rate"]
    assert (run.recommendation_id, run.task_name, rate.source, rate.observed) == ("pinned", "t", Source.METAHP, 0.02)


def test_sft_and_dpo_are_different_tasks(history: History, quiet: dict[str, Any], tokenizer: Any) -> None:
    asked = []
    with history.start_run(task="makes the history", hparams={"lr": 1.0}):
        pass
    for kind in ("SFT", "DPO"):
        config, _ = trl_classes(kind)
        args = autoconfig(
            args_class=config, model=gpt2(), train_dataset=Dataset.from_dict(preference()), history=history, bf16=False, **quiet
        )
        asked.append(history.recommendation(args.metahp)["recommendation"]["task_id"])
    assert len(set(asked)) == 2


def test_a_users_subclass_of_trainer_and_arguments_is_the_same_task(
    history: History, make_args: Any, make_model: Any, sentences: Any
) -> None:
    class Own(Trainer):
        def __init__(self, note: str, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.note = note

    given = {"train_dataset": sentences(), "eval_dataset": sentences(8), "callbacks": [MetaHPCallback(history=history)]}
    plain = trained(history, Trainer(make_model(), make_args(), **given))
    own = trained(history, Own("mine", make_model(), make_args(), **given))
    assert own.task_id == plain.task_id


# What tokenised data were before


def classified(names: list[str], columns: Callable[[int], dict[str, str]]) -> Dataset:
    rows = [{**columns(i), "label": i % len(names)} for i in range(N)]
    texts = {name: Value("string") for name in columns(0)}
    return Dataset.from_list(rows, features=Features(**texts, label=ClassLabel(names=names)))


def bert(**changes: Any) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "vocab_size": 32}
    return BertForSequenceClassification(BertConfig(**{**sizes, **changes}))


def classify(history: History, args: TrainingArguments, tokenizer: Any, data: Any, model: Any = None, **inputs: Any) -> RunRecord:
    collator = DataCollatorWithPadding(tokenizer)
    given = {"train_dataset": data, "eval_dataset": data.select(range(8)), "callbacks": [MetaHPCallback(history=history)], **inputs}
    return trained(history, Trainer(model or bert(), args, collator, **given))


def test_single_sentences_and_pairs_with_other_labels_are_different_tasks_though_tokenised(
    history: History, make_args: Any, tokenizer: Any
) -> None:
    mood = classified(["sad", "glad"], lambda i: {"sentence": SENTENCES[i % 6]}).map(lambda row: tokenizer(row["sentence"]))
    follows = classified(["follows", "does_not"], lambda i: {"first": SENTENCES[i % 6], "second": SENTENCES[i % 5]})
    follows = follows.map(lambda row: tokenizer(row["first"], row["second"]))
    runs = [classify(history, make_args(), tokenizer, data) for data in (mood, follows)]
    assert runs[0].task_id != runs[1].task_id


def test_label_names_tell_tasks_apart_where_the_source_columns_were_removed(history: History, make_args: Any, tokenizer: Any) -> None:
    def rows(names: list[str]) -> Dataset:
        data = classified(names, lambda i: {"sentence": SENTENCES[i % 6]})
        return data.map(lambda row: tokenizer(row["sentence"]), remove_columns=["sentence"])

    first, other = (classify(history, make_args(), tokenizer, rows(names)) for names in (["sad", "glad"], ["spam", "ham"]))
    assert first.task_id != other.task_id


def test_label_names_of_the_model_tell_tasks_apart_where_the_data_have_none(history: History, make_args: Any, tokenizer: Any) -> None:
    rows = Dataset.from_list([{"input_ids": tokenizer(SENTENCES[i % 6])["input_ids"], "labels": i % 2} for i in range(N)])
    named = [bert(id2label=dict(enumerate(names))) for names in (["sad", "glad"], ["spam", "ham"])]
    first, other = (classify(history, make_args(), tokenizer, rows, model) for model in named)
    assert first.task_id != other.task_id


def test_another_length_at_tokenisation_and_another_learning_rate_are_the_same_task(
    history: History, make_args: Any, tokenizer: Any
) -> None:
    mood = classified(["sad", "glad"], lambda i: {"sentence": SENTENCES[i % 6]})

    def tokenised(length: int) -> Dataset:
        return mood.map(lambda row: tokenizer(row["sentence"], truncation=True, max_length=length, padding="max_length"))

    short, long = (
        classify(history, make_args(learning_rate=rate), tokenizer, tokenised(length)) for rate, length in ((1e-3, 4), (1e-2, 8))
    )
    assert short.task_id == long.task_id


def test_blocks_of_another_length_cut_from_one_text_are_siblings(history: History, make_args: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    text = [(7 * i + i // 3) % 29 for i in range(16 * N)]

    def run(size: int) -> RunRecord:
        blocks = [text[i : i + size] for i in range(0, len(text), size)]
        rows = Dataset.from_list([{"input_ids": block, "labels": block} for block in blocks])
        model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_positions=32, n_embd=8, n_layer=1, n_head=1))
        data = {"train_dataset": rows, "eval_dataset": rows.select(range(8))}
        return trained(history, Trainer(model, make_args(), callbacks=[MetaHPCallback(history=history)], **data))

    short, again, long = run(8), run(8), run(16)
    assert short.task_id == again.task_id != long.task_id
    first, second = (TaskDescription.from_dict(history.run(item.id).description) for item in (short, long))
    assert (first.lengths, second.lengths) == ((8,), (16,))
    assert are_siblings(first, second)


@pytest.fixture
def evaluated(history: History, make_args: Any, make_model: Any, sentences: Any, compute_accuracy: Any) -> Callable[[str, Any], RunRecord]:
    """Train with a metric that decides and some evaluation data."""

    def run(metric: str, sets: Any) -> RunRecord:
        args = make_args(metric_for_best_model=metric, greater_is_better=True)
        given = {"train_dataset": sentences(), "eval_dataset": sets, "compute_metrics": compute_accuracy}
        return trained(history, Trainer(make_model(), args, callbacks=[MetaHPCallback(history=history)], **given))

    return run


def test_a_metric_of_the_first_evaluation_set_is_the_metric(evaluated: Any, sentences: Any) -> None:
    one = evaluated("accuracy", sentences(8))
    several = evaluated("a_accuracy", {"a": sentences(8), "b": sentences(6)})
    assert one.task_id == several.task_id
    assert one.objective == several.objective == "eval_accuracy"
    assert one.objective_last is not None
    assert several.objective_last is not None


def test_a_metric_of_another_evaluation_set_is_another_task(evaluated: Any, sentences: Any) -> None:
    sets = {"a": sentences(8), "b": sentences(6)}
    first, second = (evaluated(f"{name}_accuracy", sets) for name in "ab")
    assert first.task_id != second.task_id
    assert second.objective == "eval_b_accuracy"
    assert second.objective_last is not None


@pytest.mark.parametrize(
    ("name", "sets", "shown"),
    [
        ("eval_a_accuracy", ("a", "b"), "eval_accuracy"),
        ("eval_b_accuracy", ("a", "b"), "eval_b_accuracy"),
        ("eval_matched_long_accuracy", ("matched", "matched_long"), "eval_matched_long_accuracy"),
        ("eval_matched_accuracy", ("matched", "matched_long"), "eval_accuracy"),
        ("eval_matched_long_accuracy", ("matched_long", "matched"), "eval_accuracy"),
        ("eval_accuracy", (), "eval_accuracy"),
    ],
)
def test_a_set_whose_name_begins_as_anothers_is_told_from_it(name: str, sets: tuple[str, ...], shown: str) -> None:
    assert of_first_set(EvaluationObjective(name), sets).name == shown


# Comparable only in order


def comparability(history: History, run: RunRecord) -> dict[str, Any]:
    return dict(history.run(run.id).description.get("comparability") or {})


def test_label_smoothing_makes_losses_comparable_only_in_order(history: History, make_args: Any, make_model: Any, sentences: Any) -> None:
    given = {"train_dataset": sentences(), "eval_dataset": sentences(8)}
    runs = [
        trained(
            history,
            Trainer(make_model(), make_args(label_smoothing_factor=value), callbacks=[MetaHPCallback(history=history)], **given),
        )
        for value in (0.0, 0.2)
    ]
    assert runs[0].task_id == runs[1].task_id
    assert [comparability(history, run) for run in runs] == [{}, {"label_smoothing_factor": 0.2}]


def test_an_accuracy_means_the_same_under_any_loss(
    history: History, make_args: Any, make_model: Any, sentences: Any, compute_accuracy: Any
) -> None:
    args = make_args(label_smoothing_factor=0.2, metric_for_best_model="accuracy")
    given = {"train_dataset": sentences(), "eval_dataset": sentences(8), "compute_metrics": compute_accuracy}
    run = trained(history, Trainer(make_model(), args, callbacks=[MetaHPCallback(history=history)], **given))
    assert comparability(history, run) == {}


def half_the_loss(outputs: Any, labels: Any, num_items_in_batch: Any = None) -> Any:
    return torch.nn.functional.cross_entropy(outputs.logits, labels) / 2


def test_a_loss_of_the_users_own_is_named(history: History, make_args: Any, make_model: Any, sentences: Any) -> None:
    class Weighted(Trainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
            outputs = model(**inputs)
            loss = torch.nn.functional.cross_entropy(outputs.logits, inputs["labels"], torch.tensor([1.0, 2.0]))
            return (loss, outputs) if return_outputs else loss

    given = {"train_dataset": sentences(), "eval_dataset": sentences(8), "callbacks": [MetaHPCallback(history=history)]}
    plain = trained(history, Trainer(make_model(), make_args(), **given))
    function = trained(history, Trainer(make_model(), make_args(), compute_loss_func=half_the_loss, **given))
    method = trained(history, Weighted(make_model(), make_args(), **given))
    assert len({plain.task_id, function.task_id, method.task_id}) == 1
    assert comparability(history, plain) == {}
    assert str(comparability(history, function)["loss"]).endswith("half_the_loss")
    assert str(comparability(history, method)["loss"]).endswith("Weighted.compute_loss")


def test_dpos_beta_and_kind_of_loss_make_losses_comparable_only_in_order(make_args: Any) -> None:
    from hf_callbacks.loss_settings import loss_settings

    config, _ = trl_classes("DPO")
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none"}
    assert loss_settings(config(**quiet), None, "eval_loss") == {}
    assert loss_settings(config(beta=0.5, loss_type=["ipo"], **quiet), None, "eval_loss") == {"beta": 0.5, "loss_type": ["ipo"]}


def test_apply_describes_the_same_as_the_callback(history: History, make_args: Any, make_model: Any, sentences: Any) -> None:
    with history.start_run(task="makes the history", hparams={"lr": 1.0}):
        pass
    trainer = Trainer(
        make_model(), make_args(), train_dataset=sentences(), eval_dataset=sentences(8), callbacks=[MetaHPCallback(history=history)]
    )
    assert apply(trainer) is not None
    run = trained(history, trainer)
    assert asked_about(history, run) == run.task_id
