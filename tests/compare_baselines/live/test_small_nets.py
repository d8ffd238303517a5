"""The suite of small networks: its data can be learned, its figures are what they claim, and one task runs from end to end."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from compare_baselines.live.past import write_past
from compare_baselines.live.small_nets import SuiteRun, SuiteSettings, TaskSearches, all_rows, read_suite, run_suite, suite_tasks
from compare_baselines.live.small_nets import suite as suite_module
from compare_baselines.live.small_nets.data import MAKERS, load
from compare_baselines.live.small_nets.figures import _held, better_constant, over_tasks
from compare_baselines.live.small_nets.task import SPECS, SmallNet, _renew_statistics
from compare_baselines.live.tasks import find_task
from compare_baselines.live.tasks.base import Training
from compare_baselines.methods.base import SearchProblem, Trial
from compare_baselines.methods.metahp import MetaHP
from metahp_report.comparison.records import RecordedPrediction
from metamodel import recommend
from metamodel.kinds import DEFAULT as OURS
from metamodel.recommendation import Decision, Recommendation
from store import History
from store.errors import InvalidArgumentError

CONTROLS = ("default", "constant-1e-2", "constant-3e-3", "schedule-free", "prodigy")


@pytest.mark.parametrize("name", MAKERS)
def test_every_data_set_comes_out_the_same_and_is_standardised(name):
    load.cache_clear()
    first = load(name, 1)
    load.cache_clear()
    again = load(name, 1)
    for part, other in ((first.train, again.train), (first.val, again.val), (first.test, again.test)):
        np.testing.assert_array_equal(part[0], other[0])
        np.testing.assert_array_equal(part[1], other[1])
    assert np.isfinite(first.train[0]).all()
    assert abs(float(first.train[0].mean())) < 0.1
    assert len(first.test[1]) > 600
    if first.n_classes is not None:
        assert set(np.unique(first.test[1])) == set(range(first.n_classes))


def test_another_seed_splits_otherwise_and_no_row_is_in_two_parts():
    first, second = load("arm", 0), load("arm", 1)
    assert not np.array_equal(first.train[0], second.train[0])
    rows = np.concatenate([part[0] for part in (first.train, first.val, first.test)])
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_the_suite_has_24_tasks_in_two_halves_with_all_families_and_kinds():
    assert len(SPECS) == 24
    assert len(suite_tasks()) == 72
    for half in ("development", "held-out"):
        tasks = [SmallNet(name) for name in suite_tasks(half, ("base",))]
        assert len(tasks) == 12
        families = [task.model_family for task in tasks]
        assert {family: families.count(family) for family in families} == {"mlp": 3, "cnn": 3, "rnn": 3, "transformer": 3}
        assert sum(task.direction == "min" for task in tasks) >= 3
    with pytest.raises(InvalidArgumentError, match="development, held-out, all"):
        suite_tasks("both")
    with pytest.raises(InvalidArgumentError, match="small-nets"):
        find_task("small-nets/arm-huge")


def test_a_wide_network_is_four_times_as_wide_and_a_long_training_three_times_as_long():
    base, wide, long = (SmallNet(f"small-nets/counting-{variant}") for variant in ("base", "wide", "long"))
    assert (base.describe("small").width, wide.describe("small").width) == (12, 48)
    assert wide.describe("small").n_parameters > 10 * base.describe("small").n_parameters
    assert long.fixed("small")["num_epochs"] == 3 * base.fixed("small")["num_epochs"]
    assert base.describe("small").model_family == "cnn"


@pytest.mark.parametrize("name", ["tree", "textures", "recall", "marked-sum"])
def test_what_is_learned_beats_guessing(tmp_path: Path, name: str):
    task = SmallNet(f"small-nets/{name}-base")
    torch.set_num_threads(1)
    with History(tmp_path / "history.db") as history:
        training = Training(history, "small", 0, None, tmp_path)
        task.train({**task.defaults, "learning_rate": 1e-2}, training)
        run = history.run(training.run_id)
        last = {record.name: record.value for record in history.metrics(run.id)}
    data = load(name, 0)
    if data.n_classes is None:
        assert last["test_loss"] < 0.5 * float(np.var(data.test[1]))
    else:
        assert last["test_accuracy"] > 1.3 * np.bincount(data.test[1]).max() / len(data.test[1])
    assert run.objective_last == pytest.approx(last[f"val_{task.objective}"])
    assert run.epochs_reached == task.epochs


def _run(val: float, test: float) -> SuiteRun:
    return SuiteRun({}, val, test, 1.0, None, "")


def test_regret_is_that_of_the_run_chosen_on_validation_between_the_best_and_the_median():
    runs = {
        "default": [_run(0.5, 0.5)],
        "constant-1e-2": [_run(0.8, 0.7)],
        "random": [_run(0.2, 0.3), _run(0.6, 0.4), _run(math.nan, math.nan), _run(0.9, 0.6)],
        f"{OURS} day one": [_run(0.85, 0.75)],
    }
    searches = TaskSearches(SmallNet("small-nets/tree-base"), 0, runs)
    # Without advice the best on test is 0.7; random runs are 0.3, 0.4, 0.6 and a failed one, which counts as the worst: median 0.35.
    assert searches.regret("default", 1, on_test=True) == pytest.approx((0.7 - 0.5) / (0.7 - 0.35))
    # Of random search every draw of two counts: the best run is in three of six, the second in two more, the third in the last.
    drawn = (3 * (0.7 - 0.6) + 2 * (0.7 - 0.4) + (0.7 - 0.3)) / 6
    assert searches.regret("random", 2, on_test=True) == pytest.approx(drawn / (0.7 - 0.35))
    assert searches.regret("random", 4, on_test=True) == pytest.approx((0.7 - 0.6) / (0.7 - 0.35))
    assert searches.regret(f"{OURS} day one", 1, on_test=True) == pytest.approx((0.7 - 0.75) / (0.7 - 0.35))
    assert searches.regret("default", 1, on_test=False) == pytest.approx((0.9 - 0.5) / (0.9 - 0.4))
    assert math.isnan(searches.regret("default", 2, on_test=True))
    assert searches.is_worse(_run(0.4, 0.4))
    assert not searches.is_worse(_run(0.6, 0.4))


def test_a_rank_that_was_announced_is_held_against_the_random_runs():
    def expecting(low: float, high: float) -> SuiteRun:
        return SuiteRun({}, 0.75, 0.75, 1.0, RecordedPrediction(0.5, low, high, "rank"), "")

    random = [_run(value, value) for value in (0.1, 0.2, 0.3, 0.7, 0.9, 0.95, math.nan)]
    runs = {"random": random, f"{OURS} day one": [expecting(0.5, 0.8), expecting(0.7, 0.9), _run(0.5, 0.5)]}
    # Better than five of seven, the failed one among them.
    assert _held(TaskSearches(SmallNet("small-nets/tree-base"), 0, runs), f"{OURS} day one") == [True, False]


def test_schedule_free_is_run_as_its_package_asks_for(tmp_path: Path):
    task = SmallNet("small-nets/tree-base")
    assert task.fixed("tiny")["lr_scheduler"] == "cosine"
    with History(tmp_path / "history.db") as history:
        training = Training(history, "tiny", 0, None, tmp_path)
        task.train({**task.defaults, "optimizer": "schedule-free", "learning_rate": 2.5e-3}, training)
        assert history.run(training.run_id).hparams["lr_scheduler"] == "constant"
    net = torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.Linear(3, 1)).train()
    _renew_statistics(net, torch.full((64, 3), 5.0), 8)
    assert net[0].running_mean.min() > 2.5


def test_where_the_product_abstains_the_users_own_values_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    task = SmallNet("small-nets/tree-base")
    chosen = {**task.defaults, "learning_rate": 0.05}
    problem = SearchProblem(task, "tiny", 0, 8, tmp_path / "past.db", uses_starter=True)
    with History(tmp_path / "past.db"):
        pass
    asked = MetaHP().propose(problem, [])
    assert asked is not None
    assert asked.prediction is not None
    assert asked.config["learning_rate"] != task.defaults["learning_rate"]

    def recommend_weakly(*arguments: object, **options: object) -> list[Recommendation]:
        found = recommend(*arguments, **options)  # type: ignore[arg-type]
        return [replace(found[0], config=chosen, decision=Decision.ABSTAIN, reason="only a 40% chance")]

    monkeypatch.setattr("compare_baselines.methods.metahp.recommend", recommend_weakly)
    first, second = (MetaHP().propose(problem, trials) for trials in ([], [Trial(dict(task.defaults), 0.5)]))
    assert first is not None
    assert (first.config, first.prediction) == (dict(task.defaults), None)
    assert "40% chance" in first.note
    assert second is not None
    assert second.config == chosen


def test_intervals_are_over_data_sets_and_differences_are_paired():
    rng = np.random.default_rng(0)
    names = [name for name in suite_tasks(variants=("base", "wide")) if SmallNet(name).direction == "max" and "digit" not in name]
    offsets = {name: float(rng.normal()) for name in names}
    searches = [TaskSearches(SmallNet(name), 0, {}) for name in names]
    figure = over_tasks(searches, lambda item: offsets[item.task.name])
    by_data = np.array(
        [
            np.mean([offsets[f"small-nets/{data}-{v}"] for v in ("base", "wide")])
            for data in dict.fromkeys(item.task.spec.data for item in searches)
        ]
    )
    assert figure.mean == pytest.approx(by_data.mean())
    half_width = 1.96 * by_data.std(ddof=0) / math.sqrt(len(by_data))
    assert (figure.high - figure.low) / 2 == pytest.approx(half_width, rel=0.15)
    assert over_tasks(searches, lambda item: math.nan).n == 0


@pytest.mark.slow
def test_a_suite_goes_from_end_to_end_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = tuple(f"small-nets/{data}-base" for data in ("arm", "tree", "orbit"))
    monkeypatch.setattr(suite_module, "suite_tasks", lambda half, variants: names)
    monkeypatch.setattr(suite_module, "RANDOM_RUNS", 9)
    monkeypatch.setattr(suite_module, "SEARCH_RUNS", 2)
    monkeypatch.setenv("METAHP_STARTER", "1")
    path = tmp_path / "suite.db"
    remarks: list[str] = []
    settings = SuiteSettings(seeds=1, size="tiny", methods=("controls", "ours"))
    run_suite(path, settings, remark=remarks.append)
    with History(path) as history:
        searches = read_suite(history, "tiny")
        n_runs = sum(item.n_runs for item in history.tasks())
    assert {item.task.name for item in searches} == set(names)
    for item in searches:
        assert {method: len(runs) for method, runs in item.runs.items()} == {
            **dict.fromkeys(CONTROLS, 1),
            "random": 9,
            f"{OURS} day one": 2,
            f"{OURS} own tasks": 2,
        }
        assert not any(math.isnan(run.test) for run in item.runs["default"])
    assert better_constant(searches) in ("constant-1e-2", "constant-3e-3")
    tables = all_rows(searches)
    assert {"Regret, base", "Regret, mlp", "What was advised"} <= set(tables)
    assert all(len(row) == len(columns) for columns, rows in tables.values() for row in rows)
    run_suite(path, settings, remark=remarks.append)
    with History(path) as history:
        assert sum(item.n_runs for item in history.tasks()) == n_runs
    assert any("0 of 18 searches" in remark for remark in remarks)


def test_ones_own_tasks_hold_neither_the_data_under_test_nor_the_other_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = tuple(f"small-nets/{data}" for data in ("flat-digits-base", "digits-base", "tree-base", "orbit-wide"))
    monkeypatch.setattr(suite_module, "suite_tasks", lambda half, variants: names)
    monkeypatch.setattr(suite_module, "RANDOM_RUNS", 8)
    path = tmp_path / "suite.db"
    run_suite(path, SuiteSettings(seeds=1, size="tiny", methods=("controls",)))
    from compare_baselines.live.past import choose_past

    with History(path) as history:
        past = choose_past("eight-of:small-nets controls", history, True, "x", "2026")
    # Nothing here is of the held-out half.
    assert write_past(past, SmallNet("small-nets/parity-base"), tmp_path / "nothing.db") == 0
    assert write_past(past, SmallNet("small-nets/flat-digits-long"), tmp_path / "past.db") == 16
    assert write_past(past, SmallNet("small-nets/flat-digits-long"), tmp_path / "other.db", seed=1) == 0
    with History(tmp_path / "past.db") as history:
        assert {item.name for item in history.tasks()} == {"live small-nets/tree-base tiny", "live small-nets/orbit-wide tiny"}
