"""Thirty runs of one script that its user keeps editing; run as real processes against a fresh history.

``python -m examples.story.story docs/story.md`` runs the story and writes the transcript.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from store import History, RunRecord

SCRIPT = Path(__file__).with_name("train.py")
TUNING = 'MetaHParams(space={"lr": FloatDistribution(1e-5, 1e-1, log=True), "batch_size": [16, 32, 64]})'


@dataclass(frozen=True)
class Step:
    """One edit of the script and how often it is run after it.

    Attributes:
        title: What the user did.
        edits: Old text -> new text; every old text must occur.
        seeds: Seed of each run that follows.
        is_parallel: Whether these runs go on at once.
    """

    title: str
    edits: Mapping[str, str] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    is_parallel: bool = False


STORY = (
    Step("The script as it is, with `MetaHPCallback` in the trainer."),
    Step("Another learning rate, by hand.", {"Net(lr=1e-4)": "Net(lr=1e-5)"}),
    Step("And another.", {"Net(lr=1e-5)": "Net(lr=3e-4)"}),
    Step("And one that is far too large.", {"Net(lr=3e-4)": "Net(lr=1e-1)"}),
    Step("Back to the first one, other seeds.", {"Net(lr=1e-1)": "Net(lr=1e-4)"}, (1, 2)),
    Step(
        "`MetaHParams` goes into the trainer. From here on the script asks for lr=1e-4 and batch_size=32 and gets what the history says.",
        {
            'callbacks=[MetaHPCallback("val_acc")]': f'callbacks=[MetaHPCallback("val_acc"), {TUNING}]',
            "import MetaHPCallback\n": "import MetaHParams, MetaHPCallback\n",
            "import torch\nfrom sklearn": "import torch\nfrom optuna.distributions import FloatDistribution\nfrom sklearn",
        },
        (3, 4, 5, 6),
    ),
    Step("Two runs at once.", {}, (7, 8), is_parallel=True),
    Step("Three layers instead of one: the same task.", {"Net(lr=1e-4)": "Net(lr=1e-4, num_layers=3)"}, (9, 10, 11)),
    Step("GELU for ReLU in the model's code: the same task, related evidence.", {"nn.ReLU()": "nn.GELU()"}, (12, 13, 14, 15)),
    Step(
        "Another data set, breast cancer: a new task, which knows nothing of the first until there are two to learn from.",
        {"load_digits": "load_breast_cancer", "num_layers=3)": "num_layers=3, n_inputs=30, n_classes=2)"},
        (16, 17, 18, 19, 20, 21, 22, 23, 24),
    ),
    Step(
        "A third data set, wine: its very first run is advised from the two tasks before, and the meta-model fits itself.",
        {"load_breast_cancer": "load_wine", "n_inputs=30, n_classes=2": "n_inputs=13, n_classes=3"},
        (25, 26),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What one run printed, and how long it took in seconds."""

    step: Step
    seed: int
    output: str
    seconds: float


