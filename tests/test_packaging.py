"""The wheel: built, installed alone in an empty virtual environment, imported and called."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from store.package_shadow import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
METADATA = ("pyproject.toml", "README.md", "LICENSE", "constraints.txt", "cli.py")
TEST_TOOLS = {"pytest", "pytest-xdist", "hypothesis", "mypy", "ruff", "build", "gpytorch"}


def clean_environment() -> dict[str, str]:
    """The environment without what makes the checkout importable, and with the tested versions for every installation."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV"))}
    # Relative to the working directory: pip splits this at blanks.
    return {**kept, "PIP_CONSTRAINT": "constraints.txt", "PIP_BUILD_CONSTRAINT": "constraints.txt", "PIP_NO_INPUT": "1"}


def call(*words: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, env=clean_environment())


def require_packages_can_be_reached(folder: Path) -> None:
    """Skip where pip cannot download at all, which says nothing about us."""
    words = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--dest", folder / "probe", "setuptools"]
    done = call(*words, cwd=folder)
    if done.returncode:
        pytest.skip(f"pip cannot reach a package index: {done.stderr.strip().splitlines()[-1]}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what goes into a wheel, so that building leaves nothing behind in the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in METADATA:
        shutil.copy(ROOT / name, folder / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path) -> Path:
    require_packages_can_be_reached(source)
    done = call(sys.executable, "-m", "build", "--wheel", "--outdir", "dist", ".", cwd=source)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = (source / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, source: Path) -> Path:
    """The folder of programs of an empty virtual environment that the wheel was installed into, with what its modules import."""
    home = source / "venv"
    assert call(sys.executable, "-m", "venv", home, cwd=source).returncode == 0
    programs = Path(sysconfig.get_path("scripts", "venv", {"base": str(home)}))
    # Compiling everything would take longer than the installation.
    done = call(programs / "python", "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}[bench,hf,lightning,report]", cwd=source)
    assert done.returncode == 0, done.stderr
    return programs


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_no_module_called_cli(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == set(PACKAGES)
    sources = {str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == sources
    assert {f"{package}/py.typed" for package in PACKAGES} <= set(names)
    assert {"metahp_report/page.css", "metahp_report/page.js", "metahp_report/templates/page.html"} <= set(names)
    assert any(name.endswith("/LICENSE") for name in names)


@pytest.mark.slow
def test_every_installed_package_imports_with_every_module_and_public_name(installed: Path, tmp_path: Path) -> None:
    code = (
        f"import importlib, pkgutil\nfor name in {PACKAGES!r}:\n"
        "    package = importlib.import_module(name)\n"
        "    assert 'site-packages' in package.__file__, package.__file__\n"
        "    for public in getattr(package, '__all__', ()):\n        getattr(package, public)\n"
        "    for module in pkgutil.walk_packages(package.__path__, name + '.'):\n"
        "        if not module.name.endswith('__main__') and module.name != 'store.package_shadow':\n"
        "            importlib.import_module(module.name)\n"
        "print('ok')"
    )
    done = call(installed / "python", "-c", code, cwd=tmp_path)
    assert done.stdout.strip().endswith("ok"), done.stderr


@pytest.mark.slow
def test_the_command_answers_without_test_tools_around(installed: Path, tmp_path: Path) -> None:
    listed = call(installed / "python", "-m", "pip", "list", "--format=freeze", cwd=tmp_path).stdout.lower()
    assert not TEST_TOOLS & {line.partition("==")[0] for line in listed.splitlines()}
    done = call(installed / "metahp", "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert "recommend" in done.stdout, done.stderr


@pytest.mark.slow
def test_what_was_installed_fits_together(installed: Path, tmp_path: Path) -> None:
    done = call(installed / "python", "-m", "pip", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_the_launcher_in_the_checkout_is_the_command() -> None:
    done = subprocess.run([sys.executable, "cli.py", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.startswith("Usage: metahp ")
    assert len((ROOT / "cli.py").read_text().splitlines()) <= 5


def test_every_constraint_is_exact_and_covers_every_dependency() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert all(line.count("==") == 1 and "+" not in line for line in lines)
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = [*project["dependencies"], *(item for group in project["optional-dependencies"].values() for item in group)]
    names = {re.split(r"[\[<>=]", item)[0].strip().lower() for item in asked}
    assert (names - {project["name"]}) | {"setuptools"} <= pinned
