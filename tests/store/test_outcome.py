from __future__ import annotations

import math

import pytest
import torch

from store import RunStatus
from store.outcome import classify_exception, describe_error, is_better, is_divergence, value_kind, value_of_kind


class OutOfMemoryError(RuntimeError):
    pass


class SIGTERMException(SystemExit):
    pass


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), RunStatus.OOM),
        (torch.cuda.OutOfMemoryError("x"), RunStatus.OOM),
        (OutOfMemoryError("x"), RunStatus.OOM),
        (MemoryError(), RunStatus.OOM),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), RunStatus.OOM),
        (KeyboardInterrupt(), RunStatus.INTERRUPTED),
        (SystemExit(1), RunStatus.INTERRUPTED),
        (SIGTERMException(), RunStatus.INTERRUPTED),
        (ValueError("shapes differ"), RunStatus.FAILED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_exceptions_tell_how_a_run_ended(error: BaseException, status: RunStatus) -> None:
    assert classify_exception(error) is status


def test_a_wrapped_exception_is_told_by_its_cause() -> None:
    error = ValueError("training failed")
    error.__cause__ = RuntimeError("CUDA error: out of memory")
    assert classify_exception(error) is RunStatus.OOM
    error.__cause__, error.__context__ = None, KeyboardInterrupt()  # "raise ... from None" by now
    assert classify_exception(error) is RunStatus.FAILED
    error.__suppress_context__ = False
    assert classify_exception(error) is RunStatus.INTERRUPTED
    error.__suppress_context__ = True
    assert classify_exception(error) is RunStatus.FAILED
    error.__cause__ = error  # no endless walk
    assert classify_exception(error) is RunStatus.FAILED


def test_an_error_becomes_one_bounded_text() -> None:
    assert describe_error(ValueError("bad")) == "ValueError: bad"
    assert describe_error(KeyboardInterrupt()) == "KeyboardInterrupt"
    assert describe_error("said so") == "said so"
    assert len(describe_error("x" * 10_000)) < 2_100


@pytest.mark.parametrize(
    ("last", "objective", "expected"),
    [
        ({"train_loss": math.nan}, None, True),
        ({"loss": math.inf, "acc": 0.5}, "acc", True),
        ({"acc": math.nan}, "acc", True),
        ({"acc": math.nan}, "f1", False),
        ({"train/loss": 0.1, "grad_norm": math.nan}, None, False),
        ({}, "acc", False),
    ],
)
def test_divergence_is_told_by_the_objective_and_the_losses(last: dict[str, float], objective: str | None, expected: bool) -> None:
    assert is_divergence(last, objective) is expected


def test_what_is_not_finite_is_never_best() -> None:
    assert is_better(0.5, None, "max")
    assert is_better(0.6, 0.5, "max")
    assert not is_better(0.6, 0.5, "min")
    for value in (math.nan, math.inf, -math.inf):
        assert not is_better(value, None, "max")
        assert not is_better(value, 0.5, "min")


@pytest.mark.parametrize("value", [0.5, math.inf, -math.inf])
def test_a_number_comes_back_from_value_and_kind(value: float) -> None:
    kind = value_kind(value)
    assert value_of_kind(value if kind == "finite" else None, kind) == value


def test_nan_comes_back_from_its_kind_and_an_absent_kind_is_none() -> None:
    number = value_of_kind(None, value_kind(math.nan))
    assert number is not None
    assert math.isnan(number)
    assert value_of_kind(None, None) is None
