"""Metric values: held at once in the training step, turned into numbers later and together.

Reading a tensor on an accelerator waits for it, which a training step must never do. So the step keeps a clone, and the writer's
thread moves all clones of a batch to the host in one transfer. A tensor in the host's own memory is simply read.
"""

from __future__ import annotations

import logging
import math
import numbers
import sys
from collections.abc import Iterable, Sequence
from typing import Any

logger = logging.getLogger(__name__)


class NotANumberError(Exception):
    """A logged value is nothing that could be stored as a number; internal."""


def hold(value: Any) -> Any:
    """Return a number where that is known, else the tensor that knows it, without waiting for any device.

    Args:
        value: Number, bool, NumPy scalar, or a tensor or array of one element.

    Returns:
        A float, or a detached tensor of one element on another device, which shares the memory of the original.

    Raises:
        NotANumberError: If it is none of these.
    """
    kind = type(value)
    if kind is float:
        return value
    if kind is int or kind is bool:
        return _float_of(value)
    is_cpu = getattr(value, "is_cpu", None)
    if is_cpu is not None:  # a tensor
        if value.numel() != 1 or (not is_cpu and value.is_complex()):
            raise NotANumberError(f"a tensor of shape {tuple(value.shape)} and type {value.dtype}")
        return _float_of(value.item()) if is_cpu else value.detach()
    if getattr(value, "size", 1) == 1 and hasattr(value, "item") and hasattr(value, "dtype"):
        value = value.item()
    if isinstance(value, numbers.Real) or (hasattr(value, "__float__") and not isinstance(value, str | bytes)):
        return _float_of(value)
    raise NotANumberError(f"of type {type(value).__name__}")


def read_at_hand(values: Iterable[Any]) -> list[Any]:
    """Read the tensors that lie in the host's own memory, and leave everything else as it is.

    Done where the values are logged: they are in the processor's cache and nothing has to be waited for, so that reading one takes a
    fraction of the time that keeping and freeing it in another thread would.
    """
    tensor_class = getattr(sys.modules.get("torch"), "Tensor", None)
    return [_read(value) if type(value) is tensor_class and value.is_cpu else value for value in values]


def _read(tensor: Any) -> Any:
    try:
        return tensor.item()
    except Exception:  # several elements, or none: ``to_numbers`` reports what is wrong with it
        return tensor


def current_stream(values: Iterable[Any]) -> Any:
    """Return the CUDA stream on which values are being computed, None if all are on the host."""
    for value in values:
        if type(value) is not float and getattr(value, "is_cuda", False):
            return sys.modules["torch"].cuda.current_stream(value.device)
    return None


def wait_for(stream: Any) -> None:
    """Wait until what was queued on a stream is computed: the transfer happens on another stream, which would not wait."""
    try:
        stream.synchronize()
    except Exception as error:  # the device failed; its values will turn out unreadable one by one
        logger.debug("A CUDA stream could not be waited for: %s", error)


def to_numbers(values: Sequence[Any]) -> tuple[list[float | None], dict[int, Exception]]:
    """Turn what was logged into numbers, with one transfer per device and type.

    Args:
        values: Anything; meant are what ``hold`` takes.

    Returns:
        One number per value, in order, None where there is none; and by index why not, where the value is none in itself (one that
        can no longer be read since its device failed is not named).
    """
    numbers_: list[Any] = list(values)
    problems: dict[int, Exception] = {}
    waiting: dict[Any, list[int]] = {}
    for index in [index for index, value in enumerate(values) if type(value) is not float]:
        try:
            held = numbers_[index] = hold(values[index])
        except Exception as error:  # a value may be any foreign object
            problems[index] = error
            numbers_[index] = None
            continue
        if type(held) is not float:
            waiting.setdefault((held.device, held.dtype), []).append(index)
    for indices in waiting.values():
        for index, number in zip(indices, _transfer([numbers_[index] for index in indices]), strict=True):
            numbers_[index] = number
    return numbers_, problems


def _transfer(tensors: list[Any]) -> list[float | None]:
    torch = sys.modules["torch"]
    try:
        with torch.no_grad():
            return [float(number) for number in torch.stack([tensor.reshape(()) for tensor in tensors]).cpu().tolist()]
    except Exception as error:  # after a failure on the device every call may raise; what cannot be read is left out
        logger.debug("A batch of %d values could not be moved to the host together: %s", len(tensors), error)
    numbers_: list[float | None] = []
    for tensor in tensors:
        try:
            numbers_.append(float(tensor.item()))
        except Exception as error:  # as above, for this one
            logger.debug("A logged value could not be read from its device: %s", error)
            numbers_.append(None)
    return numbers_


def _float_of(value: Any) -> float:
    if type(value) is float:
        return value
    try:
        return float(value)
    except OverflowError:  # an integer beyond the range of floats
        return math.inf if value > 0 else -math.inf
    except (TypeError, ValueError) as error:
        raise NotANumberError(f"of type {type(value).__name__}") from error
