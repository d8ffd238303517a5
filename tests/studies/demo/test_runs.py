import math

import numpy as np
import pytest

from store import History, RunStatus
from studies.demo.runs import (
    DEMO_BATCH_SIZES,
    DEMO_DEFAULTS,
    DemoJob,
    DemoTask,
    copy_history,
    demo_space,
    random_config,
    train,
    training_processes,
)

IRIS = DemoTask("iris", "mlp")


def job(path, seed=0, **changes):
    return DemoJob(IRIS, "arm", {**DEMO_DEFAULTS, **changes}, seed, 2, path)


def test_random_configurations_lie_in_the_space_and_use_all_of_it():
    rng = np.random.default_rng(0)
    configs = [random_config(rng) for _ in range(300)]
    space = demo_space()
    for config in configs:
        assert set(config) == set(space)
        assert config["batch_size"] in space["batch_size"].choices
        assert all(space[name].low <= config[name] <= space[name].high for name in ("learning_rate", "num_layers", "dropout"))
    rates = [math.log10(config["learning_rate"]) for config in configs]
    assert min(rates) < -4.9
    assert max(rates) > -1.1
    assert {config["batch_size"] for config in configs} == set(DEMO_BATCH_SIZES)


def test_a_run_is_recorded_with_its_configuration_and_its_curve(tmp_path):
    with training_processes(1) as train_all:
        (outcome,) = train_all([[job(tmp_path / "h.db", learning_rate=0.01, num_layers=3)]])
    assert outcome.run.status is RunStatus.COMPLETED
    assert outcome.config == {**DEMO_DEFAULTS, "learning_rate": 0.01, "num_layers": 3}
    assert len(outcome.curve) == 2
    assert outcome.objective == max(outcome.curve)
    assert outcome.run.model_family == "mlp"


def test_equal_seeds_give_equal_curves(tmp_path):
    first, again = train(job(tmp_path / "a.db", seed=5)), train(job(tmp_path / "b.db", seed=5))
    assert first.curve == again.curve


@pytest.mark.slow
def test_two_processes_write_into_one_history(tmp_path):
    path = tmp_path / "h.db"
    with training_processes(2) as train_all:
        outcomes = list(train_all([[job(path, seed)] for seed in range(6)]))
    with History(path) as history:
        runs = history.runs()
        assert {run.id for run in runs} == {outcome.run.id for outcome in outcomes}
        assert len(history.tasks()) == 1
    assert {run.status for run in runs} == {RunStatus.COMPLETED}


def test_a_chain_of_jobs_runs_in_order(tmp_path):
    with training_processes(1) as train_all:
        outcomes = list(train_all([[job(tmp_path / "h.db", seed) for seed in (7, 3, 5)]]))
    assert [outcome.job.seed for outcome in outcomes] == [7, 3, 5]
    assert sorted(outcome.run.id for outcome in outcomes) == [outcome.run.id for outcome in outcomes]


def test_a_copied_history_is_independent_of_its_source(tmp_path):
    source, target = tmp_path / "a.db", tmp_path / "deep" / "b.db"
    with History(source) as history, history.start_run(task="t", objective="val_acc") as run:
        run.log(val_acc=0.5)
    history.models_path.mkdir()
    (history.models_path / "m.json").write_text("{}")
    copy_history(source, target)
    with History(target) as copy, copy.start_run(task="t", objective="val_acc") as run:
        run.log(val_acc=0.7)
    with History(source) as history, History(target) as copy:
        assert (len(history.runs()), len(copy.runs())) == (1, 2)
        assert (copy.models_path / "m.json").exists()
