"""What builds on the Trainer, as it really is: DeepSpeed's engine and TRL's own Trainer. Each is tested where it is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hf_callbacks import MetaHPCallback, autoconfig
from store import History, RunStatus, Source

ROOT = Path(__file__).resolve().parents[2]

ENGINE = """
import json, sys, torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from hf_callbacks import MetaHPCallback, autoconfig

data = [{"input_ids": torch.arange(1, 6), "labels": torch.tensor(i % 2)} for i in range(16)]
auto = dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps"), "auto")
settings = {"optimizer": {"type": "AdamW", "params": {"lr": json.loads(sys.argv[2]), "weight_decay": "auto"}}, **auto}
settings["zero_optimization"] = {"stage": 0}
model = BertForSequenceClassification(BertConfig(
    vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=8))
args = TrainingArguments(output_dir=sys.argv[1], use_cpu=True, report_to="none", save_strategy="no", disable_tqdm=True,
                         eval_strategy="epoch", num_train_epochs=1, learning_rate=3e-5, deepspeed=settings)
args = autoconfig(args, task="t", space={"learning_rate": [0.02], "weight_decay": [0.125]})
trainer = Trainer(model, args, train_dataset=data, eval_dataset=data, callbacks=[MetaHPCallback(task="t")])
trainer.train()
assert "DeepSpeed" in type(trainer.model_wrapped).__name__
"""


@pytest.mark.parametrize("rate", ["auto", "3e-5"])
@pytest.mark.slow
def test_deepspeeds_engine_trains_with_what_was_advised(rate: str, pinned: Any, tmp_path: Path) -> None:
    pytest.importorskip("deepspeed", reason="deepspeed is not installed")
    history = pinned(learning_rate=0.02, weight_decay=0.125)
    script = tmp_path / "train.py"
    script.write_text(ENGINE)
    place = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    cpu = {"DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    environment = {**os.environ, **place, **cpu, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]), "METAHP_HISTORY": str(history.path)}
    command = [sys.executable, str(script), str(tmp_path / "out"), rate.replace("auto", '"auto"')]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = [run for run in history.runs() if run.framework == "transformers"]
    assert run.status is RunStatus.COMPLETED
    learning_rate, weight_decay = run.provenance["learning_rate"], run.provenance["weight_decay"]
    assert (weight_decay.source, run.hparams["optimizer.weight_decay"]) == (Source.METAHP, 0.125)
    if rate == "auto":
        assert (learning_rate.source, run.hparams["learning_rate"]) == (Source.METAHP, 0.02)
    else:
        assert (learning_rate.source, run.hparams["learning_rate"], run.hparams["optimizer.lr"]) == (Source.USER, 3e-5, 3e-5)
        assert "DeepSpeed's configuration fixes optimizer.params.lr=3e-05" in done.stderr


def test_trls_own_arguments_and_trainer(pinned: Any, options: dict[str, Any]) -> None:
    trl = pytest.importorskip("trl", reason="trl is not installed")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", eos_token="[UNK]")
    sizes = {"n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=4, bos_token_id=1, eos_token_id=1, **sizes))
    data = Dataset.from_dict({"text": ["a b a b"] * 16})
    history: History = pinned(learning_rate=0.02)
    args = autoconfig(args_class=trl.SFTConfig, task="t", history=history, space={"learning_rate": [0.02]}, max_length=16, **options)
    assert isinstance(args, trl.SFTConfig)
    callback = MetaHPCallback(task="t", history=history)
    trl.SFTTrainer(model, args, train_dataset=data, eval_dataset=data, processing_class=tokenizer, callbacks=[callback]).train()
    run = history.run(callback.run_id or "")
    assert (run.status, run.hparams["max_length"]) == (RunStatus.COMPLETED, 16)
    rate = run.provenance["learning_rate"]
    assert (rate.source, rate.observed, rate.requested) == (Source.METAHP, 0.02, trl.SFTConfig.learning_rate)
