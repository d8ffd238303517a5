"""What the start of a fit costs: a look at the data, and no more than one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lightning_metahp import MetaHParams, MetaHPCallback, task_readout
from metamodel.recommendation import Decision, load_recommendation
from store import History, HistoryPathError, NotAHistoryError
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit, make_trainer


def test_the_data_is_looked_at_once_before_the_start_and_not_again(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[object] = []
    look = task_readout.describe_dataset

    def counted(dataset: object, *rest: Any) -> dict[str, Any]:
        looked.append(dataset)
        return look(dataset, *rest)

    monkeypatch.setattr(task_readout, "describe_dataset", counted)
    params = MetaHParams({"lr": [1e-3, 1e-2]}, objective="val_acc", history=history)
    fit(params)
    assert len(looked) == 1
    fit(params, data=TinyData(n=48))
    assert [len(dataset) for dataset in looked] == [96, 48]  # type: ignore[arg-type]
    assert [run.description["n_train"] for run in history.runs()] == [96, 48]


def test_what_was_seen_of_the_data_of_a_fit_that_failed_is_not_taken_for_the_next_one(history: History) -> None:
    class Broken(TinyModel):
        def configure_optimizers(self) -> Any:
            raise RuntimeError("broken")

    log, params = MetaHPCallback("val_acc", history=history), MetaHParams({"lr": [1e-3, 1e-2]}, history=history)
    trainer = make_trainer(log, params)
    with pytest.raises(RuntimeError, match="broken"):
        trainer.fit(Broken(), datamodule=TinyData(n=48))
    trainer.callbacks.remove(params)  # nobody looks before the start of the next one
    trainer.fit(TinyModel(), datamodule=TinyData())
    assert [run.description["n_train"] for run in history.runs()] == [96]


def test_without_a_history_nothing_is_made_before_the_run_opens_it_and_the_abstention_is_saved_then(tmp_path: Path) -> None:
    path = tmp_path / "new" / "history.db"
    seen: list[bool] = []

    class Watching(TinyModel):
        def configure_optimizers(self) -> Any:
            seen.append(path.exists())
            return super().configure_optimizers()

    fit(MetaHParams({"lr": [1e-3, 1e-2]}, objective="val_acc", history=path), model=Watching())
    assert seen == [False]
    with History(path) as history:
        (run,) = history.runs()
        assert run.recommendation_id is not None
        stored = load_recommendation(history, run.recommendation_id)
    assert stored.decision is Decision.ABSTAIN
    assert stored.reason.startswith("not enough history (no run with an outcome). Needed: 4 runs of this task")


def test_the_answer_without_a_history_is_that_of_an_empty_one(tmp_path: Path) -> None:
    answers = []
    for name in ("missing", "empty"):
        path = tmp_path / name / "history.db"
        if name == "empty":
            History(path).close()
        fit(MetaHParams({"lr": [1e-3, 1e-2]}, objective="val_acc", history=path))
        with History(path) as history:
            (run,) = history.runs()
            answers.append(load_recommendation(history, str(run.recommendation_id)).to_dict() | {"id": None})
    assert repr(answers[0]) == repr(answers[1])  # NaN differs from itself


@pytest.mark.parametrize("place", ["file/history.db", "file"])
def test_a_history_that_cannot_be_made_is_still_told_before_training(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("something else " * 100)
    with pytest.raises((HistoryPathError, NotAHistoryError)):
        fit(MetaHParams({"lr": [1e-3, 1e-2]}, objective="val_acc", history=tmp_path / place))


@pytest.mark.slow
def test_without_a_history_no_model_code_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys, torch, lightning as L\n"
        "from tests.lightning_metahp.tiny_training import fit\n"
        "from lightning_metahp import MetaHParams\n"
        "seen = []\n"
        "class Watched(MetaHParams):\n"
        "    def setup(self, *arguments, **named):\n"
        "        super().setup(*arguments, **named)\n"
        "        late = {'metamodel.search.task_surrogate', 'metamodel.gp.gp_meta_model', 'sqlite_utils'}\n"
        "        late.add('metamodel.starter.starter_prior')\n"
        "        seen.extend(late & set(sys.modules))\n"
        "fit(Watched({'lr': [1e-3, 1e-2]}, objective='val_acc', history=sys.argv[1]))\n"
        "assert not seen, seen\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path / "h.db")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr[-2000:]
