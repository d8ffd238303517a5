"""The demonstration's training runs: what to train, how one run is trained and recorded, and many of them on several processes."""

from __future__ import annotations

import contextlib
import io
import logging
import multiprocessing
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from optuna.distributions import BaseDistribution

    from store import RunRecord

TrainAll = Callable[[Sequence[Sequence["DemoJob"]]], Iterator["DemoOutcome"]]

DEMO_DEFAULTS: Mapping[str, Any] = {"learning_rate": 1e-3, "batch_size": 32, "num_layers": 2, "dropout": 0.1}
"""What a user without advice would write: Adam's own step size, the usual batch, a small network."""

DEMO_LEARNING_RATES = (1e-5, 1e-1)
DEMO_BATCH_SIZES = (16, 32, 64, 128)
DEMO_NUM_LAYERS = (2, 5)
DROPOUTS = (0.1, 0.5)


def demo_space() -> dict[str, BaseDistribution]:
    """Return the space both of the random configurations and of the recommendation."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    return {
        "learning_rate": FloatDistribution(*DEMO_LEARNING_RATES, log=True),
        "batch_size": CategoricalDistribution(DEMO_BATCH_SIZES),
        "num_layers": IntDistribution(*DEMO_NUM_LAYERS),
        "dropout": FloatDistribution(*DROPOUTS),
    }


def random_config(rng: np.random.Generator) -> dict[str, Any]:
    """Draw a configuration: the learning rate log-uniform, everything else uniform."""
    import math

    return {
        "learning_rate": 10.0 ** rng.uniform(math.log10(DEMO_LEARNING_RATES[0]), math.log10(DEMO_LEARNING_RATES[1])),
        "batch_size": int(rng.choice(DEMO_BATCH_SIZES)),
        "num_layers": int(rng.integers(DEMO_NUM_LAYERS[0], DEMO_NUM_LAYERS[1] + 1)),
        "dropout": float(rng.uniform(*DROPOUTS)),
    }


@dataclass(frozen=True, slots=True)
class DemoTask:
    """One data set learned by one family of models."""

    dataset: str
    family: str

    @property
    def label(self) -> str:
        """Name for tables and titles."""
        return f"{self.dataset.replace('_', ' ')} · {self.family}"


@dataclass(frozen=True, slots=True)
class DemoJob:
    """One training run to be done.

    Attributes:
        task: What to train.
        arm: Which side of the comparison it belongs to.
        config: The user's own values; what the run uses where no advice is taken.
        seed: Seed of the split, the initial weights and the order of the batches.
        epochs: Length of training.
        history: File the run is recorded in.
        mode: ``best`` or ``explore`` to let ``MetaHParams`` rewrite the configuration, None to train it as it is.
        copy_of: History to copy to ``history`` first, so that the advice sees exactly that one; None to use ``history`` as it is.
    """

    task: DemoTask
    arm: str
    config: Mapping[str, Any]
    seed: int
    epochs: int
    history: Path
    mode: str | None = None
    copy_of: Path | None = None


@dataclass(frozen=True, slots=True)
class DemoOutcome:
    """What came of a job.

    Attributes:
        job: The job.
        run: The run as its history knows it; ``run.hparams`` is what was really in force.
        curve: The objective after each epoch.
        wall_s: Seconds from building the model to the end of training, the time to ask for advice included.
        message: What the run printed at its start.
    """

    job: DemoJob
    run: RunRecord
    curve: tuple[float, ...]
    wall_s: float
    message: str

    @property
    def config(self) -> dict[str, Any]:
        """The four tuned values in force."""
        return {name: self.run.hparams[name] for name in DEMO_DEFAULTS}

    @property
    def is_unanswered(self) -> bool:
        """Whether advice was asked for and none came, because the recommendation failed."""
        return self.job.mode is not None and self.run.recommendation_id is None

    @property
    def kept_own_values(self) -> bool:
        """Whether advice was asked for and nothing was changed, whatever the cause."""
        return self.job.mode is not None and self.config == dict(self.job.config)

    @property
    def objective(self) -> float:
        """Best value of the objective over the epochs; NaN if there was none."""
        return float("nan") if self.run.objective_best is None else self.run.objective_best


def copy_history(source: Path, target: Path) -> None:
    """Copy a history with its meta-models, also while other processes write to it.

    Args:
        source: Existing history.
        target: New file; an existing one is replaced.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)
    models = Path(f"{source}.models")
    if models.is_dir():
        copytree(models, f"{target}.models", dirs_exist_ok=True)


