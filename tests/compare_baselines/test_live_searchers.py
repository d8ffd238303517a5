from __future__ import annotations

import os

import pytest

from compare_baselines.live.searchers import METHODS, Problem, Tried, find_searcher, n_startup, space_in_force, starter
from compare_baselines.live.tasks import find_task
from store import History
from store.errors import InvalidArgumentError

WITHOUT_PAST = [name for name, cls in METHODS.items() if not cls.uses_past]


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
    problem = Problem(task, "tiny", seed=1, budget=4)
    tried = []
    for index in range(4):
        config = find_searcher(method).propose(problem, tried).config
        assert is_inside(task, config)
        assert find_searcher(method).propose(problem, tried).config == config
        tried.append(Tried(config, None if index == 1 else 0.1 * index))


def test_the_grid_holds_every_cell_once_and_then_ends():
    task, tried = find_task("tabular"), []
    problem = Problem(task, "tiny", seed=0, budget=100)
    while (proposal := find_searcher("grid").propose(problem, tried)) is not None:
        tried.append(Tried(proposal.config, 0.5))
    assert len({tuple(item.config.values()) for item in tried}) == len(tried) == 27


def test_the_defaults_are_one_evaluation():
    task = find_task("tabular")
    problem = Problem(task, "tiny", seed=0, budget=4)
    assert find_searcher("default").propose(problem, []).config == {"n_estimators": 100, "max_depth": None, "min_samples_split": 2}
    assert find_searcher("default").propose(problem, [Tried({}, 0.5)]) is None


def test_samplers_leave_their_random_start_within_any_budget():
    task = find_task("cnn")
    assert [n_startup(Problem(task, "tiny", 0, budget)) for budget in (1, 4, 8, 30)] == [1, 1, 2, 5]


@pytest.mark.parametrize("method", ["metahp", "direct", "maml", "reptile"])
def test_a_meta_model_without_any_past_keeps_the_defaults_and_says_so(method, tmp_path):
    path = tmp_path / "past.db"
    History(path).close()
    task = find_task("tabular")
    problem = Problem(task, "tiny", seed=0, budget=4, past=path)
    first = find_searcher(method).propose(problem, [])
    assert first.config == task.defaults
    assert first.note.startswith("kept the defaults: not enough history (0 finished runs)")
    second = find_searcher(method).propose(problem, [Tried(first.config, 0.5)])
    assert is_inside(task, second.config)
    assert second.note.startswith("at random: ")


def test_the_space_asked_for_has_the_epochs_that_are_trained():
    assert space_in_force(find_task("series"), "tiny")["num_epochs"] == [1, 2, 5]
    assert space_in_force(find_task("series"), "full")["num_epochs"] == [20, 50, 100]


def test_the_starter_history_speaks_only_where_it_is_asked(monkeypatch):
    monkeypatch.setenv("METAHP_STARTER", "1")
    with starter(False):
        assert os.environ["METAHP_STARTER"] == "0"
    assert os.environ["METAHP_STARTER"] == "1"
    monkeypatch.delenv("METAHP_STARTER")
    with starter(True):
        assert os.environ["METAHP_STARTER"] == "1"
    assert "METAHP_STARTER" not in os.environ


def test_an_unknown_method_is_answered_with_the_known_ones():
    with pytest.raises(InvalidArgumentError, match="got 'metahpp'; did you mean 'metahp'"):
        find_searcher("metahpp")
