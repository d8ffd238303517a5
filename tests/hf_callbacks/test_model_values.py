from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration, ViTConfig, ViTForImageClassification

from hf_callbacks import MetaHPCallback, apply, autoconfig
from metahp_tuning.configured_values import model_settings, read_model_value, with_values
from metamodel import TaskDescription
from store import History, Source, UnknownHyperparameterError
from store.errors import NotAppliedWarning


@pytest.fixture
def wise(history: History) -> History:
    """A history that knows which dropout, depth and learning rate the task "deep" wants."""
    for dropout, layers, value in [
        (0.0, 1, 0.9),
        (0.1, 1, 0.8),
        (0.3, 1, 0.7),
        (0.0, 2, 0.5),
        (0.1, 2, 0.4),
        (0.3, 2, 0.2),
        (0.3, 2, 0.21),
    ]:
        made = {"hidden_dropout_prob": dropout, "num_hidden_layers": layers}
        task = TaskDescription(name="deep", objective="eval_loss", direction="min")
        with history.start_run(task=task, hparams=made, objective="eval_loss") as run:
            run.log({"eval_loss": value}, step=1, epoch=1.0)
    return history


def test_dropouts_of_equal_value_are_told_apart(make_model: Any) -> None:
    model = with_values(make_model(), {"hidden_dropout_prob": 0.3})
    layer = model.bert.encoder.layer[0]
    assert (layer.output.dropout.p, layer.attention.self.dropout.p) == (0.3, 0.1)
    assert model.config.hidden_dropout_prob == 0.3
    assert read_model_value(model, "hidden_dropout_prob") == 0.3
    assert read_model_value(model, "attention_probs_dropout_prob") == 0.1


SMALL = {
    "gpt2": (GPT2LMHeadModel, GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8), "attn_pdrop", "n_layer"),
    "vit": (
        ViTForImageClassification,
        ViTConfig(image_size=8, patch_size=4, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8),
        "attention_probs_dropout_prob",
        "num_hidden_layers",
    ),
    "t5": (
        T5ForConditionalGeneration,
        T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2),
        "dropout_rate",
        "num_layers",
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_architecture_keeps_its_own_names(name: str) -> None:
    cls, config, dropout, layers = SMALL[name]
    model = cls(config)
    assert {dropout, layers} <= {setting.raw_name for setting in model_settings(model).values()}
    assert read_model_value(with_values(model, {dropout: 0.25}), dropout) == 0.25
    deeper = with_values(model, {layers: 2})
    assert sum(p.numel() for p in deeper.parameters()) > sum(p.numel() for p in model.parameters())


def test_a_module_that_was_changed_by_hand_is_not_taken_for_the_configuration(make_model: Any) -> None:
    model = make_model()
    model.bert.encoder.layer[0].output.dropout.p = 0.7
    assert read_model_value(model, "hidden_dropout_prob") is None


def test_dropout_of_a_built_model_is_applied_and_read_back(wise: History, make_trainer: Any) -> None:
    callback = MetaHPCallback(task="deep", history=wise)
    trainer = make_trainer(callback)
    apply(trainer, space={"dropout": [0.0, 0.3]})
    trainer.train()
    assert trainer.model.bert.embeddings.dropout.p == 0.3
    found = wise.run(callback.run_id or "").provenance["dropout"]
    assert (found.raw_name, found.value, found.observed, found.source, found.requested) == (
        *("hidden_dropout_prob", 0.3, 0.3),
        *(Source.METAHP, 0.1),
    )


def test_dropout_without_a_space_is_safe_to_change(wise: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(task="deep", history=wise))
    apply(trainer)
    assert trainer.model.config.hidden_dropout_prob > 0.1
    assert trainer.model.config.num_hidden_layers == 1, "the architecture never changes without permission"


def test_layers_and_dropout_of_a_model_that_is_built_for_each_training(wise: History, make_trainer: Any, make_model: Any) -> None:
    callback = MetaHPCallback(task="deep", history=wise)
    trainer = make_trainer(callback, model_init=lambda: make_model(num_hidden_layers=1))
    apply(trainer, space={"num_hidden_layers": [1, 2], "hidden_dropout_prob": [0.0, 0.3]})
    trainer.train()
    assert len(trainer.model.bert.encoder.layer) == 2
    run = wise.run(callback.run_id or "")
    assert (run.hparams["num_layers"], run.provenance["num_layers"].observed, run.provenance["num_layers"].requested) == (2, 2, 1)
    assert (run.hparams["dropout"], run.provenance["dropout"].observed) == (0.3, 0.3)
    assert run.n_parameters == sum(p.numel() for p in trainer.model.parameters())
    first = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    assert all(torch.equal(p, first[name]) for name, p in trainer.model.named_parameters()), "the same seed builds the same model again"


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("built", "the model is built already; pass model_init="),
        ("pretrained", "the weights come from bert-tiny, which fixes the layers"),
        ("frozen", "parts of the model are frozen or wrapped"),
    ],
)
def test_layers_that_cannot_change_are_refused_with_the_reason(
    wise: History, make_trainer: Any, make_model: Any, case: str, reason: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def build() -> Any:
        model = make_model()
        model.config.name_or_path = "bert-tiny" if case == "pretrained" else ""
        if case == "frozen":
            model.bert.requires_grad_(False)
        return model

    trainer = make_trainer(MetaHPCallback(task="deep", history=wise), **({"model": build()} if case == "built" else {"model_init": build}))
    apply(trainer, space={"num_hidden_layers": [1, 2]})
    assert reason in capfd.readouterr().err
    assert trainer.model.config.num_hidden_layers == 1


def test_a_dropout_that_something_changes_back_is_a_loud_warning(wise: History, make_trainer: Any) -> None:
    trainer = make_trainer(MetaHPCallback(task="deep", history=wise))
    apply(trainer, space={"dropout": [0.0, 0.3]})
    trainer.model.bert.embeddings.dropout.p = 0.1
    with pytest.warns(NotAppliedWarning, match=r"hidden_dropout_prob is not the same in all modules and 0\.3 was recommended"):
        trainer.train()


def test_autoconfig_says_that_the_model_is_out_of_its_reach(make_args: Any, make_model: Any, history: History) -> None:
    with pytest.raises(
        UnknownHyperparameterError, match=r"'hidden_dropout_prob' is one of the model's configuration\. Build the Trainer, then call apply"
    ):
        autoconfig(make_args(), model=make_model(), history=history, space={"hidden_dropout_prob": [0.1]})
