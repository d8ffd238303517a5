"""A history with every kind of run, and the same with names that would like to act."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from store import History

HOSTILE = (
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "<a href=\"javascript:document.title='broken'\">click</a>",
    "%{x} <b>bold</b> &lt;i&gt; $\\frac{1}{0}$ <!-- ",
    "\u202egnp.exe\u0000\u2066",
)
"""Each tries another door: the page, an attribute, Plotly's markup, its templates and formulas, the direction of writing."""


def fill(history: History, tasks: tuple[str, ...] = ("wine", "digits"), n: int = 24, objective: str = "val_acc") -> None:
    """Record finished, diverged, failed, open and recommended runs; the learning rate decides, nearly alone."""
    draw = random.Random(0)
    for place, task in enumerate(tasks):
        given = {"id": f"r-{place}", "decision": "apply", "unit": "objective", "prediction": 0.9, "interval": [0.7, 0.95]}
        changes = [{"raw_name": "lr", "old": 0.1, "new": 0.001}]
        history.save_recommendation(given, current={"lr": 0.1}, changes=changes)
        for index in range(n):
            is_recommended = index >= n - 4
            lr = 10 ** draw.uniform(-5, -1) if not is_recommended else 10 ** draw.uniform(-3.2, -2.8)
            hparams = {"lr": lr, "batch_size": draw.choice([16, 32, 64]), "optimizer": draw.choice(["sgd", "adam"]), "seed": index % 3}
            follows = f"r-{place}" if is_recommended else None
            with history.start_run(task=task, hparams=hparams, objective=objective, direction="max", recommendation_id=follows) as run:
                for epoch in range(3):
                    run.log({objective: 0.95 - (math.log10(lr) + 3) ** 2 / 10 - 0.05 * (2 - epoch)}, step=epoch, epoch=epoch + 1)
                if index == 1:
                    run.log({objective: math.nan}, step=3, epoch=4)
        with pytest.raises(RuntimeError), history.start_run(task=task, hparams={"lr": 1.0}, objective=objective, direction="max"):
            raise RuntimeError("bad batch")


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "filled.db"
    with History(path) as history:
        fill(history)
    return path


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names of tasks, metrics, hyperparameters and their values that hold markup."""
    path = tmp_path_factory.mktemp("hostile") / "hostile.db"
    draw = random.Random(0)
    with History(path) as history:
        for task in HOSTILE:
            for index in range(20):
                lr = draw.uniform(0, 1)
                hparams = {f"lr{HOSTILE[0]}": lr, f"name{HOSTILE[1]}": HOSTILE[index % 5], HOSTILE[3]: index % 2}
                with history.start_run(task=task, hparams=hparams, objective=f"score{HOSTILE[2]}", direction="max") as run:
                    run.log({f"score{HOSTILE[2]}": lr}, step=0)
                    run.log({f"score{HOSTILE[2]}": 2 * lr}, step=1)
    return path


@pytest.fixture
def opened(filled: Path) -> Callable[[], History]:
    return lambda: History(filled, create=False)
