"""What past runs say about memory."""

from __future__ import annotations

from typing import Any

from metahp_tuning.memory_limit import MARGIN, Card, MemoryLimit, known_limit, limit_from_runs, this_card
from metamodel.data.task import TaskDescription
from store import History, HParam, RunRecord, RunStatus

GIB = 2**30
CARD = Card("Toy 24 GB", 24 * GIB)
WANTED = TaskDescription(dataset_class="D", model_class="Net", n_parameters=1000, input_shape=(3, 32, 32))


def run(size: int, status: RunStatus, peak_gib: float | None = None, card: Card = CARD, **fields: Any) -> RunRecord:
    return RunRecord(
        **{
            "id": f"r{size:04d}{status}",
            "task_id": "t",
            "task_name": "t",
            "status": status,
            "model_class": "Net",
            "n_parameters": 1000,
            "versions": {} if card.name is None else {"gpu": card.name},
            "description": {"input_shape": [3, 32, 32]},
            "peak_gpu_memory_bytes": None if peak_gib is None else int(peak_gib * GIB),
            "provenance": {"per_device_batch_size": HParam("per_device_batch_size", "per_device_batch_size", size)},
            **fields,
        }
    )


def limit(*runs: RunRecord, description: TaskDescription = WANTED, card: Card = CARD) -> MemoryLimit | None:
    return limit_from_runs(runs, description, card)


def test_without_evidence_there_is_no_limit() -> None:
    assert limit() is None
    assert limit(run(64, RunStatus.COMPLETED)) is None
    assert limit(run(64, RunStatus.COMPLETED, 10.0)) is None, "one point does not tell weights from samples"


def test_a_batch_that_ran_out_of_memory_is_never_reached_again() -> None:
    found = limit(run(128, RunStatus.OOM), run(256, RunStatus.OOM))
    assert found is not None
    assert (found.max_per_device, found.run_id) == (int(128 * (1 - MARGIN)), "r0128oom")
    assert found.reason == "a batch of 128 per device ran out of memory on Toy 24 GB (10% margin kept)"


def test_what_has_finished_did_fit() -> None:
    found = limit(run(128, RunStatus.OOM), run(120, RunStatus.COMPLETED))
    assert found is not None
    assert found.max_per_device == 120
    assert limit(run(128, RunStatus.OOM), run(128, RunStatus.COMPLETED)) is None, "another program had the card"


def test_a_batch_of_one_that_failed_leaves_one() -> None:
    found = limit(run(1, RunStatus.OOM))
    assert found is not None
    assert found.max_per_device == 1


def test_the_line_through_two_peaks_says_which_batch_fills_the_card() -> None:
    found = limit(run(32, RunStatus.COMPLETED, 6.0), run(64, RunStatus.COMPLETED, 10.0))
    assert found is not None
    # 2 GiB of weights, 1/8 GiB for each sample, 21.6 of 24 GiB to use.
    assert found.max_per_device == int((24 * (1 - MARGIN) - 2) * 8) == 156
    assert found.reason.startswith("batches of 32 and 64 per device took 6.0 and 10.0 of the 24.0 GiB of Toy 24 GB")
    assert limit(run(32, RunStatus.COMPLETED, 6.0), run(64, RunStatus.COMPLETED, 6.0)) is None


def test_the_stricter_evidence_wins() -> None:
    found = limit(run(32, RunStatus.COMPLETED, 6.0), run(64, RunStatus.COMPLETED, 10.0), run(128, RunStatus.OOM))
    assert found is not None
    assert found.max_per_device == 115


def test_other_models_cards_and_samples_say_nothing() -> None:
    others = [
        run(8, RunStatus.OOM, model_class="Other"),
        run(8, RunStatus.OOM, card=Card("Toy 8 GB")),
        run(8, RunStatus.OOM, card=Card()),
        run(8, RunStatus.OOM, description={"input_shape": [3, 512, 512]}),
        run(8, RunStatus.OOM, n_parameters=50_000),
    ]
    assert limit(*others) is None
    assert limit(run(8, RunStatus.OOM, n_parameters=500)) is not None, "even a smaller model ran out of memory"
    assert limit(run(8, RunStatus.OOM, n_parameters=0)) is not None, "layers that were built later have no number"


def test_a_history_is_asked_on_any_host(history: History) -> None:
    for size, error in ((64, MemoryError("out of memory")), (16, None)):
        recorder = history.start_run(
            task=WANTED,
            hparams={"per_device_batch_size": size},
            objective="val_loss",
            direction="min",
            model_class="Net",
            n_parameters=1000,
        )
        recorder.log(val_loss=0.1)
        recorder.finish("oom" if error else None, error)
    found = known_limit(history, WANTED, Card())
    assert found is not None
    assert (found.max_per_device, found.reason) == (57, "a batch of 64 per device ran out of memory (10% margin kept)")
    assert known_limit(history, TaskDescription(model_class="Other"), Card()) is None


def test_precision_changes_what_fits(history: History) -> None:
    hparams = {"per_device_batch_size": 64, "precision": "32-true"}
    history.start_run(task=WANTED, hparams=hparams, model_class="Net").finish("oom", "out of memory")
    assert known_limit(history, WANTED, Card(), "32-true") is not None
    assert known_limit(history, WANTED, Card(), "bf16-mixed") is None


def test_this_card_is_the_one_in_use() -> None:
    import torch

    assert (this_card().name is None) is not torch.cuda.is_available()
