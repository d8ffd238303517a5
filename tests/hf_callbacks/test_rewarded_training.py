"""TRL's Trainers that learn from rewards: recorded, judged by the reward, one task with what ``autoconfig`` sees."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

trl = pytest.importorskip("trl", reason="trl is not installed")

from datasets import Dataset  # noqa: E402
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast  # noqa: E402

from hf_callbacks import MetaHPCallback, autoconfig  # noqa: E402
from store import History, RunStatus, Source  # noqa: E402


def n_of_a(completions: list[str], **_: Any) -> list[float]:
    return [float(text.count("a")) for text in completions]


@pytest.mark.parametrize("kind", ["GRPO", "RLOO"])
def test_a_training_from_rewards_is_judged_by_the_reward(kind: str, history: History, options: dict[str, Any], tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "[EOS]": 1, "a": 2, "b": 3}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="[UNK]", eos_token="[EOS]", padding_side="left"
    )
    torch.manual_seed(0)
    sizes = {"vocab_size": 4, "n_positions": 16, "n_embd": 8, "n_layer": 1, "n_head": 2}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=1, pad_token_id=0))
    data = Dataset.from_dict({"prompt": ["a", "b"] * 4})
    batch = {"num_generations": 2, "per_device_train_batch_size": 2, "per_device_eval_batch_size": 2, "max_completion_length": 4}
    length = {"max_steps": 2, "eval_strategy": "steps", "eval_steps": 1, "bf16": False, "beta": 0.0}
    with history.start_run(task="makes the history", hparams={"lr": 1.0}):
        pass
    given = {"model": model, "train_dataset": data}
    config, trainer = getattr(trl, f"{kind}Config"), getattr(trl, f"{kind}Trainer")
    args = autoconfig(args_class=config, history=history, **given, **{**options, **batch, **length})
    callback = MetaHPCallback(history=history)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        rewarded = {"reward_funcs": n_of_a, "processing_class": tokenizer, "callbacks": [callback]}
        trainer(args=args, eval_dataset=data, **given, **rewarded).train()
    run = history.run(callback.run_id or "")
    assert (run.status, run.objective, run.direction) == (RunStatus.COMPLETED, "eval_reward", "max")
    assert 0 <= (run.objective_best or 0.0) <= 4
    assert str(history.recommendation(run.recommendation_id or "")["recommendation"]["task_id"]) == run.task_id
    assert run.provenance["num_generations"].source is Source.USER
    assert "generation_batch_size" not in {name for name, item in run.provenance.items() if item.source is Source.USER}
