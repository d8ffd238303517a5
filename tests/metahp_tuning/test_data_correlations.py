"""Draws of one data set are known by how their columns go together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn import datasets
from sklearn.model_selection import train_test_split
from torch.utils.data import Dataset, TensorDataset

from metahp_tuning.data_correlations import correlations_of
from metahp_tuning.data_description import describe_dataset
from metamodel.data.siblings import are_siblings
from metamodel.data.task import TaskDescription


def draw(inputs: np.ndarray, targets: np.ndarray, seed: int) -> TaskDescription:
    """Describe a training split that was standardised by itself, as scripts do."""
    x, _, y, _ = train_test_split(inputs, targets, test_size=0.3, random_state=seed)
    x = (x - x.mean(0)) / (x.std(0) + 1e-9)
    data = TensorDataset(torch.as_tensor(x, dtype=torch.float32), torch.as_tensor(y))
    return TaskDescription(**describe_dataset(data), model_class="Net", objective="val_loss", direction="min")


@pytest.mark.parametrize("name", ["iris", "wine", "breast_cancer", "digits", "diabetes"])
def test_splits_by_another_seed_are_siblings_though_each_was_standardised(name: str) -> None:
    inputs, targets = getattr(datasets, f"load_{name}")(return_X_y=True)
    first, second, third = (draw(inputs, targets, seed) for seed in range(3))
    assert are_siblings(first, second)
    assert are_siblings(second, third)


def test_other_data_of_the_same_shape_are_no_siblings() -> None:
    made = [draw(*datasets.make_classification(300, 10, n_informative=6, random_state=seed), 0) for seed in range(6)]
    assert not any(are_siblings(one, other) for one in made for other in made)


def test_units_and_offsets_do_not_show() -> None:
    x, y = datasets.load_wine(return_X_y=True)
    plain, scaled = (TensorDataset(torch.as_tensor(data), torch.as_tensor(y)) for data in (x, 1e3 * x - 7))
    assert correlations_of(plain) == correlations_of(scaled)
    assert len(correlations_of(plain) or ()) == 45


class Lazy(Dataset):
    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(3)


@pytest.mark.parametrize("data", [TensorDataset(torch.rand(8, 3)), TensorDataset(torch.rand(99, 1)), Lazy(), ["text"] * 99, object()])
def test_without_enough_rows_and_columns_of_numbers_there_are_none(data: object) -> None:
    assert correlations_of(data) is None
