from __future__ import annotations

import json
from pathlib import Path

import pytest

from compare_baselines.replay import Benchmark, Protocol, load_benchmark, run_replay, save_picture
from compare_baselines.replay.report import regret_rows
from compare_baselines.replay.runner import against_best_peer, merge_reports
from store import History, InvalidArgumentError
from studies.replay.tables import REPLAY_TABLES, section
from tests.compare_baselines import recorded


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    tasks = [(name, 20, 0.0) for name in "abcd"]
    path = recorded.write(tmp_path_factory.mktemp("replay") / "h.db", *tasks)
    with History(path) as history:
        return load_benchmark(history, Protocol(8, 6, 2))


@pytest.fixture(scope="module")
def report(benchmark: Benchmark) -> dict[str, object]:
    return run_replay(benchmark, ["grid", "random"], workers=1)


@pytest.mark.slow
def test_several_processes_make_the_same_report(benchmark: Benchmark, report: dict[str, object]) -> None:
    together = run_replay(benchmark, ["grid", "random"], workers=2)
    for name, item in together["methods"].items():
        assert {**item, "seconds": 0} == {**report["methods"][name], "seconds": 0}


def test_the_report_has_the_documented_form(report: dict[str, object]) -> None:
    read = json.loads(json.dumps(report, allow_nan=False))
    assert set(read) == {"protocol", "random_exact", "methods"}
    assert len(read["random_exact"]) == 6
    assert set(read["methods"]) == {"grid", "random"}
    for item in read["methods"].values():
        assert set(item) == {"regret", "ci95", "mean_rank", "random_equivalent", "seconds", "tasks"}
        assert len(item["regret"]) == len(item["ci95"]) == len(item["mean_rank"]) == len(item["random_equivalent"]) == 6
        assert set(item["tasks"]) == set("abcd")
        assert all(low <= value <= high for value, (low, high) in zip(item["regret"], item["ci95"], strict=True))
    assert read["methods"]["random"]["regret"] == read["random_exact"]
    assert read["methods"]["random"]["random_equivalent"] == pytest.approx([1, 2, 3, 4, 5, 6])


def test_several_processes_find_what_one_finds(report: dict[str, object], tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", *((name, 20, 0.0) for name in "abcd"))
    with History(path) as history:
        alone = run_replay(load_benchmark(history, Protocol(8, 6, 2)), ["grid", "random"], workers=1)
    assert alone["methods"]["grid"]["regret"] == report["methods"]["grid"]["regret"]  # type: ignore[index]


def test_the_picture_is_a_png(report: dict[str, object], tmp_path: Path) -> None:
    assert save_picture(report, tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_rows_fit_their_columns(report: dict[str, object]) -> None:
    columns, rows = regret_rows(report)
    assert columns[:3] == ["method", "k=1", "k=2"]
    assert all(len(row) == len(columns) for row in rows)


def test_a_section_of_the_page_says_seeds_times_and_what_is_missing(report: dict[str, object]) -> None:
    measured = {**report, "import_seconds": 1.0, "wall_seconds": 2.0, "machine": "a machine", "workers": 1}
    text = section(REPLAY_TABLES[1], measured, None)
    assert "**2 seeds instead of 3**" in text
    assert "Not measured here, for their cost: gp" in text
    assert "| grid |" in text


def test_methods_measured_later_are_ranked_with_the_others(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", *((name, 20, 0.0) for name in "abcd"))
    with History(path) as history:
        benchmark = load_benchmark(history, Protocol(8, 6, 2))
    together = run_replay(benchmark, ["grid", "best-of-past"], workers=1, keeps_seeds=True)
    first, later = (run_replay(benchmark, [name], workers=1, keeps_seeds=True) for name in ("grid", "best-of-past"))
    merged = merge_reports(first, later)
    for name in ("grid", "best-of-past"):
        assert {**merged["methods"][name], "seconds": 0} == {**together["methods"][name], "seconds": 0}
    with History(path) as history, pytest.raises(InvalidArgumentError, match="budget is 6 and 4"):
        merge_reports(first, run_replay(load_benchmark(history, Protocol(8, 4, 2)), ["grid"], workers=1))


def test_the_best_peer_is_compared_in_pairs(report: dict[str, object]) -> None:
    found = against_best_peer(report, "grid")
    assert [entry["k"] for entry in found] == list(range(1, 7))
    assert all(entry["best_peer"] == "random" for entry in found)
    assert all(entry["ci95"][0] <= entry["difference"] <= entry["ci95"][1] for entry in found)
    assert against_best_peer(report, "metahp") == []


def test_what_random_search_needs_is_counted_beyond_the_smallest_pool(tmp_path: Path) -> None:
    path = recorded.write(tmp_path / "h.db", ("a", 6, 0.0), ("b", 60, 0.0), ("c", 60, 0.0))
    with History(path) as history:
        report = run_replay(load_benchmark(history, Protocol(6, 6, 1)), ["best-of-past", "random"], workers=1)
    needed = report["methods"]["best-of-past"]["random_equivalent"][-1]
    assert needed is not None
    assert needed > 6
    assert report["methods"]["random"]["random_equivalent"] == pytest.approx([1, 2, 3, 4, 5, 6])
