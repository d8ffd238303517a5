"""What the real tools wrote, unpacked; each beside the script that made it in tests/fixtures/importers."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

FIXTURES = Path(__file__).resolve().parents[2] / "fixtures" / "importers"


@pytest.fixture
def fixture(tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy of a fixture that a test may change, unpacked where it is packed."""

    def unpacked(name: str) -> Path:
        source, target = FIXTURES / name, tmp_path / "source" / name.removesuffix(".gz")
        target.parent.mkdir(exist_ok=True)
        if name.endswith(".tar.gz"):
            with tarfile.open(source) as archive:
                archive.extractall(target.parent, filter="data")
            return target.parent / name.removesuffix(".tar.gz")
        if name.endswith(".gz"):
            target.write_bytes(gzip.decompress(source.read_bytes()))
        elif source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        return target

    return unpacked


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty database of MLflow; making one takes it seconds."""
    tracking = pytest.importorskip("mlflow.tracking", reason="mlflow is an extra")
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    tracking.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def new_mlflow(empty_mlflow: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return what makes an empty database of MLflow under a name."""

    def made(name: str) -> Path:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        return shutil.copy(empty_mlflow, tmp_path / name)

    return made
