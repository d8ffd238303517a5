"""The examples as users run them: offline, with the data that is there, and with one clear sentence where the hub is out of reach."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest

from hf_callbacks import MetaHPCallback
from store import History, RunStatus

pytestmark = pytest.mark.slow

DATASETS = Path(os.environ.get("METAHP_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")) / "datasets"
EXAMPLES = {
    "bert_classification": ("BertForSequenceClassification", "eval_loss", "imdb.parquet"),
    "gpt2_language_model": ("GPT2LMHeadModel", "eval_loss", "imdb.parquet"),
    "vit_classification": ("ViTForImageClassification", "eval_accuracy", "cifar10_jpeg.npz"),
    "resnet_classification": ("ResNetForImageClassification", "eval_accuracy", "cifar10_jpeg.npz"),
    "t5_sequence_to_sequence": ("T5ForConditionalGeneration", "eval_loss", "imdb.parquet"),
}


def run_example(name: str, tmp_path: Path, *more: str) -> Any:
    example = importlib.import_module(f"examples.huggingface.{name}")
    fixed = ["--samples", "32", "--epochs", "1", "--cpu", "--output-dir", str(tmp_path / "out"), "--history", str(tmp_path / "history.db")]
    return example.main([*fixed, *more])


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("is_real", [False, True], ids=["made-up data", "real data"])
def test_an_example_trains_and_is_recorded(name: str, is_real: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model_class, objective, file = EXAMPLES[name]
    if is_real and not (DATASETS / file).exists():
        pytest.skip(f"{file} is not here; set METAHP_SHARED_DATA to the folder that holds datasets/{file}")
    trainer = run_example(name, tmp_path, *(["--data", str(DATASETS / file)] if is_real else []))
    callback = next(item for item in trainer.callback_handler.callbacks if isinstance(item, MetaHPCallback))
    with History(tmp_path / "history.db") as history:
        run = history.run(callback.run_id or "")
        recommendation = history.recommendation(run.recommendation_id or "")
    assert (run.model_class, run.objective, run.status) == (model_class, objective, RunStatus.COMPLETED)
    assert run.objective_best is not None
    assert recommendation["run_id"] == run.id
    assert run.description["n_train"] == len(trainer.train_dataset)
    assert f"metahp show {run.id}" in capsys.readouterr().out


SENTENCE = r"(?s)^{}/\S+ could not be loaded from the Hugging Face hub: {}\nWithout --hub the example runs offline"


@pytest.mark.parametrize("name", EXAMPLES)
def test_without_a_network_the_hub_is_one_sentence(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [variable for variable in os.environ if variable.lower().endswith("_proxy")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(SystemExit, match=SENTENCE.format(r"[\w-]+", r"127.0.0.1 cannot be reached, and it is not in the cache\.")):
        run_example(name, tmp_path, "--hub")
    assert not (tmp_path / "history.db").exists()


def test_a_hub_that_is_switched_off_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SystemExit, match=SENTENCE.format("google-bert", r"[^\n]+")):
        run_example("bert_classification", tmp_path, "--hub")


def test_a_file_without_the_columns_is_told(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"words": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(SystemExit, match="must have the columns text and label, but has words"):
        run_example("bert_classification", tmp_path, "--data", str(tmp_path / "other.parquet"))
