"""The wheel in fresh environments: without extras, with one host, with the other. ``make test-install`` runs this file.

Each environment gets the tested versions and is looked at from outside the checkout. The size of each is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from store.package_shadow import PACKAGES

ROOT = Path(__file__).resolve().parents[2]
Environment = Callable[[str], Path]

RUNS = """
from store import History
with History("history.db") as history:
    for task in "abc":
        for i in range(10):
            with history.start_run(task=task, hparams={"lr": 10 ** (-i / 2)}, objective="val_acc") as run:
                run.log(val_acc=1.0 - abs(i - 4) / 10)
"""
SUGGEST = """
from metahp_tuning import suggest
from store import History
config = suggest({"lr": 0.5, "batch_size": 32}, task="a", objective="val_acc", history="history.db")
assert set(config) == {"lr", "batch_size"}, dict(config)
assert config.message
with History("history.db") as history:
    with history.start_run(task="a", hparams=config, objective="val_acc") as run:
        run.log(val_acc=0.9)
    assert len(history.runs(task="a")) == 11
"""
LIGHTNING = """
import lightning as L, torch
from lightning_metahp import MetaHPCallback, MetaHParams
from store import History

class Line(L.LightningModule):
    def __init__(self, lr=0.5):
        super().__init__()
        self.save_hyperparameters()
        self.layer = torch.nn.Linear(1, 1)
    def training_step(self, batch, index):
        return self.loss(batch)
    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(batch))
    def loss(self, batch):
        x, y = batch
        return torch.nn.functional.mse_loss(self.layer(x), y)
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

