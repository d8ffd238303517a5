"""One thread, no seed and no signal handlers left over from another test."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def quiet_and_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> Iterator[None]:
    torch.set_num_threads(1)
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.chdir(str(tmp_path))
    logger = logging.getLogger("lightning.pytorch")
    level, handler = logger.level, signal.getsignal(signal.SIGINT)
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)
    signal.signal(signal.SIGINT, handler)
