"""Write the history that ``test_schema.py`` upgrades: run it once for each released schema, from the repository root.

python tests/store/released/make.py tests/store/released/schema_1.sql
"""

from __future__ import annotations

import math
import sqlite3
import sys
import tempfile
from pathlib import Path

from store import History


def _fill_what_nobody_writes_directly(path: Path, run_id: str) -> None:
    """Put a row into the tables that a short run leaves empty."""
    raw = sqlite3.connect(path)
    with raw:
        raw.execute("INSERT OR IGNORE INTO resources VALUES (?, 'gpu_power_w', 'gpu0', 5.0, 250.5)", (run_id,))
        raw.execute("INSERT INTO compactions VALUES (?, '2025-01-01T00:00:00.000000Z', 'shape', 10, 20, 10)", (run_id,))
    raw.close()


def make(target: Path) -> None:
    """Record two runs with everything a history can hold and dump the file as text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        with History(path) as history:
            hparams = {"lr": 0.1, "betas": (0.9, 0.999), "clip": math.inf, "big": 2**70}
            with history.start_run(task="digits", hparams=hparams, objective="val_acc", sources={"clip": "default"}) as run:
                run.log({"val_acc": 0.5, "loss": 1.0}, step=1, epoch=1.0)
                run.observe({"learning_rate": 0.05})
            with history.start_run(task="digits", objective="val_acc", recommendation_id="r1", parent_run_id=run.id) as second:
                second.log(val_acc=math.nan, step=2)
            history.save_recommendation({"id": "r1", "config": {"lr": 0.1}}, current={}, changes=[])
            _fill_what_nobody_writes_directly(history.path, run.id)
            history.save_model({"id": "m1", "kind": "gp", "file": "m1", "n_runs": 2, "n_tasks": 1, "info": {}})
        raw = sqlite3.connect(path)
        numbers = [f"PRAGMA {name} = {raw.execute(f'PRAGMA {name}').fetchone()[0]};" for name in ("application_id", "user_version")]
        target.write_text("\n".join([*raw.iterdump(), *numbers]) + "\n", encoding="utf-8")
        raw.close()


if __name__ == "__main__":
    make(Path(sys.argv[1]))
