"""Stores with several experiments, each a task with its own objective; a database beside an empty folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from store import History, InvalidArgumentError
from store.importers.mapping import ImportOptions
from store.importers.mlflow_tracking import MlflowSource
from store.importers.pipeline import import_source

pytest.importorskip("mlflow", reason="mlflow is an extra")
NewStore = Callable[[str], Path]
EXPERIMENTS = {"Default": {"loss": 0.3}, "digits": {"val_acc": 0.9, "val_loss": 0.1}, "prices": {"mae": 1.0, "rmse": 2.0}}


def write(uri: str, folder: Path, experiments: dict[str, dict[str, float]] = EXPERIMENTS) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    for name, metrics in experiments.items():
        known = client.get_experiment_by_name(name)
        experiment = known.experiment_id if known is not None else client.create_experiment(name, artifact_location=(folder / "a").as_uri())
        for lr in (0.1, 0.2):
            run = client.create_run(experiment).info.run_id
            client.log_param(run, "lr", lr)
            for metric, value in metrics.items():
                client.log_metric(run, metric, value)
            client.set_terminated(run)


@pytest.fixture
def store(tmp_path: Path, new_mlflow: NewStore) -> Path:
    path = new_mlflow("shop/mlflow.db")
    write(f"sqlite:///{path}", tmp_path)
    return path


def objectives(history: History) -> dict[str, set[str | None]]:
    return {task.name: {run.objective for run in history.runs(task.name)} for task in history.tasks()}


def test_one_metric_imports_the_experiments_that_have_it_and_leaves_the_others_with_the_reason(history: History, store: Path) -> None:
    report = import_source(history, MlflowSource(str(store)), ImportOptions(objective="val_acc"))
    assert objectives(history) == {"digits": {"val_acc"}}
    assert sorted((reason, count) for reason, count, _ in report.left_out) == [
        ("has no 'val_acc': task 'prices' has 'mae' (2 runs), 'rmse' (2 runs); --objective prices=METRIC imports it too", 2),
        ("has no 'val_acc': task 'shop/Default' has 'loss' (2 runs); --objective shop/Default=METRIC imports it too", 2),
    ]


def test_each_experiment_may_have_its_own_metric(history: History, store: Path) -> None:
    report = import_source(history, MlflowSource(str(store)), ImportOptions(objective="digits=val_acc,prices=rmse"))
    assert objectives(history) == {"digits": {"val_acc"}, "prices": {"rmse"}, "shop/Default": {"loss"}}
    assert report.n_left_out == 0
    again = import_source(history, MlflowSource(str(store)), ImportOptions(objective="digits=val_acc,prices=rmse"))
    assert (again.n_new, again.n_updated, again.notes) == (0, 0, [])


def test_where_some_have_their_metric_those_that_are_ambiguous_are_left_out(history: History, store: Path) -> None:
    report = import_source(history, MlflowSource(str(store)), ImportOptions(objective="digits=val_acc"))
    assert set(objectives(history)) == {"digits", "shop/Default"}
    assert report.left_out[0][:2] == ("is of task 'prices', for which no objective is set; it has 'mae' (2 runs), 'rmse' (2 runs)", 2)


def test_without_a_metric_every_ambiguous_experiment_is_asked_about(history: History, store: Path) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        import_source(history, MlflowSource(str(store)))
    assert "'val_acc' (2 runs), 'val_loss' (2 runs)" in str(caught.value)
    assert "'mae' (2 runs), 'rmse' (2 runs)" in str(caught.value)
    assert history.runs() == []


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ("accuracy", "there is no 'accuracy'; recorded were: loss, val_acc, val_loss, mae, rmse"),
        ("digits=rmse", "there is no 'rmse'; recorded were: val_acc, val_loss"),
        ("digit=val_acc", "got 'digit=val_acc'; its tasks are: 'shop/Default', 'digits', 'prices'"),
    ],
)
def test_an_unknown_metric_or_task_is_an_error_with_all_that_there_are(history: History, store: Path, objective: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        import_source(history, MlflowSource(str(store)), ImportOptions(objective=objective))
    assert message in str(caught.value)


def test_experiments_are_chosen_by_name_and_the_others_counted(history: History, store: Path) -> None:
    report = import_source(history, MlflowSource(str(store), ("digits",)), ImportOptions(objective="val_loss"))
    assert report.tasks == {"digits": 2}
    assert report.left_out == [("is of an experiment that --experiment does not name", 4, ("Default", "Default", "prices"))]
    with pytest.raises(InvalidArgumentError, match="'digit' has none in the store; others with runs: 'Default', 'digits', 'prices'"):
        import_source(history, MlflowSource(str(store), ("digit",)))


@pytest.mark.parametrize("place", ["", "mlruns"])
def test_a_database_beside_a_folder_without_runs_is_found(history: History, store: Path, place: str) -> None:
    (store.parent / "mlruns" / "1" / "0123" / "artifacts").mkdir(parents=True)
    report = import_source(history, MlflowSource(str(store.parent / place)), ImportOptions(objective="val_acc"))
    assert report.n_new == 2
    assert "'mlruns' holds no runs; 'mlflow.db' beside it was read" in report.notes


def test_two_databases_beside_an_empty_folder_are_named(history: History, store: Path, new_mlflow: NewStore) -> None:
    (store.parent / "mlruns").mkdir()
    new_mlflow("shop/old.db")
    with pytest.raises(InvalidArgumentError, match=r"'mlflow\.db', 'old\.db'. Name one"):
        import_source(history, MlflowSource(str(store.parent)))


def test_a_folder_with_runs_is_read_and_the_database_beside_it_is_named(
    history: History, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    write((store.parent / "mlruns").as_uri(), store.parent, {"older": {"val_acc": 0.5}})
    report = import_source(history, MlflowSource(str(store.parent)))
    assert report.tasks == {"older": 2}
    assert report.notes == ["'mlruns' was read; the database beside it, 'mlflow.db', is imported by its own name"]


def test_a_metric_beyond_the_first_hundred_of_a_run_can_decide(history: History, new_mlflow: NewStore) -> None:
    path = new_mlflow("m.db")
    write(f"sqlite:///{path}", path.parent, {"many": {**{f"m{index:03}": 0.0 for index in range(150)}, "z_acc": 0.7}})
    with pytest.raises(InvalidArgumentError, match=r"'z_acc' \(2 runs\): pass --objective"):
        import_source(history, MlflowSource(str(path)))
    import_source(history, MlflowSource(str(path)), ImportOptions(objective="z_acc"))
    assert {run.objective_best for run in history.runs()} == {0.7}
