from __future__ import annotations

import os

import pytest

from compare_baselines.environment import environment
from compare_baselines.live.tasks import find_task
from compare_baselines.methods import LIVE_METHODS, SearchProblem, Trial, find_live_method
from compare_baselines.methods.metahp import space_in_force
from compare_baselines.methods.registry import uses_past
from compare_baselines.methods.samplers import n_random_first
from store import History
from store.errors import InvalidArgumentError

WITHOUT_PAST = [*(name for name in LIVE_METHODS if not uses_past(name)), "plain-gp", "scratch"]


def is_inside(task, config):
    for name, values in task.grid.items():
        low_high = len(values) == 3 and isinstance(values[2], str)
        if not (values[0] <= config[name] <= values[1] if low_high else config[name] in values):
            return False
    return set(config) == set(task.grid)


@pytest.mark.parametrize("method", [name for name in WITHOUT_PAST if name != "default"])
@pytest.mark.parametrize("name", ["series", "cnn"])
def test_a_search_stays_in_the_space_and_goes_on_as_if_never_interrupted(name, method):
    task = find_task(name)
    problem = SearchProblem(task, "tiny", seed=1, budget=4)
    trials = []
    for index in range(4):
        config = find_live_method(method).propose(problem, trials).config
        assert is_inside(task, config)
        assert find_live_method(method).propose(problem, trials).config == config
        trials.append(Trial(config, None if index == 1 else 0.1 * index))


def test_the_grid_holds_every_cell_once_and_then_ends():
    task, trials = find_task("tabular"), []
    problem = SearchProblem(task, "tiny", seed=0, budget=100)
    while (proposal := find_live_method("grid").propose(problem, trials)) is not None:
        trials.append(Trial(proposal.config, 0.5))
    assert len({tuple(item.config.values()) for item in trials}) == len(trials) == 27


def test_the_defaults_are_one_evaluation():
    task = find_task("tabular")
    problem = SearchProblem(task, "tiny", seed=0, budget=4)
    assert find_live_method("default").propose(problem, []).config == {"n_estimators": 100, "max_depth": None, "min_samples_split": 2}
    assert find_live_method("default").propose(problem, [Trial({}, 0.5)]) is None


def test_samplers_leave_their_random_start_within_any_budget():
    task = find_task("cnn")
    assert [n_random_first(SearchProblem(task, "tiny", 0, budget)) for budget in (1, 4, 8, 30)] == [1, 1, 2, 5]


@pytest.mark.parametrize("method", ["metahp", "direct", "maml", "reptile"])
def test_a_meta_model_without_any_past_keeps_the_defaults_and_says_so(method, tmp_path):
    path = tmp_path / "past.db"
    History(path).close()
    task = find_task("tabular")
    problem = SearchProblem(task, "tiny", seed=0, budget=4, past=path)
    first = find_live_method(method).propose(problem, [])
    assert first.config == task.defaults
    assert first.note.startswith("kept the defaults: not enough history (no run with an outcome)")
    second = find_live_method(method).propose(problem, [Trial(first.config, 0.5)])
    assert is_inside(task, second.config)
    assert second.note.startswith("at random: ")


def test_the_space_asked_for_has_the_epochs_that_are_trained():
    assert space_in_force(SearchProblem(find_task("series"), "tiny", 0, 1))["num_epochs"] == [1, 2, 5]
    assert space_in_force(SearchProblem(find_task("series"), "full", 0, 1))["num_epochs"] == [20, 50, 100]


def test_a_variable_is_set_back_after_a_while(monkeypatch):
    monkeypatch.setenv("METAHP_STARTER", "1")
    with environment({"METAHP_STARTER": "0"}):
        assert os.environ["METAHP_STARTER"] == "0"
    assert os.environ["METAHP_STARTER"] == "1"
    monkeypatch.delenv("METAHP_STARTER")
    with environment({"METAHP_STARTER": "1"}):
        assert os.environ["METAHP_STARTER"] == "1"
    assert "METAHP_STARTER" not in os.environ


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(InvalidArgumentError, match="got 'metahpp'; did you mean 'metahp'"):
        find_live_method("metahpp")


@pytest.mark.parametrize("method", ["cmaes", "rgpe", "starter"])
def test_a_method_that_needs_recorded_runs_is_refused(method):
    with pytest.raises(InvalidArgumentError, match=f"'{method}' chooses among recorded runs only; possible are default, grid"):
        find_live_method(method)
