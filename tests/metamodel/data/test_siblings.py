"""Which tasks are siblings, and in what they differ."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from metamodel.data.siblings import are_siblings, sibling_signs
from metamodel.data.task import TaskDescription

ROWS = ("01", "02", "03", "04")
TASK = TaskDescription(
    dataset_class="TensorDataset",
    n_train=1400,
    input_shape=(64,),
    input_dtype="float32",
    target_shape=(),
    target_dtype="int64",
    n_classes=10,
    data_names={"subset": "a"},
    schema={"columns": 2},
    sketch=ROWS,
    model_class="Net",
    objective="val_acc",
    direction="max",
)
OLD = {"dataset_class": "TensorDataset", "n_train": 1398, "input_shape": [64], "input_dtype": "float32", "target_shape": []}
OLD |= {"target_dtype": "int64", "n_classes": 10, "data_hparams": {"subset": "a"}, "model_class": "Net", "objective": "val_acc"}


@pytest.mark.parametrize(
    ("change", "sign"),
    [
        ({"sketch": ("02", "03", "04", "05"), "n_train": 1398}, "1,400 rows against 1,398"),
        ({"sketch": ("02", "03", "04", "05")}, "content: 3 of 4 sampled rows in common"),
        ({"sketch": ("02", "05", "06", "07"), "n_classes": 9}, "content: 1 of 4 sampled rows in common"),
        ({"fold": {"fold": 3}, "sketch": ("08", "09")}, "fold none against 3"),
        ({"sketch": None}, "the content of one could not be read"),
    ],
)
def test_tasks_alike_in_all_but_size_fold_or_content_are_siblings(change: dict[str, Any], sign: str) -> None:
    other = replace(TASK, **change)
    assert are_siblings(TASK, other)
    assert are_siblings(other, TASK)
    assert sign in sibling_signs(TASK, other)


def test_windows_of_another_length_are_siblings_though_no_row_is_shared() -> None:
    short = replace(TASK, input_shape=(-1,), lengths=(96,))
    long = replace(short, lengths=(192,), sketch=("08", "09"))
    assert are_siblings(short, long)
    assert "length 96 against 192" in sibling_signs(short, long)


@pytest.mark.parametrize(
    "change",
    [
        {"sketch": ("08", "09")},
        {"data_names": {"subset": "b"}},
        {"data_names": {}},
        {"schema": {"columns": 3}},
        {"dataset_class": "Other"},
        {"model_class": "Other"},
        {"objective": "val_loss", "direction": "min"},
        {"input_shape": (32,), "sketch": None},
        {"n_classes": 9, "sketch": None},
    ],
)
def test_other_content_names_schema_or_model_are_no_siblings(change: dict[str, Any]) -> None:
    assert not are_siblings(TASK, replace(TASK, **change))


@pytest.mark.parametrize("names", [{"builder": "glue", "config": "sst2"}, {"dataset": "iris"}, {"data.csv": "flowers.csv"}])
def test_data_that_name_themselves_are_one_task_whatever_was_done_to_their_rows(names: dict[str, str]) -> None:
    loaded = replace(TASK, data_names=names)
    assert loaded.identity() == replace(loaded, sketch=("08", "09")).identity()


def test_draws_that_were_each_standardised_share_no_row_but_go_together_alike() -> None:
    draws = [replace(TASK, sketch=(name,), correlations=values) for name, values in (("01", (0.6, 0.1, -0.4)), ("02", (0.57, 0.14, -0.38)))]
    other = replace(TASK, sketch=("03",), correlations=(-0.2, 0.5, 0.3))
    assert are_siblings(*draws)
    assert sibling_signs(*draws) == ["content: 0 of 1 sampled rows in common; its columns go together alike"]
    assert not are_siblings(draws[0], other)
    unrelated = [replace(TASK, sketch=(name,), correlations=(0.01, -0.02, 0.0)) for name in ("04", "05")]
    assert not are_siblings(*unrelated), "columns that do not go together tell nothing"


@pytest.mark.parametrize(("n_train", "is_near"), [(1398, True), (2700, True), (2800, False), (650, False), (None, True)])
def test_of_an_earlier_version_only_data_of_about_the_same_size_are_siblings(n_train: int | None, is_near: bool) -> None:
    old = TaskDescription.from_dict({**OLD, "direction": "max"})
    new = replace(TASK, n_train=n_train)
    assert are_siblings(old, new) is are_siblings(new, old) is is_near


def test_a_task_described_by_an_earlier_version_is_a_sibling_of_the_same_training() -> None:
    old = TaskDescription.from_dict({**OLD, "direction": "max"})
    assert are_siblings(old, TASK)
    assert are_siblings(replace(old, data_names={}), replace(TASK, input_shape=(-1,)))
    assert not are_siblings(replace(old, model_class="Other"), TASK)
    assert not are_siblings(replace(old, data_names={"subset": "b"}), TASK)
    assert "earlier version" in sibling_signs(old, TASK)[-1]


def test_one_task_and_named_or_unidentified_tasks_have_no_siblings() -> None:
    assert not are_siblings(TASK, replace(TASK, n_train=3))
    assert not are_siblings(replace(TASK, name="a"), TASK)
    assert not are_siblings(TaskDescription(model_class="Net"), TaskDescription(model_class="Net", n_train=3, fold={"fold": 1}))
