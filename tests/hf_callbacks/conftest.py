"""A BERT of two thousand parameters, a handful of sentences, and Trainers that finish in a tenth of a second."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from store import History, MetaHPWarning, RunRecord


class Sentences(Dataset):
    """Token sequences whose label says whether the first token is large."""

    def __init__(self, n: int = 16, length: int = 6, n_labels: int = 2) -> None:
        generator = torch.Generator().manual_seed(n)
        self.tokens = torch.randint(1, 20, (n, length), generator=generator)
        self.labels = self.tokens[:, 0] * n_labels // 20

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.labels[index]}


def accuracy(prediction: Any) -> dict[str, float]:
    return {"accuracy": float((np.argmax(prediction.predictions, axis=-1) == prediction.label_ids).mean())}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def sentences() -> type[Sentences]:
    return Sentences


@pytest.fixture(scope="session")
def make_model() -> Callable[..., BertForSequenceClassification]:
    def make(**changes: Any) -> BertForSequenceClassification:
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        return BertForSequenceClassification(BertConfig(**{"vocab_size": 20, "max_position_embeddings": 8, **sizes, **changes}))

    return make


@pytest.fixture
def options(tmp_path: Any) -> dict[str, Any]:
    """Keywords every training here shares."""
    return {
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "eval_strategy": "epoch",
        "logging_steps": 1,
        "num_train_epochs": 1,
    }


@pytest.fixture
def make_args(options: dict[str, Any]) -> Callable[..., TrainingArguments]:
    def make(**changes: Any) -> TrainingArguments:
        return TrainingArguments(**{**options, **changes})

    return make


@pytest.fixture
def make_trainer(make_model: Any, make_args: Any) -> Callable[..., Trainer]:
    """A Trainer with one callback; ``args`` may be ready, everything else is an argument of the Trainer or of its arguments."""

    def make(callback: Any = None, *, args: TrainingArguments | None = None, **changes: Any) -> Trainer:
        kept = ("model", "model_init", "optimizers", "compute_metrics", "train_dataset", "eval_dataset")
        given = {name: changes.pop(name) for name in kept if name in changes}
        if "model" not in given and "model_init" not in given:
            given["model"] = make_model()
        given.setdefault("train_dataset", Sentences())
        given.setdefault("eval_dataset", Sentences(8))
        callbacks = [] if callback is None else [callback] if not isinstance(callback, list) else callback
        return Trainer(args=args if args is not None else make_args(**changes), callbacks=callbacks, **given)

    return make


@pytest.fixture
def logged(history: History, make_trainer: Any) -> Callable[..., RunRecord]:
    """Train once with a plain callback, and return the run as the history has it."""
    from hf_callbacks import MetaHPCallback

    def log(callback: MetaHPCallback | None = None, **changes: Any) -> RunRecord:
        callback = callback or MetaHPCallback(history=history)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MetaHPWarning)
            make_trainer(callback, **changes).train()
        return history.run(callback.run_id or "")

    return log


@pytest.fixture(scope="session")
def compute_accuracy() -> Callable[[Any], dict[str, float]]:
    return accuracy


@pytest.fixture
def taught(history: History, make_model: Any, make_args: Any) -> History:
    """A history with twelve runs of the task these tests train, best near a learning rate of 0.01."""
    import math
    import random

    from hf_callbacks.arguments import read_arguments
    from hf_callbacks.objective import find_objective
    from hf_callbacks.trainer_description import describe_task, read_model_config
    from metahp_tuning.model_description import describe_variant

    model, rng = make_model(), random.Random(0)
    for _ in range(12):
        rate, batch = 10 ** rng.uniform(-5, -1), rng.choice([2, 4, 8])
        args = make_args(learning_rate=rate, per_device_train_batch_size=batch)
        task = describe_task(args, model=model, train_dataset=Sentences(), objective=find_objective(args))
        made = read_model_config(model, read_arguments(args))
        with history.start_run(
            task=task,
            hparams=made.values,
            sources=made.sources,
            objective=task.objective,
            direction=task.direction,
            variant=describe_variant(model),
            description=task.to_dict(),
        ) as run:
            run.log({"eval_loss": 0.2 + 0.1 * (math.log10(rate) + 2) ** 2}, step=1, epoch=1.0)
            run.update(epochs_reached=1.0)
    return history


@pytest.fixture
def pinned(history: History, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Have the history recommend exactly these values, whatever its runs say."""

    from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation

    def pin(**config: Any) -> History:
        answer = Recommendation(
            "pinned", config, 0.1, (0.0, 0.2), 0.5, 0.9, 1.0, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "better", None
        )
        save_recommendation(history, answer)
        monkeypatch.setenv("METAHP_PIN", "pinned")
        return history

    return pin
