"""Comparisons as a whole: fair, resumable, and readable from the history alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from compare_baselines.live import Settings, list_comparisons, load_comparison, run_live
from compare_baselines.live.past import PastSource, choose_past, is_same_data, may_use_starter, write_past
from compare_baselines.live.search import SearchJob, carry_out
from compare_baselines.live.tasks import families, find_task, series
from compare_baselines.live.tasks.tabular import Tabular
from compare_baselines.methods import LIVE_METHODS, METHODS, find_method
from compare_baselines.methods.metahp import MetaHP
from metahp_report.comparison.records import KEY
from store import History
from store.errors import InvalidArgumentError
from store.records import RunStatus
from tests.compare_baselines.made_up_data import write_data

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def settings(data, **changes):
    return replace(Settings(tasks=("tabular",), methods=("default", "random"), budget=2, data_dir=data, past="tasks"), **changes)


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    """A comparison of four tasks in which the meta-model has something to learn from."""
    path = tmp_path_factory.mktemp("compared") / "history.db"
    remarks = []
    tasks, methods = ("series", "cnn", "rnn", "regression"), ("default", "random", "tpe", "metahp")
    with pytest.MonkeyPatch.context() as patch:  # smaller than tiny
        patch.setitem(families.SAMPLES, "tiny", 64)
        patch.setitem(families.EPOCHS, "tiny", 1)
        patch.setitem(series.SERIES_SCALES, "tiny", series.SeriesScale(64, 32, 32, 24, 8))
        families._prepared.cache_clear()
        series._prepared.cache_clear()
        result = run_live(path, settings(data, tasks=tasks, methods=methods, budget=4), remark=remarks.append)
    return path, result, remarks


def test_a_comparison_is_read_back_from_the_history_alone(compared):
    path, result, _ = compared
    assert load_comparison(path, result.id) == result
    assert load_comparison(path, result.id[:12]) == load_comparison(path) == result
    assert [item.id for item in list_comparisons(path)] == [result.id]
    assert result.is_complete
    assert {search.method: len(search.evaluations) for search in result.searches} == {"default": 1, "random": 4, "tpe": 4, "metahp": 4}
    assert result.plan.tasks == ("series", "cnn", "rnn", "regression")


def test_every_evaluation_is_charged_and_only_the_chosen_model_is_tested(compared):
    _, result, _ = compared
    for search in result.searches:
        costs = [item.decision_s + item.train_s for item in search.evaluations]
        assert min(costs) > 0
        assert search.seconds == pytest.approx(sum(costs))
        values = [item.value for item in search.evaluations]
        best = min(values) if result.tasks[search.task].direction == "min" else max(values)
        assert search.best.value == best
        assert set(search.test) == set(result.tasks[search.task].metrics)
        assert all(item.cpu_s > 0 for item in search.evaluations)


def test_energy_that_nobody_measured_is_said_not_to_be(compared):
    _, result, _ = compared
    assert {(item.energy_source, item.energy_j.mean) for item in result.summaries} == {("not measured", None)}
    assert {item.gpu_hours.mean for item in result.summaries} == {None}


def test_the_meta_model_speaks_from_the_other_tasks_and_where_that_comes_from_is_said(compared):
    _, result, remarks = compared
    assert remarks[-1] == (
        "The meta-models learn from the other tasks of this comparison: the runs of default, random, tpe on tasks with other data."
    )
    notes = [item.note for search in result.searches if search.method == "metahp" for item in search.evaluations]
    assert any("2 other tasks" in note or "3 other tasks" in note for note in notes), notes


def test_the_history_given_to_a_meta_model_never_holds_the_task_under_test_or_its_data(compared, tmp_path):
    path, result, _ = compared
    for number, name in enumerate(result.plan.tasks):
        task, target = find_task(name), tmp_path / f"{number}.db"
        n_runs = write_past(PastSource("tasks", path, result.id, None, ("default", "random", "tpe")), task, target)
        with History(target, create=False) as past, History(path) as source:
            names = {run.task_name for run in past.runs()}
            methods = {source.run(run.id).description[KEY]["method"] for run in past.runs()}
        others = {other for other in result.plan.tasks if not set(find_task(other).same_data) & set(task.same_data)}
        assert names == {f"live {other} tiny" for other in others}
        assert n_runs == 9 * len(others)
        assert methods == {"default", "random", "tpe"}
        assert name not in others
    assert "series" not in {name for name in result.plan.tasks if not set(find_task(name).same_data) & set(find_task("rnn").same_data)}


def test_each_search_knows_its_own_runs_alone(compared, data, tmp_path, monkeypatch):
    path, result, _ = compared
    seen = []

    def look(self, problem, trials):
        with History(problem.past, create=False) as past:
            seen.append([run.id for run in past.runs() if run.task_name == "live cnn tiny"])

    monkeypatch.setattr(MetaHP, "propose", look)
    copy = tmp_path / "history.db"
    with History(copy) as history:
        history.merge(path)
    plan = replace(result.plan, budget=9)
    carry_out(SearchJob(copy, result.id, plan, "cnn", "metahp", 0, PastSource("tasks", copy, result.id, None, ("random",)), data))
    own = [item.run_id for item in result.search("cnn", "metahp", 0).evaluations]
    assert seen == [own]


def test_a_past_of_ones_own_leaves_out_what_has_the_same_data(tmp_path, compared):
    path = tmp_path / "own.db"
    with History(path) as history:
        history.merge(compared[0])
        for task in ("my digits", "wine", "iris"):
            for lr in range(1, 11):
                with history.start_run(task=task, hparams={"lr": lr / 100}, objective="val_acc") as run:
                    run.log(val_acc=0.5 + lr / 100)
        chosen = choose_past("auto", history, True, "c", "9999-01-01T00:00:00.000000Z")
        own = choose_past("auto", history, False, "c", "9999-01-01T00:00:00.000000Z")
        hidden = [item.name for item in history.tasks() if is_same_data(item, find_task("cnn"))]
    assert (chosen.kind, own.kind) == ("history", "tasks")
    assert sorted(hidden) == ["live cnn tiny", "my digits"]
    write_past(chosen, find_task("cnn"), tmp_path / "past.db")
    with History(tmp_path / "past.db") as past:
        assert {run.task_name for run in past.runs()} == {"wine", "iris"}


def test_the_starter_history_is_not_used_where_it_knows_the_data(monkeypatch, history):
    monkeypatch.delenv("METAHP_STARTER", raising=False)
    past = choose_past("auto", history, False, "c", "", ("random", "metahp"))
    assert past.kind == "starter"
    assert choose_past("auto", history, False, "c", "", ("random", "metahp", "maml")).kind == "tasks"
    assert may_use_starter(past, find_task("rnn"))
    assert not may_use_starter(past, find_task("transformer"))  # it has seen breast_cancer
    monkeypatch.setenv("METAHP_STARTER", "0")
    assert choose_past("auto", history, False, "c", "", ("random", "metahp")).kind == "tasks"


class Stop(KeyboardInterrupt):
    """What Ctrl-C is."""


def interrupted_at(monkeypatch, number):
    """Have the n-th training of the tabular task interrupted in its middle, as by Ctrl-C."""
    train, count = Tabular.train, iter(range(1000))

    def stopping(self, config, training):
        if next(count) == number:
            with training.history.start_run(task=self.history_name("tiny"), objective="accuracy") as run:
                training.opened(run)
                raise Stop
        train(self, config, training)

    monkeypatch.setattr(Tabular, "train", stopping)


@pytest.mark.slow
def test_an_interrupted_comparison_goes_on_where_it_stopped(data, tmp_path, monkeypatch):
    path, asked = tmp_path / "history.db", settings(data, methods=("default", "random"), budget=3)
    with monkeypatch.context() as patch:
        interrupted_at(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            run_live(path, asked)
    half = load_comparison(path)
    assert not half.is_complete
    assert half.n_missing == 1
    assert [len(search.evaluations) for search in half.searches] == [1, 1]
    remarks = []
    whole = run_live(path, asked, remark=remarks.append)
    assert remarks[0] == f"Going on with comparison {half.id}."
    assert whole.id == half.id
    assert whole.is_complete
    assert [item.run_id for item in whole.searches[1].evaluations[:1]] == [item.run_id for item in half.searches[1].evaluations]
    undisturbed = run_live(tmp_path / "other.db", asked)
    assert [[item.config for item in search.evaluations] for search in whole.searches] == [
        [item.config for item in search.evaluations] for search in undisturbed.searches
    ]
    assert run_live(path, asked).id != whole.id, "a comparison that is complete is not taken for one to go on with"


def test_a_named_comparison_takes_further_methods_and_keeps_what_it_has(data, tmp_path):
    path = tmp_path / "history.db"
    first = run_live(path, settings(data, comparison="mine"))
    second = run_live(path, settings(data, comparison="mine", methods=("grid",)))
    assert second.id == first.id == "mine"
    assert second.plan.methods == ("default", "random", "grid")
    kept = {item.run_id for search in first.searches for item in search.evaluations}
    assert kept < {item.run_id for search in second.searches for item in search.evaluations}
    with pytest.raises(InvalidArgumentError, match="A comparison has one size, but mine is tiny and --size is small"):
        run_live(path, settings(data, comparison="mine", size="small"))


def test_a_failing_configuration_is_an_outcome(data, tmp_path, monkeypatch):
    train = Tabular.train

    def failing(self, config, training):
        if config["max_depth"] is None:
            raise RuntimeError("no such depth")
        train(self, config, training)

    monkeypatch.setattr(Tabular, "train", failing)
    result = run_live(tmp_path / "history.db", settings(data))
    failed = result.search("tabular", "default", 0)
    assert result.is_complete
    assert (failed.evaluations[0].status, failed.evaluations[0].value) == (RunStatus.FAILED, None)
    assert "no such depth" in failed.evaluations[0].error
    assert (failed.chosen, failed.test) == (None, {})
    assert result.summary("tabular", "default").final.mean is None
    assert next(item for item in result.standings if item.method == "default").regret == (1.0, 1.0)


def test_an_evaluation_in_which_the_process_dies_twice_is_a_failure_too(data, tmp_path):
    path = tmp_path / "history.db"
    note = {"id": "mine", "task": "tabular", "size": "tiny", "method": "default", "seed": 0, "index": 0, "decision_s": 0.0}
    note["config"] = dict(Tabular.defaults)
    code = (
        f"import os\nfrom store import History\nhistory = History({str(path)!r})\n"
        f"history.start_run(task='live tabular tiny', objective='accuracy', description={{'comparison': {note!r}}})\nos._exit(1)"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False)
    result = run_live(path, settings(data, methods=("default",), comparison="mine"))
    assert result.is_complete
    assert result.searches[0].evaluations[0].error == "the process died 2 times in this evaluation"


def test_a_limit_in_seconds_ends_a_search_for_every_method(data, tmp_path):
    result = run_live(tmp_path / "history.db", settings(data, methods=("random", "grid"), budget=50, max_seconds=0.3))
    assert result.is_complete
    for search in result.searches:
        assert len(search.evaluations) < 50
        assert search.evaluations[-1].elapsed_s >= 0.3
        assert all(item.elapsed_s < 0.3 for item in search.evaluations[:-1])


@pytest.mark.slow
def test_several_processes_make_the_same_comparison(data, tmp_path):
    asked = settings(data, methods=("random", "grid"))
    alone = run_live(tmp_path / "alone.db", asked)
    together = run_live(tmp_path / "together.db", replace(asked, jobs=2))
    assert together.is_complete
    assert [[(item.config, item.value) for item in search.evaluations] for search in together.searches] == [
        [(item.config, item.value) for item in search.evaluations] for search in alone.searches
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra ray is not installed")
def test_a_local_ray_cluster_makes_the_same_comparison(data, tmp_path):
    asked = settings(data, methods=("random", "grid"))
    alone = run_live(tmp_path / "alone.db", asked)
    spread = run_live(tmp_path / "spread.db", replace(asked, jobs=2, ray="local"))
    assert spread.is_complete
    assert [[(item.config, item.value) for item in search.evaluations] for search in spread.searches] == [
        [(item.config, item.value) for item in search.evaluations] for search in alone.searches
    ]
    with History(tmp_path / "spread.db") as history:
        assert len({run.id for run in history.runs("live tabular tiny")}) == 4


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"budget": 0}, "The number of budget must be at least 1, but got 0"),
        ({"size": "huge"}, "The size must be one of tiny, small, full, but got 'huge'"),
        ({"methods": ("random", "random")}, "each once, but got random, random"),
        ({"methods": ("metahp",), "tasks": ("cnn", "regression", "transformer")}, "Add random, or pass --history"),
        ({"methods": ("random", "metahp")}, "leaves only 0 with other data than tabular"),
        ({"max_seconds": 0.0}, "The seconds of a search must be positive"),
        ({"past": "history"}, "takes 2 tasks with 8 finished runs each, but"),
        ({"past": "mine"}, "must be one of auto, history, starter, tasks"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_trained(changes, sentence, data, tmp_path):
    with pytest.raises(InvalidArgumentError, match=sentence):
        run_live(tmp_path / "history.db", settings(data, **changes))
    with History(tmp_path / "history.db") as history:
        assert history.runs() == []


def test_a_comparison_needs_recording_and_its_data(data, tmp_path, monkeypatch):
    with pytest.raises(InvalidArgumentError, match=r"has no titanic\.csv"):
        run_live(tmp_path / "history.db", settings(tmp_path))
    monkeypatch.setenv("METAHP", "off")
    with pytest.raises(InvalidArgumentError, match="METAHP=off switches recording off"):
        run_live(tmp_path / "history.db", settings(data))


def test_an_unknown_comparison_is_answered_with_those_there_are(compared, tmp_path):
    with pytest.raises(InvalidArgumentError, match=f"'zzz' fits 0; there are: {compared[1].id}"):
        load_comparison(compared[0], "zzz")
    History(tmp_path / "empty.db").close()
    with pytest.raises(InvalidArgumentError, match=r"has none\. Call: metahp compare-baselines live"):
        load_comparison(tmp_path / "empty.db")


def test_every_method_has_its_own_name():
    assert all(name == find_method(name).name for name in {*METHODS, *LIVE_METHODS})
