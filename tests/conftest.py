"""What every test shares: no test ever sees a real history, or the switches of the shell it was started from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from store import History

# A busy machine is no failure: timings say nothing about correctness here.
settings.register_profile("steady", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("steady")


@pytest.fixture(autouse=True)
def isolated_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point the default history into the test's own directory and clear every other switch."""
    for name in [name for name in os.environ if name == "METAHP" or name.startswith("METAHP_")]:
        monkeypatch.delenv(name)
    path = tmp_path / "default" / "history.db"
    monkeypatch.setenv("METAHP_HISTORY", str(path))
    monkeypatch.setenv("METAHP_STARTER", "0")  # what nobody knows yet is nothing; the starter history has tests of its own
    monkeypatch.setenv("METAHP_RESOURCES_S", "off")  # what a busy machine says is no subject of most tests
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))  # where spools go that cannot lie beside their history
    return path


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """An empty history, closed after the test."""
    with History(tmp_path / "history.db") as opened:
        yield opened


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the packaging tests: they wait for an installation, which then runs beside everything else."""
    items.sort(key=lambda item: item.path.name != "test_packaging.py")
