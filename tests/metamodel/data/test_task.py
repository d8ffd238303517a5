"""Which runs belong together: what changes the identity of a task, and what must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from metamodel import TaskDescription
from store import TaskLike
from store.ids import task_id_of

DESCRIPTION = TaskDescription(
    dataset_class="TensorDataset",
    n_train=1000,
    n_val=200,
    input_shape=(3, 32, 32),
    input_dtype="float32",
    target_shape=(),
    target_dtype="int64",
    n_classes=10,
    data_names={"subset": "a"},
    model_class="Net",
    model_family="cnn",
    n_parameters=1234,
    objective="val_acc",
    direction="max",
)


def task_id(description: TaskDescription) -> str:
    return task_id_of(description.identity())


@pytest.mark.parametrize(
    "change",
    [
        {"n_parameters": 99},
        {"n_train": 999},
        {"input_dtype": "float16"},
        {"comparability": {"loss": "x"}},
        {"n_val": 7},
        {"model_family": "mlp"},
        {"is_pretrained": True},
        {"features": {"imbalance": 3.0}},
    ],
)
def test_what_follows_from_tuning_keeps_the_task(change: dict[str, Any]) -> None:
    assert task_id(replace(DESCRIPTION, **change)) == task_id(DESCRIPTION)


@pytest.mark.parametrize(
    "change",
    [
        {"dataset_class": "Other"},
        {"input_shape": (1, 32, 32)},
        {"input_dtype": "uint8"},
        {"target_shape": (1,)},
        {"target_dtype": "float32"},
        {"n_classes": 11},
        {"data_names": {"subset": "b"}},
        {"schema": {"columns": {"text": "string"}}},
        {"sketch": ("0a", "0b")},
        {"fold": {"fold": 1}},
        {"model_class": "OtherNet"},
        {"objective": "val_f1"},
        {"direction": "min"},
    ],
)
def test_other_data_model_or_objective_is_another_task(change: dict[str, Any]) -> None:
    assert task_id(replace(DESCRIPTION, **change)) != task_id(DESCRIPTION)


def test_all_spellings_of_one_metric_are_one_task() -> None:
    spellings = ("val_acc", "val_acc_epoch", "val_acc_step", "val_acc/dataloader_idx_0")
    assert len({task_id(replace(DESCRIPTION, objective=name)) for name in spellings}) == 1


def test_what_an_earlier_version_called_data_hparams_is_still_read() -> None:
    assert TaskDescription.from_dict({"data_hparams": {"subset": "a"}}).data_names == {"subset": "a"}


def test_an_explicit_name_alone_is_the_identity() -> None:
    assert task_id(replace(DESCRIPTION, name="mine")) == task_id(TaskDescription(name="mine"))


def test_a_description_survives_json_and_ignores_keys_of_newer_versions() -> None:
    assert TaskDescription.from_dict({**DESCRIPTION.to_dict(), "invented_later": 1}) == DESCRIPTION


def test_a_description_is_what_a_history_takes_as_a_task() -> None:
    assert isinstance(DESCRIPTION, TaskLike)


def test_a_task_is_identified_by_a_name_or_by_data_and_model() -> None:
    assert DESCRIPTION.is_identified
    assert TaskDescription(name="x").is_identified
    assert not TaskDescription(model_class="Net").is_identified
    assert not TaskDescription(dataset_class="D").is_identified


def test_numeric_features_leave_out_what_is_unknown() -> None:
    features = DESCRIPTION.numeric_features()
    assert features["log10_n_train"] == pytest.approx(3)
    assert "is_pretrained" not in features
    assert TaskDescription().numeric_features() == {}
