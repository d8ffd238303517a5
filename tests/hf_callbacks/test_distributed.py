"""Two processes on the CPU, by torchrun and by ``accelerate launch``: one row a training, the same values everywhere, also resumed."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from packaging.version import Version

from metamodel import TaskDescription
from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import History, RunStatus, Source

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
CAN_RESUME = Version(transformers.__version__) >= Version("5.18")
"""Before, the host asked torch to load the optimizer's state to ``cpu:0``, which torch cannot: no resume on several CPU processes."""

SCRIPT = """
import hashlib, os, sys, torch
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
from hf_callbacks import MetaHPCallback, apply, autoconfig

torch.set_num_threads(1)
data = [{"input_ids": torch.arange(1, 6), "labels": torch.tensor(i % 2)} for i in range(16)]

def train(resume=None, **options):
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=8))
    args = TrainingArguments(output_dir=sys.argv[1], use_cpu=True, report_to="none", save_strategy="epoch", disable_tqdm=True,
                             eval_strategy="epoch", num_train_epochs=2, ddp_backend="gloo", **options)
    if resume is None:
        args = autoconfig(args, model=model, train_dataset=data, task="shared")
    trainer = Trainer(model=model, args=args, train_dataset=data, eval_dataset=data, callbacks=[MetaHPCallback(task="shared")])
    if resume is None:
        os.environ["METAHP_PIN"] = "stored"
        apply(trainer, space={"per_device_train_batch_size": [2, 4], "hidden_dropout_prob": [0.3]})
    trainer.train(resume_from_checkpoint=resume)
    weights = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in model.parameters())).hexdigest()[:8]
    words = [repr(args.learning_rate), args.per_device_train_batch_size, model.config.hidden_dropout_prob, args.metahp, weights]
    total = trainer.get_total_train_batch_size(args)
    with open(f"{sys.argv[1]}-rank{args.process_index}", "a") as file:
        print(*words, total, trainer.state.max_steps, file=file)
    return trainer.state.max_steps

steps = train()
if sys.argv[2] == "True":
    train(resume=f"{sys.argv[1]}/checkpoint-{steps // 2}")
# The host leaves the group to the end of Python, and threads of gloo that are still there then may abort the process.
torch.distributed.destroy_process_group()
"""


def launcher(kind: str) -> list[str]:
    if kind == "torchrun":
        return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    with socket.socket() as free:  # --main_process_port=0 would look for one from Accelerate 1.7 on, and wait for ever before
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = [
        "--multi_gpu",
        "--num_processes=2",
        "--num_machines=1",
        "--mixed_precision=no",
        "--dynamo_backend=no",
        f"--main_process_port={port}",
    ]
    return [sys.executable, "-m", "accelerate.commands.launch", *options]


@pytest.mark.parametrize("kind", ["torchrun", "accelerate"])
def test_two_processes_get_the_same_values_and_write_one_row(kind: str, tmp_path: Path, isolated_history: Path) -> None:
    task = TaskDescription(name="shared", objective="eval_loss", direction="min")
    stored = ("stored", {"batch_size": 4, "hidden_dropout_prob": 0.3}, 0.1, (0.0, 0.2), 0.5, 0.9, 1.0)
    with History(isolated_history) as history:
        save_recommendation(history, Recommendation(*stored, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "better"))
        for index, rate in enumerate((1e-5, 1e-4, 1e-3, 3e-3, 1e-2, 1e-1)):
            with history.start_run(task=task, hparams={"learning_rate": rate}, objective="eval_loss") as run:
                run.log(eval_loss=1.0 - 0.1 * index, epoch=1.0)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    command = [*launcher(kind), str(script), str(tmp_path / "out"), str(CAN_RESUME)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    said = [(tmp_path / f"out-rank{rank}").read_text().splitlines() for rank in (0, 1)]
    assert said[0] == said[1], "the processes trained with different values, or to different weights"
    with History(isolated_history) as history:
        run, *further = sorted((run for run in history.runs() if run.framework == "transformers"), key=lambda run: run.id)
    rate, batch, dropout, chosen, _, total, _ = said[0][0].split()
    assert float(rate) > 1e-4
    assert (batch, dropout, total) == ("2", "0.3", "4"), "a global batch of 4 is 2 on each of two processes"
    assert [line.split()[:3] for line in said[0]] == [[rate, batch, dropout]] * (1 + CAN_RESUME), "the resumed run took other values"
    assert [item.parent_run_id for item in further] == [run.id] * CAN_RESUME, "the run had ended, so what trains it further is another one"
    run = further[0] if further else run
    assert (run.attempt, run.status, run.recommendation_id) == (int(CAN_RESUME), RunStatus.COMPLETED, chosen)
    assert run.hparams["learning_rate"] == pytest.approx(float(rate))
    assert run.hparams["global_batch_size"] == int(total) == 2 * int(batch) * run.hparams["gradient_accumulation_steps"]
    assert (run.hparams["dropout"], run.provenance["dropout"].source) == (float(dropout), Source.RESUME if CAN_RESUME else Source.METAHP)
    assert sum(done.stderr.count(f"the run {verb} from checkpoint-") for verb in ("that is resumed", "resumes")) == int(CAN_RESUME)
    assert done.stderr.count("METAHP=off switches this off") == 2, "autoconfig and apply spoke once each, on process zero"
