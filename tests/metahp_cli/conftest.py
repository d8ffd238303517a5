"""A small recorded history, and a way to call the command line in this process."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from metahp_cli.main import main
from store import History


@dataclass(frozen=True)
class Answer:
    """What a call wrote and its exit code."""

    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    def run(*words: str | Path) -> Answer:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(int(stop.value.code or 0), captured.out, captured.err)

    return run


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Three tasks with ten finished runs each; the best learning rate of all is 1e-3; one run of each diverges."""
    path = tmp_path / "recorded.db"
    draw = random.Random(0)
    with History(path) as history:
        for task in ("wine", "iris", "digits"):
            for index in range(10):
                lr, batch_size = 10 ** draw.uniform(-5, -1), draw.choice([16, 32, 64])
                with history.start_run(
                    task=task,
                    hparams={"lr": lr, "batch_size": batch_size, "api_token": "hidden"},
                    sources={"batch_size": "default"},
                    objective="val_acc",
                ) as run:
                    for step in range(3):
                        run.log(val_acc=1 - (math.log10(lr) + 3) ** 2 / 10 + 0.01 * step, loss=1 / (step + 1))
                    if index == 9:
                        run.log(val_acc=math.nan, loss=math.inf)
    return path
