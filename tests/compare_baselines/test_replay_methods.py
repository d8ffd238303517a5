from __future__ import annotations

from dataclasses import fields
from itertools import product
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from compare_baselines.methods import METHODS, find_live_method, find_method
from compare_baselines.methods.metahp import MetaHP
from compare_baselines.methods.rgpe import Processes
from compare_baselines.methods.samplers import inside
from compare_baselines.methods.simple import GridCells
from compare_baselines.methods.spaces import UnitCube, distributions_of, space_of
from compare_baselines.methods.transfer import greedy_portfolio, normal_scores
from compare_baselines.replay import Method, NewTask, Past, PastTask, Protocol, load_benchmark, run_replay
from compare_baselines.replay.job import ReplayJob, carry_out
from metamodel.kinds import KINDS
from store import Curve, FinishedRun, History, InvalidArgumentError
from tests.compare_baselines import recorded

PEERS = [name for name in METHODS if name not in {"gp", "metahp"}]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tasks = [(name, 40, shift) for name, shift in (("a", 0.0), ("b", 0.1), ("c", -0.1), ("d", 0.05))]
    return recorded.write(tmp_path_factory.mktemp("replay") / "h.db", *tasks)


class Nearest(Method):
    """The example of the documentation."""

    name = "nearest"

    def learn(self, past: Past) -> None:
        best = max(past.tasks, key=lambda task: task.values.max())
        self.target = best.points[best.values.argmax()]

    def choose(self, tried: tuple[int, ...], values: tuple[float, ...]) -> int:
        return self.task.first_free(np.argsort(np.square(self.task.points - self.target).sum(1)), tried)


class Spy(Method):
    """Keeps everything it is shown."""

    name = "spy"
    seen: ClassVar[list[object]] = []

    def learn(self, past: Past) -> None:
        self.seen.append(past)

    def choose(self, tried: tuple[int, ...], values: tuple[float, ...]) -> int:
        self.seen.append((self.task, tried, values))
        return self.task.first_free(range(len(self.task.configs)), tried)


class Stubborn(Method):
    """Chooses the same one again."""

    name = "stubborn"

    def choose(self, tried: tuple[int, ...], values: tuple[float, ...]) -> int:
        return 0


def own(cls: type[Method]) -> str:
    return f"{__name__}:{cls.__name__}"


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.slow) if name == "quantile" else name for name in PEERS])
def test_every_peer_chooses_distinct_configurations_and_repeats_itself(name: str, path: Path) -> None:
    with History(path) as history:
        benchmark = load_benchmark(history, Protocol(10, 8, 1))
    first, second = (carry_out(benchmark, ReplayJob(name, 0, 0, ("a",))) for _ in range(2))
    assert first.regret["a"].shape == (8,)
    np.testing.assert_array_equal(first.regret["a"], second.regret["a"])


@pytest.mark.parametrize("name", ["best-of-past", "zero-shot", "rgpe"])
def test_what_learns_from_related_tasks_beats_random_search(name: str, path: Path) -> None:
    with History(path) as history:
        report = run_replay(load_benchmark(history, Protocol(20, 5, 2, folds=0)), [name, "random"], workers=1)
    assert report["methods"][name]["regret"][4] < report["random_exact"][4]


def test_every_kind_of_meta_model_is_a_method_of_both_comparisons() -> None:
    for kind in KINDS:
        assert kind in METHODS
        assert isinstance(found := find_live_method(kind), MetaHP)
        assert (found.name, found.kind) == (kind, kind)


def test_metahp_asks_recommend_and_beats_random_search(path: Path) -> None:
    with History(path) as history:
        benchmark = load_benchmark(history, Protocol(12, 5, 1, holdout=("a", "d")))
        before = len(history.runs())
    report = run_replay(benchmark, ["metahp", "random"], workers=1)
    assert report["methods"]["metahp"]["regret"][2] < report["random_exact"][2]
    with History(path) as history:
        assert len(history.runs()) == before


