"""The same recorded events through the Lightning and through the Hugging Face callback give equal rows."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import hf_callbacks
import lightning_metahp
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import History, MetricRecord, ObjectiveError, RunRecord, Source
from tests.conformance.hosts import PLAYERS
from tests.conformance.scenarios import N_EVAL, N_TRAIN, OBJECTIVE, SCENARIOS, SHARED_METRICS, Scenario

HYPERPARAMETERS = (
    *("learning_rate", "weight_decay", "batch_size", "global_batch_size", "gradient_accumulation_steps"),
    *("num_epochs", "max_grad_norm", "precision"),
)


@dataclass(frozen=True)
class Played:
    """A run as the history has it, with its metrics."""

    run: RunRecord
    metrics: dict[str, list[MetricRecord]]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Played]]:
    """Every scenario played by every host, each host into a history of its own: host -> scenario -> run."""
    torch.set_num_threads(1)
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name == "METAHP" or name.startswith("METAHP_")}
    result: dict[str, dict[str, Played]] = {}
    for host, play in PLAYERS.items():
        folder = tmp_path_factory.mktemp(host)
        with History(folder / "history.db") as history:
            result[host] = {}
            for name, scenario in SCENARIOS.items():
                result[host][name] = _play(play, scenario, history, folder / name.replace(" ", "_"))
    os.environ.update(kept)
    return result


def _play(play: Any, scenario: Scenario, history: History, folder: Path) -> Played:
    if scenario.recommended is not None:
        config = {"learning_rate": scenario.recommended}
        stored = ("stored", config, 0.9, (0.8, 1.0), 0.5, 0.9, 1.0, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "better")
        save_recommendation(history, Recommendation(*stored))
        os.environ["METAHP_PIN"] = "stored"
    try:
        run = history.run(play(scenario, history, folder))
    finally:
        os.environ.pop("METAHP_PIN", None)
    return Played(run, {name: history.metrics(run.id, name) for name in SHARED_METRICS})


class CallbackSuite:
    """What a host's callback must record. A host inherits it and says its name."""

    host: str

    @pytest.fixture(params=SCENARIOS)
    def scenario(self, request: pytest.FixtureRequest) -> Scenario:
        return SCENARIOS[request.param]

    @pytest.fixture
    def found(self, played: dict[str, dict[str, Played]], scenario: Scenario) -> Played:
        return played[self.host][scenario.name]

    def test_the_run_ends_as_the_training_did(self, found: Played, scenario: Scenario) -> None:
        assert found.run.status is scenario.status
        assert (found.run.error is None) == (scenario.error is None)

    def test_the_row_says_what_happened(self, found: Played, scenario: Scenario) -> None:
        assert {name: getattr(found.run, name) for name in scenario.expected} == scenario.expected

    def test_the_objective_is_what_validation_said_once_per_epoch(self, found: Played, scenario: Scenario) -> None:
        said = [item.value for item in found.metrics[OBJECTIVE]]
        assert said == pytest.approx(list(scenario.accuracies[: len(said)]), nan_ok=True)
        assert (found.run.objective, found.run.direction) == (OBJECTIVE, "max")

    def test_every_step_has_its_loss(self, found: Played, scenario: Scenario) -> None:
        losses = found.metrics["loss"]
        assert [item.step for item in losses] == list(range(1, (found.run.steps_reached or 0) + 1))
        assert [item.value for item in losses] == pytest.approx([scenario.loss(i) for i in range(len(losses))], abs=1e-4, nan_ok=True)

    def test_hyperparameters_are_in_force_as_recorded(self, found: Played, scenario: Scenario) -> None:
        known = found.run.provenance
        assert known["learning_rate"].value == pytest.approx(scenario.recommended or scenario.learning_rate)
        assert known["learning_rate"].observed == pytest.approx(scenario.recommended or scenario.learning_rate)
        assert known["learning_rate"].source is (Source.METAHP if scenario.recommended else Source.USER)
        assert known["learning_rate"].requested == (scenario.learning_rate if scenario.recommended else None)
        assert found.run.hparams["global_batch_size"] == scenario.batch_size * scenario.accumulation
        assert found.run.hparams["max_grad_norm"] == scenario.clip

    def test_the_task_says_what_was_trained(self, found: Played) -> None:
        wanted = {"dataset_class": "Points", "n_train": N_TRAIN, "n_val": N_EVAL, "n_classes": 2, "model_class": "Net"}
        assert {name: found.run.description.get(name) for name in wanted} == wanted
        assert found.run.n_parameters == 10

    def test_costs_are_recorded(self, found: Played) -> None:
        assert (found.run.wall_s or 0) > 0
        assert (found.run.peak_memory_bytes or 0) > 0
        assert found.run.cpu_s is not None


class TestLightning(CallbackSuite):
    host = "lightning"


class TestTransformers(CallbackSuite):
    host = "transformers"


def comparable(found: Played) -> dict[str, Any]:
    """What must be equal: the row but for ids and times, the shared hyperparameters, and the shared metrics."""
    run = found.run
    columns = (
        *("task_id", "task_name", "status", "objective", "direction", "objective_best", "objective_best_step", "objective_last"),
        *("objective_last_step", "epochs_reached", "steps_reached", "model_class", "model_family", "n_parameters", "error", "attempt"),
        *("recommendation_id", "parent_run_id"),
    )
    row = {name: getattr(run, name) for name in columns}
    for name in HYPERPARAMETERS:
        known = run.provenance.get(name)
        row[f"{name}.value"] = None if known is None else known.value
        row[f"{name}.requested"] = None if known is None else known.requested
    for name in ("learning_rate", "weight_decay", "batch_size"):
        row[f"{name}.observed"] = run.provenance[name].observed
    row |= {f"optimizer.{name}": run.hparams.get(f"optimizer.{name}") for name in ("lr", "weight_decay", "betas")}
    for name, values in found.metrics.items():
        row[name] = [(item.attempt, item.step, round(item.value, 4) if math.isfinite(item.value) else "nan") for item in values]
        row[f"{name} epochs"] = [round(item.epoch or 0, 4) for item in values]
    return {name: "nan" if isinstance(value, float) and math.isnan(value) else value for name, value in row.items()}


@pytest.mark.parametrize("name", SCENARIOS)
def test_equal_events_give_equal_rows(played: dict[str, dict[str, Played]], name: str) -> None:
    assert comparable(played["transformers"][name]) == comparable(played["lightning"][name])


def test_both_callbacks_are_made_the_same_way_and_refuse_the_same_mistakes() -> None:
    for module in (lightning_metahp, hf_callbacks):
        assert module.MetaHPCallback("accuracy", "max", task="t", history=None).run_id is None
        assert module.MetaHPCallback().run_id is None
        with pytest.raises(ObjectiveError, match=r"does not imply it; possible are 'min' and 'max'"):
            module.MetaHPCallback("zorp")
        with pytest.raises(ObjectiveError, match=r"A direction must be 'min' or 'max', but got 'up'"):
            module.MetaHPCallback("accuracy", "up")
