from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compare_baselines.replay import Protocol, load_benchmark, own_runs_protocol
from store import Curve, FinishedRun, History, InvalidArgumentError, NotEnoughHistoryError
from tests.compare_baselines import recorded

SMALL = Protocol(n_hist=8, budget=4, seeds=1)


def test_folds_take_every_third_task_sorted_as_text(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", *((name, 12, 0.0) for name in ("10", "9", "2", "1", "33")))
    with History(path) as history:
        benchmark = load_benchmark(history, SMALL)
    assert list(benchmark.pools) == ["1", "10", "2", "33", "9"]
    assert [tested for _, tested in benchmark.folds()] == [["1", "33"], ["10", "9"], ["2"]]
    assert benchmark.folds()[0][0] == ["10", "2", "9"]


def test_past_runs_are_drawn_as_the_protocol_says(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", ("a", 12, 0.0), ("b", 15, 0.0), ("c", 12, 0.0))
    with History(path) as history:
        drawn = load_benchmark(history, SMALL).past_runs(["b", "a"], 2)
    rng = np.random.default_rng(1002)
    expected = {"a": rng.choice(12, 8, replace=False), "b": rng.choice(15, 8, replace=False)}
    assert list(drawn) == ["a", "b"]
    assert all(np.array_equal(drawn[name], expected[name]) for name in drawn)


def test_leave_one_out_and_holdout(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", ("a", 12, 0.0), ("b", 12, 0.0), ("c", 12, 0.0))
    with History(path) as history:
        assert len(load_benchmark(history, Protocol(8, 4, 1, folds=0)).folds()) == 3
        assert load_benchmark(history, Protocol(8, 4, 1, holdout=("b",))).folds() == [(["a", "c"], ["b"])]
        with pytest.raises(InvalidArgumentError, match="got 'x'; possible are a, b, c"):
            load_benchmark(history, Protocol(8, 4, 1, holdout=("x",)))


def test_regret_is_zero_at_the_best_and_one_at_the_median_and_a_diverged_run_counts_as_the_worst(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        for task in "abc":
            history.add_finished_runs(recorded.runs_of(task, 13, 0.0, n_diverged=2))
        pool = load_benchmark(history, SMALL).pools["a"]
    assert pool.regret.min() == 0.0
    assert np.median(pool.regret) == pytest.approx(1.0)
    assert pool.regret[0] == pool.regret[1] == pool.regret.max()
    assert np.isnan(pool.values[:2]).all()


def test_what_cannot_be_replayed_is_named(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        for task in "abc":
            history.add_finished_runs(recorded.runs_of(task, 12, 0.0, n_double=2 if task == "b" else 0))
        history.add_finished_runs(recorded.runs_of("short", 5, 0.0))
        history.add_finished_runs(recorded.runs_of("failed", 12, 0.0, n_diverged=12))
        history.add_finished_runs(recorded.runs_of("other", 12, 0.0, objective="f1"))
        flat = (FinishedRun(f"flat-{i}", "flat", {"lr": 0.1 * (i + 1)}, "acc", "max", {"acc": Curve([0], [1.0])}) for i in range(12))
        history.add_finished_runs(flat)
        benchmark = load_benchmark(history, SMALL)
    assert list(benchmark.pools) == ["a", "b", "c"]
    text = "\n".join(benchmark.notes)
    assert "b: 2 runs repeat a configuration; the first run of each counts" in text
    assert "left out, short: it has 5 distinct finished configurations, 8 are needed" in text
    assert "left out, failed: every run diverged" in text
    assert "left out, flat: every run has the same outcome" in text
    assert "left out, no run has the objective 'acc': other" in text
    assert all("\n" not in note for note in benchmark.notes)


def test_too_few_runs_of_ones_own_are_counted(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", ("a", 12, 0.0), ("b", 7, 0.0))
    with (
        History(path) as history,
        pytest.raises(NotEnoughHistoryError, match=r"13 runs are missing: 3 more of 'b' \(7 now\), 10 of another"),
    ):
        own_runs_protocol(history)
    with History(tmp_path / "empty.db") as history, pytest.raises(NotEnoughHistoryError, match="30 runs are missing"):
        own_runs_protocol(history)


def test_a_small_history_is_replayed_with_what_it_has(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", ("a", 12, 0.0), ("b", 30, 0.0), ("c", 14, 0.0), ("d", 3, 0.0))
    with History(path) as history:
        protocol = own_runs_protocol(history)
    assert (protocol.n_hist, protocol.budget, protocol.objective) == (6, 6, "acc")


def test_of_a_small_history_a_large_past_task_gives_more_than_a_small_one(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", ("a", 12, 0.0), ("b", 30, 0.0), ("c", 70, 0.0))
    with History(path) as history:
        past = load_benchmark(history, own_runs_protocol(history)).past(["a", "b", "c"], 0)
    assert [len(task.configs) for task in past.tasks] == [12, 30, 50]


def test_scales_come_from_the_values_or_from_the_space(tmp_path: Path) -> None:
    from optuna.distributions import FloatDistribution

    path = recorded.write(tmp_path / "h.db", ("a", 40, 0.0), ("b", 40, 0.0), ("c", 40, 0.0))
    with History(path) as history:
        found = load_benchmark(history, SMALL).space
        given = load_benchmark(history, SMALL, {"lr": FloatDistribution(1e-6, 1.0)}).space
    assert found["learning_rate"].is_log
    assert found["num_layers"].is_int
    assert found["act"].choices == ("relu", "tanh")
    assert list(given) == ["learning_rate"]
    assert not given["learning_rate"].is_log


@pytest.mark.parametrize("wrong", [{"n_hist": 0}, {"budget": 0}, {"seeds": 0}, {"folds": 1}])
def test_impossible_numbers_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(wrong))):
        Protocol(**wrong)


def test_a_global_batch_and_that_of_a_device_are_one_hyperparameter(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        for task in "abc":
            for i in range(12):
                config = {"lr": 10.0 ** -(i % 4), "batch_size": 4 + i, "global_batch_size": 8 + 2 * i, "gradient_accumulation_steps": 2}
                history.add_finished_runs([FinishedRun(f"{task}{i}", task, config, "acc", "max", {"acc": Curve([0], [i / 12])})])
        benchmark = load_benchmark(history, Protocol(6, 4, 1))
    assert list(benchmark.space) == ["global_batch_size", "learning_rate"]
    assert {config["global_batch_size"] for config in benchmark.pools["a"].configs} == {8 + 2 * i for i in range(12)}
