"""Identifiers: sortable by time, unique across machines, so that two histories can be merged without renaming anything."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from store.forks import call_in_child

_lock = threading.Lock()
_last_ms = 0


def new_id(prefix: str = "") -> str:
    """Return a new identifier such as ``251122-155601123-9f3a21c4``.

    Ids of one process sort strictly in the order they were made; those of several machines sort by their clocks.

    Args:
        prefix: Put in front, e.g. ``m-``.
    """
    global _last_ms
    with _lock:
        _last_ms = max(time.time_ns() // 1_000_000, _last_ms + 1)
        moment = _last_ms
    stamp = datetime.fromtimestamp(moment / 1000, UTC)
    return f"{prefix}{stamp:%y%m%d-%H%M%S}{moment % 1000:03d}-{os.urandom(4).hex()}"


def task_id_of(identity: Mapping[str, Any]) -> str:
    """Return the id of the task with this identity: the same on every machine.

    Args:
        identity: What two runs must share to be of one task, JSON-compatible.

    Returns:
        ``t`` and 16 hexadecimal digits.
    """
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return "t" + hashlib.sha256(canonical.encode()).hexdigest()[:16]


def utc_now() -> str:
    """Return the present moment in UTC, ISO 8601 with microseconds; texts of this form sort by time."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def utc_age_s(moment: str | None) -> float:
    """Return how long ago a moment written by ``utc_now`` was, in seconds; infinity for None or an unreadable text."""
    if not moment:
        return float("inf")
    try:
        then = datetime.fromisoformat(moment.replace("Z", "+00:00"))
    except ValueError:
        return float("inf")
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return (datetime.now(UTC) - then).total_seconds()


def _forget_inherited() -> None:
    """After a fork: another thread of the parent may have held the lock."""
    global _lock
    _lock = threading.Lock()


call_in_child(_forget_inherited)
