from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from compare_baselines.methods.metahp import MetaHP
from compare_baselines.replay import Protocol, load_benchmark, run_replay
from compare_baselines.replay.job import ReplayJob, carry_out
from compare_baselines.replay.protocol import Benchmark
from compare_baselines.replay.scenarios import SCENARIOS, ScenarioBenchmark, with_scenario
from store import Curve, FinishedRun, History, InvalidArgumentError, RunStatus
from studies.replay.tables import REPLAY_TABLES, scenario_section
from tests.compare_baselines import recorded

PEERS = ("best-of-past", "zero-shot", "rgpe")
"""Those that learn from the past; `quantile`, which takes long, is tried with the smallest one."""
N_EPOCHS = 10


def with_curves(task: str, n: int) -> Iterator[FinishedRun]:
    """Runs whose accuracy grows over ten epochs to what `recorded` gives them."""
    for run in recorded.runs_of(task, n, 0.0):
        final = run.curves["acc"].values[0]
        steps = list(range(1, N_EPOCHS + 1))
        curve = Curve(steps, [final * step / N_EPOCHS for step in steps])
        yield replace(run, curves={"acc": curve}, epochs_reached=float(N_EPOCHS))


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with History(tmp_path_factory.mktemp("scenarios") / "h.db") as opened:
        for task in "abcdefghijklmn":
            opened.add_finished_runs(with_curves(task, 24))
        yield opened


@pytest.fixture(scope="module")
def benchmark(history: History) -> Benchmark:
    return load_benchmark(history, Protocol(12, 3, 1, holdout=("a", "b")))


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "few-1" else name for name in SCENARIOS])
def test_every_peer_lives_through_every_scenario_and_the_past_repeats_itself(history: History, benchmark: Benchmark, name: str) -> None:
    changed = with_scenario(history, benchmark, name)
    past_names = changed.folds()[0][0]
    first, second = changed.past(past_names, 0), changed.past(past_names, 0)
    assert [task.configs for task in first.tasks] == [task.configs for task in second.tasks]
    for task in first.tasks:
        assert len(task.configs) == len(task.points) == len(task.outcomes) == len(task.epochs)
    for peer in (*PEERS, "quantile", "plain-gp", "tpe") if name == "few-1" else PEERS:
        assert (np.diff(carry_out(changed, ReplayJob(peer, 0, 0, ("a",))).regret["a"]) <= 0).all()
    assert changed.describe()["scenario"] == {"name": name, "about": SCENARIOS[name].about}


@pytest.mark.parametrize("name", ["few-1", "subsets", "failures", "truncated"])
def test_metahp_meets_a_scenario_through_an_ordinary_history(history: History, benchmark: Benchmark, name: str) -> None:
    changed = with_scenario(history, benchmark, name)
    assert carry_out(changed, ReplayJob("metahp", 0, 0, ("a",))).regret["a"].shape == (3,)


def past_of(history: History, benchmark: Benchmark, name: str) -> tuple[ScenarioBenchmark, tuple]:
    changed = with_scenario(history, benchmark, name)
    return changed, changed.past(changed.folds()[0][0], 0).tasks


def test_tuned_parts_differ_between_tasks_and_spellings_reach_the_history(history: History, benchmark: Benchmark) -> None:
    _, tasks = past_of(history, benchmark, "subsets")
    varying = {frozenset(name for name in task.configs[0] if len({str(config[name]) for config in task.configs}) > 1) for task in tasks}
    assert len(varying) > 1
    assert any(raw != name for task in tasks for name, raw in task.spelling.items())
    method = MetaHP()
    changed = with_scenario(history, benchmark, "subsets")
    method.learn(changed.past(changed.folds()[0][0], 0))
    with History(method._base) as written:
        spelled = {item.raw_name for run in written.runs() for item in run.provenance.values()}
    method.close()
    assert spelled & {"lr", "eta0", "base_lr", "init_lr", "initial_lr", "max_lr", "learningrate", "learning_rate_init"}


def test_few_means_few_tasks_of_differing_size(history: History, benchmark: Benchmark) -> None:
    _, tasks = past_of(history, benchmark, "few-4")
    assert len(tasks) == 4
    assert all(3 <= len(task.configs) <= 24 for task in tasks)


