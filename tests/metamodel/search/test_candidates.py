"""What may be chosen where the user gives no space."""

from __future__ import annotations

import math
import random
import warnings
from itertools import combinations

import pytest

from metamodel import Decision, TaskDescription, recommend
from metamodel.search.candidates import NEEDS_SPACE
from store import History


def study(history: History, task: str, n: int = 16, **names: object) -> None:
    """Record a study: each name is a list to draw from, or a pair of exponents; the outcome peaks at the middle of the first."""
    rng = random.Random(0)
    for i in range(n):
        config = {
            name: 10 ** rng.uniform(*values) if isinstance(values, tuple) else values[i % len(values)]  # type: ignore[index, arg-type]
            for name, values in names.items()
        }
        first = next(iter(config.values()))
        loss = abs(math.log10(first) + 3) if isinstance(first, float) else rng.random()
        loss += 1.0 if config.get("kernel") == "poly" else 0.0
        with history.start_run(task=task, hparams=config, objective="val_loss") as run:
            run.log(val_loss=0.1 + 0.1 * loss)


def test_a_task_is_advised_of_its_own_hyperparameters_and_never_of_another_tasks(history: History) -> None:
    study(history, "ridge", alpha=(-6, 1))
    study(history, "mlp", lr=(-5, -1))
    (found,) = recommend(history, "ridge")
    assert found.decision is Decision.APPLY
    assert set(found.config) == {"alpha"}
    assert 1e-4 < found.config["alpha"] < 1e-2


def test_everything_a_study_tuned_is_advised_whatever_its_name_and_kind(history: History) -> None:
    study(
        history, "svm", C=(-5, 1), kernel=["rbf", "poly", "linear"], max_depth=[2, 3, 4], shrinking=[True, False], batch_size=[16, 32, 64]
    )
    (found,) = recommend(history, "svm")
    assert set(found.config) == {"C", "kernel", "max_depth", "shrinking", "global_batch_size"}
    assert found.config["kernel"] in ("rbf", "linear")
    assert found.config["max_depth"] in (2, 3, 4)


def test_a_choice_of_nothing_is_a_choice(history: History) -> None:
    study(history, "forest", ccp_alpha=(-5, -1), max_depth=[None, 5, 10])
    (found,) = recommend(history, "forest")
    assert found.config["max_depth"] in (None, 5, 10)


def test_what_was_tuned_and_cannot_be_advised_is_named_with_the_reason(history: History) -> None:
    study(
        history,
        "net",
        lr=(-5, -1),
        layers_sizes=[[8], [8, 8]],
        max_epochs=[1, 2, 3],
        note=[f"try {i}" for i in range(16)],
        random_state=list(range(16)),
        output_dir=[f"out/{i}" for i in range(16)],
    )
    (found,) = recommend(history, "net")
    assert set(found.config) == {"learning_rate"}
    assert set(found.evidence.not_advised) == {"layers_sizes", "num_epochs", "note"}
    assert "neither numbers nor labels" in found.evidence.not_advised["layers_sizes"]
    assert "16 different labels" in found.evidence.not_advised["note"]


def test_a_training_that_rewrites_gets_what_is_safe_and_the_names_of_the_rest(history: History) -> None:
    study(history, "boosting", lr=(-5, -1), max_depth=[1, 2, 3, 4])
    current = {"lr": 0.1, "max_depth": 3}
    (found,) = recommend(history, "boosting", current=current, allowed=["learning_rate"])
    assert set(found.config) == {"learning_rate"}
    assert found.evidence.not_advised == {"max_depth": NEEDS_SPACE}


def test_nothing_is_advised_outside_the_values_that_finished(history: History) -> None:
    study(history, "net", lr=(-4, -2))
    with history.start_run(task="net", hparams={"lr": 10.0}, objective="val_loss") as run:
        run.finish("diverged")
    (found,) = recommend(history, "net", mode="explore")
    assert found.config["learning_rate"] <= 1e-2


@pytest.mark.parametrize("mode", ["best", "explore"])
def test_five_answers_are_five_different_ones(history: History, mode: str) -> None:
    study(history, "net", n=30, lr=(-5, -1), width=[8, 16, 32, 64, 128, 256, 512, 1024, 12, 24, 48, 96, 192, 384, 768])
    found = [item.config for item in recommend(history, "net", k=5, mode=mode)]
    assert len(found) == 5
    for one, other in combinations(found, 2):
        rates = abs(math.log10(one["learning_rate"] / other["learning_rate"])) / 4
        widths = abs(math.log2(one["hidden_size"] / other["hidden_size"])) / 7
        assert max(rates, widths) > 0.08


def test_what_makes_no_difference_makes_no_different_answer(history: History) -> None:
    """The outcome depends on the rate only, so five answers must not be one rate with five values of the other."""
    study(history, "net", n=40, lr=(-5, -1), decay=(-5, -1))
    rates = [math.log10(item.config["learning_rate"]) for item in recommend(history, "net", k=5)]
    assert max(rates) - min(rates) > 0.4


def test_a_mistyped_task_is_warned_about_at_the_callers_line(history: History) -> None:
    for task in ("flowers", "stones"):
        study(history, task, lr=(-5, -1))
    with pytest.warns(UserWarning, match="did you mean 'flowers'") as seen:
        recommend(history, "flowrs")
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (found,) = recommend(history, TaskDescription(name="flowrs"))
        recommend(history, "something else")
    assert found.evidence.n_runs == 0


def test_a_name_finds_what_the_history_knows_of_the_task(history: History) -> None:
    study(history, "net", lr=(-5, -1))
    (by_name,), (by_description,) = recommend(history, "net"), recommend(history, TaskDescription(name="net"))
    assert by_name.config == by_description.config
