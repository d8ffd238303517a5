from __future__ import annotations

from typing import Any

import pytest

from hf_callbacks.objective import find_objective
from hf_callbacks.trainer_description import describe_task
from metahp_tuning.model_description import describe_variant
from metamodel import TaskDescription
from store import History


def describe(make_args: Any, model: Any, data: Any, **changes: Any) -> TaskDescription:
    args = make_args(**changes)
    return describe_task(args, model=model, train_dataset=data, objective=find_objective(args))


def test_before_and_during_training_the_task_is_the_same(
    history: History, logged: Any, make_args: Any, make_model: Any, sentences: Any
) -> None:
    before = describe(make_args, make_model(), sentences())
    run = logged()
    assert history.task(run.task_id).identity == before.identity()


@pytest.mark.parametrize(
    "changes",
    [
        {"learning_rate": 0.1},
        {"per_device_train_batch_size": 2},
        {"num_train_epochs": 2},
        {"seed": 7},
        {"optim": "sgd"},
        {"weight_decay": 1.0},
    ],
)
def test_changing_a_tuned_value_keeps_the_task(logged: Any, changes: dict[str, Any]) -> None:
    assert logged(**changes).task_id == logged().task_id


def test_changing_the_layers_keeps_the_task(logged: Any, make_model: Any) -> None:
    assert logged(model=make_model(num_hidden_layers=2, hidden_size=8)).task_id == logged().task_id


def test_changing_the_data_starts_a_new_task(logged: Any, sentences: Any) -> None:
    assert logged(train_dataset=sentences(20)).task_id != logged().task_id


def test_another_objective_is_another_task(logged: Any, compute_accuracy: Any) -> None:
    other = logged(compute_metrics=compute_accuracy, metric_for_best_model="accuracy")
    assert other.task_id != logged().task_id


def test_the_description_says_what_is_trained(make_args: Any, make_model: Any, sentences: Any) -> None:
    found = describe(make_args, make_model(num_labels=3), sentences(12, n_labels=3))
    assert (found.dataset_class, found.n_train, found.n_classes) == ("Sentences", 12, 3)
    assert (found.model_class, found.model_family) == ("BertForSequenceClassification", "transformer")
    assert found.input_shape == (-1,)
    assert found.is_pretrained is False
    assert (found.objective, found.direction) == ("eval_loss", "min")


def test_a_model_loaded_by_name_is_pretrained_and_a_variant_of_its_own(make_args: Any, make_model: Any, sentences: Any) -> None:
    scratch, small, large = make_model(), make_model(), make_model()
    small.config.name_or_path, large.config.name_or_path = "bert-small", "bert-large"
    assert describe(make_args, small, sentences()).is_pretrained is True
    assert describe(make_args, small, sentences()).identity() == describe(make_args, scratch, sentences()).identity()
    assert len({describe_variant(model) for model in (scratch, small, large)}) == 3


def test_a_local_checkpoint_is_the_same_on_every_machine(make_model: Any) -> None:
    here, there = make_model(), make_model()
    here.config.name_or_path, there.config.name_or_path = "/home/a/models/reviews", "/data/b/reviews"
    assert describe_variant(here) == describe_variant(there)


def test_a_ready_description_is_kept_and_given_the_objective(make_args: Any) -> None:
    given = TaskDescription(dataset_class="Reviews", model_class="Net")
    args = make_args()
    found = describe_task(args, model=None, train_dataset=None, task=given, objective=find_objective(args))
    assert (found.dataset_class, found.objective, found.direction) == ("Reviews", "eval_loss", "min")


def test_describing_changes_no_random_state(make_args: Any, make_model: Any, sentences: Any) -> None:
    import torch

    model, data = make_model(), sentences()
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    describe(make_args, model, data)
    assert torch.rand(1) == expected
