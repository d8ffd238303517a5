"""A configuration that was recommended links the run that is started with it."""

from __future__ import annotations

import logging
import warnings
from collections import UserDict
from collections.abc import Mapping
from typing import Any

import pytest

from store import History, Source, StorageWarning, TunedConfiguration


class Tuned(UserDict[str, Any]):
    """As ``metahp_tuning.suggest`` returns one."""

    recommendation_id: str | None = "r1"
    requested: Mapping[str, Any] = {"lr": 0.1}
    sources: Mapping[str, Source | str] = {"lr": "metahp"}
    run_fields: Mapping[str, Any] = {"task": "told", "objective": "val_acc", "direction": "max", "model_class": "Net", "variant": "v1"}

    def __init__(self, values: Mapping[str, Any], error: Exception | None = None) -> None:
        super().__init__(values)
        self.error = error
        self.saved: list[int] = []

    def save_into(self, history: History) -> None:
        self.saved.append(len(history.runs()))
        if self.error is not None:
            raise self.error
        history.save_recommendation({"id": "r1", "config": dict(self)}, current={}, changes=[])


def test_the_run_is_linked_and_keeps_what_was_asked_for(history: History) -> None:
    config = Tuned({"lr": 0.01, "depth_of": 2})
    as_protocol: TunedConfiguration = config
    assert as_protocol.recommendation_id == "r1"
    run = history.start_run(task="t", hparams=config)
    record = history.run(run.id)
    assert config.saved == [0]  # once, before there was a row
    assert record.recommendation_id == "r1"
    assert history.recommendation("r1")["run_id"] == run.id
    assert record.hparams == {"learning_rate": 0.01, "depth_of": 2}
    assert (record.provenance["learning_rate"].source, record.provenance["learning_rate"].requested) == (Source.METAHP, 0.1)
    assert (record.provenance["depth_of"].source, record.provenance["depth_of"].requested) == (Source.USER, None)


def test_what_the_caller_gives_counts(history: History) -> None:
    given = {"sources": {"lr": "constraint"}, "requested": {"lr": 0.2}, "recommendation_id": "r2"}
    record = history.run(history.start_run(task="t", hparams=Tuned({"lr": 0.01}), **given).id)
    assert record.recommendation_id == "r2"
    assert (record.provenance["learning_rate"].source, record.provenance["learning_rate"].requested) == (Source.CONSTRAINT, 0.2)


def test_what_it_knows_of_the_run_need_not_be_passed_again(history: History) -> None:
    record = history.run(history.start_run(hparams=Tuned({"lr": 0.01})).id)
    assert (record.task_name, record.objective, record.direction) == ("told", "val_acc", "max")
    assert (record.model_class, record.variant) == ("Net", "v1")
    record = history.run(history.start_run(task="t", hparams=Tuned({"lr": 0.01}), objective="loss", variant="v2").id)
    assert (record.task_name, record.objective, record.direction, record.variant) == ("t", "loss", "min", "v2")


def test_a_recommendation_that_cannot_be_saved_stops_no_run(history: History, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "store")
    config = Tuned({"lr": 0.01}, RuntimeError("no room"))
    with pytest.warns(StorageWarning, match="could not be saved into .*: no room") as seen:
        run = history.start_run(task="t", hparams=config)
    assert len(seen) == 1
    assert "no room" in caplog.text
    assert history.run(run.id).recommendation_id == "r1"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert history.start_run(task="t", hparams=config).id


def test_a_configuration_that_follows_no_recommendation_links_none(history: History) -> None:
    config = Tuned({"lr": 0.01})
    config.recommendation_id = None
    assert history.run(history.start_run(task="t", hparams=config).id).recommendation_id is None


class Attributes(dict[str, Any]):
    """A dictionary that gives its values as attributes too, as frameworks have them."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def test_a_hyperparameter_of_such_a_name_is_one(history: History) -> None:
    hparams = Attributes(sources={"lr": "nonsense"}, recommendation_id="r9", requested={"lr": 1}, lr=0.1)
    record = history.run(history.start_run(task="t", hparams=hparams).id)
    assert record.recommendation_id is None
    assert record.hparams["sources"] == {"lr": "nonsense"}
    assert record.provenance["learning_rate"].source is Source.USER
