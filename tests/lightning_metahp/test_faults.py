"""Real fits while something goes wrong with the history; ``make torture`` repeats them more often."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from store import History
from torture import disks, fits
from torture.trials import Trials

pytestmark = pytest.mark.slow


def held(outcome: Trials) -> bool:
    assert not outcome.failures, outcome.failures
    return outcome.result == "held"


@pytest.mark.parametrize(
    "scenario",
    [fits.lock, fits.locked_without_wal, fits.removed, fits.limited_size, fits.clock],
    ids=lambda scenario: scenario.__name__,
)
def test_a_fit_goes_on_says_so_once_and_loses_nothing(scenario: Callable[[Path], Trials], tmp_path: Path) -> None:
    assert held(scenario(tmp_path))


@pytest.mark.parametrize("table", [None, "runs", "metrics"])
def test_a_damaged_history_ends_no_fit_and_its_run_waits_for_the_repair(table: str | None, tmp_path: Path) -> None:
    assert held(fits.corrupted(tmp_path, table=table))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_a_signal_ends_the_run_as_interrupted_with_its_values(number: signal.Signals, tmp_path: Path) -> None:
    assert held(fits.signalled(tmp_path, number))


def test_only_the_training_process_writes_with_forked_loader_workers(tmp_path: Path) -> None:
    assert held(fits.loader_workers(tmp_path, "fork"))


def test_only_the_training_process_writes_with_spawned_loader_workers(tmp_path: Path) -> None:
    assert held(fits.loader_workers(tmp_path, "spawn"))


@pytest.mark.skipif(not disks.can_mount(), reason="no file system can be mounted here")
def test_a_full_disk_ends_no_fit_and_its_run_waits_elsewhere(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path / "disk") as disk:
        assert held(fits.full_disk(tmp_path, disk))


@pytest.mark.skipif(not disks.can_mount(), reason="no file system can be mounted here")
def test_a_read_only_history_is_read_and_the_run_waits_elsewhere(tmp_path: Path) -> None:
    with disks.small_disk(tmp_path / "disk") as disk:
        History(disk / "history.db").close()
        disks.remount(disk, "ro")
        assert held(fits.read_only(disk / "history.db", lambda: disks.remount(disk, "rw")))


def test_an_interpreter_that_exits_in_the_middle_of_a_fit_leaves_an_interrupted_run(tmp_path: Path) -> None:
    assert held(fits.exit_without_teardown(tmp_path))