def test_the_gaussian_process_of_optuna_runs(path: Path) -> None:
    with History(path) as history:
        benchmark = load_benchmark(history, Protocol(10, 7, 1))
    assert (np.diff(carry_out(benchmark, ReplayJob("gp", 0, 0, ("a",))).regret["a"]) <= 0).all()


def test_the_documented_example_of_a_method_works(path: Path) -> None:
    with History(path) as history:
        report = run_replay(load_benchmark(history, Protocol(20, 5, 1)), [own(Nearest)], workers=1)
    assert report["methods"][own(Nearest)]["regret"][4] < report["random_exact"][4]


def test_no_outcome_of_the_pool_reaches_a_method_before_it_is_evaluated(path: Path) -> None:
    Spy.seen = []
    with History(path) as history:
        benchmark = load_benchmark(history, Protocol(10, 3, 1, holdout=("a",)))
    carry_out(benchmark, ReplayJob(own(Spy), 0, 0, ("a",)))
    past, *steps = Spy.seen
    assert isinstance(past, Past)
    assert [task.name for task in past.tasks] == ["b", "c", "d"]
    assert all(isinstance(task, PastTask) and len(task.configs) == len(task.outcomes) == 10 for task in past.tasks)
    pool = benchmark.pools["a"]
    for k, (task, tried, values) in enumerate(steps):
        assert isinstance(task, NewTask)
        assert {item.name for item in fields(task)} == {"name", "configs", "points", "space", "direction", "epochs", "description", "seed"}
        assert tried == tuple(range(k))
        assert values == tuple(float(pool.values[i]) for i in range(k))


