"""A tiny run of each benchmark: they measure what they say, and the page can be written."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks import bench_advice, bench_logging, bench_sampler, bench_store, page
from benchmarks.big_history import generate, runs
from benchmarks.measuring import Timing, differences, in_turns, interval
from benchmarks.query_plans import Plan, explain
from compare_baselines.replay.protocol import Protocol, load_benchmark
from store import Curve, FinishedRun, History


def test_candidates_are_measured_in_turns_and_the_first_round_does_not_count() -> None:
    calls: list[str] = []

    def candidate(name: str) -> Timing:
        calls.append(name)
        return Timing(float(len(calls)), 0.0)

    measured = in_turns({name: lambda name=name: candidate(name) for name in ("a", "b", "slow")}, 3, fewer={"slow": 1})
    assert [len(measured[name]) for name in ("a", "b", "slow")] == [3, 3, 1]
    assert sorted(calls[:3]) == ["a", "b", "slow"]
    assert {frozenset(calls[start : start + 2]) for start in (6, 8)} == {frozenset({"a", "b"})}


def test_an_interval_holds_the_median_and_differences_pair_the_rounds() -> None:
    found = interval([3.0, 1.0, 2.0, 5.0, 4.0])
    assert found.low <= found.median == 3.0 <= found.high
    assert differences([3.0, 5.0], [1.0, 1.0, 9.0]) == [2.0, 4.0]


def test_a_section_of_the_page_is_replaced_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("# Page\n\n<!-- a:start -->\nold\n<!-- a:end -->\n\nend\n")
    for text in ("first", "| a \\1 |"):
        page.write_section("a", text, path)
    assert path.read_text() == "# Page\n\n<!-- a:start -->\n\n| a \\1 |\n\n<!-- a:end -->\n\nend\n"
    with pytest.raises(ValueError, match="must have a place for 'b'"):
        page.write_section("b", "text", path)


def test_the_page_has_a_place_for_every_section() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    for name in ("logging-lightning", "bulk", "scale", "plans", "metamodel", "advice", "sampler"):
        assert f"<!-- {name}:start -->" in text
        assert f"<!-- {name}:end -->" in text


def test_the_generated_history_is_the_same_each_time_and_can_be_learned_from(tmp_path: Path) -> None:
    assert list(runs(3, 40)) == list(runs(3, 40))
    n_rows = generate(tmp_path / "history.db", 210, 40)
    assert 30 * 210 <= n_rows <= 50 * 210
    with History(tmp_path / "history.db") as history:
        assert len(history.tasks()) == 200
        assert history.task("task-000").n_runs == 2
        assert history.metric_names() == ["grad_norm", "train_acc", "train_loss", "val_acc", "val_loss"]


def test_no_everyday_question_reads_a_whole_table(tmp_path: Path) -> None:
    generate(tmp_path / "history.db", 300, 40)
    with History(tmp_path / "history.db") as history:
        plans = explain(history, history.runs(limit=1)[0].id, "task-003")
    assert len({plan.question for plan in plans}) == 10
    assert {plan.question: plan.full_scans for plan in plans if plan.full_scans} == {}


def test_a_full_scan_is_recognised() -> None:
    assert Plan("?", "SELECT * FROM runs", ("SCAN runs",)).full_scans == ("SCAN runs",)
    assert Plan("?", "SELECT id FROM runs", ("SCAN runs USING COVERING INDEX i",)).full_scans
    assert not Plan("?", "SELECT * FROM runs ORDER BY id LIMIT 5", ("SCAN runs USING INDEX i",)).full_scans
    assert not Plan("?", "SELECT * FROM runs WHERE id = 1", ("SEARCH runs USING INDEX i (id=?)",)).full_scans


@pytest.mark.slow
def test_the_store_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--runs", "220", "--rows-per-run", "40", "--bulk-runs", "5", "--rounds", "1", "--lenient"]
    assert bench_store.main(words) == 0
    printed = capsys.readouterr().out
    for text in (
        "bare sqlite3 executemany",
        "metahp: add_finished_runs",
        "220 runs of 200 tasks",
        "metahp show",
        "a run starts",
        "SEARCH metrics",
    ):
        assert text in printed


@pytest.mark.slow
def test_the_logging_benchmark_runs_and_checks_that_nothing_is_missing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from benchmarks import lightning_fits

    monkeypatch.setenv("METAHP_RESOURCES_S", "5")
    words = ["--steps", "60", "--rounds", "1", "--without", "TensorBoardLogger", "MLFlowLogger (SQLite)", "--lenient"]
    assert bench_logging.main(words) == 0
    printed = capsys.readouterr().out
    for text in ("| metahp", "| CSVLogger", "Every logged value was in the file", "logging every 50 steps"):
        assert text in printed
    recording = lightning_fits.recordings()["metahp"]
    assert isinstance(recording, lightning_fits.Recording)
    short = lightning_fits.Recording(recording.attach, lambda folder: 1)
    with pytest.raises(AssertionError, match="every logged value must be in the file"):
        lightning_fits.fit(short, tmp_path, steps=5, every=1)


def test_a_logger_that_is_not_installed_is_a_named_row() -> None:
    rows = [
        bench_logging.Added("no logger", interval([0.0]), interval([0.0]), 1.0),
        bench_logging.Added("CSVLogger", interval([9.0]), interval([9.0]), 1.0),
    ]
    assert "not measured: mlflow is not installed" in bench_logging.table(
        rows, {"MLFlowLogger": "not measured: mlflow is not installed"}, "CSVLogger"
    )


@pytest.mark.slow
def test_the_sampler_benchmark_runs(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seeds", "1", "--trials", "6", "--functions", "Branin, 2", "--workers", "1", "--lenient"]
    assert bench_sampler.main(words) == 0
    printed = capsys.readouterr().out
    for text in ("| Branin, 2", "MetaHPSampler", "GPSampler", "median factor"):
        assert text in printed


def test_the_test_functions_have_their_minima_where_the_literature_has_them() -> None:
    places: dict[str, list[float] | list[str | float]] = {
        "Branin, 2": [math.pi, 2.275],
        "Hartmann, 3": [0.114614, 0.555649, 0.852547],
        "Levy, 4": [1.0] * 4,
        "Rosenbrock, 3": [1.0] * 3,
        "Ackley, 5": [0.0] * 5,
        "Rastrigin, 4": [0.0] * 4,
        "Hartmann, 6": [0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573],
        "training, 6 mixed": ["adam", 1e-3, 1e-4, 5, 64, 0.15],  # ours: where every one of its gaps is 0
    }
    for name, function in bench_sampler.FUNCTIONS.items():
        assert function.value(places[name]) == pytest.approx(function.minimum, abs=1e-4)


@pytest.mark.slow
def test_what_is_said_about_a_task_is_compared_with_what_came_of_it(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    with History(tmp_path / "history.db") as history:
        for task in ("a", "b", "c", "d", "e", "f"):
            rates = 10 ** rng.uniform(-4, -1, 70)
            history.add_finished_runs(
                FinishedRun(f"{task}-{i}", task, {"lr": rate}, "acc", "max", {"acc": Curve([0], [-(math.log10(rate * 100) ** 2)])})
                for i, rate in enumerate(rates)
            )
        found = bench_advice.ask(load_benchmark(history, Protocol(seeds=1, n_hist=30, budget=4)), {"learning_rate": 1e-4}, 0, 0)
    assert len(found.spoke) == 2
    assert len(found.is_above_median) == len(found.beats_default) == sum(found.spoke)
    assert all(found.is_above_median + found.beats_default)
    assert set(found.held) == {(n_own, level) for n_own in (0, 4, 16) for level in (0.5, 0.8, 0.95)}