def train(job: DemoJob) -> DemoOutcome:
    """Train one job with a real Lightning Trainer, recorded by ``MetaHPCallback``, advised by ``MetaHParams`` where the job asks for it."""
    import lightning as L

    from compare_baselines.live.families import LIVE_FAMILIES
    from compare_baselines.live.sklearn_data import DemoData
    from lightning_metahp import MetaHPCallback
    from store import History, StorageError

    if job.copy_of is not None:
        copy_history(job.copy_of, job.history)
    started = time.monotonic()
    L.seed_everything(job.seed, verbose=False)
    config = dict(job.config)
    data = DemoData(job.task.dataset, batch_size=config.pop("batch_size"), seed=job.seed)
    module = LIVE_FAMILIES[job.task.family](data.data.input_shape, data.data.n_classes, **config)
    log = MetaHPCallback(data.data.objective, history=job.history)
    callbacks: list[L.Callback] = [log]
    if job.mode is not None:
        from lightning_metahp import MetaHParams

        callbacks.append(MetaHParams(space=demo_space(), mode=job.mode))
    trainer = L.Trainer(
        max_epochs=job.epochs,
        accelerator="cpu",
        devices=1,
        callbacks=callbacks,
        # All of this costs more than a tiny fit itself.
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    spoken = io.StringIO()
    with contextlib.redirect_stdout(spoken), contextlib.redirect_stderr(spoken):
        trainer.fit(module, datamodule=data)
    wall_s = time.monotonic() - started
    if log.run_id is None:
        raise StorageError(f"Every run of the demonstration must be recorded, but one of {job.task.label} was not: {spoken.getvalue()}")
    with History(job.history) as history:
        run = history.run(log.run_id)
        curve = tuple(record.value for record in history.metrics(run.id, data.data.objective))
    return DemoOutcome(job, run, curve, wall_s, spoken.getvalue().strip())


def train_chain(jobs: Sequence[DemoJob]) -> list[DemoOutcome]:
    """Train jobs one after another, each of which may learn from the ones before."""
    return [train(job) for job in jobs]


@contextlib.contextmanager
def training_processes(workers: int) -> Iterator[TrainAll]:
    """Start processes that train chains of jobs side by side.

    Args:
        workers: Number of processes; 1 trains in this process.

    Yields:
        A function from chains to outcomes as they come; jobs of one chain run in order, chains in any order.
    """
    if workers <= 1:
        with quiet():
            yield lambda chains: (outcome for chain in chains for outcome in train_chain(chain))
        return
    # spawn: a forked child would inherit torch's threads and the history's open connections.
    pool = ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"), initializer=_start_worker)

    def train_all(chains: Sequence[Sequence[DemoJob]]) -> Iterator[DemoOutcome]:
        for future in as_completed([pool.submit(train_chain, chain) for chain in chains]):
            yield from future.result()

    try:
        yield train_all
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what Lightning prints about every tiny run; one thread, since a second one only slows a small matrix down."""
    import torch

    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels, threads = [logger.level for logger in loggers], torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning\.")
        torch.set_num_threads(1)
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            torch.set_num_threads(threads)
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


_worker_quiet = contextlib.ExitStack()
"""Keeps a worker process quiet until it ends."""


def _start_worker() -> None:
    import lightning  # noqa: F401  # its import configures the loggers that quiet() silences

    _worker_quiet.enter_context(quiet())
