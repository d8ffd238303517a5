"""The figures of a comparison, computed by hand."""

from __future__ import annotations

import pytest

from compare_baselines.live.report import cost_rows, markdown, quality_rows, show
from metahp_report.comparison.records import ComparisonPlan, ComparisonResult, Energy, Evaluation, SearchResult, Spread, TaskInfo
from metahp_report.comparison.summary import distance, is_as_good, regret_curve, standings_of, summaries_of
from store.records import RunStatus
from studies.live_page import PAGE_MARK, losses, write_page

INFO = TaskInfo("cnn", "digits", "accuracy", "max", ("accuracy",), {"learning_rate": {"low": 1e-5, "high": 0.1, "log": True}}, {})
ERROR = TaskInfo("series", "load", "mse", "min", ("mse",), {"learning_rate": [0.1, 0.2]}, {})


def search(method, values, *, seconds=10.0, seed=0, rates=None, joules=None, task="cnn"):
    found, elapsed = [], 0.0
    for index, value in enumerate(values):
        elapsed += seconds
        status = RunStatus.FAILED if value is None else RunStatus.COMPLETED
        energy = () if joules is None else (Energy("gpu0", joules, "counter of the device"),)
        config = {"learning_rate": (rates or [0.01] * len(values))[index], "batch_size": 32}
        found.append(
            Evaluation(f"r{index}", index, config, status, value, value, {}, 1.0, seconds - 1, elapsed, 3600.0, None, None, energy)
        )
    known = [(value, -index) for index, value in enumerate(values) if value is not None]
    chosen = None if not known else -max(known)[1] if task == "cnn" else -max((-value, number) for value, number in known)[1]
    return SearchResult(task, method, seed, tuple(found), chosen, {"accuracy": 0.5} if known else {}, True)


def plan(methods, budget=3, seeds=1, jobs=1, tasks=("cnn",)):
    return ComparisonPlan(tasks, methods, budget, seeds, "tiny", jobs=jobs)


SEARCHES = [
    search("grid", [0.5, 0.6, 0.8], rates=[0.1, 0.01, 0.001]),
    search("random", [0.4, None, 0.7], rates=[0.01, 0.1, 0.1]),
    search("metahp", [0.795, 0.6, 0.6], seconds=20.0, rates=[0.01, 0.1, 0.1]),
]


def summary(method, searches=SEARCHES, **changes):
    found = summaries_of(plan(("grid", "random", "metahp"), **changes), {"cnn": INFO}, searches)
    return next(item for item in found if item.method == method)


def test_convergence_counts_until_within_one_percent_of_the_best_any_method_found():
    assert summary("metahp").convergence_evaluations.mean == 1
    assert summary("metahp").convergence_s.mean == 20.0
    assert summary("grid").convergence_evaluations.mean == 3
    assert (summary("random").convergence_s.mean, summary("random").n_converged) == (None, 0)
    assert is_as_good(0.793, 0.8, "max")
    assert not is_as_good(0.791, 0.8, "max")
    assert is_as_good(1.01, 1.0, "min")
    assert not is_as_good(1.02, 1.0, "min")


def test_time_saved_is_measured_at_the_baselines_own_best():
    assert summary("metahp").reduction["grid"].mean == pytest.approx(1 - 20 / 30)
    assert summary("metahp").reduction["random"].mean == pytest.approx(1 - 20 / 30)
    assert summary("random").reduction["grid"].mean is None
    assert set(summary("grid").reduction) == {"random"}


def test_a_failed_evaluation_costs_and_counts_but_has_no_value():
    item = summary("random")
    assert (item.evaluations.mean, item.failed.mean, item.seconds.mean) == (3, 1, 30.0)
    assert item.final.mean == 0.7
    assert item.cpu_hours.mean == 3.0


def test_equal_seconds_are_those_of_the_shortest_search():
    assert summary("metahp").best_at_common_seconds.mean == 0.795
    assert summary("grid").best_at_common_seconds.mean == 0.8


def test_recommended_values_are_compared_with_those_of_the_best_evaluation():
    assert summary("metahp").first_error["learning_rate"].mean == pytest.approx(1.0)
    assert summary("grid").chosen_error["learning_rate"].mean == pytest.approx(0.0)
    assert summary("grid").first_error["learning_rate"].mean == pytest.approx(2.0)
    assert distance("batch_size", 16, 64) == 2.0
    assert distance("num_layers", 2, 5) == 3.0
    assert distance("kind", "a", "b") == 1.0
    assert distance("max_depth", None, 10) is None


