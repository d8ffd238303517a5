"""Several processes, one decision: rank zero makes it, every rank gets the same answer, and all check that they did the same with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from lightning.pytorch import Trainer

from store.errors import MetaHPError

_Answer = TypeVar("_Answer")


def agree(trainer: Trainer, decide: Callable[[], _Answer]) -> _Answer:
    """Call a function on rank zero and return its answer on every rank, the user's mistakes included.

    Raises:
        MetaHPError: What the function raised, on every rank.
    """
    if trainer.world_size <= 1:
        return decide()
    answer: tuple[_Answer | None, Exception | None] = (None, None)
    if trainer.is_global_zero:
        try:
            answer = (decide(), None)
        except Exception as error:  # the others wait for an answer, so there has to be one
            answer = (None, error if isinstance(error, MetaHPError) else RuntimeError(f"{type(error).__name__}: {error}"))
    value, failure = trainer.strategy.broadcast(answer, src=0)
    if failure is not None:
        raise failure
    return value  # type: ignore[return-value]


def all_equal(trainer: Trainer, text: str) -> bool:
    """Say whether every rank has the same text, gathered from all; the answer is the same on each."""
    distributed = torch.distributed
    if trainer.world_size <= 1 or not (distributed.is_available() and distributed.is_initialized()):
        return True
    gathered: list[str | None] = [None] * trainer.world_size
    distributed.all_gather_object(gathered, text)
    return len(set(gathered)) == 1
