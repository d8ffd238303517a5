from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import hf_callbacks

ROOT = Path(__file__).resolve().parents[2]


def loaded_by(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_importing_the_package_loads_no_framework() -> None:
    assert not loaded_by("import hf_callbacks") & {"torch", "transformers", "lightning", "optuna", "pandas", "numpy"}


def test_public_names_stay_functions_however_often_they_are_asked_for() -> None:
    from hf_callbacks import apply, autoconfig

    assert callable(apply)
    assert hf_callbacks.autoconfig is autoconfig
    assert set(hf_callbacks.__all__) <= set(dir(hf_callbacks))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'hf_callbacks' has no attribute 'nothing'"):
        _ = hf_callbacks.nothing
