"""Tokens in blocks of one length: the same text cut otherwise is known, another text is not."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from metahp_tuning.data_description import describe_dataset
from metamodel.data.siblings import are_siblings, sibling_signs
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


@pytest.mark.parametrize("seeds", [(0, 1), (2, 3), (4, 5)])
def test_one_text_is_known_though_its_blocks_were_shuffled_or_split(seeds: tuple[int, int]) -> None:
    tokens = text(1, 64 * 4096)
    short, long = blocks(tokens, 64), blocks(tokens, 128)
    assert are_siblings(described(short.shuffle(seed=seeds[0])), described(long.shuffle(seed=seeds[1])))
    parts = [
        torch.utils.data.random_split(Made(tokens, size), [0.5, 0.5], torch.Generator().manual_seed(seed))[0]
        for size, seed in zip((64, 128), seeds, strict=True)
    ]
    assert are_siblings(*map(described, parts))


class Made(torch.utils.data.Dataset):
    """Blocks that are made when they are read, and counted."""

    def __init__(self, tokens: list[int], size: int) -> None:
        self.tokens, self.size, self.n_reads = torch.tensor(tokens), size, 0

    def __len__(self) -> int:
        return len(self.tokens) // self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        self.n_reads += 1
        READS.append(index)
        return self.tokens[index * self.size : (index + 1) * self.size]


READS: list[int] = []


def test_few_rows_are_made_for_it_and_what_counts_reads_counts_on_from_where_it_was() -> None:
    rows = Made(text(1), 64)
    READS.clear()
    assert described(rows).lengths == (64,)
    assert len(READS) <= 40
    assert rows.n_reads <= 1


def pairs(tokens: list[int], size: int) -> torch.utils.data.TensorDataset:
    cut = torch.tensor(tokens).reshape(-1, size)
    return torch.utils.data.TensorDataset(cut, cut)


def test_tensors_of_one_text_cut_to_two_lengths_are_siblings_and_of_another_text_they_are_not() -> None:
    short, long, other = described(pairs(text(1), 64)), described(pairs(text(1), 128)), described(pairs(text(2), 128))
    assert are_siblings(short, long)
    assert not are_siblings(short, other)
    assert sibling_signs(short, long)[0] == "input shape 64 against 128"


def test_tables_of_sparse_counts_with_other_columns_are_no_siblings() -> None:
    tables = [torch.from_numpy(np.random.default_rng(seed).poisson(0.2, (500, n))) for seed, n in ((0, 100), (1, 200))]
    first, second = (described(torch.utils.data.TensorDataset(table, torch.arange(500) % 2)) for table in tables)
    assert not are_siblings(first, second)


def test_a_length_that_a_hyperparameter_names_counts_once_for_each_part() -> None:
    assert describe_dataset(pairs(text(1), 64), {"seq_len": 64})["lengths"] == (64, 64)
