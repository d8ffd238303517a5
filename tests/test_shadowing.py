"""A script folder with a file named like one of our packages gets one clear error."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run_script(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code as a script of that folder, which Python then searches first."""
    script = folder / "train.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment, cwd=folder)


@pytest.mark.parametrize(
    ("hidden", "imported"),
    [
        ("store", "lightning_metahp"),
        ("store", "hf_callbacks"),
        ("store", "metamodel"),
        ("store", "compare_baselines"),
        ("metamodel", "lightning_metahp"),
        ("metamodel", "hf_callbacks"),
    ],
)
def test_a_file_of_the_users_that_hides_a_package_is_named(hidden: str, imported: str, tmp_path: Path) -> None:
    file = tmp_path / f"{hidden}.py"
    file.write_text("raise RuntimeError('the file of the user was run')")
    done = run_script(tmp_path, f"import {imported}")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert re.fullmatch(
        rf"store\.errors\.ShadowedPackageError: No file of yours may have the name of a package of lightning-metahp, but "
        rf"{re.escape(str(file))} hides the package '{hidden}'\. Any other name is possible\. "
        r"Rename the file, or run the script from another folder\.",
        last,
    )


def test_a_package_of_the_users_that_hides_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "__init__.py").write_text("")
    done = run_script(tmp_path, "import lightning_metahp")
    assert f"{tmp_path / 'store' / '__init__.py'} hides the package 'store'" in done.stderr


def test_a_module_already_imported_is_noticed_as_well(tmp_path: Path) -> None:
    (tmp_path / "metamodel.py").write_text("")
    done = run_script(tmp_path, "import metamodel\nimport hf_callbacks")
    assert f"{tmp_path / 'metamodel.py'} hides the package 'metamodel'" in done.stderr


def test_the_error_can_be_caught_by_its_class_where_store_is_ours(tmp_path: Path) -> None:
    (tmp_path / "metamodel.py").write_text("")
    lines = [
        "from store.errors import ShadowedPackageError as E",
        "try:",
        " import metamodel, lightning_metahp",
        "except E:",
    ]
    assert run_script(tmp_path, "\n".join([*lines, " print('ok')"])).stdout.strip() == "ok"


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "store.py").write_text("")
    done = run_script(tmp_path, "from metahp_cli.main import main\nmain(['runs'])")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: No file of yours")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_data_folder_of_that_name_and_unrelated_files_disturb_nobody(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()  # without __init__.py a real package further down the path wins
    (tmp_path / "metahp_cli.py").write_text("")
    (tmp_path / "compare_baselines.py").write_text("")
    done = run_script(tmp_path, "import lightning_metahp, hf_callbacks, metamodel, store\nstore.History\nprint('ok')")
    assert done.stdout.strip() == "ok", done.stderr
