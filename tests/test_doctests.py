"""The examples in the docstrings of the public classes and functions run, each with a history of its own."""

from __future__ import annotations

import doctest
import inspect
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest
from lightning.pytorch import Trainer
from optuna.distributions import FloatDistribution

import lightning_metahp
import metahp_tuning
import metamodel
import store
from store import History
from tests.lightning_metahp.tiny_training import TinyData, TinyModel

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
QUIET_CLI = partial(lightning_metahp.MetaHPCLI, trainer_defaults=QUIET, save_config_callback=None)
EXAMPLES = [
    (lightning_metahp, "MetaHPCallback"),
    (lightning_metahp, "MetaHParams"),
    (lightning_metahp, "MetaHPCLI"),
    (metahp_tuning, "suggest"),
    (metamodel, "MetaHPSampler"),
    (store, "History"),
]


def surroundings() -> dict[str, Any]:
    """What a reader of an example has: a model, data, and the names that it takes from other packages."""
    return {
        "FloatDistribution": FloatDistribution,
        "History": History,
        "LitData": TinyData,
        "LitModel": TinyModel,
        "MetaHPCallback": lightning_metahp.MetaHPCallback,
        "Trainer": partial(Trainer, **QUIET),
        "data": TinyData(),
        "model": TinyModel(),
        "optuna": optuna,
    }


@pytest.mark.parametrize(("package", "name"), EXAMPLES, ids=lambda value: value if isinstance(value, str) else value.__name__)
@pytest.mark.filterwarnings("ignore")
def test_the_example_of_a_docstring_runs(package: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    public = getattr(package, name)
    (found,) = doctest.DocTestFinder(recurse=False).find(
        public, name, globs=surroundings() | {name: QUIET_CLI if name == "MetaHPCLI" else public}
    )
    assert found.examples
    failures: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(found, out=failures.append)
    assert not failures, "".join(failures)


def test_every_example_is_listed_and_none_is_skipped() -> None:
    packages = (store, metamodel, metahp_tuning, lightning_metahp)
    texts = {(package, name): inspect.getdoc(getattr(package, name)) or "" for package in packages for name in package.__all__}
    assert {key for key, text in texts.items() if ">>>" in text} == set(EXAMPLES)
    assert not [name for (_, name), text in texts.items() if "+SKIP" in text]
