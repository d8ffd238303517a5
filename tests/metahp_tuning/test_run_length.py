"""How long a run is going to be, in full passes over the training data."""

from __future__ import annotations

from typing import Any

import pytest

from metahp_tuning import suggest
from metahp_tuning.host import check_request
from metahp_tuning.loop_host import LoopHost
from metahp_tuning.run_length import batches_in_pass, planned_passes
from metamodel import TaskDescription
from metamodel.space.batch import BatchLayout


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"epochs": 3}, 3.0),
        ({"epochs": 2, "limit": 0.1}, 0.2),
        ({"epochs": 2, "limit": 0.1, "n_batches": 25}, 0.16),  # 2 batches of an epoch, as Lightning rounds
        ({"epochs": 2, "limit": 4, "n_batches": 40}, 0.2),
        ({"epochs": 2, "limit": 400, "n_batches": 40}, 2.0),
        ({"epochs": 2, "limit": 4}, None),
        ({"epochs": None, "steps": 10, "n_batches": 40}, 0.25),
        ({"epochs": None, "steps": 10, "n_batches": 40, "accumulation": 4}, 1.0),
        ({"epochs": None, "steps": 22, "n_batches": 42, "accumulation": 4}, 2.0),  # the last step of an epoch has fewer batches
        ({"epochs": 1, "steps": 400, "n_batches": 40}, 1.0),
        ({"epochs": 3, "steps": 10}, None),
        ({"epochs": None, "steps": 10, "n_batches": 40, "limit": 4}, 0.25),
        ({"epochs": None}, None),
        ({"epochs": 0}, None),
    ],
)
def test_epochs_steps_and_limited_batches_count_together(given: dict[str, Any], expected: float | None) -> None:
    assert planned_passes(**given) == (None if expected is None else pytest.approx(expected))


def test_a_pass_is_split_among_processes() -> None:
    assert batches_in_pass(100, BatchLayout(8, 4, 1)) == 13
    assert batches_in_pass(100, BatchLayout(8, 1, 2)) == 7
    assert (batches_in_pass(None, BatchLayout(8, 1, 1)), batches_in_pass(100, None)) == (None, None)


@pytest.mark.parametrize(
    ("config", "n_train", "expected"),
    [
        ({"epochs": 5, "batch_size": 10}, 100, 5.0),
        ({"max_steps": 20, "batch_size": 10}, 100, 2.0),
        ({"max_steps": 20, "batch_size": 10}, None, None),
        ({"max_steps": -1, "num_epochs": 2}, 100, 2.0),
        ({"lr": 0.1}, 100, None),
    ],
)
def test_a_loop_of_ones_own_says_its_length_in_its_configuration(
    config: dict[str, Any], n_train: int | None, expected: float | None
) -> None:
    host = LoopHost(config, check_request(task="t", objective="val_acc"), None, None, 1)
    assert host.planned_epochs(TaskDescription(name="t", n_train=n_train)) == expected


def test_the_query_is_for_the_length_of_the_run(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import metamodel

    asked: list[Any] = []
    recommend = metamodel.recommend

    def noting(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["planned_epochs"])
        return recommend(*args, **kwargs)

    monkeypatch.setattr(metamodel, "recommend", noting)
    from store import History

    with History(tmp_path / "history.db") as history:
        history.start_run(task="t", hparams={"lr": 0.1}, objective="val_acc").finish("failed")
        suggest({"lr": 0.1, "epochs": 7}, task="t", objective="val_acc", history=history)
    assert asked == [7]
