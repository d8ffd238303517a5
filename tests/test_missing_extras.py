"""Without the package of an extra, what needs it answers with one sentence that names the command, and everything else works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from store import History
from store.extras import EXTRA_OF

ROOT = Path(__file__).resolve().parent.parent
BROUGHT_BY_THE_CORE = {"jinja2", "markupsafe", "yaml"}  # torch and Optuna bring them


def run_without(packages: tuple[str, ...], code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that finds none of these packages."""
    hide = (
        f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n"
        "class Hide:\n"
        "    def find_spec(name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {packages!r}:\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Hide)\n"
    )
    return subprocess.run([sys.executable, "-c", hide + code], capture_output=True, text=True, cwd=cwd)


@pytest.mark.parametrize(
    ("hidden", "code", "extra"),
    [
        ("lightning", "from lightning_metahp import MetaHPCallback", "lightning"),
        ("lightning", "from lightning_metahp import MetaHParams", "lightning"),
        ("lightning", "from lightning_metahp import MetaHPCLI", "lightning"),
        ("transformers", "from hf_callbacks import MetaHPCallback", "hf"),
        ("accelerate", "from hf_callbacks import autoconfig", "hf"),
        ("sklearn", "from compare_baselines import load_dataset", "bench"),
        ("lightning", "from compare_baselines import load_dataset", "bench"),
    ],
)
def test_a_public_name_says_which_extra_brings_its_package(hidden: str, code: str, extra: str, tmp_path: Path) -> None:
    done = run_without((hidden,), code, tmp_path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("store.errors.MissingDependencyError: ")
    assert last.endswith(f"Install it with: pip install 'lightning-metahp[{extra}]'")
    assert f" needs {hidden}, which cannot be imported: " in last


@pytest.mark.parametrize(
    ("hidden", "words", "extra"),
    [
        ("plotly", "report", "report"),
        ("matplotlib", "report --png pictures", "report"),
        ("pyarrow", "import table runs.parquet --objective acc --hparams lr --task t --run-col run", "import"),
        ("pyarrow", "export --to parquet out", "import"),
        ("tensorboard", "import tensorboard logs --dry-run", "import"),
        ("sklearn", "compare-baselines live --tasks tabular --methods default --budget 1", "bench"),
        ("ray", "compare-baselines live --tasks tabular --methods default --budget 1 --ray local", "ray"),
    ],
)
def test_a_command_ends_with_one_line_and_code_one(hidden: str, words: str, extra: str, tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        for lr in (0.1, 0.2):
            with history.start_run(task="t", hparams={"lr": lr}, objective="acc") as run:
                run.log(acc=lr)
    (tmp_path / "runs.parquet").write_bytes(b"PAR1")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events.out.tfevents.1.host").write_bytes(b"")
    given = [*words.split(), "--history", str(tmp_path / "h.db")]
    done = run_without((hidden,), f"from metahp_cli.main import main\nmain({given!r})", tmp_path)
    assert done.returncode == 1, done.stdout
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert f" needs {hidden}, which cannot be imported: " in line
    assert f"pip install 'lightning-metahp[{extra}]'" in line
    assert "Traceback" not in done.stderr


def test_the_core_imports_without_any_extra(tmp_path: Path) -> None:
    code = (
        "import importlib, pkgutil, compare_baselines, hf_callbacks, lightning_metahp, metahp_report\n"
        "for room in ('store', 'metamodel', 'metahp_tuning', 'metahp_cli'):\n"
        "    for module in pkgutil.walk_packages(importlib.import_module(room).__path__, room + '.'):\n"
        "        if not module.name.endswith('__main__'):\n            importlib.import_module(module.name)\n"
        "print('ok')"
    )
    done = run_without(tuple(sorted(set(EXTRA_OF) - BROUGHT_BY_THE_CORE)), code, tmp_path)
    assert done.stdout.strip() == "ok", done.stderr
