"""sentence-transformers: its Trainers are recorded, grouped and advised."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.evaluation import EmbeddingSimilarityEvaluator

from hf_callbacks import MetaHPCallback, apply, autoconfig
from store import History, MetaHPWarning, RunRecord, RunStatus, Source

WORDS = ["a warm day", "the cold rain", "seven green boats", "no boats today"]
N = 16


def model() -> SentenceTransformer:
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(WORDS, trainers.WordLevelTrainer(special_tokens=["[UNK]"]))
    torch.manual_seed(0)
    return SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=8)], device="cpu")


def scored() -> Dataset:
    pairs = {"sentence1": [WORDS[i % 4] for i in range(N)], "sentence2": [WORDS[i % 3] for i in range(N)]}
    return Dataset.from_dict({**pairs, "score": [i % 5 / 5 for i in range(N)]})


def triplets() -> Dataset:
    columns = {"anchor": 4, "positive": 3, "negative": 2}
    return Dataset.from_dict({name: [WORDS[i % every] for i in range(N)] for name, every in columns.items()})


@pytest.fixture
def make_arguments(options: dict[str, Any]) -> Callable[..., Any]:
    return lambda **changes: SentenceTransformerTrainingArguments(**{**options, **changes})


@pytest.fixture
def train(history: History, make_arguments: Any) -> Callable[..., RunRecord]:
    def run(data: Any, loss: Callable[[Any], Any] | None = None, *, args: Any = None, of: Any = None, **changes: Any) -> RunRecord:
        net = of or model()
        inputs = {"train_dataset": data, "eval_dataset": data, "loss": None if loss is None else loss(net), **changes}
        with warnings.catch_warnings():
            warnings.simplefilter("error", MetaHPWarning)
            SentenceTransformerTrainer(net, args or make_arguments(), callbacks=[MetaHPCallback(history=history)], **inputs).train()
        return max(history.runs(), key=lambda run: run.id)

    return run


def definition(run: RunRecord) -> dict[str, Any]:
    return dict(run.description.get("comparability") or {})


def test_a_training_is_recorded_with_its_loss_and_outcome(train: Any) -> None:
    run = train(triplets(), lambda net: losses.MultipleNegativesRankingLoss(net, scale=5.0))
    assert (run.status, run.objective, run.objective_best is not None) == (RunStatus.COMPLETED, "eval_loss", True)
    assert run.hparams["loss"] == "MultipleNegativesRankingLoss(scale=5)"
    assert run.description["schema"]["training"] == "SentenceTransformer"


def test_scored_pairs_and_triplets_are_different_tasks(train: Any) -> None:
    assert train(scored()).task_id != train(triplets(), losses.MultipleNegativesRankingLoss).task_id


def test_several_sets_are_another_task_than_one_of_them(train: Any) -> None:
    both = DatasetDict({"pairs": scored(), "triplets": triplets()})
    run = train(both, lambda net: {"pairs": losses.CoSENTLoss(net), "triplets": losses.MultipleNegativesRankingLoss(net)})
    assert run.task_id != train(scored()).task_id
    assert definition(run)["loss"] == "pairs: CoSENTLoss, triplets: MultipleNegativesRankingLoss"


def test_the_first_of_several_evaluation_sets_is_the_objective(history: History, train: Any) -> None:
    one = train(scored())
    run = train(scored(), eval_dataset={"first": scored(), "second": scored()})
    assert run.task_id == one.task_id, "several evaluation sets are no other task than one"
    assert (run.objective, run.objective_best is not None) == ("eval_loss", True)
    assert {"eval_first_loss", "eval_second_loss", "eval_loss"} <= set(history.metric_names(run.id))


def test_another_loss_or_scale_is_comparable_only_in_order(train: Any) -> None:
    plain = train(triplets(), losses.MultipleNegativesRankingLoss)
    scaled = train(triplets(), lambda net: losses.MultipleNegativesRankingLoss(net, scale=5.0))
    other = train(triplets(), losses.TripletLoss)
    assert len({run.task_id for run in (plain, scaled, other)}) == 1
    assert len({definition(run)["loss"] for run in (plain, scaled, other)}) == 3


def test_an_evaluator_without_evaluation_data_gives_the_objective(train: Any) -> None:
    data = scored()
    evaluator = EmbeddingSimilarityEvaluator(data["sentence1"], data["sentence2"], data["score"], name="dev")
    run = train(data, eval_dataset=None, evaluator=evaluator)
    assert (run.objective, run.direction, run.objective_best is not None) == ("eval_primary_metric", "max", True)


def test_advice_comes_from_six_runs_whatever_their_loss_is(
    history: History, train: Any, make_arguments: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    for rate in (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1):
        train(triplets(), losses.MultipleNegativesRankingLoss, args=make_arguments(learning_rate=rate, num_train_epochs=2))
    net = model()
    args = autoconfig(make_arguments(num_train_epochs=2), model=net, train_dataset=triplets(), history=history)
    assert args.learning_rate > 1e-3
    assert "from 6 runs of this task" in capfd.readouterr().err
    run = train(triplets(), losses.MultipleNegativesRankingLoss, args=args, of=net)
    assert (run.provenance["learning_rate"].source, run.provenance["learning_rate"].observed) == (Source.METAHP, args.learning_rate)
    assert len({run.task_id for run in history.runs()}) == 1


def test_a_mapping_of_learning_rates_leaves_the_setting_in_force(train: Any, make_arguments: Any) -> None:
    run = train(scored(), args=make_arguments(learning_rate=1e-3, learning_rate_mapping={r"embedding\.weight": 1e-2}))
    assert (run.hparams["learning_rate"], run.provenance["learning_rate"].source) == (1e-2, Source.USER), "no other group has parameters"


def test_apply_rewrites_a_built_trainer(pinned: Any, make_arguments: Any) -> None:
    history = pinned(learning_rate=0.02)
    trainer = SentenceTransformerTrainer(
        model(), make_arguments(), train_dataset=scored(), eval_dataset=scored(), callbacks=[MetaHPCallback(task="t", history=history)]
    )
    apply(trainer, space={"learning_rate": [0.02]})
    trainer.train()
    (run,) = [run for run in history.runs() if run.framework == "transformers"]
    assert (run.provenance["learning_rate"].source, run.provenance["learning_rate"].observed) == (Source.METAHP, 0.02)


def test_a_cross_encoder_is_recorded_and_asked_about_under_one_task(history: History, options: dict[str, Any], tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder, CrossEncoderTrainer, CrossEncoderTrainingArguments
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(WORDS, trainers.WordLevelTrainer(special_tokens=["[UNK]", "[PAD]"]))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(tmp_path)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "num_labels": 1}
    BertForSequenceClassification(BertConfig(vocab_size=words.get_vocab_size(), **sizes)).save_pretrained(tmp_path)
    data = scored().rename_columns({"score": "label"})
    with history.start_run(task="makes the history", hparams={"lr": 1.0}):
        pass
    net = CrossEncoder(str(tmp_path), device="cpu")
    given = {"model": net, "train_dataset": data, "eval_dataset": data}
    args = autoconfig(args_class=CrossEncoderTrainingArguments, history=history, **given, **options)
    CrossEncoderTrainer(args=args, callbacks=[MetaHPCallback(history=history)], **given).train()
    run = max(history.runs(), key=lambda run: run.id)
    assert (run.status, run.hparams["loss"]) == (RunStatus.COMPLETED, "BinaryCrossEntropyLoss")
    assert history.recommendation(run.recommendation_id)["recommendation"]["task_id"] == run.task_id
