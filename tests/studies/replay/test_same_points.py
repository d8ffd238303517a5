from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from compare_baselines.replay import Benchmark, Protocol, load_benchmark
from store import History
from studies.replay.same_points import PAGE_MARK, chosen_after, compare, difference, given_points, section, write_page
from tests.compare_baselines import recorded


@pytest.fixture(scope="module")
def benchmark_(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    tasks = [(name, 40, shift) for name, shift in (("a", 0.0), ("b", 0.1), ("c", -0.1), ("d", 0.05))]
    with History(recorded.write(tmp_path_factory.mktemp("points") / "h.db", *tasks)) as history:
        return load_benchmark(history, Protocol(10, 8, 2))


def test_every_method_gets_the_same_distinct_points_and_each_seed_its_own() -> None:
    points = given_points("a", 0, 40)
    assert len(set(points)) == 5
    assert points == given_points("a", 0, 40)
    assert points != given_points("a", 1, 40)
    assert points != given_points("b", 0, 40)


@pytest.mark.parametrize("method", ["scratch", "scratch-few"])
def test_the_network_from_scratch_chooses_a_new_configuration_and_repeats_itself(method: str, benchmark_: Benchmark) -> None:
    first, again = (chosen_after(benchmark_, method, 0, 0) for _ in range(2))
    assert first == again
    assert set(first) == set(benchmark_.folds()[0][1])
    for task, (choice, best) in first.items():
        pool = benchmark_.pools[task]
        points = pool.regret[given_points(task, 0, len(pool))]
        assert best == min(choice, points.min())


def test_a_comparison_has_a_value_a_task_and_paired_intervals(benchmark_: Benchmark) -> None:
    report = compare(benchmark_, ["best-of-past", "scratch-few"], workers=1)
    assert report["tasks"] == ["a", "b", "c", "d"]
    found = report["methods"]["best-of-past"]
    assert len(found["choice"]) == len(found["best"]) == 4
    assert all(best <= alone for best, alone in zip(found["best"], report["points"], strict=True))
    mean, low, high = difference(report, "best-of-past", "scratch-few")
    gaps = np.array(found["choice"]) - np.array(report["methods"]["scratch-few"]["choice"])
    assert mean == pytest.approx(gaps.mean())
    assert low <= mean <= high
    text = section("made up", report)
    assert "4 tasks, 2 seeds" in text
    assert "| best-of-past |" in text
    assert f"{mean:+.3f}" in text


def test_the_page_keeps_what_was_written_by_hand(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{PAGE_MARK}\nold tables\n")
    write_page(page)
    assert page.read_text().startswith(f"# By hand\n\n{PAGE_MARK}\n")
    assert "old tables" not in page.read_text()