def _execute(script: str, folder: str, log: str, environment: Mapping[str, str]) -> None:
    """Run a script as ``python script`` would, in a process of its own, its output in a file."""
    os.environ.update(environment)
    os.chdir(folder)
    sys.path.insert(0, folder)
    sys.argv = [script]
    with open(log, "w", buffering=1, encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        sys.stdout = sys.stderr = stream
        runpy.run_path(script, run_name="__main__")


class Runner:
    """Runs scripts in fresh processes that have Lightning imported already, which saves most of the time of a short run.

    Args:
        folder: Where scripts, logs and the history lie.
        environment: Variables of every run.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        # The story is about what one's own runs teach, so the starter history, which would advise the first of them, is left out.
        self.folder, self.environment = folder, {"METAHP_STARTER": "0", **environment}
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["lightning.pytorch", "sklearn.datasets", "sklearn.model_selection", "optuna.distributions"])

    def run(self, text: str, seeds: Sequence[int], environment: Mapping[str, str] | None = None) -> list[tuple[str, float]]:
        """Run a script once for each seed, all at once.

        Returns:
            Output and seconds of each run.

        Raises:
            RuntimeError: If a run fails.
        """
        running = []
        for seed in seeds:
            place = self.folder / f"run{len(list(self.folder.glob('run*'))):02d}"
            place.mkdir()
            script, log = place / "train.py", place / "output.txt"
            script.write_text(text.replace("seed_everything(0", f"seed_everything({seed}"), encoding="utf-8")
            variables = {**self.environment, **(environment or {})}
            process = self._context.Process(target=_execute, args=(str(script), str(place), str(log), variables))
            process.start()
            running.append((process, log, time.monotonic()))
        results = []
        for process, log, started in running:
            process.join()
            output = log.read_text(encoding="utf-8")
            if process.exitcode != 0:
                raise RuntimeError(f"a run of the story failed:\n{output}")
            results.append((output, time.monotonic() - started))
        return results


def edited(text: str, step: Step) -> str:
    """Apply the edits of a step.

    Raises:
        ValueError: If a text to replace is not there.
    """
    for old, new in step.edits.items():
        if old not in text:
            raise ValueError(f"the story edits {old!r}, which the script does not have")
        text = text.replace(old, new)
    return text


def tell(runner: Runner, story: Sequence[Step] = STORY) -> tuple[list[Outcome], str]:
    """Run the whole story.

    Returns:
        The outcome of each run, and the script as it is at the end.
    """
    text, outcomes = SCRIPT.read_text(encoding="utf-8"), []
    for step in story:
        text = edited(text, step)
        groups = [step.seeds] if step.is_parallel else [[seed] for seed in step.seeds]
        for seeds in groups:
            for seed, (output, seconds) in zip(seeds, runner.run(text, seeds), strict=True):
                outcomes.append(Outcome(step, seed, output, seconds))
    return outcomes, text


def transcript(outcomes: Sequence[Outcome], runs: Sequence[RunRecord], history: History) -> str:
    """Write the story for reading."""
    lines = [
        "# Thirty runs of one script",
        "",
        "What a user sees who keeps editing one training script ([examples/story/train.py](../examples/story/train.py)).",
        "Every block is the real output of a real process, Lightning's own lines left out; nobody typed `metahp refit`.",
        "Made by `python -m examples.story.story docs/story.md`, checked by `tests/test_story.py`.",
    ]
    previous: Step | None = None
    for number, outcome in enumerate(outcomes, 1):
        if outcome.step is not previous:
            lines += ["", f"## {outcome.step.title.rstrip('.')}"]
            lines += ["", *(f"- `{old}` becomes `{new}`" for old, new in _short(outcome.step.edits))] if outcome.step.edits else []
            previous = outcome.step
        lines += ["", f"Run {number}, seed {outcome.seed}:", "```", _shown(outcome.output), "```"]
    lines += ["", "## What the history says in the end", "", "| task | objective | runs | finished | best |", "|---|---|---|---|---|"]
    for task in history.tasks():
        lines.append(f"| {task.name} | {task.objective} | {task.n_runs} | {task.n_finished} | {task.best:.4f} |")
    seconds = sum(outcome.seconds for outcome in outcomes)
    lines += ["", f"{len(runs)} runs in {seconds:.0f} s of training and start-up.", ""]
    return "\n".join(lines)


def _shown(output: str) -> str:
    """Keep what we and the script print."""
    lines = output.splitlines()
    return "\n".join(line for line in lines if line.startswith(("metahp:", "  ", "val_acc")))


def _short(edits: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(old.strip().replace("\n", " / "), new.strip().replace("\n", " / ")) for old, new in edits.items()]


def main(target: str) -> None:
    """Run the story and write its transcript."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "history.db"
        runner = Runner(Path(folder), {"METAHP_HISTORY": str(path), "PYTHONWARNINGS": "ignore"})
        outcomes, _ = tell(runner)
        with History(path) as history:
            Path(target).write_text(transcript(outcomes, history.runs(), history), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1])
