"""SetFit: a Trainer of its own around two phases is recorded as one run, grouped and advised."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

setfit = pytest.importorskip("setfit", reason="setfit is not installed")

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402

from hf_callbacks import MetaHPCallback, apply, autoconfig  # noqa: E402
from hf_callbacks.setfit_arguments import setfit_sources  # noqa: E402
from store import History, InvalidArgumentError, MetaHPWarning, RunRecord, RunStatus, Source  # noqa: E402

WORDS = ["a warm day", "the cold rain", "seven green boats", "no boats today"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel(unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.train_from_iterator(WORDS, trainers.WordLevelTrainer(special_tokens=["[UNK]", "[PAD]"]))
    place, whole = str(tmp_path_factory.mktemp("bert")), str(tmp_path_factory.mktemp("embedding"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(place)
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "max_position_embeddings": 16}
    BertModel(BertConfig(vocab_size=words.get_vocab_size(), **sizes)).save_pretrained(place)
    SentenceTransformer(modules=[Transformer(place), Pooling(8)], device="cpu").save(whole)
    return whole


@pytest.fixture
def rows() -> Dataset:
    return Dataset.from_dict({"text": [WORDS[i % 4] for i in range(16)], "label": [i % 2 for i in range(16)]})


def accuracy(predicted: Any, labels: Any) -> dict[str, float]:
    return {"accuracy": sum(int(one) == int(other) for one, other in zip(predicted, labels, strict=True)) / len(labels)}


@pytest.fixture
def make_arguments(tmp_path: Path) -> Callable[..., Any]:
    def make(**changes: Any) -> Any:
        quiet = {"report_to": "none", "save_strategy": "no", "show_progress_bar": False, "num_epochs": 1, "max_steps": 2}
        return setfit.TrainingArguments(**{"output_dir": str(tmp_path / "out"), **quiet, **changes})

    return make


@pytest.fixture
def make(history: History, weights: str, rows: Dataset) -> Callable[..., Any]:
    def build(args: Any, *, callback: Any = None, **changes: Any) -> Any:
        callback = callback or MetaHPCallback(history=history)
        model = setfit.SetFitModel.from_pretrained(weights, **changes.pop("of_model", {}))
        given = {"train_dataset": rows, "eval_dataset": rows, "metric": accuracy, **changes}
        return setfit.Trainer(model, args, callbacks=[callback], **given)

    return build


def trained(history: History, trainer: Any, *, evaluates: bool = True) -> RunRecord:
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetaHPWarning)
        trainer.train()
    if evaluates:
        trainer.evaluate()
    return max(history.runs(), key=lambda run: run.id)


def test_both_phases_are_one_run_whose_outcome_is_what_evaluate_finds(history: History, make: Any, make_arguments: Any) -> None:
    trainer = make(make_arguments(body_learning_rate=(1e-3, 1e-5), batch_size=(8, 4)))
    run = trained(history, trainer)
    assert len(history.runs()) == 1
    assert (run.status, run.objective, run.direction, run.objective_best) == (
        RunStatus.COMPLETED,
        "eval_accuracy",
        "max",
        trainer.evaluate()["accuracy"],
    )
    values = {name: run.hparams[name] for name in ("body_embedding_learning_rate", "body_classifier_learning_rate", "head_learning_rate")}
    assert values == {"body_embedding_learning_rate": 1e-3, "body_classifier_learning_rate": 1e-5, "head_learning_rate": 1e-2}
    assert (run.hparams["embedding_batch_size"], run.hparams["classifier_batch_size"], run.hparams["global_batch_size"]) == (8, 4, 8)
    assert (run.provenance["body_embedding_learning_rate"].source, run.provenance["l2_weight"].source) == (Source.USER, Source.DEFAULT)
    assert run.provenance["body_embedding_learning_rate"].observed == 1e-3


def test_the_run_is_open_until_the_head_is_fitted(
    history: History, make: Any, make_arguments: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(make_arguments())
    seen = []
    monkeypatch.setattr(type(trainer.model), "fit", lambda *args, **kwargs: seen.append(history.runs()[0].status))
    trainer.train()
    assert seen == [RunStatus.RUNNING]
    assert history.runs()[0].status is RunStatus.COMPLETED


def test_a_head_that_cannot_be_fitted_is_a_failed_run(history: History, make: Any, make_arguments: Any) -> None:
    trainer = make(make_arguments())
    trainer.model.model_head.C = "no number"
    with pytest.raises(ValueError, match="C"):
        trainer.train()
    assert history.runs()[0].status is RunStatus.FAILED


def test_a_differentiable_head_is_a_phase_of_the_same_run(history: History, make: Any, make_arguments: Any) -> None:
    of_model = {"use_differentiable_head": True, "head_params": {"out_features": 2}}
    run = trained(history, make(make_arguments(batch_size=4), of_model=of_model))
    assert (run.status, run.objective_best is not None, len(history.runs())) == (RunStatus.COMPLETED, True, 1)


def test_the_first_evaluation_is_the_outcome_and_later_ones_stand_beside(
    history: History, make: Any, make_arguments: Any, rows: Dataset
) -> None:
    trainer = make(make_arguments(), metric=lambda predicted, labels: {"accuracy": 0.5 if len(labels) == 16 else 1.0})
    trained(history, trainer)
    trainer.evaluate(rows.select(range(4)))
    (run,) = history.runs()
    assert run.objective_best == 0.5
    assert "after_training/eval_accuracy" in history.metric_names(run.id)


def test_the_embeddings_own_loss_can_be_the_objective(history: History, make: Any, make_arguments: Any) -> None:
    callback = MetaHPCallback(objective="embedding_loss", history=history)
    run = trained(history, make(make_arguments(eval_strategy="steps", eval_steps=1), callback=callback))
    assert (run.objective, run.direction) == ("eval_embedding_loss", "min")
    assert run.objective_best is not None


def test_learning_rate_pairs_and_columns_make_no_other_task_and_other_data_do(
    history: History, make: Any, make_arguments: Any, rows: Dataset
) -> None:
    first = trained(history, make(make_arguments()))
    again = trained(history, make(make_arguments(body_learning_rate=1e-3, num_iterations=1, batch_size=4)))
    renamed = rows.rename_columns({"text": "sentence"})
    mapped = trained(
        history,
        make(make_arguments(), train_dataset=renamed, eval_dataset=renamed, column_mapping={"sentence": "text", "label": "label"}),
    )
    assert first.task_id == again.task_id
    assert mapped.task_id != first.task_id, "the columns are as the user named them"


def test_autoconfig_takes_setfits_arguments_and_its_values_are_those_in_force(
    pinned: Any, make: Any, make_arguments: Any, weights: str, rows: Dataset
) -> None:
    history: History = pinned(learning_rate=0.02, weight_decay=0.125)
    model = setfit.SetFitModel.from_pretrained(weights)
    space = {"body_embedding_learning_rate": [0.02], "l2_weight": [0.125]}
    args = autoconfig(make_arguments(), model=model, train_dataset=rows, task="t", history=history, space=space)
    assert isinstance(args, setfit.TrainingArguments)
    assert (args.body_learning_rate, args.l2_weight) == ((0.02, 1e-5), 0.125)
    run = trained(history, make(args))
    rate = run.provenance["body_embedding_learning_rate"]
    assert (rate.source, rate.requested, rate.observed) == (Source.METAHP, 2e-5, 0.02)
    assert (run.recommendation_id, run.task_name) == ("pinned", "t")
    assert autoconfig(args, task="t", history=history, space={"l2_weight": [0.125]}).body_learning_rate == (2e-5, 1e-5), "not twice"


def test_autoconfig_builds_setfits_arguments_from_keywords(pinned: Any, make_arguments: Any, tmp_path: Path) -> None:
    history = pinned(learning_rate=0.02)
    given = {"task": "t", "history": history, "output_dir": str(tmp_path), "report_to": "none"}
    assert autoconfig(args_class=setfit.TrainingArguments, **given).body_learning_rate == (0.02, 1e-5)
    assert autoconfig(args_class=setfit.TrainingArguments, body_learning_rate=2e-5, **given).body_learning_rate == (2e-5, 2e-5)


def test_advice_comes_from_six_finished_runs(
    history: History, make: Any, make_arguments: Any, weights: str, rows: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    found = iter((0.1, 0.3, 0.5, 0.7, 0.9, 0.95))
    for rate in (1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        trained(history, make(make_arguments(body_learning_rate=rate, max_steps=1), metric=lambda *_: {"accuracy": next(found)}))
    model = setfit.SetFitModel.from_pretrained(weights)
    args = autoconfig(make_arguments(), model=model, train_dataset=rows, history=history)
    assert args.body_learning_rate[0] > 1e-3
    assert "body_embedding_learning_rate 2e-05 -> " in capfd.readouterr().err
    assert len({run.task_id for run in history.runs()}) == 1


def test_a_pair_that_differs_from_its_default_is_the_users_as_a_whole(make_arguments: Any) -> None:
    sources = setfit_sources(make_arguments(batch_size=16, body_learning_rate=(2e-5, 3e-5)))
    names = ("embedding_batch_size", "classifier_batch_size", "body_embedding_learning_rate", "body_classifier_learning_rate")
    assert {sources[name] for name in names} == {Source.USER}
    assert setfit_sources(make_arguments())["body_embedding_learning_rate"] is Source.DEFAULT


@pytest.mark.parametrize(
    ("is_differentiable", "is_whole", "named"),
    [
        (False, True, set()),
        (True, False, {"classifier_batch_size"}),
        (True, True, {"classifier_batch_size", "body_classifier_learning_rate"}),
    ],
)
def test_values_of_the_head_are_suggested_only_where_setfit_uses_them(
    is_differentiable: bool,
    is_whole: bool,
    named: set[str],
    history: History,
    make: Any,
    make_arguments: Any,
    weights: str,
    rows: Dataset,
    capfd: pytest.CaptureFixture[str],
) -> None:
    found = iter((0.1, 0.3, 0.5, 0.7))
    of_model = {"use_differentiable_head": True, "head_params": {"out_features": 2}} if is_differentiable else {}
    for rate, batch in ((1e-4, 2), (1e-3, 4), (1e-2, 8), (3e-2, 16)):
        args = make_arguments(body_learning_rate=rate, batch_size=batch, max_steps=1, end_to_end=is_whole)
        trained(history, make(args, of_model=of_model, metric=lambda *_: {"accuracy": next(found)}))
    capfd.readouterr()
    model = setfit.SetFitModel.from_pretrained(weights, **of_model)
    autoconfig(make_arguments(end_to_end=is_whole), model=model, train_dataset=rows, history=history)
    told = capfd.readouterr().err
    assert {name for name in ("classifier_batch_size", "body_classifier_learning_rate") if name in told} == named
    assert "body_embedding_learning_rate" in told
    autoconfig(
        make_arguments(end_to_end=is_whole),
        model=model,
        train_dataset=rows,
        history=history,
        space={"body_classifier_learning_rate": [1e-3]},
    )
    assert ("SetFit uses it only with" in capfd.readouterr().err) == ("body_classifier_learning_rate" not in named)


def test_apply_names_the_way_that_works_with_setfit(make: Any, make_arguments: Any, pinned: Any) -> None:
    history = pinned(learning_rate=0.02)
    trainer = make(make_arguments())
    with pytest.raises(InvalidArgumentError, match=r"SetFit's is none; use trainer.args = autoconfig\(trainer.args"):
        apply(trainer)
    trainer.args = autoconfig(trainer.args, task="t", history=history)
    assert trainer.st_trainer.args.learning_rate == 0.02
