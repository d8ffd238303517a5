import json

import numpy as np
import pytest

from compare_baselines.replay import Protocol, load_benchmark, run_replay
from compare_baselines.replay.day_one import LIBRARY_DEFAULTS, TableMapping, day_one
from store import History, InvalidArgumentError
from tests.compare_baselines.recorded import write

MLP = TableMapping({"act": "activation"}, {"model_family": "mlp", "optimizer": "Adam", "num_epochs": 30})


@pytest.fixture
def benchmark(tmp_path):
    with History(write(tmp_path / "r.db", ("a", 60, 0.5), ("b", 60, 0.3), ("c", 60, 0.4))) as history:
        return load_benchmark(history, Protocol(n_hist=1, budget=4, seeds=1))


@pytest.fixture(autouse=True)
def switched_on(monkeypatch):
    monkeypatch.delenv("METAHP_STARTER")


def test_the_first_recommendation_is_better_than_a_random_one_without_any_past(benchmark):
    report = run_replay(day_one(benchmark, MLP), ["random", "defaults", "starter"], workers=1)
    regret = {name: item["regret"] for name, item in report["methods"].items()}
    assert regret["starter"][0] < regret["random"][0]
    assert report["protocol"]["n_hist"] == 0
    assert report["protocol"]["folds"] == 1


def test_names_are_mapped_and_every_task_is_tested_without_a_past(benchmark):
    found = day_one(benchmark, MLP)
    assert found.folds() == [([], ["a", "b", "c"])]
    assert found.past([], 0).tasks == ()
    assert set(found.space) == {"learning_rate", "num_layers", "activation"}
    assert set(found.pools["a"].configs[0]) == {"learning_rate", "num_layers", "activation"}
    assert found.pools["a"].values.tolist() == benchmark.pools["a"].values.tolist()


def test_defaults_are_the_nearest_recorded_run_to_what_libraries_do(benchmark):
    report = run_replay(day_one(benchmark, TableMapping(known=MLP.known)), ["defaults"], workers=1)
    pool = day_one(benchmark, MLP).pools["a"]
    near = min(abs(np.log10(config["learning_rate"] / LIBRARY_DEFAULTS["learning_rate"])) for config in pool.configs)
    assert near < 0.2
    assert report["methods"]["defaults"]["tasks"]["a"][0] <= pool.regret.max()


def test_an_unknown_name_to_map_is_refused(benchmark):
    with pytest.raises(InvalidArgumentError, match=r"but got 'alpha'; possible are act, learning_rate, num_layers"):
        day_one(benchmark, TableMapping({"alpha": "weight_decay"}))


@pytest.mark.parametrize("content", ["{", "[]", '{"names": 3}', '{"other": {}}'])
def test_a_malformed_mapping_file_is_refused_with_an_example(tmp_path, content):
    (tmp_path / "m.json").write_text(content)
    with pytest.raises(InvalidArgumentError, match="A mapping file must be a JSON object with names, known and defaults"):
        TableMapping.load(tmp_path / "m.json")


def test_a_mapping_file_is_read(tmp_path):
    (tmp_path / "m.json").write_text(json.dumps({"names": {"act": "activation"}, "known": dict(MLP.known)}))
    assert TableMapping.load(tmp_path / "m.json") == MLP


def test_with_a_past_or_switched_off_the_method_says_so(benchmark, monkeypatch):
    with pytest.raises(InvalidArgumentError, match="there are 2 past tasks"):
        run_replay(benchmark, ["starter"], workers=1)
    monkeypatch.setenv("METAHP_STARTER", "0")
    with pytest.raises(InvalidArgumentError, match="METAHP_STARTER switches it off"):
        run_replay(day_one(benchmark, MLP), ["starter"], workers=1)
