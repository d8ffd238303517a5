"""What is read from optimizers and schedules, by what names an optimizer is known, and which groups follow a setting."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from metahp_tuning.optimizer_description import (
    group_values,
    optimizer_arguments,
    optimizer_name,
    read_optimizer,
    read_scheduler,
    value_in_force,
    with_argument,
)


@pytest.mark.parametrize(
    "value",
    [
        torch.optim.AdamW,
        functools.partial(torch.optim.AdamW, lr=0.1),
        functools.partial(functools.partial(torch.optim.AdamW, lr=0.1), betas=(0.9, 0.99)),
        "torch.optim.adamw.AdamW",
        {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": 1e-3},
        lambda params: torch.optim.AdamW(params, lr=0.1),
        torch.optim.AdamW([nn.Parameter(torch.zeros(1))]),
    ],
    ids=["class", "partial", "partial of a partial", "text", "class_path", "_target_", "lambda", "optimizer"],
)
def test_an_optimizer_is_known_by_its_class_however_it_is_given(value: Any) -> None:
    assert optimizer_name(value) == "AdamW"


@pytest.mark.parametrize(
    "value", [None, 1, "adamw_torch", "model.h5", nn.Linear, {"lr": 1}, {"class_path": "torch.nn.Linear"}, len, lambda: 0]
)
def test_what_is_no_optimizer_is_none(value: Any) -> None:
    assert optimizer_name(value) is None


@pytest.mark.parametrize(
    "value",
    [
        functools.partial(torch.optim.SGD, lr=0.1, momentum=0.5),
        {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "momentum": 0.5}},
        {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0.5},
    ],
    ids=["partial", "class_path", "_target_"],
)
def test_an_argument_inside_is_read_and_replaced_in_a_copy(value: Any) -> None:
    assert optimizer_arguments(value) == {"lr": 0.1, "momentum": 0.5}
    changed = with_argument(value, "lr", 0.2)
    assert (optimizer_arguments(changed), optimizer_arguments(value)["lr"]) == ({"lr": 0.2, "momentum": 0.5}, 0.1)
    assert optimizer_name(changed) == "SGD"


def test_a_partial_that_hydra_made_still_works_with_another_argument() -> None:
    config = {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1, "momentum": 0.5}
    made = pytest.importorskip("hydra.utils").instantiate(config)
    changed = with_argument(made, "lr", 0.2)
    assert [part([nn.Parameter(torch.zeros(1))]).param_groups[0]["lr"] for part in (changed, made)] == [0.2, 0.1]


def test_a_configuration_with_entries_that_cannot_be_read_is_read_as_far_as_it_goes() -> None:
    config = pytest.importorskip("omegaconf").OmegaConf.create({"_target_": "torch.optim.Adam", "lr": 0.1, "eps": "${nowhere}"})
    assert (optimizer_name(config), optimizer_arguments(config)["lr"]) == ("Adam", 0.1)
    assert optimizer_arguments(with_argument(config, "lr", 0.2))["lr"] == 0.2


FOLLOWS = {
    "as it is": [0.02309],
    "a head at ten times the rate": [0.2309, 0.2309],
    "layer-wise decay": [0.02309 * 0.9**layer for layer in range(4, 0, -1)],
    "scaled with the batch": [0.02309 * 48 / 256],
    "scaled with its square root": [0.02309 * (32 / 256) ** 0.5],
    "a backbone with a rate of its own": [1e-5, 0.02309],
    "a frozen group": [0.0, 0.02309 / 3],
}


@pytest.mark.parametrize("values", FOLLOWS.values(), ids=FOLLOWS)
def test_a_setting_that_groups_follow_is_in_force(values: list[float]) -> None:
    assert value_in_force(values, 0.02309, instead_of=0.001) == 0.02309


IGNORES = {
    "the old setting": [0.001],
    "ten times the old setting": [0.00777, 0.01],
    "numbers of its own": [0.01, 3e-4],
    "nothing trains": [0.0],
}


@pytest.mark.parametrize("values", IGNORES.values(), ids=IGNORES)
def test_a_setting_that_no_group_follows_is_not_in_force(values: list[float]) -> None:
    old = 0.000777 if values[0] == 0.00777 else 0.001
    assert value_in_force(values, 0.02309, instead_of=old) == values[0]


def test_without_groups_nothing_is_known() -> None:
    assert value_in_force([], 0.1) is None


def test_group_values_are_those_before_the_schedule_and_the_peak_where_it_has_one() -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW([{"params": [layer.weight]}, {"params": [layer.bias], "lr": 0.01}], lr=0.1, weight_decay=0.2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert group_values(optimizer.param_groups, "learning_rate") == [0.1, 0.01]
    assert group_values(optimizer.param_groups, "weight_decay") == [0.2, 0.2]
    assert group_values(optimizer.param_groups, "momentum") == [0.9, 0.9]
    torch.optim.lr_scheduler.OneCycleLR(peaked := torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1), 0.4, total_steps=9)
    assert group_values(peaked.param_groups, "learning_rate") == [0.4]


def test_the_optimizer_is_read_with_the_rate_before_any_schedule() -> None:
    layer = nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    found = read_optimizer(optimizer)
    expected = {"optimizer": "AdamW", "optimizer.lr": 0.1, "optimizer.weight_decay": 0.2, "optimizer.betas": (0.9, 0.999)}
    assert {name: found[name] for name in expected} == expected
    assert not {"optimizer.params", "optimizer.initial_lr", "optimizer.fused"} & set(found)


def test_further_groups_say_only_where_they_differ() -> None:
    layers = nn.Linear(2, 2), nn.Linear(2, 2)
    groups = [{"params": layers[0].parameters()}, {"params": layers[1].parameters(), "lr": 0.01}]
    found = read_optimizer(torch.optim.SGD(groups, lr=0.1, momentum=0.9))
    assert (found["optimizer.lr"], found["optimizer.1.lr"], found["optimizer.momentum"]) == (0.1, 0.01, 0.9)
    assert "optimizer.1.momentum" not in found


def test_a_rate_kept_as_a_tensor_is_a_number() -> None:
    assert read_optimizer(torch.optim.Adam(nn.Linear(1, 1).parameters(), lr=torch.tensor(0.5)))["optimizer.lr"] == 0.5


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda o: torch.optim.lr_scheduler.StepLR(o, 3, 0.5), {"lr_scheduler": "StepLR", "lr_scheduler.step_size": 3}),
        (lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 7), {"lr_scheduler.T_max": 7, "lr_scheduler.eta_min": 0.0}),
        (
            lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.4, total_steps=9),
            {"lr_scheduler.max_lr": 0.4, "lr_scheduler.total_steps": 9},
        ),
        (lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=4), {"lr_scheduler.patience": 4}),
        (lambda o: object(), {"lr_scheduler": "object"}),
    ],
)
def test_a_schedule_is_read_by_what_it_was_made_with(make: Any, expected: dict[str, Any]) -> None:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1, momentum=0.5)
    found = read_scheduler(make(optimizer))
    assert {name: found[name] for name in expected} == expected
    assert "lr_scheduler.last_epoch" not in found
