"""The story that matters: one user's script, edited and run thirty times. Real scripts, real processes, one history."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import mean

import pytest

from examples.story.story import SCRIPT, STORY, TUNING, Outcome, Runner, edited, tell
from metamodel import current_model
from store import History, RunRecord, Source

pytestmark = pytest.mark.slow


class Told:
    """The story after it was told: what each run printed, and the history it left."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "history.db"
        self.runner = Runner(folder, {"METAHP_HISTORY": str(self.path)})
        self.outcomes, self.script = tell(self.runner)
        self.history = History(self.path)
        self.runs = self.history.runs()

    def after(self, word: str) -> list[Outcome]:
        """What the runs printed after the edit whose title holds a word."""
        found = [outcome for outcome in self.outcomes if word in outcome.step.title]
        assert found, word
        return found

    def of(self, word: str) -> list[RunRecord]:
        """The runs of that part of the story; runs at once may have started in either order."""
        wanted = self.after(word)
        first = self.outcomes.index(wanted[0])
        return self.runs[first : first + len(wanted)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    story = Told(tmp_path_factory.mktemp("story"))
    yield story
    story.history.close()


def test_every_run_is_in_the_history_and_completed(told: Told) -> None:
    assert len(told.runs) == sum(len(step.seeds) for step in STORY) == 30
    assert {run.status for run in told.runs} == {"completed"}


def test_runs_are_grouped_into_three_tasks_by_their_data_and_by_nothing_that_was_tuned(told: Told) -> None:
    assert sorted(task.n_runs for task in told.history.tasks()) == [2, 9, 19]
    digits = {run.task_id for run in told.runs[:19]}
    assert len(digits) == 1
    assert {run.hparams["num_layers"] for run in told.runs[:19]} == {1, 3}
    assert len({run.hparams["learning_rate"] for run in told.runs[:19]}) > 5


def test_a_code_change_keeps_the_task_and_makes_older_runs_related_evidence(told: Told) -> None:
    before, after = told.of("Three layers"), told.of("GELU")
    assert {run.task_id for run in before} == {run.task_id for run in after}
    assert {run.variant for run in before}.isdisjoint({run.variant for run in after})
    assert "15 runs of this task with other model code" in told.after("GELU")[0].output


def test_the_advice_gets_better_without_anyone_typing_refit(told: Told) -> None:
    by_hand, advised = [run.objective_best for run in told.runs[:6]], [run.objective_best for run in told.of("goes into")]
    assert mean(value for value in advised if value) > max(value for value in by_hand if value)
    alone, helped = told.of("breast")[:4], told.of("breast")[4:]
    assert mean(run.objective_best or 0 for run in helped) > mean(run.objective_best or 0 for run in alone) + 0.1
    assert all("metahp: nothing changed; not enough history" in outcome.output for outcome in told.after("breast")[:4])
    assert "fitted the meta-model" in told.after("wine")[0].output
    assert current_model(told.history) is not None


def test_the_first_run_of_a_third_data_set_is_advised_from_the_two_before(told: Told) -> None:
    (run, _), (outcome, _) = told.of("wine"), told.after("wine")
    assert "from 28 runs of 2 other tasks" in outcome.output
    assert run.provenance["learning_rate"].source is Source.METAHP
    assert run.provenance["learning_rate"].requested == 1e-4
    assert run.objective_best is not None
    assert run.objective_best > 0.8


def test_what_was_recommended_was_in_force_and_is_linked_to_what_came_of_it(told: Told) -> None:
    advised = [run for run in told.runs if run.provenance["learning_rate"].source is Source.METAHP]
    assert len(advised) >= 15
    for run in advised:
        rate = run.provenance["learning_rate"]
        assert rate.observed == pytest.approx(rate.value)
        stored = told.history.recommendation(str(run.recommendation_id))
        assert stored["run_id"] == run.id
        assert stored["outcome"] == pytest.approx(run.objective_best)
        assert stored["recommendation"]["config"]["lr"] == pytest.approx(rate.value)
    assert not any("NotAppliedWarning" in outcome.output for outcome in told.outcomes)


def test_two_runs_at_once_do_not_disturb_each_other(told: Told) -> None:
    first, second = told.of("at once")
    assert first.started_utc < str(second.ended_utc)
    for run in (first, second):
        values = [metric.value for metric in told.history.metrics(run.id, "val_acc")]
        assert len(values) == 3
        assert all(math.isfinite(value) for value in values)


def test_switched_off_the_script_is_exactly_as_it_was_without_us(told: Told) -> None:
    text = told.script
    without = text.replace(f'callbacks=[MetaHPCallback("val_acc"), {TUNING}]', "callbacks=[]")
    assert without != text
    ((off, _),) = told.runner.run(text, [3], {"METAHP": "off"})
    ((plain, _),) = told.runner.run(without, [3])
    assert off == plain
    assert "weights" in off
    assert len(told.history.runs()) == len(told.runs)


def test_logging_alone_does_not_change_what_is_trained(told: Told) -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    ((logged, _),) = told.runner.run(text, [5], {"METAHP_HISTORY": str(told.path.with_name("other.db"))})
    ((plain, _),) = told.runner.run(text.replace('callbacks=[MetaHPCallback("val_acc")]', "callbacks=[]"), [5])
    assert logged == plain


def test_an_edit_that_no_longer_fits_the_script_is_noticed() -> None:
    with pytest.raises(ValueError, match="which the script does not have"):
        edited("nothing", STORY[1])
