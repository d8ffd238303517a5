"""How the objective of a run is found, source by source."""

from __future__ import annotations

from typing import Any

import pytest
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torchmetrics import MeanMetric, MeanSquaredError

from lightning_metahp import MetaHParams, MetaHPCallback
from lightning_metahp.objective import objective_from_logged
from store import Direction, History, ObjectiveError, ObjectiveWarning
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, fit, only_run


class Logging(TinyModel):
    """Logs what it is told to, in validation."""

    def __init__(self, **values: float) -> None:
        super().__init__()
        self.values = values

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log_dict(self.values)


def found(history: History) -> tuple[str | None, str | None]:
    run = only_run(history)
    return run.objective, run.direction


def test_the_argument_comes_first(history: History) -> None:
    fit(MetaHPCallback("val_loss", history=history), EarlyStopping("val_acc", mode="max"))
    assert found(history) == ("val_loss", "min")


@pytest.mark.parametrize(("direction", "expected"), [("max", "max"), ("minimize", "min")])
def test_the_direction_may_be_given(history: History, direction: str, expected: str) -> None:
    fit(MetaHPCallback("reward_gap", direction, history=history), model=Logging(reward_gap=1.0))
    assert found(history) == ("reward_gap", expected)


def test_an_unknown_name_asks_for_a_direction_where_it_is_written() -> None:
    for callback in (MetaHPCallback, lambda name: MetaHParams(objective=name)):
        with pytest.raises(ObjectiveError, match=r"the name 'quux' does not imply it.* Pass direction='min' or direction='max'"):
            callback("quux")


def test_with_several_validation_loaders_the_first_one_is_the_objective_and_that_is_said(
    history: History, capsys: pytest.CaptureFixture[str]
) -> None:
    class Several(TinyModel):
        def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
            self.log("val_acc", 0.5 + 0.1 * dataloader_idx)

    class Data(TinyData):
        def val_dataloader(self) -> Any:
            return [super().val_dataloader(), super().val_dataloader()]

    fit(MetaHPCallback("val_acc", history=history), model=Several(), data=Data())
    run = only_run(history)
    assert run.objective_best == 0.5
    said = "metahp: val_acc is logged once for each validation loader, and val_acc/dataloader_idx_0 is used as the objective; "
    assert capsys.readouterr().err.count(said) == 1
    fit(MetaHPCallback("val_acc/dataloader_idx_1", history=history), model=Several(), data=Data())
    assert history.runs()[-1].objective_best == pytest.approx(0.6)
    fit(MetaHPCallback(history=history), model=Several(), data=Data())
    first, second, third = history.runs()
    assert (third.objective, third.objective_best, third.task_id) == ("val_acc", 0.5, first.task_id)
    assert (second.objective, second.description["comparability"]) == ("val_acc", {"evaluation_set": "dataloader_idx_1"})
    assert "comparability" not in first.description


def test_a_checkpoint_speaks_before_early_stopping(history: History) -> None:
    checkpoint = ModelCheckpoint(monitor="val_loss", dirpath="somewhere")
    fit(MetaHPCallback(history=history), EarlyStopping("val_acc", mode="max"), checkpoint, enable_checkpointing=True)
    assert found(history) == ("val_loss", "min")


def test_a_checkpoint_that_keeps_the_newest_epoch_says_nothing(history: History) -> None:
    checkpoint = ModelCheckpoint(monitor="step", mode="max", dirpath="somewhere")
    fit(MetaHPCallback(history=history), checkpoint, enable_checkpointing=True)
    assert found(history) == ("val_acc", "max")


def test_a_monitor_whose_mode_contradicts_its_name_is_doubted_aloud(history: History) -> None:
    with pytest.warns(ObjectiveWarning, match=r"EarlyStopping\(monitor='val_acc', mode='min'\) contradicts its name"):
        fit(MetaHPCallback(history=history), EarlyStopping("val_acc"))
    assert found(history) == ("val_acc", "min")


def test_a_metric_object_says_it_where_its_name_does_not(history: History) -> None:
    class Metric(TinyModel):
        def __init__(self) -> None:
            super().__init__()
            self.measure = MeanSquaredError()
            self.plain = MeanMetric()

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.measure(self.net(batch[0])[:, 0], batch[1].float())
            self.plain(1.0)
            self.log("val/how_far_off", self.measure)
            self.log("val/plain", self.plain)

    fit(MetaHPCallback(history=history), model=Metric())
    assert found(history) == ("val/how_far_off", "min")
    assert only_run(history).objective_best is not None, "the first validation counts, though it was logged before the objective was known"


def test_the_metric_beside_the_loss_is_the_objective(history: History) -> None:
    fit(MetaHPCallback(history=history), model=Logging(val_f1=0.5, val_loss=1.0, other=3.0))
    assert found(history) == ("val_f1", "max")
    assert only_run(history).task_id == history.tasks()[0].id


def test_several_metrics_leave_the_loss(history: History) -> None:
    fit(MetaHPCallback(history=history), model=Logging(val_f1=0.5, val_auc=0.5, val_loss=1.0))
    assert found(history) == ("val_loss", "min")


def test_without_validation_the_training_loss_is_the_objective(history: History) -> None:
    fit(MetaHPCallback(history=history), limit_val_batches=0)
    assert found(history) == ("train_loss", "min")
    assert only_run(history).objective_last_step == 12


def test_names_nobody_knows_give_one_warning_and_no_objective(history: History) -> None:
    with pytest.warns(ObjectiveWarning, match=r"could not be found among what was logged \(bar, foo\)") as caught:
        fit(MetaHPCallback(history=history), model=Logging(foo=1.0, bar=2.0))
    assert found(history) == (None, None)
    assert len([item for item in caught if issubclass(item.category, ObjectiveWarning)]) == 1


def test_runs_with_and_without_a_named_objective_belong_to_one_task(history: History) -> None:
    fit(MetaHPCallback("val_acc", history=history))
    fit(MetaHPCallback(history=history))
    assert [task.n_runs for task in history.tasks() if task.n_runs] == [2]


@pytest.mark.parametrize(
    ("logged", "expected"),
    [
        ({"val_loss": None}, ("val_loss", Direction.MIN)),
        ({"val_acc": None, "val_acc_epoch": None, "val_loss": None}, ("val_acc", Direction.MAX)),
        ({"val_loss": None, "val_aux_loss": None}, None),
        ({}, None),
        ({"speed": None}, None),
    ],
)
def test_names_alone(logged: dict[str, Any], expected: tuple[str, Direction] | None) -> None:
    result = objective_from_logged(logged)
    assert (None if result is None else (result.name, result.direction)) == expected


def test_a_given_direction_serves_the_objective_that_is_found() -> None:
    class Better:
        higher_is_better = True

    found_here = objective_from_logged({"quux": Better()}, "min")
    assert found_here is not None
    assert found_here.direction is Direction.MIN
