"""The examples of ``suggest`` as users run them: copied to a place of their own, with small settings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from store import History, RunStatus, Source

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def run_copy(tmp_path: Path) -> object:
    """Run a copy of an example that lies outside the clone; return what it printed."""

    def run(name: str, *arguments: str, **environment: str) -> tuple[str, str]:
        copy = shutil.copy(ROOT / "examples" / "suggest" / f"{name}.py", tmp_path / f"my_{name}.py")
        command = [sys.executable, str(copy), "--history", str(tmp_path / "h.db"), *arguments]
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=variables)
        assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return run


def test_a_suggested_forest_beats_the_default_one(run_copy: object, tmp_path: Path) -> None:
    out, err = run_copy("scikit_random_forest", "--trees", "20", "--explore", "4")  # type: ignore[operator]
    default, suggested = (float(text) for text in re.findall(r"R2 (0\.\d+)", out.splitlines()[-1]))
    assert suggested > default
    assert "from 8 runs of this task" in err
    with History(tmp_path / "h.db") as history:
        runs = history.runs()
        assert [len(runs), len(history.tasks())] == [9, 1]
        assert runs[-1].objective_best == pytest.approx(suggested, abs=1e-4)
        assert runs[-1].recommendation_id is not None
        assert Source.METAHP in {param.source for param in runs[-1].provenance.values()}


def test_the_bare_loop_starts_from_the_starter_history_and_goes_on_with_its_own_runs(run_copy: object, tmp_path: Path) -> None:
    printed = [run_copy("accelerate_loop", "--samples", "300", "--epochs", "1", METAHP_STARTER="1") for _ in range(2)]  # type: ignore[operator]
    assert "from the starter history, not from your runs" in printed[0][1]
    assert "from 1 run of this task" in printed[1][1]
    with History(tmp_path / "h.db") as history:
        first, second = history.runs()
        assert first.task_id == second.task_id
        assert history.recommendation(first.recommendation_id or "")["run_id"] == first.id
    assert (second.status, second.model_class, second.hparams["learning_rate"] > 1e-4) == (RunStatus.COMPLETED, "DigitsNet", True)
    assert f"metahp show {second.id}" in printed[1][0]