def test_a_method_that_repeats_itself_is_refused(path: Path) -> None:
    with History(path) as history, pytest.raises(InvalidArgumentError, match="chose 0 of 40"):
        run_replay(load_benchmark(history, Protocol(10, 3, 1)), [own(Stubborn)], workers=1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("magic", "ossible are random, grid, tpe"),
        ("rgep", "did you mean 'rgpe'"),
        ("json:loads", "must be a subclass"),
        ("no_such_module:X", "must be importable"),
    ],
)
def test_unknown_methods_are_named(name: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        find_method(name)


def test_two_labels_are_as_far_apart_as_the_ends_of_a_number() -> None:
    configs = [{"x": 0.0, "act": "relu"}, {"x": 1.0, "act": "relu"}, {"x": 0.0, "act": "tanh"}, {"act": "tanh"}]
    cube = UnitCube(space_of(configs))
    points = cube.encode(configs)
    assert np.linalg.norm(points[0] - points[1]) == pytest.approx(1.0)
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(1.0)
    assert cube.nearest({"x": 0.4, "act": "tanh"}, points, np.array([True, True, True, False])) == 2
    assert cube.nearest({"x": 0.4, "act": "relu"}, points, np.array([False, True, True, True])) == 1


def test_what_a_sampler_is_told_lies_in_its_space() -> None:
    space = space_of([{"lr": 1e-4, "depth": 1, "act": "a"}, {"lr": 1e-1, "depth": 4, "act": "b"}, {"lr": 1e-3, "depth": 2, "act": "b"}])
    told = inside({"lr": 5.0, "act": "c"}, space)
    assert all(distribution._contains(distribution.to_internal_repr(told[name])) for name, distribution in distributions_of(space).items())


def test_a_portfolio_covers_the_tasks_before_it_repeats_what_is_good_on_average() -> None:
    loss = np.array([[0.0, 0.9, 0.4, 0.5], [0.9, 0.0, 0.4, 0.5]])
    assert greedy_portfolio(loss, 4)[:1] == [2]
    assert sorted(greedy_portfolio(loss, 2)) == [0, 1, 2, 3]


def test_normal_scores_are_finite_and_ordered() -> None:
    scores = normal_scores(np.array([3.0, 1.0, 2.0, 2.0]))
    assert np.isfinite(scores).all()
    assert scores[0] > scores[2] == scores[3] > scores[1]


def test_the_processes_of_rgpe_agree_with_a_direct_solution() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, points = torch.rand(2, 12, 3, generator=generator), torch.rand(5, 3, generator=generator)
    fitted = Processes(inputs, torch.rand(2, 12, generator=generator), steps=10)
    mean, variance = fitted.predict(points)
    left_mean, left_variance = fitted.leave_one_out()
    for b in range(2):
        length, scale = fitted.parameters[0][b].exp(), fitted.parameters[1][b].exp()
        noise = fitted.parameters[2][b].exp() + 1e-5

        def kernel(left: torch.Tensor, right: torch.Tensor, length: torch.Tensor = length, scale: torch.Tensor = scale) -> torch.Tensor:
            q = 5**0.5 * torch.cdist(left / length, right / length)
            return scale * (1 + q + q**2 / 3) * torch.exp(-q)

        covariance = kernel(inputs[b], inputs[b]) + noise * torch.eye(12)
        cross = kernel(points, inputs[b])
        torch.testing.assert_close(mean[b], cross @ torch.linalg.solve(covariance, fitted.outcomes[b]), atol=2e-3, rtol=1e-2)
        expected = scale - (cross * torch.linalg.solve(covariance, cross.T).T).sum(1)
        torch.testing.assert_close(variance[b], expected, atol=2e-3, rtol=1e-2)
        rest = torch.arange(12) != 4
        solved = torch.linalg.solve(covariance[rest][:, rest], torch.stack([fitted.outcomes[b][rest], covariance[rest, 4]]).T)
        torch.testing.assert_close(left_mean[b, 4], covariance[4, rest] @ solved[:, 0], atol=5e-3, rtol=1e-2)
        torch.testing.assert_close(left_variance[b, 4], covariance[4, 4] - covariance[4, rest] @ solved[:, 1], atol=5e-3, rtol=1e-2)


def test_the_cells_of_a_grid_are_read_off_their_numbers() -> None:
    levels = {"a": (1, 2), "b": ("x", "y", "z"), "c": (True,), "d": (0.1, 0.2)}
    cells = GridCells(levels)
    expected = [dict(zip(levels, values, strict=True)) for values in product(*levels.values())]
    assert [cells[number] for number in range(cells.size)] == expected
    assert all(list(cell) == list(levels) for cell in expected)


def test_a_small_grid_keeps_the_order_that_its_seed_always_gave() -> None:
    drawn = GridCells({"a": range(3), "b": range(4)}).drawn(2, np.random.default_rng(7))
    assert drawn == np.random.default_rng(7).permutation(12).tolist()


@pytest.mark.parametrize("n_names", [11, 41, 400])
def test_a_grid_of_any_size_is_drawn_from_without_being_built(n_names: int) -> None:
    cells = GridCells({f"h{i}": (0, 1, 2) for i in range(n_names)})
    drawn = cells.drawn(300, np.random.default_rng(0))
    assert len(drawn) == len(set(drawn)) == 300
    assert drawn[:20] == cells.drawn(20, np.random.default_rng(0))
    assert 0 <= min(drawn) <= max(drawn) < cells.size == 3**n_names
    assert np.mean([sum(cells[number].values()) / n_names for number in drawn]) == pytest.approx(1.0, abs=0.1)


def test_grid_search_in_a_space_of_many_hyperparameters_tries_distinct_configurations(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    with History(tmp_path / "h.db") as history:
        for task in "abc":
            runs = [{f"h{i}": float(value) for i, value in enumerate(draw.random(44))} for _ in range(10)]
            history.add_finished_runs(
                FinishedRun(f"{task}{i}", task, run, "loss", "min", {"loss": Curve([0], [sum(run.values())])}) for i, run in enumerate(runs)
            )
        benchmark = load_benchmark(history, Protocol(5, 8, 1))
    assert len(benchmark.space) == 44
    assert carry_out(benchmark, ReplayJob("grid", 0, 0, ("a",))).regret["a"].shape == (8,)
