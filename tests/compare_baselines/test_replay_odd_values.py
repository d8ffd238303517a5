"""A history as people have it: values of every kind, numbers that are missing or endless, remarks, seeds, both directions."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from compare_baselines.methods import DEFAULT_METHODS
from compare_baselines.methods.spaces import UnitCube, describe_scales, outside_counts, space_of
from compare_baselines.replay import Protocol, load_benchmark, run_replay
from store import Curve, FinishedRun, History
from store.values import Opaque

SLOW = {"quantile", "metahp"}


def odd_runs(task: str, n: int, direction: str) -> Iterator[FinishedRun]:
    draw = random.Random(task)
    for i in range(n):
        config = {
            "lr": 10 ** draw.uniform(-6, 0),
            "betas": [0.9, draw.choice([0.99, 0.999])],
            "nested": {"a": draw.randint(0, 2)},
            "opaque": Opaque("function", draw.choice("fgh")),
            "none_or_text": draw.choice(["", "x", None, "None"]),
            "mixed": draw.choice([1, 1.0, True, "1", None]),
            "clip": draw.choice([1.0, 5.0, 2.0, math.inf, math.nan]),
            "huge": draw.choice([10**400, 10**18, 5]),
            "tiny": 10 ** draw.uniform(-300, -290),
            "constant": 7,
            "remark": f"{draw.getrandbits(64):x}",
            "seed": draw.randint(0, 10**9),
            "flag": draw.random() < 0.5,
        }
        if i % 2:
            del config["flag"]
        loss = (math.log10(config["lr"]) + 3) ** 2 / 10 + draw.gauss(0, 0.01)
        value = math.nan if i % 9 == 4 else loss if direction == "min" else 1 - loss
        yield FinishedRun(f"{task}-{i}", task, config, "metric", direction, {"metric": Curve([0], [value])})


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    with History(tmp_path_factory.mktemp("odd") / "h.db") as opened:
        for task, n, direction in (("a", 70, "min"), ("b", 12, "max"), ("c", 30, "min")):
            opened.add_finished_runs(odd_runs(task, n, direction))
        yield opened


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in DEFAULT_METHODS if name != "random"]
)
def test_every_method_copes_with_values_of_every_kind(history: History, name: str) -> None:
    report = run_replay(load_benchmark(history, Protocol(8, 6, 1, folds=0)), [name], workers=1)
    assert "left_out" not in report
    assert np.isfinite(report["methods"][name]["regret"]).all()


def test_what_cannot_be_learned_from_is_no_hyperparameter(history: History) -> None:
    benchmark = load_benchmark(history, Protocol(8, 6, 1))
    assert {"seed", "constant", "remark"} & benchmark.space.keys() == set()
    assert any(note.startswith("remark: 112 labels are too many") for note in benchmark.notes)


def test_runs_that_differ_in_the_seed_only_are_one_configuration(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        for task in "abc":
            history.add_finished_runs(
                FinishedRun(f"{task}{i}", task, {"lr": 0.1 * (i // 2 + 1), "seed": i}, "acc", "max", {"acc": Curve([0], [i / 24])})
                for i in range(24)
            )
        benchmark = load_benchmark(history, Protocol(6, 4, 1))
    assert len(benchmark.pools["a"]) == 12
    assert "a: 12 runs repeat a configuration; the first run of each counts" in benchmark.notes


def test_a_name_is_a_number_where_most_of_its_values_are() -> None:
    configs = [{"clip": value, "kind": kind} for value, kind in ((1.0, True), (5.0, "True"), (2.0, 3), (math.inf, None), (None, "x"))]
    space = space_of(configs)
    assert (space["clip"].low, space["clip"].high) == (1.0, 5.0)
    assert space["kind"].choices == ("3", "None", "True", "x")
    points = UnitCube(space).encode(configs)
    assert np.array_equal(points[3, :2], points[4, :2])  # no finite number, as if it were missing
    assert np.array_equal(points[0, 2:], points[1, 2:])
    assert outside_counts(space, configs)["kind"] == 0


def test_a_long_list_of_labels_is_cut() -> None:
    space = space_of([{"tokenizer": f"tok {i}\n" + "x" * 99} for i in range(300)])
    ((_, _, shown, _),) = describe_scales(space, is_given=False)
    assert shown.endswith(" and 292 more")
    assert len(shown) < 300
    assert "\n" not in shown
