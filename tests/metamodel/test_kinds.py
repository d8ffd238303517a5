"""The kinds of meta-model through the public interface: fitted, stored, asked."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import FloatDistribution

import metamodel.networks.adapted_model
import metamodel.networks.direct
import metamodel.networks.direct_model
from metamodel import MetaModel, TaskDescription, current_model, recommend, refit
from metamodel.fitting import active_kind
from metamodel.kinds import KINDS, class_of
from metamodel.recommendation import Decision, Unit
from store import Curve, FinishedRun, History
from store.errors import InvalidArgumentError, ModelFileError, NotEnoughHistoryError

SPACE: dict[str, Any] = {"lr": FloatDistribution(1e-5, 1e-1, log=True), "batch_size": [16, 32, 64, 128]}
NETWORKS = tuple(kind for kind in KINDS if kind != "metahp")


def fill(history: History, n_tasks: int, n_runs: int) -> None:
    """Tasks whose best learning rate is near 10 ** -2.3 and whose best batch is small."""
    rng = np.random.default_rng(n_tasks)
    runs = []
    for task in range(n_tasks):
        for i in range(n_runs):
            config = {"lr": float(10 ** rng.uniform(-5, -1)), "batch_size": int(rng.choice([16, 32, 64, 128]))}
            value = 0.9 - 0.05 * (math.log10(config["lr"]) + 2.5 - 0.06 * task) ** 2 - 0.02 * math.log2(config["batch_size"] / 16)
            curve = {"val_acc": Curve([1], [value + 0.002 * rng.normal()])}
            runs.append(FinishedRun(f"r{task:03d}-{i:04d}", f"t{task}", config, "val_acc", "max", curve))
    history.add_finished_runs(runs, {f"t{task}": {"n_train": 1000 * (task + 1), "model_family": "mlp"} for task in range(n_tasks)})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A history with a model of a kind, fitted once for all tests here."""
    path = tmp_path_factory.mktemp("kinds") / "h.db"
    with History(path) as history:
        fill(history, 6, 24)
    done: set[str] = set()

    def with_model(kind: str) -> Path:
        if kind not in done:
            with History(path) as history:
                refit(history, "cpu", model=kind)
            done.add(kind)
        return path

    return with_model


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings of a few steps, where it does not matter how much was learned."""
    for name in ("MAML", "REPTILE"):
        schedule = getattr(metamodel.networks.adapted_model, name)
        monkeypatch.setattr(metamodel.networks.adapted_model, name, replace(schedule, n_outer=10))
    for module in (metamodel.networks.direct, metamodel.networks.direct_model):
        monkeypatch.setattr(module, "N_DIRECT_STEPS", 10)


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_kind_finds_the_region_of_the_optimum_of_a_new_task(kind: str, fitted: Callable[[str], Path]) -> None:
    with History(fitted(kind)) as history:
        (found,) = recommend(history, "new", SPACE, model=kind, current={"lr": 1e-5, "batch_size": 128}, max_fit_s=0)
    assert abs(math.log10(found.config["lr"]) + 2.3) < 1.0
    assert found.config["batch_size"] in (16, 32)
    assert found.decision is Decision.APPLY
    assert found.unit is Unit.RANK
    low, high = found.interval
    assert 0 <= low < found.prediction < high <= 1
    assert found.own_prediction is not None
    assert found.own_prediction < found.prediction
    assert found.evidence.model_id is not None


@pytest.mark.parametrize("kind", NETWORKS)
def test_each_kind_speaks_in_units_once_there_are_runs_and_repeats_itself(kind: str, fitted: Callable[[str], Path]) -> None:
    with History(fitted(kind)) as history:
        first, again = (recommend(history, "t1", SPACE, k=2, mode="explore", model=kind, max_fit_s=0) for _ in range(2))
    assert [item.config for item in first] == [item.config for item in again]
    assert first[0].config != first[1].config
    assert first[0].unit is Unit.OBJECTIVE
    assert 0.6 < first[0].prediction <= 1.0


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", NETWORKS)
def test_fits_are_equal_by_seed_and_differ_between_seeds(kind: str, tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        fill(history, 4, 8)
        one, same, other = (refit(history, "cpu", model=kind, seed=seed).tensors() for seed in (1, 1, 2))
    assert all((one[name] == same[name]).all() for name in one)
    assert any((one[name] != other[name]).any() for name in one)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_answers_as_before(kind: str, tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        fill(history, 4, 8)
        model = refit(history, "cpu", model=kind)
        loaded = MetaModel.load(history.models_path / f"{model.id}.safetensors")
    assert type(loaded) is class_of(kind)
    assert loaded.info == json.loads(json.dumps(dict(model.info)))
    assert loaded.encoder == model.encoder
    assert loaded.calibration.half_width(2) == model.calibration.half_width(2)
    before, after = model.tensors(), loaded.tensors()
    assert all((before[name] == after[name]).all() for name in before)


def test_files_of_a_network_that_do_not_belong_together_are_refused(fitted: Callable[[str], Path], tmp_path: Path) -> None:
    with History(fitted("maml")) as history:
        model = current_model(history, "maml")
    assert model is not None
    meta = model.save(tmp_path)
    content = json.loads(meta.read_text())
    meta.write_text(json.dumps({**content, "encoder": content["encoder"][:1]}))
    with pytest.raises(ModelFileError, match="files must agree"):
        MetaModel.load(meta)
    meta.write_text(json.dumps({**content, "info": {**content["info"], "kind": "other"}}))
    with pytest.raises(ModelFileError, match="known kind"):
        MetaModel.load(meta)


@pytest.mark.usefixtures("short")
def test_the_kind_of_the_last_refit_is_active_and_asking_another_changes_nothing(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        fill(history, 3, 8)
        assert active_kind(history) == "metahp"
        asked = recommend(history, "new", SPACE, model="reptile")[0]
        assert active_kind(history) == "metahp"
        refit(history, "cpu", model="direct")
        assert active_kind(history) == "direct"
        served = recommend(history, "new", SPACE)[0]
        by_id = {row["id"]: row["kind"] for row in history.models()}
        assert [by_id[str(found.evidence.model_id)] for found in (asked, served)] == ["reptile", "direct"]
        fill_more = {"lr": 1e-3, "batch_size": 16}
        for _ in range(6):
            with history.start_run(task="later", hparams=fill_more, objective="val_acc") as run:
                run.log(val_acc=float(np.random.default_rng(0).random()), step=1)
        assert active_kind(history) == "direct"
        assert len(list(history.models_path.glob("*.json"))) == 2


@pytest.mark.usefixtures("short")
def test_few_tasks_come_with_a_remark_on_what_was_not_measured(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        fill(history, 2, 12)
        notes = {kind: recommend(history, "new", SPACE, model=kind, max_fit_s=60)[0].evidence.note for kind in ("maml", "direct")}
    assert "fewer than 4 tasks" in notes["maml"]
    assert "direct predicts the best configuration, not outcomes" in notes["direct"]
    assert "fewer than 4 tasks" in notes["direct"]


def test_a_network_that_had_no_time_to_learn_does_not_answer(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        fill(history, 3, 8)
        (found,) = recommend(history, "new", SPACE, model="reptile", max_fit_s=1e-3)
        assert history.models() == []
    assert found.decision is Decision.ABSTAIN
    assert "not enough to fit, so none is used: run `metahp refit --model reptile`" in found.reason


def test_direct_reports_how_far_its_predictions_are_from_the_best_hyperparameters(fitted: Callable[[str], Path]) -> None:
    with History(fitted("direct")) as history:
        model = current_model(history, "direct")
    assert model is not None
    accuracy = model.info["accuracy"]
    assert accuracy["n_tasks"] == 6
    assert set(accuracy["after"]) == {"0", "4", "16"}
    for errors in (*accuracy["after"].values(), accuracy["same_for_all"]):
        assert set(errors) == {"global_batch_size", "learning_rate"}
        assert 0 <= errors["global_batch_size"]["exact"] <= 1
        assert 0 <= errors["learning_rate"]["log10_error"] < 2


@pytest.mark.parametrize("kind", ["maml", "reptile"])
def test_target_runs_change_what_a_network_predicts(kind: str, fitted: Callable[[str], Path]) -> None:
    """On a task whose best learning rate is the smallest, the opposite of all others."""
    task = TaskDescription(name=f"opposite {kind}", objective="val_acc", direction="max")
    rates = np.geomspace(1e-5, 1e-2, 8)
    pool = [{"lr": float(rate), "batch_size": 16} for rate in rates[[0, -1]]]
    with History(fitted(kind)) as history:
        before = recommend(history, task, candidates=pool, k=2, model=kind, max_fit_s=0)
        for rate in rates:
            with history.start_run(task=task, hparams={"lr": float(rate), "batch_size": 16}, objective="val_acc") as run:
                run.log(val_acc=0.5 - 0.1 * math.log10(rate), step=1)
        after = recommend(history, task, candidates=pool, k=2, model=kind, max_fit_s=0)
    share = {item.config["lr"]: item for item in before}
    assert share[pool[1]["lr"]].prediction > share[pool[0]["lr"]].prediction
    assert before[0].config == pool[1]
    assert after[0].evidence.n_runs == len(rates)
    gap = {item.config["lr"]: item.prediction for item in after}
    assert gap[pool[0]["lr"]] > 0.7  # from the worst of all to among the best


@pytest.mark.parametrize("call", [lambda h: refit(h, model="mamll"), lambda h: recommend(h, "t", SPACE, model="mamll")])
def test_an_unknown_kind_is_refused_with_those_there_are(call: Any, tmp_path: Path) -> None:
    with (
        History(tmp_path / "h.db") as history,
        pytest.raises(InvalidArgumentError, match="known kind, but got 'mamll'; did you mean 'maml'\\? Possible are metahp, direct"),
    ):
        call(history)


@pytest.mark.parametrize("kind", NETWORKS)
def test_too_small_a_history_is_said_in_the_same_words_by_every_kind(kind: str, tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        fill(history, 1, 8)
        with pytest.raises(NotEnoughHistoryError, match="A meta-model needs at least 2 tasks"):
            refit(history, "cpu", model=kind)
        (found,) = recommend(history, "new", SPACE, model=kind)
        assert found.decision is Decision.ABSTAIN
        (found,) = recommend(history, "t0", SPACE, model=kind)
        assert found.evidence.model_id is None
        assert found.decision is Decision.APPLY
