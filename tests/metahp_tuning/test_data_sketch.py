"""What a sketch of content says, and what it leaves alone."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

from metahp_tuning.data_sketch import SKETCH_SIZE, sketch_of

X = np.random.default_rng(0).normal(size=(500, 7))
Y = np.arange(500) % 3
TEXTS = [f"{i} is a number of {i * i % 7} words" for i in range(500)]


def shared(first: Any, second: Any) -> int:
    return len(set(sketch_of(first) or ()) & set(sketch_of(second) or ()))


class Held(Dataset):
    """Keeps what it is given, and augments on reading."""

    def __init__(self, n: int, **held: Any) -> None:
        self.n = n
        vars(self).update(held)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, index: int) -> Any:
        return torch.rand(3)


@pytest.mark.parametrize(
    "make",
    [
        lambda rows: TensorDataset(torch.as_tensor(X[rows]), torch.as_tensor(Y[rows])),
        lambda rows: X[rows],
        lambda rows: [TEXTS[i] for i in rows],
        lambda rows: [{"text": TEXTS[i], "label": int(Y[i])} for i in rows],
        lambda rows: [(X[i], int(Y[i])) for i in rows],
        lambda rows: Held(len(rows), x=X[rows], y=Y[rows]),
        lambda rows: Held(len(rows), encodings={"input_ids": [[i, i + 1] for i in rows]}, labels=[int(Y[i]) for i in rows]),
        lambda rows: Held(len(rows), samples=[(f"/d/{Y[i]}/{i}.png", int(Y[i])) for i in rows]),
    ],
    ids=["tensors", "array", "texts", "dictionaries", "pairs", "attributes", "encodings", "files"],
)
def test_parts_of_the_same_rows_share_much_and_other_rows_nothing(make: Any) -> None:
    order = np.random.default_rng(1).permutation(500)
    assert len(sketch_of(make(order)) or ()) == SKETCH_SIZE
    assert sketch_of(make(order)) == sketch_of(make(np.arange(500)))
    assert shared(make(order[:400]), make(order[100:])) > 8
    assert shared(make(order[:200]), make(order[200:400])) == 0


def test_precision_and_the_last_digits_do_not_show() -> None:
    data = torch.as_tensor(X)
    assert shared(TensorDataset(data), TensorDataset(data.float())) > 30
    assert shared(TensorDataset(data), TensorDataset(data * (1 + 1e-6))) > 25
    assert shared(TensorDataset(data), TensorDataset(data.bfloat16().double())) > 8


def test_splits_and_wrappers_have_the_sketch_of_their_base() -> None:
    base = TensorDataset(torch.as_tensor(X))
    wrapper = Held(500, inner=base)
    assert sketch_of(Subset(base, [3, 1])) == sketch_of(base) == sketch_of(wrapper)
    assert shared(ConcatDataset([base, TensorDataset(torch.zeros(3, 7))]), base) > 28


def test_content_that_is_random_or_a_stream_has_no_sketch() -> None:
    class Stream(IterableDataset):
        def __iter__(self) -> Any:
            raise AssertionError("read")

    assert sketch_of(Held(50)) is None
    assert sketch_of(Held(50, targets=[i % 3 for i in range(50)])) is None
    assert sketch_of(Stream()) is None
    assert sketch_of(object()) is None


def test_few_samples_are_read_and_no_state_moves() -> None:
    class Made(Held):
        def __getitem__(self, index: int) -> Any:
            self.n_reads += 1
            reads.append(index)
            return torch.full((3,), float(index)), random.random() * 0

    reads: list[int] = []
    made = Made(10_000, n_reads=5)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    expected = random.random(), np.random.rand(), float(torch.rand(()))
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    assert len(sketch_of(made) or ()) == 5
    assert (random.random(), np.random.rand(), float(torch.rand(()))) == expected
    assert made.n_reads == 5
    assert len(reads) == 8


def test_a_sketch_is_the_same_in_another_process() -> None:
    code = "from tests.metahp_tuning.test_data_sketch import *; print(sketch_of(X), sketch_of(TEXTS))"
    environment = {"PYTHONHASHSEED": "7", "PATH": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], env=environment)
    assert done.stdout.strip() == f"{sketch_of(X)} {sketch_of(TEXTS)}"