x = torch.linspace(-1, 1, 32)[:, None]
data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, 2 * x), batch_size=8)
for lr in (0.001, 0.01, 0.03, 0.1, 0.3, 0.5):
    log, tune = MetaHPCallback("val_loss", task="line", history="history.db"), MetaHParams(task="line", history="history.db")
    model = Line(lr)
    trainer = L.Trainer(max_epochs=1, callbacks=[log, tune], logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.fit(model, data, data)
with History("history.db") as history:
    runs = history.runs(task="line")
    assert [str(run.status) for run in runs] == ["completed"] * 6
    assert any(run.recommendation_id for run in runs), "the last run was advised"
"""
HF = """
import torch
from transformers import Trainer, TrainingArguments
from hf_callbacks import MetaHPCallback, autoconfig
from store import History

class Line(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
    def forward(self, x, labels):
        out = self.layer(x)
        return {"loss": torch.nn.functional.mse_loss(out, labels), "logits": out}

rows = [{"x": torch.tensor([i / 16 - 1]), "labels": torch.tensor([i / 8 - 2])} for i in range(32)]
told = dict(task="line", history="history.db", objective="eval_loss")
for rate in (0.001, 0.01, 0.03, 0.1, 0.3, 0.5):
    model = Line()
    args = TrainingArguments("out", num_train_epochs=1, learning_rate=rate, eval_strategy="epoch", save_strategy="no", report_to=[],
                             disable_tqdm=True, use_cpu=True)
    args = autoconfig(args, model=model, train_dataset=rows, eval_dataset=rows, space={"learning_rate": [0.01, 0.1, 0.3]}, **told)
    Trainer(model, args, train_dataset=rows, eval_dataset=rows, callbacks=[MetaHPCallback(**told)]).train()
with History("history.db") as history:
    runs = history.runs(task="line")
    assert [str(run.status) for run in runs] == ["completed"] * 6
    assert any(run.recommendation_id for run in runs), "the last run was advised"
"""


def call(*words: str | Path, cwd: Path) -> str:
    """Run a program outside the checkout and return what it printed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PYTEST", "VIRTUAL_ENV", "METAHP"))}
    constraints = str(ROOT / "constraints.txt")
    settings = {"PIP_CONSTRAINT": constraints, "PIP_BUILD_CONSTRAINT": constraints, "PIP_NO_INPUT": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd, env={**kept, **settings})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """What makes an environment with the wheel and one extra, and returns the folder of its programs; it is deleted in the end."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    call(sys.executable, "-m", "build", "--wheel", "--outdir", "dist", ".", cwd=source)
    (wheel,) = (source / "dist").glob("*.whl")

    def make(extra: str) -> Path:
        home = source / f"environment{extra}"
        call(sys.executable, "-m", "venv", home, cwd=source)
        python = Path(sysconfig.get_path("scripts", "venv", {"base": str(home)})) / "python"
        call(python, "-m", "pip", "install", "--quiet", "--no-compile", f"{wheel}{extra}", cwd=source)
        call(python, "-m", "pip", "check", cwd=source)
        report_size(extra, Path(call(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=source).strip()))
        return python.parent

    yield make
    shutil.rmtree(source)


def report_size(extra: str, packages: Path) -> None:
    """Print how much an installation takes, without pip, and the five largest of it."""
    sizes = {
        entry.name: sum(file.stat().st_size for file in ([entry] if entry.is_file() else entry.rglob("*")) if file.is_file())
        for entry in packages.iterdir()
        if not entry.name.startswith(("pip", "setuptools", "_distutils"))
    }
    largest = ", ".join(f"{name} {size / 1e6:.0f}" for name, size in sorted(sizes.items(), key=lambda item: -item[1])[:5])
    print(f"\nlightning-metahp{extra}: {sum(sizes.values()) / 1e6:.0f} MB in {len(sizes)} entries ({largest})")


def installed(programs: Path, cwd: Path) -> set[str]:
    lines = call(programs / "python", "-m", "pip", "list", "--format=freeze", cwd=cwd).lower().splitlines()
    return {line.partition("==")[0] for line in lines}


def refusal(programs: Path, code: str, cwd: Path) -> str:
    """Return the message of the ``MissingDependencyError`` that code must end in."""
    caught = f"from store import MissingDependencyError\ntry:\n    {code}\nexcept MissingDependencyError as error:\n    print(error)"
    return call(programs / "python", "-c", caught, cwd=cwd)


def test_without_extras_the_core_is_complete(environment: Environment, tmp_path: Path) -> None:
    programs = environment("")
    assert not installed(programs, tmp_path) & {"lightning", "transformers", "plotly", "pyarrow", "scikit-learn", "pandas", "matplotlib"}
    modules = (
        f"import importlib, pkgutil\nfor name in {PACKAGES!r}:\n"
        "    package = importlib.import_module(name)\n    assert 'site-packages' in package.__file__, package.__file__\n"
        "    if name in {'store', 'metamodel', 'metahp_tuning', 'metahp_cli'}:\n"
        "        for module in pkgutil.walk_packages(package.__path__, name + '.'):\n"
        "            if not module.name.endswith('__main__'):\n                importlib.import_module(module.name)\n"
    )
    call(programs / "python", "-c", modules, cwd=tmp_path)
    call(programs / "python", "-c", RUNS, cwd=tmp_path)
    metahp = programs / "metahp"
    at = ("--history", "history.db")
    assert "completed" in call(metahp, "runs", *at, cwd=tmp_path)
    call(metahp, "refit", *at, cwd=tmp_path)
    assert '"learning_rate"' in call(metahp, "recommend", "--task", "a", "--format", "json", *at, cwd=tmp_path)
    for name, extra in (("lightning_metahp", "lightning"), ("hf_callbacks", "hf")):
        assert f"pip install 'lightning-metahp[{extra}]'" in refusal(programs, f"from {name} import MetaHPCallback", tmp_path)
    call(programs / "python", "-c", SUGGEST, cwd=tmp_path)


def test_lightning_works_without_transformers(environment: Environment, tmp_path: Path) -> None:
    programs = environment("[lightning]")
    assert not installed(programs, tmp_path) & {"transformers", "accelerate", "plotly"}
    call(programs / "python", "-c", LIGHTNING, cwd=tmp_path)
    call(programs / "python", "-c", "from lightning_metahp import MetaHPCLI", cwd=tmp_path)
    assert "pip install 'lightning-metahp[hf]'" in refusal(programs, "from hf_callbacks import MetaHPCallback", tmp_path)


def test_transformers_works_without_lightning(environment: Environment, tmp_path: Path) -> None:
    programs = environment("[hf]")
    assert not installed(programs, tmp_path) & {"lightning", "pytorch-lightning", "torchmetrics", "plotly"}
    call(programs / "python", "-c", HF, cwd=tmp_path)
    assert "pip install 'lightning-metahp[lightning]'" in refusal(programs, "from lightning_metahp import MetaHPCallback", tmp_path)
