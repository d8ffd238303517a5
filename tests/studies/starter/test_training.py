import json

import numpy as np
import pytest
import torch

from studies.starter.data import DataSpec, load
from studies.starter.networks import NETWORK_FAMILIES, build
from studies.starter.plan import LEARNING_RATES, SEED, Regime, StarterTask, groups, n_networks, starter_tasks
from studies.starter.train import train_task
from studies.starter.training import rate_factor, train_group, train_plainly

PICTURES = DataSpec("small", "photo patches", 90, {"which": "photo"}, 1)
NUMBERS = DataSpec("numbers", "generator", 80, {"which": "friedman1", "is_regression": True, "n_features": 6}, 2)


def config(optimizer, **changes):
    momentum = 0.9 if optimizer == "SGD" else None
    shared = {"num_layers": 2, "hidden_size": 8, "batch_size": 16, "num_epochs": 3}
    own = {"learning_rate": 0.01, "weight_decay": 0.01, "dropout": 0.2, "warmup_ratio": 0.2, "lr_scheduler": "cosine"}
    return {"optimizer": optimizer, "momentum": momentum, **own, **shared, **changes}


@pytest.mark.parametrize("family", NETWORK_FAMILIES)
@pytest.mark.parametrize("data", [PICTURES, NUMBERS], ids=["classes", "regression"])
def test_training_in_one_pass_agrees_with_plain_training(family, data):
    data = load(data)
    for several in (
        [
            config("SGD"),
            config("SGD", momentum=0.0, dropout=0.0, lr_scheduler="linear"),
            config("SGD", learning_rate=0.05, warmup_ratio=0.0),
        ],
        [config("Adam"), config("AdamW", weight_decay=0.1), config("Adam", dropout=0.5, lr_scheduler="constant", weight_decay=0.0)],
    ):
        together = train_group(family, data, several, [3, 4, 5], 7)
        for i, one in enumerate(several):
            alone = train_plainly(family, data, one, 3 + i, 7)
            np.testing.assert_allclose(together.val_loss[i], alone.val_loss[0], rtol=2e-4, atol=1e-5)
            np.testing.assert_allclose(together.train_loss[i], alone.train_loss[0], rtol=2e-4, atol=1e-5)
            if data.n_classes is not None:
                np.testing.assert_allclose(together.val_accuracy[i], alone.val_accuracy[0], atol=0.03)  # a sample on the edge


def test_one_diverging_configuration_leaves_the_others_alone():
    data = load(NUMBERS)
    calm = config("SGD", learning_rate=0.001)
    wild = config("SGD", learning_rate=1e6, momentum=0.99, warmup_ratio=0.0, weight_decay=0.1)
    together = train_group("mlp", data, [calm, wild], [1, 2], 3)
    assert np.isfinite(together.val_loss[0]).all()
    assert not np.isfinite(together.val_loss[1, -1])
    np.testing.assert_allclose(together.val_loss[0], train_plainly("mlp", data, calm, 1, 3).val_loss[0], rtol=2e-4)


def test_a_group_must_share_its_shape_and_kind_of_optimizer():
    data = load(NUMBERS)
    with pytest.raises(AssertionError, match="must share"):
        train_group("mlp", data, [config("SGD"), config("SGD", hidden_size=16)], [1, 2], 3)
    with pytest.raises(AssertionError, match="all use SGD, or none"):
        train_group("mlp", data, [config("SGD"), config("Adam")], [1, 2], 3)


def test_building_a_network_leaves_the_generator_of_torch_alone():
    before = torch.get_rng_state()
    first, second = (build("transformer", (4, 3), 2, 1, 8, seed=5) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))


def test_schedules_warm_up_and_end_where_they_should():
    rates = {
        name: [rate_factor(config("SGD", lr_scheduler=name), step, 10) for step in range(10)] for name in ("constant", "linear", "cosine")
    }
    assert all(values[:2] == [0.5, 1.0] for values in rates.values())
    assert rates["constant"][-1] == 1.0
    assert 0 < rates["cosine"][-1] < rates["linear"][-1] < 0.2


def test_the_plan_is_what_was_promised():
    tasks = starter_tasks()
    assert len(tasks) >= 60
    assert len({task.name for task in tasks}) == len(tasks)
    assert {task.family for task in tasks} == set(NETWORK_FAMILIES)
    assert {task.objective for task in tasks} == {"val_accuracy", "val_loss"}
    assert n_networks(tasks) >= 60 * len(tasks)
    assert not {"digits", "wine"} & {task.data.options.get("which") for task in tasks}  # the demonstration's own


@pytest.mark.parametrize("is_long", [False, True])
def test_configurations_cover_the_range_and_come_out_the_same_again(is_long):
    task = StarterTask(PICTURES, "rnn", "val_accuracy", is_long=is_long)
    found = groups(task, load(PICTURES))
    assert found == groups(task, load(PICTURES))
    for group in found:
        strata = sorted(int(task.regime.group * np.log(c["learning_rate"] / LEARNING_RATES[0]) / np.log(1e4) - 1e-6) for c in group.configs)
        assert len(set(strata)) >= task.regime.group - 1  # rounding may move one over an edge
        assert len({(c["num_layers"], c["hidden_size"], c["batch_size"], c["num_epochs"]) for c in group.configs}) == 1
    assert {c["optimizer"] for group in found for c in group.configs} == {"SGD", "Adam", "AdamW"}


@pytest.mark.parametrize("spec", [task.data for task in starter_tasks()], ids=lambda spec: spec.name)
def test_every_data_set_can_be_made_and_is_standardised(spec):
    data = load(spec)
    assert np.isfinite(data.train_x).all()
    assert np.isfinite(data.val_x).all()
    assert abs(float(data.train_x.mean())) < 0.2
    if data.n_classes is not None:
        assert set(np.unique(data.train_y)) == set(range(data.n_classes))
        assert data.class_imbalance >= 1
    else:
        assert float(data.train_y.std()) == pytest.approx(1.0, abs=0.2)


def test_a_task_becomes_one_file_with_every_curve(tmp_path, monkeypatch):
    monkeypatch.setattr("studies.starter.plan.MLP_REGIME", Regime((2, 3), (1, 1)))
    path = train_task(StarterTask(NUMBERS, "mlp", "val_loss"), tmp_path)
    content = json.loads(path.read_text())
    assert content["seed"] == SEED
    assert content["description"]["model_family"] == "mlp"
    assert len(content["runs"]) == 16
    for run in content["runs"]:
        assert len(run["val_loss"]) == len(run["train_loss"]) == run["hparams"]["num_epochs"]
