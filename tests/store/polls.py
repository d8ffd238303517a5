"""Waiting for what another thread or process does, without guessing how long a busy machine takes for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 120.0


def wait_for(condition: Callable[[], object]) -> bool:
    """Whether a condition came to hold before far too much time had passed."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def wait_until_at_rest(history: Path) -> None:
    """Wait until the writer's thread has let go of the file, a moment after the last run ended."""
    assert wait_for(lambda: not Path(f"{history}-wal").exists())
