"""Tokens in blocks of one length: the same text cut otherwise is known, another text is not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from metahp_tuning.data_description import describe_dataset
from metamodel.data.siblings import are_siblings
from metamodel.data.task import TaskDescription

KNOWN: dict[str, Any] = {"model_class": "Gpt", "objective": "eval_loss", "direction": "min"}


def text(seed: int, n: int = 64 * 256) -> list[int]:
    return np.random.default_rng(seed).integers(0, 30_000, n).tolist()


def described(rows: Any) -> TaskDescription:
    return TaskDescription(**KNOWN, **describe_dataset(rows))


def blocks(tokens: list[int], size: int, seed: int | None = None) -> Dataset:
    rows = [tokens[i : i + size] for i in range(0, len(tokens), size)]
    if seed is not None:
        random.Random(seed).shuffle(rows)
    return Dataset.from_list([{"input_ids": row, "labels": row} for row in rows])


@pytest.mark.parametrize(("first", "second"), [(64, 128), (32, 256)])
def test_one_text_in_blocks_of_two_lengths_is_known(first: int, second: int) -> None:
    tokens = text(1)
    short, long = described(blocks(tokens, first)), described(blocks(tokens, second))
    assert (short.lengths, long.lengths) == ((first,), (second,))
    assert are_siblings(short, long)


def test_another_text_in_blocks_of_another_length_is_no_sibling() -> None:
    assert not are_siblings(described(blocks(text(1), 64)), described(blocks(text(2), 128)))


@pytest.mark.parametrize("seed", range(6))
def test_rows_that_are_mostly_cut_to_one_length_have_none(seed: int) -> None:
    draw = random.Random(0)
    rows = [text(i, 128 if draw.random() < 0.97 else draw.randrange(20, 128)) for i in range(400)]
    random.Random(seed).shuffle(rows)
    found = described(Dataset.from_list([{"input_ids": row} for row in rows]))
    assert found.lengths is None
    assert found.pieces is None


def test_a_data_set_of_ones_own_with_tensors_of_one_length_has_it_too() -> None:
    class Texts(torch.utils.data.Dataset):
        def __init__(self, size: int) -> None:
            self.rows = torch.tensor(text(3)).reshape(-1, size)

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            return {"input_ids": self.rows[index], "labels": self.rows[index]}

    short, long = described(Texts(64)), described(Texts(128))
    assert (short.lengths, long.lengths) == ((64,), (128,))
    assert are_siblings(short, long)
