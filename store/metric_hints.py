"""What is said where an objective is missing among what was logged: only names that work, the nearest first."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from store.names import base_metric_name, infer_direction

MAX_SHOWN = 10
"""Names that a message lists."""
_COUNTS = frozenset(str.split("epoch step steps runtime time seconds second samples flos size count number idx index memory"))
"""Last words of names that count, or measure how fast it goes: no measure of quality."""
_RATE_WORDS = frozenset({"lr", "learningrate"})


def usable_metrics(logged: Mapping[str, Any] | Iterable[str], like: str | None = None) -> list[str]:
    """Return the metrics among what was logged that a run could be judged by: base names, those nearest to ``like`` first.

    Args:
        logged: Names, with the values where they are known; what is not finite is of no use.
        like: The objective that is missing. Its own other spellings are left out.
    """
    values = logged if isinstance(logged, Mapping) else dict.fromkeys(logged)
    missing = None if like is None else base_metric_name(like)
    found = {base_metric_name(name) for name, value in values.items() if _is_measure(name) and _may_be_finite(value)} - {missing}
    if missing is None:
        return sorted(found)
    return sorted(found, key=lambda name: (-difflib.SequenceMatcher(None, missing, name).ratio(), name))


def listed(names: list[str]) -> str:
    """Return names as a message shows them: not all of very many."""
    return ", ".join(names[:MAX_SHOWN]) + (", ..." if len(names) > MAX_SHOWN else "")


def as_arguments(name: str) -> str:
    """Return the arguments that make a metric the objective, with a direction where its name does not say it."""
    return f"objective={name!r}" + ("" if infer_direction(name) is not None else " with direction='min' or 'max'")


def no_outcome_unless_later(what: str) -> str:
    """Say what it comes to where an objective was not logged yet.

    Args:
        what: What has to happen, e.g. ``"it is logged"``.
    """
    return f"unless {what} later, this run will have no outcome"


def ended_without_outcome(name: str | None, evaluate: str) -> str:
    """Say at the end of a training that it has no outcome.

    Args:
        name: The objective, None where none was found.
        evaluate: The call after the training that can still do so.
    """
    why, it = ("no objective was found", "one") if name is None else (f"{name!r} was not logged", "it")
    return f"metahp: this training ended without an outcome, since {why}; {evaluate} can still log {it}"


def _is_measure(name: str) -> bool:
    words = re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", base_metric_name(name)).lower())
    is_rate = not _RATE_WORDS.isdisjoint(words) or "learning rate" in " ".join(words) or "grad norm" in " ".join(words)
    is_clock = bool(words) and (words[-1] in _COUNTS or words[0] in {"epoch", "step"})
    return bool(words) and not is_rate and not is_clock


def _may_be_finite(value: Any) -> bool:
    try:
        return value is None or math.isfinite(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):  # whatever was logged
        return False
