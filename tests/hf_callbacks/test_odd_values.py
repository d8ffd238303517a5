"""Fields of a user's own training arguments that cannot be compared cost themselves, and nothing else."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from hf_callbacks import MetaHPCallback, autoconfig
from store import History
from store.errors import MetaHPWarning
from tests.contrary import Contrary


@dataclasses.dataclass
class OddArguments(TrainingArguments):
    """Arguments with fields of the user's own."""

    weights: Any = None
    more: Any = None


@pytest.mark.parametrize("make", [lambda: torch.ones(2), lambda: np.ones(3), Contrary], ids=["tensor", "array", "object"])
def test_a_field_that_cannot_be_compared_costs_neither_the_record_nor_the_advice(
    make: Any,
    history: History,
    options: dict[str, Any],
    make_trainer: Any,
    make_model: Any,
    sentences: Any,
    capsys: pytest.CaptureFixture[str],
) -> None:
    odd = make()
    made = OddArguments(**options, weights=odd, more=[odd])
    args = autoconfig(made, model=make_model(), train_dataset=sentences(), eval_dataset=sentences(8), history=history)
    assert "failed with" not in capsys.readouterr().err
    with warnings.catch_warnings():
        warnings.simplefilter("error", MetaHPWarning)
        make_trainer(callback := MetaHPCallback("eval_loss", history=history), args=args).train()
    found = history.run(callback.run_id or "").hparams
    assert {"learning_rate", "weight_decay", "weights", "more", "optimizer.lr"} <= found.keys()