def test_a_sixth_of_the_runs_fail_where_values_are_large(history: History, benchmark: Benchmark) -> None:
    changed = with_scenario(history, benchmark, "failures")
    pool = changed.pools["a"]
    assert {ending: pool.endings.count(ending) for ending in set(pool.endings)} == {"completed": 21, "diverged": 2, "oom": 1}
    assert np.isnan(pool.values).sum() == 3
    rates = [config["learning_rate"] for config, ending in zip(pool.configs, pool.endings, strict=True) if ending == "diverged"]
    assert min(rates) > np.median([config["learning_rate"] for config in pool.configs])


def test_interrupted_curves_end_where_they_were_cut(history: History, benchmark: Benchmark) -> None:
    _, tasks = past_of(history, benchmark, "truncated")
    assert len({epochs for task in tasks for epochs in task.epochs}) > 5
    for task in tasks:
        for (steps, values), outcome, epochs, ending in zip(task.curves, task.outcomes, task.epochs, task.endings, strict=True):
            assert (steps[-1], values[-1]) == (epochs, outcome)
            assert ending == (RunStatus.COMPLETED if epochs == N_EPOCHS else RunStatus.INTERRUPTED)


def test_each_task_has_its_own_number_of_epochs(history: History, benchmark: Benchmark) -> None:
    _, tasks = past_of(history, benchmark, "epochs")
    assert all(len(set(task.epochs)) == 1 and set(task.endings) == {"completed"} for task in tasks)
    assert len({task.epochs[0] for task in tasks}) > 3


def test_a_loss_of_many_magnitudes_keeps_order_and_regret(history: History, benchmark: Benchmark) -> None:
    changed = with_scenario(history, benchmark, "magnitudes")
    old, new = benchmark.pools["a"], changed.pools["a"]
    np.testing.assert_array_equal(np.argsort(old.values), np.argsort(new.values))
    np.testing.assert_array_equal(old.regret, new.regret)
    assert (new.values < 0).all()
    assert new.values.min() / new.values.max() > 99


def test_misleading_outcomes_are_those_of_the_other_end(history: History, benchmark: Benchmark) -> None:
    _, tasks = past_of(history, benchmark, "misleading")
    plain = benchmark.past(benchmark.folds()[0][0], 0).tasks
    assert all(mine.configs == theirs.configs for mine, theirs in zip(tasks, plain, strict=True))
    assert any((mine.outcomes != theirs.outcomes).any() for mine, theirs in zip(tasks, plain, strict=True))
    _, shuffled = past_of(history, benchmark, "unrelated")
    assert all(sorted(mine.outcomes) == sorted(theirs.outcomes) for mine, theirs in zip(shuffled, plain, strict=True))


def test_the_report_counts_failures_and_compares_with_the_best_peer(history: History, benchmark: Benchmark) -> None:
    report = run_replay(with_scenario(history, benchmark, "failures"), ["metahp", "best-of-past", "plain-gp"], workers=1)
    assert json.loads(json.dumps(report, allow_nan=False))["methods"] == report["methods"]
    assert all(len(item["failed"]) == 3 for item in report["methods"].values())
    assert [entry["k"] for entry in report["comparison"]] == [1, 2, 3]
    assert set(report["comparison"][0]) == {"k", "best_peer", "difference", "ci95", "plain"}
    text = scenario_section(REPLAY_TABLES[0], {"failures": report})
    assert "| failures | 1 |" in text
    assert "Failed runs among the 3 proposed" in text


def test_scenarios_that_a_history_cannot_show_are_refused(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", *((name, 12, 0.0) for name in "abc"))
    with History(path) as history:
        benchmark = load_benchmark(history, Protocol(8, 3, 1))
        with pytest.raises(InvalidArgumentError, match="only one value a run"):
            with_scenario(history, benchmark, "truncated")
        with pytest.raises(InvalidArgumentError, match="a fold has only 2"):
            with_scenario(history, benchmark, "few-4")
        with pytest.raises(InvalidArgumentError, match="did you mean 'biased'"):
            with_scenario(history, benchmark, "bias")
