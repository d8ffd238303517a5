"""A host is one adapter: what a new one has to write, and that the decision is then complete."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from metahp_tuning import Host, PlainHost, TuningDecision, check_request, tune
from metahp_tuning.precedence import Setting
from metamodel import TaskDescription
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from metamodel.space.batch import BatchLayout
from store import History, Source
from store.hyperparameters import GLOBAL_BATCH_SIZE


class Booster(PlainHost):
    """A made-up framework: its settings are attributes of one object, and one of them is fixed once it has been built."""

    framework = "booster"

    def __init__(self, **given: Any) -> None:
        self.defaults = {"eta0": 0.001, "batch_size": 16, "dropout": 0.1}
        self.values = {**self.defaults, **given}
        self.given = set(given)
        self.is_built = False
        self.printed: list[str] = []
        self.reported: list[str] = []

    def settings(self) -> Mapping[str, Setting]:
        found = [Setting(raw, value, Source.USER if raw in self.given else Source.DEFAULT) for raw, value in self.values.items()]
        return {setting.name: setting for setting in found}

    def why_fixed(self, name: str, setting: Setting) -> str | None:
        return "the layers are built; call tune() before build()" if self.is_built and name == "dropout" else None

    def describe(self) -> TaskDescription:
        return TaskDescription(name="boosted", n_train=40, objective="val_acc", direction="max")

    def layout(self) -> BatchLayout | None:
        return BatchLayout(self.values["batch_size"], 1, 1)

    def current(self) -> dict[str, Any]:
        return {**self.values, GLOBAL_BATCH_SIZE: self.values["batch_size"]}

    def write(self, decision: TuningDecision) -> TuningDecision:
        self.values |= {change.raw_name: change.new for change in decision.changes}
        return decision

    def report(self, doing: str, error: Exception) -> None:
        self.reported.append(f"{doing}: {error}")

    def print(self, message: str) -> None:
        self.printed.append(message)


@pytest.fixture
def taught(history: History) -> History:
    """Nine finished runs, best near a learning rate of 0.01."""
    for power in range(-8, 1):
        rate = 10 ** (power / 2)
        with history.start_run(task="boosted", hparams={"eta0": rate, "batch_size": 16}, objective="val_acc") as run:
            run.log(val_acc=0.9 - 0.1 * (math.log10(rate) + 2) ** 2)
    return history


def pin(history: History, monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
    numbers = (0.9, (0.8, 1.0), 0.5, 0.9, 1.0, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "better")
    save_recommendation(history, Recommendation("stored", config, *numbers))
    monkeypatch.setenv("METAHP_PIN", "stored")


def test_it_is_a_host() -> None:
    host: Host = Booster()
    assert host.framework == "booster"


def test_what_is_recommended_is_written_and_printed(taught: History) -> None:
    host = Booster()
    decision = tune(host, check_request(history=taught))
    assert host.values["eta0"] == pytest.approx(0.01, rel=1)
    assert (host.values["batch_size"], host.values["dropout"]) == (16, 0.1), "they never varied"
    assert host.printed == [decision.message]
    assert decision.message.startswith("metahp: eta0 0.001 -> 0.0")
    assert decision.followed_id is not None
    stored = taught.recommendation(decision.followed_id)
    assert [(change["raw_name"], change["source"]) for change in stored["changes"]] == [("eta0", "metahp")]


def test_without_a_history_it_abstains(tmp_path: Any) -> None:
    host = Booster()
    decision = tune(host, check_request(history=tmp_path / "new.db"))
    assert host.values == host.defaults
    assert decision.message.startswith("metahp: nothing changed; not enough history (no run with an outcome)")
    assert decision.pending is not None, "the host saves it once there is a history"
    assert not (tmp_path / "new.db").exists()


def test_each_value_that_is_pinned_is_written_or_named(taught: History, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(taught, monkeypatch, lr=0.03, batch_size=64, dropout=0.3, num_layers=3)
    host = Booster()
    host.is_built = True
    decision = tune(host, check_request({"lr": [0.03], "batch_size": [64], "dropout": [0.3]}, history=taught))
    assert host.values == {"eta0": 0.03, "batch_size": 40, "dropout": 0.1}
    for line in (
        "  batch_size: the data set has 40 samples",
        "  dropout stays 0.1: the layers are built; call tune() before build(); 0.3 was not applied",
        "  num_layers 3 was not applied: this run has no such hyperparameter",
    ):
        assert line in decision.message.splitlines()
    assert decision.followed_id == "stored"


def test_a_dry_run_writes_nothing(taught: History) -> None:
    host = Booster()
    decision = tune(host, check_request(history=taught, mode="dry-run"))
    assert host.values == host.defaults
    assert (decision.changes, decision.followed_id) == ((), None)
    assert "eta0 0.001 -> 0.0" in host.printed[0]
    assert "Dry run: nothing was rewritten." in host.printed[0]


def test_what_the_user_gave_stays_and_off_asks_nothing(taught: History, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Booster(eta0=0.5)
    assert "eta0 stays 0.5: set by you; list it in space to have it tuned" in tune(host, check_request(history=taught)).message
    assert host.values["eta0"] == 0.5
    monkeypatch.setenv("METAHP", "off")
    assert tune(Booster(), check_request(history=taught)) == TuningDecision()


def test_an_error_of_ours_is_reported_and_changes_nothing(taught: History, monkeypatch: pytest.MonkeyPatch) -> None:
    host = Booster()
    monkeypatch.setattr(host, "describe", lambda: 1 / 0)
    decision = tune(host, check_request(history=taught))
    assert (decision.is_failed, host.printed, host.reported) == (True, [], ["the recommendation: division by zero"])
    assert replace(decision, is_failed=False) == TuningDecision()
