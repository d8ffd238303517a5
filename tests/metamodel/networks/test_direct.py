"""What ``direct`` reads, and what its parts do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metamodel.data.task import TaskDescription
from metamodel.networks.direct import MAX_SET, Descriptors, read_set
from metamodel.networks.direct_model import Quality, decode, distances
from metamodel.space.encoding import fit_encoder


def test_a_set_is_read_best_first_with_standings_and_empty_slots() -> None:
    inputs = torch.tensor([[0.5], [1.0], [0.0], [0.25]])
    found = read_set(inputs, torch.tensor([1.0, 3.0, 2.0, 9.0]), torch.tensor([1.0, 1.0, 1.0, 0.0])).reshape(MAX_SET, 3)
    torch.testing.assert_close(found[:3], torch.tensor([[1.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [0.0, -1.0, 1.0]]))
    assert not found[3:].any()


def test_the_order_in_which_runs_came_does_not_matter_and_a_new_task_is_an_empty_set() -> None:
    inputs, outcomes = torch.rand(30, 2), torch.randperm(30).float()
    shuffled = torch.randperm(30)
    one, other = read_set(inputs, outcomes, torch.ones(30)), read_set(inputs[shuffled], outcomes[shuffled], torch.ones(30))
    assert torch.equal(one, other)
    assert not read_set(torch.zeros(1, 0, 2), torch.zeros(1, 0), torch.zeros(1, 0)).any()


def test_descriptions_are_standardised_and_what_is_not_known_is_the_mean() -> None:
    known = [TaskDescription(n_train=10**i, features={"same": 1.0}) for i in range(1, 6)]
    descriptors = Descriptors.fit(known, ["cnn", "mlp", "cnn", "mlp", None])
    assert descriptors.names == ("log10_n_train",)
    assert descriptors.families == ("cnn", "mlp")
    rows = np.stack([descriptors.encode(item, "mlp") for item in known])
    np.testing.assert_allclose(rows[:, 0].mean(), 0.0, atol=1e-12)
    np.testing.assert_array_equal(rows[:, 1:], [[0.0, 1.0]] * 5)
    np.testing.assert_array_equal(descriptors.encode(TaskDescription(), "rnn"), [0.0, 0.0, 0.0])
    assert abs(descriptors.encode(TaskDescription(n_train=10**30), None)[0]) <= 3.0
    assert Descriptors.from_json(descriptors.to_json()).encode(known[0], "cnn").tolist() == descriptors.encode(known[0], "cnn").tolist()


def test_quality_falls_with_distance_everywhere() -> None:
    rng = np.random.default_rng(0)
    distance = rng.random(500) * 3
    quality = Quality.fit(distance, -distance + rng.normal(size=500))
    scores = quality.at(np.linspace(0, 10, 200))
    assert (np.diff(scores) < 0).all()
    assert quality.at(np.array([0.5]))[0] == pytest.approx(-0.5, abs=0.3)


def test_a_column_that_does_not_count_does_not_enter_distances() -> None:
    inputs = np.array([[0.5, 0.0], [0.6, 1.0]])
    found = distances(inputs, np.array([0.5, 0.5]), np.array([0.1, np.inf]))
    np.testing.assert_allclose(found, [0.0, 1.0])


def test_an_encoded_optimum_becomes_values_that_exist() -> None:
    configs = [
        {"batch_size": size, "learning_rate": rate, "num_layers": layers, "activation": label}
        for size, rate, layers, label in ((16, 1e-4, 1, "relu"), (64, 1e-1, 4, "tanh"), (32, 1e-2, 2, "relu"))
    ]
    encoder = fit_encoder([configs])
    seen = {name: [config[name] for config in configs] for name in encoder.names}
    for config, row in zip(configs, encoder.encode(configs), strict=True):
        found = decode(row, encoder, seen)
        assert {name: found[name] for name in ("batch_size", "num_layers", "activation")} == {
            name: config[name] for name in ("batch_size", "num_layers", "activation")
        }
        assert found["learning_rate"] == pytest.approx(config["learning_rate"])