def test_energy_is_given_only_where_every_evaluation_was_measured():
    measured = [search("grid", [0.5, 0.6], joules=7.0), search("random", [0.5, 0.6], joules=1.0)]
    assert summary("grid", measured).energy_j.mean == 14.0
    assert summary("grid", measured).energy_source == "counter of the device (gpu0)"
    assert summary("grid", measured, jobs=2).energy_source == "counter of the device (gpu0); shared by 2 processes"
    half = SearchResult("cnn", "grid", 0, (measured[0].evaluations[0], SEARCHES[0].evaluations[1]), 0, {}, True)
    assert (summary("grid", [half]).energy_j.mean, summary("grid", [half]).energy_source) == (None, "not measured")


def test_regret_goes_from_the_best_found_to_the_median():
    curve = regret_curve(SEARCHES[0], SEARCHES, "max", 3)
    assert curve.tolist() == pytest.approx([1.0, 1.0, 0.0])
    assert regret_curve(SEARCHES[2], SEARCHES, "max", 5).tolist() == pytest.approx([0.025] * 5)
    failed = search("grid", [None, None])
    assert regret_curve(failed, [failed], "max", 2).tolist() == [1.0, 1.0]
    same = search("grid", [0.5, 0.5])
    assert regret_curve(same, [same], "max", 2).tolist() == [0.0, 0.0]


def test_small_is_better_where_the_task_says_so():
    low, high = search("grid", [0.2, 0.1], task="series"), search("metahp", [0.9, 0.3], task="series")
    assert low.best.value == 0.1
    assert high.best_so_far("min") == [0.9, 0.3]
    assert regret_curve(high, [low, high], "min", 2).tolist() == pytest.approx([1.0, 1.0])
    assert regret_curve(low, [low, high], "min", 2).tolist() == pytest.approx([0.1 / 0.15, 0.0])


def test_only_methods_that_finished_everything_are_ranked():
    found = standings_of(plan(("grid", "random", "metahp", "tpe"), budget=3), {"cnn": INFO}, SEARCHES)
    assert [item.method for item in found] == ["grid", "random", "metahp"]
    assert [item.mean_rank[-1] for item in found] == [1.0, 3.0, 2.0]
    ours, grid = found[2], found[0]
    assert ours.difference is None
    assert grid.difference == pytest.approx([ours.regret[k] - grid.regret[k] for k in range(3)])


def test_spread_over_seeds():
    assert Spread.of([1.0, None, 3.0]) == Spread(2.0, pytest.approx(2**0.5), 2)
    assert Spread.of([1.0]) == Spread(1.0, 0.0, 1)
    assert Spread.of([None]) == Spread(None, None, 0)
    assert [show(Spread.of(values)) for values in ([0.5], [0.5, 0.7], [None])] == ["0.5", "0.6 ± 0.14", "-"]


def result(searches=SEARCHES):
    methods = ("grid", "random", "metahp")
    summaries = tuple(summaries_of(plan(methods), {"cnn": INFO}, searches))
    standings = tuple(standings_of(plan(methods), {"cnn": INFO}, searches))
    return ComparisonResult("id", "now", plan(methods), {"cnn": INFO}, tuple(searches), summaries, standings, 0)


def test_tables_say_never_and_not_measured_in_words():
    quality, cost = quality_rows(result()), cost_rows(result())
    random = next(row for row in quality[1] if row[1] == "random")
    assert random[quality[0].index("converged after")] == "never"
    assert {row[cost[0].index("energy source")] for row in cost[1]} == {"not measured"}
    assert [row[-2:] for row in cost[1]] == [["", "+0%"], ["never as good", ""], ["+33%", "+33%"]]
    assert markdown((["a"], [["x|y"]])) == "| a |\n|---|\n| x\\|y |\n"


def test_the_page_keeps_what_was_written_by_hand_and_names_what_was_lost(tmp_path):
    path = tmp_path / "results.md"
    path.write_text(f"# By hand\n\n{PAGE_MARK}\nold")
    text = write_page(result(), path).read_text()
    assert text.startswith(f"# By hand\n\n{PAGE_MARK}\n")
    assert "old" not in text
    assert losses(result()) == ["- cnn: accuracy 0.795, grid found 0.8 (0.6% off)."]
    assert (tmp_path / "results.png").stat().st_size > 1000
