"""``recommend`` on real histories: zero-shot, few-shot, abstention, conservatism, and the same answer twice."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

from metamodel import MetaModel, TaskDescription, current_model, recommend, refit
from metamodel.data.learning_tables import learning_table
from metamodel.fitting import active_model, outdated_reason
from metamodel.recommendation import Decision, Recommendation, Unit, load_recommendation, save_recommendation
from store import History, RunStatus
from store.errors import InvalidArgumentError, ModelFileError, NotEnoughHistoryError, ObjectiveWarning, SpaceError

SPACE: dict[str, Any] = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "batch_size": [16, 32, 64, 128]}


def outcome(config: dict[str, Any], peak: float = -2.5) -> float:
    """A landscape whose best learning rate is ``10 ** peak`` and whose best batch is small."""
    return 0.9 - 0.05 * (math.log10(config["lr"]) - peak) ** 2 - 0.01 * math.log2(config["batch_size"] / 16)


def fill(
    history: History,
    n_tasks: int,
    n_runs: int,
    *,
    prefix: str = "t",
    peak: float = -2.5,
    change: Callable[[dict[str, Any], np.random.Generator], dict[str, Any]] | None = None,
    **fields: Any,
) -> None:
    rng = np.random.default_rng(len(prefix) + n_tasks)
    for task in range(n_tasks):
        for _ in range(n_runs):
            config: dict[str, Any] = {
                "lr": float(10 ** rng.uniform(-5, -1)),
                "batch_size": int(rng.choice([16, 32, 64, 128])),
                "num_epochs": 5,
            }
            if change is not None:
                config = change(config, rng)
            with history.start_run(task=f"{prefix}{task}", hparams=config, objective="val_acc", **fields) as run:
                run.log(val_acc=outcome(config, peak + 0.1 * task) + 0.002 * rng.normal(), step=1)


def test_an_empty_history_is_answered_with_an_abstention_and_what_it_takes(history: History) -> None:
    (recommendation,) = recommend(history, "new", SPACE)
    assert recommendation.decision == "abstain"
    assert "no run with an outcome" in recommendation.reason
    assert "4 runs of this task or its siblings with an outcome, or 8 runs of each of 2 other tasks" in recommendation.reason
    assert math.isnan(recommendation.prediction)


def test_a_new_task_is_answered_from_other_tasks_in_ranks(history: History) -> None:
    fill(history, 4, 16)
    (recommendation,) = recommend(history, "new", SPACE, current={"lr": 1e-5, "batch_size": 128, "num_epochs": 5})
    assert recommendation.decision is Decision.APPLY
    assert recommendation.unit is Unit.RANK
    assert abs(math.log10(recommendation.config["lr"]) + 2.35) < 0.7
    assert recommendation.config["batch_size"] in SPACE["batch_size"]
    assert recommendation.own_prediction is not None
    assert recommendation.prediction > 0.8 > recommendation.own_prediction
    assert recommendation.evidence.n_tasks == 4
    assert recommendation.evidence.n_other_runs == 64
    assert "from 64 runs of 4 other tasks" in recommendation.reason
    low, high = recommendation.interval
    assert low < recommendation.prediction < high


def test_a_model_is_fitted_when_it_is_needed_and_nobody_types_refit(history: History) -> None:
    fill(history, 3, 10)
    assert current_model(history) is None
    (recommendation,) = recommend(history, "new", SPACE)
    model = current_model(history)
    assert model is not None
    assert recommendation.evidence.model_id == model.id
    assert "fitted the meta-model to 30 runs of 3 tasks" in recommendation.evidence.note
    assert recommend(history, "new", SPACE)[0].evidence.note == ""


def test_the_evidence_floor_is_two_tasks_with_eight_runs_or_four_of_this_task(history: History) -> None:
    fill(history, 2, 7)
    assert recommend(history, "new", SPACE)[0].decision is Decision.ABSTAIN
    fill(history, 1, 3, prefix="mine")
    assert recommend(history, "mine0", SPACE)[0].decision is Decision.ABSTAIN
    fill(history, 1, 1, prefix="mine")
    assert recommend(history, "mine0", SPACE)[0].decision is Decision.APPLY
    fill(history, 2, 1)
    assert recommend(history, "new", SPACE)[0].decision is Decision.APPLY


def flat(history: History, name: str, n_runs: int = 8) -> None:
    """Another task that speaks and has nothing to teach."""
    for i in range(n_runs):
        with history.start_run(task=name, hparams={"lr": 10 ** -(1 + i / 2), "batch_size": 16}, objective="val_acc") as run:
            run.log(val_acc=0.5)


def test_one_past_task_guides_a_search_that_asks_for_it_and_its_advice_is_not_applied(history: History) -> None:
    fill(history, 1, 30)
    for mode in ("best", "explore"):  # a fit would cost a training's start time, for what is not applied
        (found,) = recommend(history, "new", SPACE, mode=mode)
        assert (found.decision, found.evidence.model_id) == (Decision.ABSTAIN, None)
    (found,) = recommend(history, "new", SPACE, mode="explore", min_tasks=1)
    assert found.decision is Decision.ABSTAIN
    assert "not enough history (30 runs of 1 other task). Needed: 4 runs of this task" in found.reason
    assert abs(math.log10(found.config["lr"]) + 2.5) < 1
    assert "fitted the meta-model to 30 runs of 1 task in" in found.evidence.note
    (found,) = recommend(history, "new", SPACE)
    assert found.decision is Decision.ABSTAIN
    assert abs(math.log10(found.config["lr"]) + 2.5) < 1  # what it would have chosen
    model = current_model(history)
    assert model is not None
    assert model.info["task_ids"] == [history.task("t0").id]
    assert model.calibration.half_widths == {}


def test_own_runs_after_one_past_task_count_with_it(history: History) -> None:
    fill(history, 1, 30, peak=-1.5)
    refit(history)
    before = recommend(history, "mine0", SPACE, mode="explore", max_fit_s=0)[0]
    fill(history, 1, 8, prefix="mine", peak=-4.5)
    (found,) = recommend(history, "mine0", SPACE, max_fit_s=0)
    assert found.decision is Decision.APPLY
    assert found.evidence.model_id is not None
    assert math.log10(before.config["lr"]) > -2.5
    assert math.log10(found.config["lr"]) < -3.5


def test_a_model_of_one_task_does_not_speak_for_the_tasks_that_came_later(history: History) -> None:
    fill(history, 1, 30)
    refit(history)
    fill(history, 2, 10, prefix="later")
    stale = recommend(history, "new", SPACE, max_fit_s=0)[0]
    assert (stale.decision, stale.evidence.model_id, stale.config) == (Decision.ABSTAIN, None, {})
    assert recommend(history, "new", SPACE)[0].decision is Decision.APPLY


def test_tasks_that_teach_nothing_do_not_lift_a_single_one_above_the_floor(history: History) -> None:
    fill(history, 1, 4)
    for name in ("flat", "level"):
        flat(history, name)
    for mode in ("explore", "best"):
        assert recommend(history, "new", SPACE, mode=mode, min_tasks=1)[0].decision is Decision.ABSTAIN


def test_any_fit_replaces_a_model_of_one_task(history: History) -> None:
    fill(history, 1, 30)
    refit(history)
    fill(history, 11, 30, prefix="later", peak=-4.5)
    table = learning_table(history)
    serving = active_model(history, table, max_fit_s=0.01)
    assert serving.model is not None
    assert serving.model.info["n_tasks"] == 12


def test_a_model_of_nothing_but_the_task_in_question_is_not_asked(history: History) -> None:
    fill(history, 1, 12, prefix="mine")
    flat(history, "flat")
    for mode in ("best", "explore"):
        found = recommend(history, "mine0", SPACE, mode=mode, min_tasks=1)[0]
        assert (found.evidence.n_tasks, found.evidence.model_id, found.evidence.note) == (1, None, "")
    assert current_model(history) is None  # nothing was fitted that nobody could have asked
    refit(history)
    assert recommend(history, "mine0", SPACE, max_fit_s=0)[0].evidence.model_id is None


def test_runs_of_a_task_that_was_merged_into_this_one_count_once(history: History) -> None:
    fill(history, 1, 30)
    refit(history)
    fill(history, 1, 2, prefix="mine")
    history.merge_tasks("mine0", "t0")
    flat(history, "flat")
    assert recommend(history, "mine0", SPACE, max_fit_s=0)[0].evidence.model_id is None


def test_a_task_with_two_objectives_is_no_evidence_for_itself(history: History) -> None:
    fill(history, 2, 10)
    for i in range(10):
        with history.start_run(task="t0", hparams={"lr": 10 ** -(1 + i / 3), "batch_size": 16}, objective="val_f1") as run:
            run.log(val_f1=0.5 + 0.01 * i)
    model = refit(history)
    assert isinstance(model, MetaModel)
    assert model.info["n_tasks"] == 3
    own, other = history.task("t0").id, history.task("t1").id
    prior, alone = model.prior({}, without=own), model.without_tasks([own])
    assert alone is not None
    assert alone.info["task_ids"] == [other]
    points = np.random.default_rng(0).random((5, model.encoder.width))
    assert prior.prepare(points).mean.numpy() == pytest.approx(alone.prior({}).prepare(points).mean.numpy())


@pytest.mark.parametrize("n_tasks", [1, 2])
@pytest.mark.parametrize("kind", ["metahp", "direct", "maml", "reptile"])
def test_a_history_in_which_nothing_varied_says_so(history: History, kind: str, n_tasks: int) -> None:
    for task in range(n_tasks):
        for seed in range(5):
            with history.start_run(task=f"t{task}", hparams={"lr": 0.1}, objective="val_acc") as run:
                run.log(val_acc=0.5 + 0.01 * seed)
    missing = "needs a hyperparameter that varied within a task, but none did in t0"
    with pytest.raises(NotEnoughHistoryError, match=missing if n_tasks == 2 or kind == "metahp" else "at least 2 tasks"):
        refit(history, model=kind)


def test_a_history_in_which_nothing_varied_costs_a_start_no_warning(history: History, caplog: pytest.LogCaptureFixture) -> None:
    for task in ("a", "b"):
        for seed in range(8):
            with history.start_run(task=task, hparams={"lr": 0.1}, objective="val_acc") as run:
                run.log(val_acc=0.5 + 0.01 * seed)
    serving = active_model(history, learning_table(history))
    assert serving.model is None
    assert "none did in a, b" in serving.note
    assert not caplog.records


@pytest.mark.parametrize("min_tasks", [0, 1.5, True])
def test_an_impossible_number_of_tasks_is_refused(history: History, min_tasks: Any) -> None:
    with pytest.raises(InvalidArgumentError, match="min_tasks must be a whole number, at least 1, but got"):
        recommend(history, "new", SPACE, min_tasks=min_tasks)


def test_a_task_alone_is_tuned_by_its_own_runs_and_spoken_of_in_its_own_units(history: History) -> None:
    fill(history, 1, 20, prefix="mine")
    (recommendation,) = recommend(history, "mine0", SPACE, current={"lr": 1e-5, "batch_size": 16, "num_epochs": 5})
    assert abs(math.log10(recommendation.config["lr"]) + 2.5) < 0.6
    assert recommendation.unit is Unit.OBJECTIVE
    assert recommendation.prediction == pytest.approx(0.9, abs=0.03)
    assert recommendation.own_prediction is not None
    assert recommendation.own_prediction < 0.8
    assert recommendation.evidence.model_id is None


def test_a_minimised_objective_is_minimised_and_spoken_of_as_it_is(history: History) -> None:
    rng = np.random.default_rng(0)
    for _ in range(16):
        lr = float(10 ** rng.uniform(-5, -1))
        with history.start_run(task="m", hparams={"lr": lr}, objective="val_loss") as run:
            run.log(val_loss=1e4 * (1 + (math.log10(lr) + 3) ** 2))
    (recommendation,) = recommend(history, "m", {"lr": SPACE["lr"]}, current={"lr": 0.1})
    assert abs(math.log10(recommendation.config["lr"]) + 3) < 0.6
    assert recommendation.own_prediction is not None
    assert recommendation.prediction < recommendation.own_prediction
    low, high = recommendation.interval
    assert low < recommendation.prediction < high


def test_the_user_keeps_values_that_are_as_good(history: History) -> None:
    fill(history, 4, 16)
    best = recommend(history, "new", SPACE)[0].config
    (recommendation,) = recommend(history, "new", SPACE, current={**best, "num_epochs": 5})
    assert recommendation.decision is Decision.ABSTAIN
    # Found again exactly, or beside a configuration that is better by a hair.
    assert recommendation.gain_probability is not None
    assert recommendation.gain_probability < 0.55
    (same,) = recommend(history, "new", candidates=[best], current={**best, "num_epochs": 5})
    assert same.decision is Decision.ABSTAIN
    assert "already what would be recommended" in same.reason


def test_the_same_history_and_seed_give_the_same_recommendation(history: History) -> None:
    fill(history, 3, 10)
    refit(history)
    first, again = recommend(history, "new", SPACE, k=3), recommend(history, "new", SPACE, k=3)
    assert [item.config for item in first] == [item.config for item in again]
    assert len({repr(item.config) for item in first}) == 3
    assert len({item.id for item in first + again}) == 6


def test_candidates_are_chosen_from_and_returned_as_given(history: History) -> None:
    fill(history, 3, 10)
    pool = [{"lr": value, "bs": 16} for value in (1e-5, 3e-3, 1e-1)]
    recommendations = recommend(history, "new", candidates=pool, k=9)
    assert recommendations[0].config == pool[1]
    assert sorted(item.config["lr"] for item in recommendations) == sorted(item["lr"] for item in pool)


def test_without_a_space_only_safe_names_change_and_only_within_what_was_seen(history: History) -> None:
    fill(history, 3, 12, change=lambda config, rng: {**config, "num_layers": int(rng.integers(1, 4)), "dropout": 0.1})
    current = {"lr": 1e-5, "batch_size": 32, "num_epochs": 5, "num_layers": 2, "dropout": 0.1}
    (recommendation,) = recommend(history, "new", current=current)
    assert set(recommendation.config) == {"learning_rate"}
    seen = [run.hparams["learning_rate"] for run in history.runs()]
    assert min(seen) <= recommendation.config["learning_rate"] <= max(seen)


def test_without_a_space_a_batch_neither_shrinks_nor_grows_beyond_what_finished_here(history: History) -> None:
    fill(history, 1, 30, prefix="mine")
    current = {"lr": 1e-3, "batch_size": 32, "num_epochs": 5}
    (recommendation,) = recommend(history, "mine0", current=current)
    assert 32 <= recommendation.config.get("global_batch_size", 32) <= 128
    (other,) = recommend(history, "new", current=current)
    assert "global_batch_size" not in other.config


def test_names_that_may_not_be_rewritten_stay(history: History) -> None:
    fill(history, 3, 12)
    (recommendation,) = recommend(history, "new", current={"lr": 1e-5, "batch_size": 32}, allowed={"per_device_batch_size"})
    assert "learning_rate" not in recommendation.config


def test_a_name_no_run_has_varied_is_left_to_the_user(history: History) -> None:
    fill(history, 3, 12)
    (recommendation,) = recommend(history, "new", {**SPACE, "momentum": FloatDistribution(0.0, 0.9)})
    assert recommendation.config["momentum"] == pytest.approx(0.45)
    assert recommendation.evidence.untuned == ("momentum",)
    (kept,) = recommend(history, "new", {**SPACE, "momentum": FloatDistribution(0.0, 0.9)}, current={"lr": 1e-5, "momentum": 0.9})
    assert kept.config["momentum"] == 0.9
    (nothing,) = recommend(history, "new", {"momentum": FloatDistribution(0.0, 0.9)})
    assert nothing.decision is Decision.ABSTAIN


def test_nothing_is_advised_about_what_no_run_of_the_task_varied(history: History) -> None:
    fill(history, 1, 8, prefix="mine")
    for arguments in ({"space": {"zzz": FloatDistribution(0, 1)}}, {"candidates": [{"zzz": 1}, {"zzz": 2}]}):
        (recommendation,) = recommend(history, "mine0", **arguments)
        assert recommendation.decision is Decision.ABSTAIN
        assert "no run varied zzz" in recommendation.reason


def test_a_space_far_outside_what_was_seen_is_not_spoken_about(history: History) -> None:
    fill(history, 1, 12, prefix="mine")
    (recommendation,) = recommend(history, "mine0", {"lr": FloatDistribution(5, 100)})
    assert recommendation.decision is Decision.ABSTAIN
    assert "learning_rate would lie far outside the values any run had" in recommendation.reason


def test_the_users_own_values_are_recognised_as_what_would_be_recommended(history: History) -> None:
    fill(history, 1, 12, prefix="mine")
    (recommendation,) = recommend(history, "mine0", {"lr": [3e-3]}, current={"lr": 3e-3, "batch_size": 16, "num_epochs": 5})
    assert recommendation.decision is Decision.ABSTAIN
    assert "already what would be recommended" in recommendation.reason


def test_several_recommendations_differ_enough_to_teach_something(history: History) -> None:
    fill(history, 3, 10)
    found = [item.config for item in recommend(history, "new", {"lr": SPACE["lr"]}, k=5)]
    rates = sorted(math.log10(config["lr"]) for config in found)
    assert len(rates) == 5
    assert min(b - a for a, b in pairwise(rates)) > 0.19


def test_tasks_that_tuned_nothing_in_common_do_not_speak(history: History) -> None:
    fill(history, 3, 12)
    (recommendation,) = recommend(history, "new", {"num_trees": [10, 100]})
    assert recommendation.decision is Decision.ABSTAIN
    assert recommendation.evidence.left_out["task tuned none of these hyperparameters"] == 36


def test_a_region_that_diverges_is_avoided(history: History) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        lr = float(10 ** rng.uniform(-5, -1))
        with history.start_run(task="d", hparams={"lr": lr}, objective="val_acc") as run:
            run.log(val_acc=math.nan if lr > 10**-2 else 0.5 + 0.1 * (math.log10(lr) + 5))
    assert len(history.runs("d", status="diverged")) > 5
    (recommendation,) = recommend(history, "d", {"lr": SPACE["lr"]})
    assert 10**-3.5 < recommendation.config["lr"] < 10**-1.9
    assert recommendation.evidence.n_failed == len(history.runs("d", status="diverged"))
    assert recommendation.finish_probability > 0.5


def test_out_of_memory_is_a_limit_and_not_a_bad_outcome(history: History) -> None:
    fill(history, 1, 20, prefix="o")
    for _ in range(6):
        run = history.start_run(task="o0", hparams={"lr": 3e-3, "batch_size": 1024}, objective="val_acc")
        run.finish(RunStatus.OOM)
    (recommendation,) = recommend(history, "o0", candidates=[{"lr": 3e-3, "batch_size": 1024}, {"lr": 1e-4, "batch_size": 128}])
    assert recommendation.config["batch_size"] == 128


def test_runs_of_other_model_code_are_related_evidence(history: History) -> None:
    fill(history, 1, 6, prefix="v", variant="old")
    fill(history, 1, 3, prefix="v", variant="new")
    evidence = recommend(history, "v0", SPACE, variant="new")[0].evidence
    assert (evidence.n_runs, evidence.n_related) == (3, 6)


def test_what_is_left_out_is_counted_with_its_reason(history: History) -> None:
    fill(history, 1, 5, prefix="x")
    with history.start_run(task="x0", hparams={"lr": 1.0}) as run:
        run.log(loss=1.0)
    with pytest.warns(UserWarning, match="never was"), history.start_run(task="x0", hparams={"lr": 1.0}, objective="val_acc"):
        pass
    failed = history.start_run(task="x0", hparams={"lr": 1.0}, objective="val_acc")
    failed.finish(error=ValueError("bug"))
    left_out = recommend(history, "x0", SPACE)[0].evidence.left_out
    assert left_out == {"no objective": 1, "objective 'val_acc' without an outcome": 1, "status failed": 1}


def test_a_task_found_by_description_is_the_one_that_was_logged(history: History) -> None:
    description = TaskDescription(dataset_class="D", n_train=100, model_class="M", objective="val_acc", direction="max")
    for lr in (1e-4, 1e-3, 1e-2, 1e-1):
        with history.start_run(task=description, hparams={"lr": lr}, objective="val_acc") as run:
            run.log(val_acc=-abs(math.log10(lr) + 3))
    assert recommend(history, description, {"lr": SPACE["lr"]})[0].evidence.n_runs == 4
    assert recommend(history, replace(description, n_classes=3), {"lr": SPACE["lr"]})[0].evidence.n_runs == 0


def test_a_stored_recommendation_is_read_back_equal(history: History) -> None:
    fill(history, 3, 10)
    (recommendation,) = recommend(history, "new", SPACE, current={"lr": 1e-5, "batch_size": 128})
    save_recommendation(history, recommendation, current={"lr": 1e-5})
    assert load_recommendation(history, recommendation.id) == recommendation


def test_an_abstention_without_numbers_is_stored_too(history: History) -> None:
    (recommendation,) = recommend(history, "new", SPACE)
    save_recommendation(history, recommendation)
    back = load_recommendation(history, recommendation.id)
    assert isinstance(back, Recommendation)
    assert math.isnan(back.prediction)
    assert back.reason == recommendation.reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k must be a whole number, at least 1, but got 0"),
        ({"k": "2"}, "k must be a whole number, at least 1, but got '2'"),
        ({"task": 3}, "A task must be a name, a TaskDescription or None, but got 3"),
        ({"mode": "fast"}, "mode must be one of best, explore, but got 'fast'"),
        ({"candidates": []}, "candidates must hold at least one configuration"),
        ({"candidates": ["x"]}, "each a mapping of names to values"),
        ({"planned_epochs": 0}, "planned_epochs must be a positive number of passes over the training data, or None, but got 0"),
        ({"planned_epochs": math.inf}, "planned_epochs must be a positive number of passes .* but got inf"),
        ({"planned_epochs": "3"}, "planned_epochs must be a positive number of passes .* but got '3'"),
    ],
)
def test_impossible_arguments_are_refused(history: History, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        recommend(history, **{"task": "t", **arguments})


def test_a_malformed_space_is_refused_even_with_an_empty_history(history: History) -> None:
    with pytest.raises(SpaceError, match="must hold at least one value"):
        recommend(history, "t", {"lr": []})


def test_all_of_a_finite_space_can_be_asked_for(history: History) -> None:
    fill(history, 3, 10)
    space = {"batch_size": [16, 32, 64, 128], "num_epochs": [5]}
    found = recommend(history, "new", space, k=10)
    assert sorted(item.config["batch_size"] for item in found) == [16, 32, 64, 128]


def test_exploring_and_exploiting_both_answer(history: History) -> None:
    fill(history, 3, 10)
    fill(history, 1, 3, prefix="mine")
    for mode in ("best", "explore"):
        assert recommend(history, "mine0", SPACE, mode=mode)[0].mode == mode


def test_refit_on_an_empty_history_says_what_it_takes(history: History) -> None:
    with pytest.raises(NotEnoughHistoryError, match=r"at least 1 task with 4 finished runs of differing outcome, but the history has 0"):
        refit(history)


def test_refit_names_what_it_left_out(history: History) -> None:
    for _ in range(5):
        with history.start_run(task="a", hparams={"lr": 1.0}) as run:
            run.log(val_acc=1.0)
    with pytest.raises(NotEnoughHistoryError, match="runs left out: 5 x no objective"):
        refit(history)


def test_refit_on_an_unknown_device_is_refused(history: History) -> None:
    with pytest.raises(InvalidArgumentError, match="must be 'auto', 'cpu' or 'cuda', but got 'tpu'"):
        refit(history, device="tpu")


def test_a_model_survives_its_files_and_predicts_the_same(history: History, tmp_path: Path) -> None:
    fill(history, 3, 10)
    model = refit(history)
    files = sorted(path.suffix for path in history.models_path.iterdir())
    assert files == [".json", ".safetensors"]
    back = MetaModel.load(history.models_path / f"{model.id}.json")
    assert back.encoder == model.encoder
    before, after = model.tensors(), back.tensors()
    assert before.keys() == after.keys() > {"shared_precision", "shared_evidence", "shared_inducing"}
    assert all((before[name] == after[name]).all() for name in before)
    assert back.relatedness.to_json() == model.relatedness.to_json()
    assert back.info["n_runs"] == 30


def test_a_damaged_model_file_is_passed_over_and_a_fresh_one_is_fitted(history: History) -> None:
    fill(history, 3, 10)
    model = refit(history)
    path = history.models_path / f"{model.id}.json"
    path.write_text("{")
    with pytest.raises(ModelFileError, match=r"must be a readable pair .* Run `metahp refit`"):
        MetaModel.load(path)
    import metamodel.fitting

    metamodel.fitting._loaded.clear()
    assert recommend(history, "new", SPACE)[0].evidence.model_id not in (None, model.id)


def test_a_model_is_outdated_by_a_fifth_more_runs_or_a_new_task(history: History) -> None:
    fill(history, 3, 10)
    model = refit(history)
    assert outdated_reason(model, learning_table(history)) is None
    fill(history, 1, 5)
    assert outdated_reason(model, learning_table(history)) is None
    fill(history, 1, 2)
    assert outdated_reason(model, learning_table(history)) == "the history grew from 30 to 37 finished runs"
    fill(history, 1, 4, prefix="new")
    assert outdated_reason(model, learning_table(history)) == "the history has 1 new task"


def test_automatic_fitting_can_be_switched_off(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(history, 3, 10)
    monkeypatch.setenv("METAHP_REFIT", "off")
    serving = active_model(history, learning_table(history))
    assert serving.model is None
    assert "METAHP_REFIT=off" in serving.note
    assert recommend(history, "new", SPACE)[0].decision is Decision.ABSTAIN


def test_an_automatic_fit_that_fails_in_torch_costs_the_advice_and_not_the_run(
    history: History, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA out of memory")

    fill(history, 3, 10)
    monkeypatch.setattr("metamodel.gp.gp_meta_model.fit_task_gps", full)
    (recommendation,) = recommend(history, "new", SPACE)
    assert recommendation.decision is Decision.ABSTAIN
    assert "the automatic fit failed: CUDA out of memory" in recommendation.reason
    assert "CUDA out of memory" in caplog.text


def test_a_fit_that_gets_too_little_time_leaves_the_previous_model_serving(history: History) -> None:
    fill(history, 3, 10)
    model = refit(history)
    fill(history, 3, 10)
    serving = active_model(history, learning_table(history), max_fit_s=0.01)
    assert serving.model is not None
    assert serving.model.id == model.id
    assert "were not enough to fit" in serving.note


def test_runs_that_came_in_after_the_last_fit_are_conditioned_on(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(history, 3, 12)
    refit(history)
    monkeypatch.setenv("METAHP_REFIT", "off")
    before = recommend(history, "odd", SPACE)[0].config["lr"]
    fill(history, 1, 25, prefix="odd", peak=-4.5)
    after = recommend(history, "odd0", SPACE)[0].config["lr"]
    assert after < before / 10


def test_a_space_with_one_value_is_compared_with_the_users_own(history: History) -> None:
    fill(history, 1, 20, prefix="mine")
    current = {"lr": 1e-5, "batch_size": 16, "num_epochs": 5}
    (recommendation,) = recommend(history, "mine0", {"lr": [3e-3]}, current=current)
    assert recommendation.config == {"lr": 3e-3}
    assert recommendation.decision is Decision.APPLY
    assert recommend(history, "mine0", {"lr": [1e-5]}, current={**current, "lr": 3e-3})[0].decision is Decision.ABSTAIN


def test_an_objective_that_was_never_logged_is_answered_with_the_names_that_were(history: History) -> None:
    for _ in range(5):
        with (
            pytest.warns(UserWarning, match="never was"),
            history.start_run(task="x", hparams={"lr": 1.0}, objective="val_acu", direction="max") as run,
        ):
            run.log(val_acc=1.0, train_loss=2.0)
    expected = r"5 x objective 'val_acu' without an outcome \(logged were: train_loss, val_acc\)"
    (recommendation,) = recommend(history, "x", SPACE)
    assert re.search(expected, recommendation.reason)
    with pytest.raises(NotEnoughHistoryError, match=expected):
        refit(history)


def test_a_recommendation_for_a_task_without_runs_carries_the_id_its_first_run_will_have(history: History) -> None:
    (recommendation,) = recommend(history, "later", SPACE)
    with history.start_run(task="later", hparams={}) as run:
        run.log(loss=1.0)
    assert recommendation.task_id == run.task_id


def test_the_newest_model_of_a_folder_is_loaded(history: History) -> None:
    fill(history, 3, 8)
    refit(history)
    newest = refit(history)
    assert MetaModel.load(history.models_path).id == newest.id


def test_training_from_scratch_does_not_speak_for_fine_tuning(history: History) -> None:
    fill(history, 3, 12)
    description = TaskDescription(name="bert", is_pretrained=True)
    (recommendation,) = recommend(history, description, SPACE)
    assert recommendation.decision is Decision.ABSTAIN
    assert recommendation.evidence.left_out["task starts from other weights (pre-trained or not)"] == 36
    assert recommend(history, replace(description, is_pretrained=False), SPACE)[0].decision is Decision.APPLY


def test_of_very_many_runs_enough_are_looked_at_to_know_where_they_fail(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metamodel.search.task_surrogate.MAX_FAILED_RUNS_FOR_FEASIBILITY", 20)
    monkeypatch.setattr("metamodel.search.task_surrogate.MAX_RUNS_FOR_FEASIBILITY", 40)
    rng = np.random.default_rng(0)
    for task in range(3):
        for _ in range(60):
            lr = float(10 ** rng.uniform(-5, -1))
            with history.start_run(task=f"t{task}", hparams={"lr": lr, "wd": float(rng.random())}, objective="val_acc") as run:
                run.log(val_acc=float("nan") if lr > 1e-2 else 0.5 + 0.1 * np.log10(lr))
    found = recommend(history, "t0", k=2, candidates=[{"lr": 5e-2, "wd": 0.5}, {"lr": 1e-3, "wd": 0.5}])
    assert [recommendation.config["lr"] for recommendation in found] == [1e-3, 5e-2]
    assert found[0].finish_probability > 0.8 > 0.3 > found[1].finish_probability


def test_only_runs_of_the_task_count_as_left_out(history: History) -> None:
    for task in ("mine", "other", "other"):
        history.start_run(task=task, hparams={"lr": 0.1}, objective="acc", direction="max").finish("failed")
    run = history.start_run(task="other", hparams={"lr": 0.1}, objective="acc", direction="max")
    with pytest.warns(ObjectiveWarning):
        run.finish()
    (found,) = recommend(history, "mine", {"lr": [0.1, 0.2]})
    assert found.evidence.left_out == {"status failed": 1}
    assert found.reason.endswith("runs left out: 1 x status failed")
    (found,) = recommend(history, TaskDescription(name="new"), {"lr": [0.1, 0.2]})
    assert found.evidence.left_out == {}
    assert "left out" not in found.reason
