"""PEFT: told by what it looks like, so that the package is not needed."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import pytest

from hf_callbacks.arguments import RecordedHParams
from hf_callbacks.trainer_description import read_model_config
from metahp_tuning.model_description import describe_model, describe_variant
from store import Source


class PeftType(Enum):
    LORA = "LORA"


@dataclass
class LooksLikeLora:
    peft_type: PeftType = PeftType.LORA
    r: int = 8
    lora_alpha: int = 8
    lora_dropout: float = 0.0
    target_modules: set[str] = field(default_factory=set)


def test_the_settings_of_an_adapter_are_recorded(make_model: Any) -> None:
    model = make_model()
    plain = describe_variant(model)
    model.peft_config = {"default": LooksLikeLora(r=16, target_modules={"value", "query"})}
    read = read_model_config(model, RecordedHParams())
    assert read.values["peft.target_modules"] == ["query", "value"]
    assert (read.values["peft.r"], read.sources["peft.r"]) == (16, Source.USER)
    assert (read.values["peft.lora_alpha"], read.sources["peft.lora_alpha"]) == (8, Source.DEFAULT)
    assert describe_model(model)["peft_type"] == "LORA"
    assert describe_variant(model) != plain, "adapters learn at other rates than whole models"


def test_several_adapters_keep_apart(make_model: Any) -> None:
    model = make_model()
    model.peft_config = {"a": LooksLikeLora(r=2), "b": LooksLikeLora(r=4)}
    values = read_model_config(model, RecordedHParams()).values
    assert (values["peft.a.r"], values["peft.b.r"]) == (2, 4)


def test_a_real_adapter_is_trained_and_logged(logged: Any, make_model: Any) -> None:
    peft = pytest.importorskip("peft", reason="peft is not installed")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["query", "value"], lora_dropout=0.05)
    run = logged(model=peft.get_peft_model(make_model(), config))
    assert (run.hparams["peft.r"], run.hparams["peft.lora_dropout"]) == (4, 0.05)
    assert run.hparams["peft.target_modules"] == ["query", "value"]
    assert run.model_class == "PeftModelForSequenceClassification"
    assert run.description["features"]["trainable_share"] < 0.5
    assert run.description["peft_type"] == "LORA"
    assert run.hparams["num_layers"] == 1
