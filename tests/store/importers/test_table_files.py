"""Tables wherever they lie; cells without a value are no divergence."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from store import History, InvalidArgumentError, MissingDependencyError, RunStatus
from store.importers.mapping import ImportOptions
from store.importers.table import TableColumns, import_table

FLAT = TableColumns("data", "model", ("lr",), "top1")
MODELS = "data,model,lr,top1\nimagenet,a,0.1,76.5\nimagenet,b,0.2,\nimagenet,c,0.3,nan\nimagenet,d,,70\n"


def test_models_without_a_value_are_left_out_and_those_with_nan_diverged(history: History, tmp_path: Path) -> None:
    (tmp_path / "models.csv").write_text(MODELS)
    report = import_table(history, tmp_path / "models.csv", FLAT)
    assert (report.n_runs, report.n_new, report.n_empty, report.n_diverged) == (3, 3, 1, 1)
    assert report.notes == ("1 run has no value of 'top1' and cannot be imported",)
    assert {run.status for run in history.runs()} == {RunStatus.COMPLETED, RunStatus.DIVERGED}


def test_steps_at_which_nothing_was_logged_are_no_values(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("data,model,step,lr,top1,loss\nx,a,1,0.1,,2.0\nx,a,2,0.1,0.5,1.0\nx,a,3,0.1,,0.5\n")
    import_table(history, tmp_path / "t.csv", TableColumns("data", "model", ("lr",), "top1", None, "step", None, ("loss",)))
    (run,) = history.runs()
    assert [(value.step, value.value) for value in history.metrics(run.id, "top1")] == [(2, 0.5)]
    assert len(history.metrics(run.id, "loss")) == 3
    assert run.status is RunStatus.COMPLETED


def test_runs_of_a_table_that_grew_are_written_anew_and_keep_their_origin(history: History, tmp_path: Path) -> None:
    columns, options = TableColumns("data", "model", ("lr",), "top1", None, "epoch"), ImportOptions()
    (tmp_path / "t.csv").write_text("data,model,epoch,lr,top1\nx,a,1,0.1,0.5\nx,b,1,0.2,0.6\n")
    import_table(history, tmp_path / "t.csv", columns, options=options)
    (tmp_path / "t.csv").write_text("data,model,epoch,lr,top1\nx,a,1,0.1,0.5\nx,b,1,0.2,0.6\nx,b,2,0.2,0.7\nx,c,1,0.3,0.4\n")
    report = import_table(history, tmp_path / "t.csv", columns, options=options)
    assert (report.n_new, report.n_updated) == (1, 1)
    assert [run.objective_last for run in history.runs()] == [0.5, 0.7, 0.4]
    origin = history.runs()[1].description["origin"]
    assert (origin["importer"], origin["run"]) == ("table", "b")


def test_a_packed_table_is_read(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(MODELS.encode()))
    assert import_table(history, tmp_path / "t.csv.gz", FLAT).n_new == 3


def test_categories_are_read_as_the_values_they_stand_for(history: History, tmp_path: Path) -> None:
    text, number = pa.array(["imagenet", "cifar", "imagenet"]), pa.array([0.1, None, 0.2])
    columns = {"data": text, "model": pa.array(["a", "b", "c"]), "optimizer": pa.array(["sgd", "adam", None]), "lr": number}
    packed = {name: column.dictionary_encode() for name, column in columns.items()}
    pq.write_table(pa.table({**packed, "top1": [70.0, 71.0, 72.0]}), tmp_path / "t.parquet")
    assert import_table(history, tmp_path / "t.parquet", TableColumns("data", "model", ("lr", "optimizer"), "top1")).n_new == 3
    found = {(run.task_name, run.hparams.get("learning_rate"), run.hparams.get("optimizer")) for run in history.runs()}
    assert found == {("imagenet", 0.1, "sgd"), ("cifar", None, "adam"), ("imagenet", 0.2, None)}


def test_a_web_page_in_the_place_of_a_table_is_an_error(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("<!DOCTYPE html>\n<html></html>")
    with pytest.raises(InvalidArgumentError, match="is a web page"):
        import_table(history, tmp_path / "t.csv", FLAT)


def test_a_dry_run_shows_what_is_new(history: History, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(MODELS)
    assert import_table(None, tmp_path / "t.csv", FLAT, dry_run=True).n_new == 3
    import_table(history, tmp_path / "t.csv", FLAT)
    report = import_table(history, tmp_path / "t.csv", FLAT, dry_run=True)
    assert (report.n_new, report.is_written) == (0, False)


@pytest.mark.parametrize("place", ["hf:", "hf:name", "hf:a/b/c"])
def test_a_data_set_of_the_hub_has_an_owner_and_a_name(history: History, place: str) -> None:
    with pytest.raises(InvalidArgumentError, match="hf:OWNER/NAME"):
        import_table(history, place, FLAT)


def test_a_folder_of_something_else_is_an_error(history: History, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="save_to_disk wrote"):
        import_table(history, tmp_path, FLAT)


def test_saved_data_sets_are_read_and_their_splits_named(history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is an extra")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    rows = {"data": ["x"] * 4, "model": [1, 2, 3, 4], "lr": [0.1, 0.2, 0.3, 0.4], "top1": [0.1, 0.2, 0.3, 0.4]}
    made = datasets.Dataset.from_dict(rows)
    made.select([0, 2, 3]).save_to_disk(tmp_path / "one")
    assert import_table(history, tmp_path / "one", FLAT).n_new == 3
    datasets.DatasetDict({"train": made, "test": made}).save_to_disk(tmp_path / "two")
    with pytest.raises(InvalidArgumentError, match=r"has the splits test, train\. Name one"):
        import_table(history, tmp_path / "two", FLAT)
    assert import_table(history, tmp_path / "two" / "train", FLAT).n_new == 1
    (tmp_path / "one" / "state.json").write_text("{broken")
    with pytest.raises(InvalidArgumentError, match="must be readable"):
        import_table(history, tmp_path / "one", FLAT)


@pytest.mark.parametrize(
    ("package", "code"),
    [
        ("datasets", "from store.importers.table_files import read_table; read_table('hf:a/b')"),
        ("arff", "from store.importers.openml_runs import _arff_rows; from pathlib import Path; _arff_rows('', Path('x'))"),
        ("openml", "from store.importers.openml_runs import OpenmlSource; list(OpenmlSource('task:1').read(print))"),
        ("mlflow", "from store.importers.mlflow_tracking import MlflowSource; list(MlflowSource('http://localhost:1').read(print))"),
        ("tensorboard", "from store.importers.tensorboard_events import _protos; _protos()"),
    ],
)
def test_a_missing_extra_is_named_with_what_installs_it(package: str, code: str) -> None:
    hidden = f"import sys; sys.modules[{package!r}] = None\n{code}"
    done = subprocess.run([sys.executable, "-c", hidden], capture_output=True, text=True, cwd=Path(__file__).parents[3])
    assert MissingDependencyError.__name__ in done.stderr
    assert "pip install 'lightning-metahp[" in done.stderr


def test_importers_load_no_heavy_package_until_they_read() -> None:
    names = "optuna_storage mlflow_tracking tensorboard_events lightning_csv hf_trainer trackio_sqlite hyperparameterhunter openml_runs"
    imports = "; ".join(f"import store.importers.{name}" for name in [*names.split(), "table", "pipeline"])
    heavy = ("torch", "numpy", "pandas", "optuna", "pyarrow", "yaml", "mlflow")
    code = f"import sys; {imports}; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[3], check=True)
    assert done.stdout.strip() == "[]"
