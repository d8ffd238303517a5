"""Every live task, trained for real on made-up data, recorded by the callbacks that users use."""

from __future__ import annotations

import numpy as np
import pytest

from compare_baselines.live.data import load_electricity, load_images, load_reviews, load_titanic
from compare_baselines.live.search import quiet
from compare_baselines.live.tasks import LIVE_TASKS, find_task, find_tasks
from compare_baselines.live.tasks.base import Training
from metahp_report.comparison.records import KEY
from store.errors import InvalidArgumentError
from tests.compare_baselines.made_up_data import write_data

FRAMEWORKS = {"text": "transformers", "image": "transformers", "tabular": "python"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def evaluate(name, config, history, data, tmp_path, **note):
    task = find_task(name)
    training = Training(history, "tiny", 0, data, tmp_path, {"id": "c", "task": name, **note})
    with quiet():
        task.train(config, training)
    return task, history.run(training.run_id)


@pytest.mark.parametrize("name", LIVE_TASKS)
def test_an_evaluation_is_a_run_with_the_values_asked_for_and_every_metric(name, history, data, tmp_path):
    config = {key: values[-1] for key, values in find_task(name).levels().items()}
    task, run = evaluate(name, config, history, data, tmp_path, index=0)
    assert str(run.status) == "completed"
    assert (run.task_name, run.framework) == (f"live {name} tiny", FRAMEWORKS.get(name, "lightning"))
    assert (run.objective, str(run.direction)) == (task.logged_objective, task.direction)
    assert run.description[KEY] == {"id": "c", "task": name, "index": 0}
    assert {key: run.hparams[key] for key in task.in_force(config, "tiny")} == task.in_force(config, "tiny")
    logged = set(history.metric_names(run.id))
    prefix = task.logged_objective.removesuffix(task.objective)
    assert {prefix + metric for metric in task.metrics} | {f"test_{metric}" for metric in task.metrics} <= logged


def test_the_test_split_decides_no_outcome(history, data, tmp_path):
    _, run = evaluate("tabular", {"n_estimators": 100, "max_depth": 10, "min_samples_split": 2}, history, data, tmp_path)
    assert run.objective_last == history.metrics(run.id, "accuracy")[0].value
    assert [record.name for record in history.metrics(run.id, "accuracy")] == ["accuracy"]


def test_the_defaults_of_every_task_can_be_trained(history, data, tmp_path):
    for name in ("tabular", "regression"):
        task, run = evaluate(name, dict(find_task(name).defaults), history, data, tmp_path)
        assert str(run.status) == "completed"
        assert set(task.defaults) == set(task.grid)


@pytest.mark.parametrize("size", ["tiny", "small", "full"])
@pytest.mark.parametrize("name", LIVE_TASKS)
def test_the_grid_and_what_is_in_force_translate_into_each_other(name, size):
    task = find_task(name)
    for pick in range(2):
        config = {key: values[pick] for key, values in task.levels().items()}
        assert task.as_in_grid(task.in_force(config, size), size) == config


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("text", {"learning_rate": (2e-5, 3e-5, 5e-5), "batch_size": (16, 32, 64), "epochs": (3, 4, 5)}),
        ("image", {"learning_rate": (0.01, 0.001, 0.0001), "batch_size": (32, 64, 128), "epochs": (10, 20, 30)}),
        ("tabular", {"n_estimators": (100, 200, 300), "max_depth": (10, 20, 30), "min_samples_split": (2, 5, 10)}),
        ("series", {"learning_rate": (0.001, 0.005, 0.01), "batch_size": (16, 32, 64), "epochs": (20, 50, 100)}),
    ],
)
def test_the_grids_are_those_of_the_plan(name, grid):
    assert find_task(name).grid == grid


def test_the_parts_of_a_split_share_nothing_and_the_test_part_is_the_same_for_every_seed(data):
    from compare_baselines.live.tasks.tabular import _prepared

    parts = [_prepared(data, seed) for seed in (0, 1)]
    rows = [[{tuple(row) for row in np.column_stack([x, y])} for x, y in split] for split in parts]
    assert sum(len(y) for _, y in parts[0]) == 150
    assert len(parts[0][2][1]) == len(parts[1][2][1]) == 30
    assert np.array_equal(parts[0][2][1], parts[1][2][1])
    assert rows[0][0] != rows[1][0]


def test_weekends_are_found_in_the_load_itself(data):
    from compare_baselines.live.tasks.families import _weekends

    found = _weekends(data)
    assert found.targets.reshape(-1, 7).tolist() == [[0, 0, 0, 0, 0, 1, 1]] * 14


@pytest.mark.parametrize(
    ("load", "file"), [(load_reviews, "imdb.parquet"), (load_images, "cifar10_jpeg.npz"), (load_titanic, "titanic.csv")]
)
def test_a_missing_file_is_named_with_what_to_do(load, file, tmp_path):
    with pytest.raises(InvalidArgumentError, match=rf"has no {file}. Pass another --data-dir"):
        load(tmp_path)


def test_a_file_of_other_columns_is_refused(tmp_path):
    (tmp_path / "electricity.csv").write_text("time,name\nnow,x\n")
    (tmp_path / "titanic.csv").write_text("Survived,Age\n1,3\n")
    with pytest.raises(InvalidArgumentError, match="must have a column of numbers, the load, but has time, name"):
        load_electricity(tmp_path)
    with pytest.raises(InvalidArgumentError, match="but has Survived, Age"):
        load_titanic(tmp_path)


def test_without_a_network_the_real_data_is_one_clear_sentence(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidArgumentError, match="stanfordnlp/imdb must be loaded from the Hugging Face hub, but that failed"):
        load_reviews(None)


def test_unknown_and_repeated_tasks_are_refused():
    with pytest.raises(InvalidArgumentError, match="got 'imagee'; did you mean 'image'"):
        find_tasks(["imagee"])
    with pytest.raises(InvalidArgumentError, match="each once, but got cnn, cnn"):
        find_tasks(["cnn", "cnn"])
