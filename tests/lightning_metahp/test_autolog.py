"""Zero-code logging: an installed entry point that does nothing until it is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

from lightning_metahp import MetaHParams, MetaHPCallback
from lightning_metahp.autolog import AutoLogCallback
from metahp_cli.autolog import callbacks
from store import History
from tests.lightning_metahp.tiny_training import TinyData, TinyModel, make_trainer, only_run

ROOT = Path(__file__).resolve().parents[2]
GROUPS = ("lightning.pytorch.callbacks_factory", "pytorch_lightning.callbacks_factory")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that Python takes for our installation: what pip would write of the entry points."""
    if any(point.value == "metahp_cli.autolog:callbacks" for point in entry_points(group=GROUPS[0])):
        return tmp_path  # it is installed; declared twice it would be found twice
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    folder = tmp_path / "site"
    info = folder / "metahp_under_test-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: metahp-under-test\nVersion: 0\n")
    lines = [line for group in GROUPS for line in (f"[{group}]", *(f"{name} = {value}" for name, value in declared[group].items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(folder))
    return folder


def ours(trainer: object) -> list[AutoLogCallback]:
    return [callback for callback in trainer.callbacks if isinstance(callback, AutoLogCallback)]


def test_off_it_adds_nothing(installed: Path) -> None:
    assert ours(make_trainer()) == []
    assert callbacks() == []


def test_asked_for_it_logs_every_fit(installed: Path, monkeypatch: pytest.MonkeyPatch, isolated_history: Path) -> None:
    monkeypatch.setenv("METAHP_AUTOLOG", "1")
    trainer = make_trainer(max_epochs=1)
    assert [callback.state_key for callback in ours(trainer)] == ["MetaHPAutoLog"]
    trainer.fit(TinyModel(), datamodule=TinyData())
    with History(isolated_history) as history:
        assert only_run(history).objective == "val_acc"


@pytest.mark.parametrize("cls", [MetaHPCallback, MetaHParams])
def test_it_stands_down_beside_an_explicit_callback(
    installed: Path, monkeypatch: pytest.MonkeyPatch, isolated_history: Path, history: History, cls: type
) -> None:
    monkeypatch.setenv("METAHP_AUTOLOG", "1")
    explicit = cls(objective="val_loss", history=history)
    make_trainer(explicit, max_epochs=1).fit(TinyModel(), datamodule=TinyData())
    assert only_run(history).objective == "val_loss"
    assert not isolated_history.exists()


def test_both_package_names_of_lightning_find_it(installed: Path, monkeypatch: pytest.MonkeyPatch, isolated_history: Path) -> None:
    other = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    monkeypatch.setenv("METAHP_AUTOLOG", "1")
    assert len(ours(other.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu"))) == 1


def test_off_it_imports_nothing_and_a_file_of_the_users_that_hides_us_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text("raise RuntimeError('the file of the user was run')")
    code = (
        "import sys; before = set(sys.modules); from metahp_cli.autolog import callbacks; assert callbacks() == []; "
        "print(sorted(name for name in set(sys.modules) - before if name.split('.')[0] not in sys.stdlib_module_names))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.strip() == "['metahp_cli', 'metahp_cli.autolog']", done.stderr
    environment["METAHP_AUTOLOG"] = "1"
    on = "from metahp_cli.autolog import callbacks; print(callbacks())"
    done = subprocess.run([sys.executable, "-c", on], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.stdout.strip() == "[]"
    assert "metahp: runs are not logged, since ShadowedPackageError" in done.stderr


def test_the_entry_points_name_a_function_that_exists() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    assert {EntryPoint("metahp", declared[group]["metahp"], group).load() for group in GROUPS} == {callbacks}
