"""Default names of folders, studies and experiments are told apart by the folder above; who joins a task of others is noted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from store import History
from store.importers.hf_trainer import HuggingFaceSource
from store.importers.lightning_csv import LightningSource
from store.importers.mapping import ImportOptions
from store.importers.mlflow_tracking import MlflowSource
from store.importers.optuna_storage import OptunaSource
from store.importers.pipeline import import_source
from store.importers.table import TableColumns, import_table
from store.importers.task_names import is_default_name, task_of_folder, unique_name
from store.importers.tensorboard_events import TensorBoardSource
from tests.store.importers.conftest import FIXTURES
from tests.store.importers.test_pipeline import Listed, run

Unpack = Callable[[str], Path]


DEFAULTS = """
results result out output outputs Default csv lightning_logs runs version_0 version_12 checkpoint-500 mlruns run-3 12-30-11 2025-01-31
20240101-120000 logs tb_logs test_trainer study multirun 1764539194.61 Trial_7
"""
NAMED = "digits results-bert my_runs bert-base resnet50 lr-0.1 sst2 run-a exp-baseline v2-large 3d-unet"


@pytest.mark.parametrize("name", DEFAULTS.split())
def test_what_tools_and_tutorials_call_anything_is_a_default_name(name: str) -> None:
    assert is_default_name(name)


@pytest.mark.parametrize("name", NAMED.split())
def test_what_somebody_named_is_none(name: str) -> None:
    assert not is_default_name(name)


def test_a_task_is_called_after_the_first_folder_that_has_a_name_of_its_own() -> None:
    assert task_of_folder(Path("/home/me/shop/outputs/2025-01-31/12-30-11/lightning_logs")) == "shop"
    assert task_of_folder(Path("/out")) == "out"
    assert unique_name("study", Path("/home/me/shop/optuna.db")) == "shop/study"
    assert unique_name("digits", Path("/home/me/shop/optuna.db")) == "digits"
    assert unique_name("study", Path("/study.db")) == "study"


def tasks_of(history: History, sources: list[Any], **options: Any) -> list[str]:
    for source in sources:
        assert import_source(history, source, ImportOptions(**options)).notes == []
    return sorted(task.name for task in history.tasks())


@pytest.mark.parametrize("name", ["results", "out", "csv", "runs"])
def test_two_projects_that_write_into_folders_of_one_name_are_two_tasks(history: History, tmp_path: Path, name: str) -> None:
    places = [shutil.copytree(FIXTURES / "csv_logs" / "tiny", tmp_path / project / name) for project in ("shop", "zoo")]
    for place in places:  # so that they are not the same runs twice
        path = place / "version_0" / "metrics.csv"
        path.write_text(path.read_text().replace("0.", f"0.{len(str(place))}"))
        shutil.rmtree(place / "version_1")
    assert tasks_of(history, [LightningSource(str(place)) for place in places], objective="val_acc") == ["shop", "zoo"]
    assert tasks_of(history, [LightningSource(str(place / "version_0")) for place in places], objective="val_acc") == ["shop", "zoo"]
    assert tasks_of(history, [LightningSource(str(tmp_path))], objective="val_acc") == ["shop", "zoo"]


def test_trainers_that_write_to_results_are_a_task_for_each_project(history: History, tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "hf_out" / "run-0", tmp_path / "shop" / "results")
    shutil.copytree(FIXTURES / "hf_out" / "run-1", tmp_path / "zoo" / "results")
    for place in tmp_path.glob("*/results"):
        assert tasks_of(History(place.parent / "h.db"), [HuggingFaceSource(str(place))]) == [place.parent.name]
        assert tasks_of(History(place.parent / "2.db"), [HuggingFaceSource(str(place / "checkpoint-8"))]) == [place.parent.name]
    assert tasks_of(history, [HuggingFaceSource(str(tmp_path / project)) for project in ("shop", "zoo")]) == ["shop", "zoo"]
    assert tasks_of(history, [HuggingFaceSource(str(tmp_path))]) == ["shop", "zoo"]


def test_event_folders_are_named_like_those_of_other_loggers(history: History, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    shutil.copytree(FIXTURES / "writer_logs", tmp_path / "shop" / "runs")
    assert tasks_of(history, [TensorBoardSource(str(tmp_path / "shop" / "runs"))], objective="val/accuracy") == ["shop"]


def test_studies_of_one_default_name_in_two_projects_are_two_tasks(history: History, tmp_path: Path) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sources = []
    for project in ("shop", "zoo"):
        (tmp_path / project).mkdir()
        address = f"sqlite:///{tmp_path / project / 'optuna.db'}"
        optuna.create_study(storage=address, study_name="study").optimize(lambda trial: trial.suggest_float("lr", 0.1, 1.0), n_trials=1)
        sources.append(OptunaSource(address if project == "shop" else address.removeprefix("sqlite:///")))
    assert tasks_of(history, sources) == ["shop/study", "zoo/study"]


def test_the_default_experiment_is_that_of_its_project(history: History, new_mlflow: Unpack) -> None:
    from mlflow.tracking import MlflowClient

    path = new_mlflow("shop/mlflow.db")
    client = MlflowClient(f"sqlite:///{path}")
    run_id = client.create_run("0").info.run_id
    client.log_param(run_id, "lr", 0.1)
    client.log_metric(run_id, "val_acc", 0.5)
    client.set_terminated(run_id)
    assert tasks_of(history, [MlflowSource(str(path))]) == ["shop/Default"]


def test_a_source_that_joins_a_task_of_others_is_noted_and_one_that_goes_on_is_not(history: History, tmp_path: Path) -> None:
    with history.start_run(task="digits", hparams={"lr": 0.1}, objective="val_acc") as own:
        own.log(val_acc=0.8)
    first, grown = Listed([run(1, task="digits")]), Listed([run(1, task="digits"), run(2, task="digits")])
    here = "task 'digits' has runs of another source already ({}): these join them; --task NAME keeps them apart"
    assert import_source(history, first, dry_run=True).notes == [here.format("1 recorded here")]
    assert import_source(history, first).notes == [here.format("1 recorded here")]
    assert import_source(history, grown).notes == [here.format("1 recorded here")]
    other = Listed([run(3, task="digits")], kind="other")
    assert import_source(history, other).notes == [here.format("2 listed, 1 recorded here")]
    assert import_source(history, Listed([run(4, task="letters")])).notes == []
    (tmp_path / "t.csv").write_text("run,lr,val_acc\n1,0.1,0.5\n")
    for expected in ("2 listed, 1 other, 1 recorded here",) * 2:
        report = import_table(
            history, tmp_path / "t.csv", TableColumns("", "run", ("lr",), "val_acc"), task="digits", options=ImportOptions()
        )
        assert report.notes == (here.format(expected),)


def test_a_task_named_by_an_earlier_version_is_renamed_and_no_run_comes_twice(history: History, tmp_path: Path) -> None:
    place = shutil.copytree(FIXTURES / "csv_logs" / "tiny", tmp_path / "shop" / "results")
    source = LightningSource(str(place))
    import_source(history, source, ImportOptions(objective="val_acc", task="results"))  # as earlier versions called it
    report = import_source(history, source, ImportOptions(objective="val_acc"))
    assert (report.n_new, report.n_updated, len(history.runs())) == (0, 2, 2)
    assert {found.task_name for found in history.runs()} == {"shop"}


def test_what_a_search_set_is_among_the_hyperparameters(history: History, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self, dropout: float) -> None:
            super().__init__()
            self.layers = torch.nn.Sequential(torch.nn.Dropout(dropout), torch.nn.Linear(4, 2))

        def forward(self, x: Any = None, labels: Any = None) -> dict[str, Any]:
            logits = self.layers(x)
            return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

    rows = [{"x": torch.ones(4), "labels": index % 2} for index in range(8)]
    names = ("eval_strategy", "save_strategy")
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "shop" / "results"),
        max_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        **dict.fromkeys(names, "epoch"),
    )
    trainer = transformers.Trainer(
        args=arguments,
        train_dataset=rows,
        eval_dataset=rows,
        model_init=lambda trial: Tiny(0.1 if trial is None else trial.suggest_float("model_dropout", 0.2, 0.5)),
    )
    trainer.hyperparameter_search(
        hp_space=lambda trial: {"learning_rate": trial.suggest_categorical("learning_rate", [5e-5])}, n_trials=2, backend="optuna"
    )
    states = sorted((tmp_path / "shop" / "results").rglob("trainer_state.json"))
    set_by_search = [json.loads(path.read_text())["trial_params"]["model_dropout"] for path in states]
    assert len(set(set_by_search)) == 2
    report = import_source(history, HuggingFaceSource(str(tmp_path / "shop" / "results")))
    assert report.tasks == {"shop": 2}
    assert sorted(found.hparams["model_dropout"] for found in history.runs()) == sorted(set_by_search)
    assert {str(found.provenance["learning_rate"].source) for found in history.runs()} == {"user"}  # also where it is the default
