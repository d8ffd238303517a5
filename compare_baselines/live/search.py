"""One search, from the evaluation at which it stopped to its end. Runs in a process or a cluster's worker."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compare_baselines.live.past import PastSource, add_own, may_use_starter, write_past
from compare_baselines.live.tasks import find_task
from compare_baselines.live.tasks.base import LiveTask, Training
from compare_baselines.methods.base import Proposal, SearchProblem, Trial
from compare_baselines.methods.registry import find_live_method
from metahp_report.comparison.reader import evaluations_by_search, is_complete, outcomes, seconds_of, value_of
from metahp_report.comparison.records import KEY, ComparisonPlan
from store import History, UnknownTaskError
from store.errors import MetaHPError, StorageError
from store.records import RunRecord, RunStatus

logger = logging.getLogger(__name__)

MAX_DEATHS = 2
"""Times that the process may die in one evaluation (killed for its memory, a crash of the driver) before that is its outcome."""


@dataclass(frozen=True, slots=True)
class SearchJob:
    """One search to be carried out.

    Attributes:
        history: History of the comparison.
        comparison: Its id.
        plan: Its plan.
        task: Name of the task.
        method: Name of the method.
        seed: Seed.
        past: Where a meta-model's history comes from.
        folder: Folder with the data, None for the hub.
        threads: Threads each training may use.
    """

    history: Path
    comparison: str
    plan: ComparisonPlan
    task: str
    method: str
    seed: int
    past: PastSource
    folder: Path | None
    threads: int = 1

    @property
    def label(self) -> str:
        """Name for progress and messages."""
        return f"{self.task} {self.method} seed {self.seed}"


def carry_out(job: SearchJob) -> int:
    """Carry a search out to its end, and return how many evaluations were made here.

    Raises:
        MetaHPError: If the data, the model or the history is not there; a training that fails is an outcome and no error.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(job.threads)
    n_made = 0
    try:
        with quiet(), tempfile.TemporaryDirectory(prefix="metahp-live-") as scratch, History(job.history) as history:
            search = _OpenSearch(job, history, Path(scratch))
            while search.step():
                n_made += 1
    finally:
        torch.set_num_threads(before)
    return n_made


class _OpenSearch:
    """A search on its way."""

    def __init__(self, job: SearchJob, history: History, scratch: Path) -> None:
        self.job, self.history, self.scratch = job, history, scratch
        self.task = find_task(job.task)
        self.method = find_live_method(job.method)
        self.past = scratch / "past.db" if self.method.uses_past else None
        self.is_prepared = False

    def step(self) -> bool:
        """Make the next evaluation; return whether there was one to make."""
        job = self.job
        attempts = self._attempts()
        done = outcomes(attempts)
        if is_complete(job.plan, self.task.info(), job.method, len(done), sum(map(seconds_of, done))):
            return False
        lost = [run for run in attempts if run.description[KEY]["index"] == len(done) and run.status is RunStatus.STALE]
        if len(lost) >= MAX_DEATHS:
            note = lost[-1].description[KEY]
            self._fail(dict(note), f"the process died {len(lost)} times in this evaluation")
            return True
        self._prepare()
        if self.past is not None:
            add_own(self.history, [self.history.run(run.id) for run in done], self.past)
        uses_starter = may_use_starter(job.past, self.task)
        problem = SearchProblem(self.task, job.plan.size, job.seed, job.plan.budget, self.past, uses_starter)
        trials = [Trial(run.description[KEY]["config"], value_of(run)) for run in done]
        started, cpu_started = time.perf_counter(), time.process_time()  # a method is charged for thinking, too
        proposal = self.method.propose(problem, trials)
        cost = {"decision_s": time.perf_counter() - started, "decision_cpu_s": time.process_time() - cpu_started}
        if proposal is None:
            return False
        self._evaluate(proposal, len(done), cost)
        return True

    def _attempts(self) -> Sequence[RunRecord]:
        try:
            runs = self.history.runs(self.task.history_name(self.job.plan.size), with_hparams=False)
        except UnknownTaskError:
            return []
        return evaluations_by_search(runs, self.job.comparison).get((self.job.method, self.job.seed), [])

    def _prepare(self) -> None:
        """Load the data and write the past, once: no method is charged for either."""
        if self.is_prepared:
            return
        self.task.prepare(self._training({}))
        if self.past is not None:
            write_past(self.job.past, self.task, self.past, self.job.seed)
        self.is_prepared = True

    def _training(self, note: dict[str, Any]) -> Training:
        job = self.job
        return Training(self.history, job.plan.size, job.seed, job.folder, self.scratch, note)

    def _evaluate(self, proposal: Proposal, index: int, cost: Mapping[str, float]) -> None:
        note = {
            "id": self.job.comparison,
            "task": self.job.task,
            "size": self.job.plan.size,
            "method": self.job.method,
            "seed": self.job.seed,
            "index": index,
            "config": dict(proposal.config),
            **cost,
            "note": proposal.note,
            "prediction": None if proposal.prediction is None else asdict(proposal.prediction),
        }
        training = self._training(note)
        try:
            self.task.train(proposal.config, training)
        except MetaHPError:
            raise  # nothing that another configuration could change
        except Exception as error:
            logger.debug("%s failed in evaluation %d:", self.job.label, index, exc_info=error)
            if training.recorder is None:
                self._fail(note, error)
            else:
                training.recorder.finish(error=error)  # the first one counts: mostly the callback has reported it
        else:
            if training.run_id is None:
                raise StorageError(f"Every evaluation must be recorded, but one of {self.job.label} was not. Unset METAHP=off.")

    def _fail(self, note: dict[str, Any], error: BaseException | str) -> None:
        """Record an evaluation that came to no run of its own."""
        task: LiveTask = self.task
        run = self.history.start_run(
            task=task.history_name(self.job.plan.size),
            hparams=task.in_force(note["config"], self.job.plan.size),
            objective=task.logged_objective,
            direction=task.direction,
            description={KEY: note},
        )
        run.finish(RunStatus.FAILED if isinstance(error, str) else None, error)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence what the frameworks print of each of many short trainings; errors stay."""
    names = ("lightning.pytorch", "lightning.fabric", "transformers", "lightning.pytorch.utilities.rank_zero")
    loggers = [logging.getLogger(name) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [each.level for each in loggers]
        for each in loggers:
            each.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for each, level in zip(loggers, levels, strict=True):
                each.setLevel(level)
