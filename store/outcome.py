"""How a run ended: from the exception that ended it, or from the values it logged last."""

from __future__ import annotations

import math
from collections.abc import Mapping

from store.names import Direction
from store.privacy import scrub_message
from store.statuses import RunStatus

_MAX_ERROR_CHARS = 2_000


def classify_exception(error: BaseException) -> RunStatus:
    """Return the status of a run that an exception ended.

    Out of memory is recognised by the class name (``torch.cuda.OutOfMemoryError``) or the text of CUDA, MPS and allocators; causes
    are looked into, since frameworks wrap.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if _is_out_of_memory(current):
            return RunStatus.OOM
        if isinstance(current, KeyboardInterrupt | SystemExit | GeneratorExit):
            return RunStatus.INTERRUPTED
        if type(current).__name__ in {"SIGTERMException", "ProcessExitedException"}:
            return RunStatus.INTERRUPTED
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return RunStatus.FAILED


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    try:
        text = str(error).lower()
    except Exception:  # an error of a foreign library whose text cannot be made
        return False
    return "out of memory" in text or "defaultcpuallocator: can't allocate" in text or "cublas_status_alloc_failed" in text


def describe_error(error: BaseException | str) -> str:
    """Return an error as one bounded text: class and message, without credentials, absolute paths and the host's name."""
    try:
        text = error if isinstance(error, str) else f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # an error of a foreign library whose text cannot be made
        text = type(error).__name__
    text = scrub_message(text[: 10 * _MAX_ERROR_CHARS])
    return text if len(text) <= _MAX_ERROR_CHARS else text[:_MAX_ERROR_CHARS] + "..."


def is_divergence(last_values: Mapping[str, float], objective: str | None) -> bool:
    """Return whether the last logged values are those of a diverged run: the objective or a loss is not finite.

    Args:
        last_values: Metric name -> last value logged.
        objective: Name of the objective, if there is one.
    """
    return any(not math.isfinite(value) for name, value in last_values.items() if name == objective or "loss" in name.lower())


def is_better(value: float, best: float | None, direction: str) -> bool:
    """Return whether a value beats the best one so far; what is not finite never does."""
    if not math.isfinite(value):
        return False
    if best is None or not math.isfinite(best):
        return True
    return value > best if direction == Direction.MAX else value < best


def value_kind(value: float) -> str:
    """Return ``finite``, ``nan``, ``inf`` or ``-inf``: SQLite turns NaN into NULL, so the kind is stored too."""
    if math.isfinite(value):
        return "finite"
    if math.isnan(value):
        return "nan"
    return "inf" if value > 0 else "-inf"


def value_of_kind(value: float | None, kind: str | None) -> float | None:
    """Return the number that was stored as ``(value, kind)``; None if there was none."""
    if kind is None:
        return None
    return value if kind == "finite" else float(kind)
