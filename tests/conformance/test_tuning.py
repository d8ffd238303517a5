"""Whatever tunes a training decides in the same way: one contract, every host, real trainings of two batches."""

from __future__ import annotations

import contextlib
import math
import random
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import FloatDistribution

from metamodel.recommendation import Decision, Evidence, Recommendation, Unit, save_recommendation
from store import History, RunStatus, Source
from store.hyperparameters import PER_DEVICE_BATCH_SIZE
from tests.conformance.tuning_hosts import CHECKPOINTS, DEFAULTS, HOSTS, OBJECTIVE, RECORDERS, Training, Tuned, quiet, runs_in, train

OFF_WORDS, ON_WORDS = ("off", "0", "False", "no"), ("on", "1", "TRUE", "yes")
LOG_RATES = FloatDistribution(1e-5, 1e-1, log=True)
Tune = Callable[..., Tuned]


@pytest.fixture(scope="module")
def finished_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve finished runs of the task, best near a learning rate of 0.01 and a weight decay of 0.1."""
    path, rng = tmp_path_factory.mktemp("taught") / "history.db", random.Random(0)
    with History(path) as history:
        for _ in range(12):
            rate, decay = 10 ** rng.uniform(-5, -1), rng.choice([0.0, 0.01, 0.1])
            hparams = {"learning_rate": rate, "weight_decay": decay, "batch_size": 8, "global_batch_size": 8}
            with history.start_run(task="points", hparams=hparams, objective=OBJECTIVE) as run:
                run.log({OBJECTIVE: 0.2 + 0.1 * (math.log10(rate) + 2) ** 2 - 0.1 * decay}, step=2, epoch=1)
                run.update(epochs_reached=1.0)
    return path


@pytest.fixture
def taught(finished_runs: Path, tmp_path: Path) -> Path:
    """A copy of that history."""
    return copied(finished_runs, tmp_path / "taught.db")


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def tune(host: str, tmp_path: Path) -> Tune:
    """Tune and train once with the host; the arguments are those of ``Training``."""
    return lambda history, **asked: train(host, Training(history, **asked), tmp_path)


def copied(source: Path, target: Path) -> Path:
    """Copy a history, with what stands in its write-ahead log only."""
    with contextlib.closing(sqlite3.connect(source)) as old, contextlib.closing(sqlite3.connect(target)) as new:
        old.backup(new)
    return target


def pin(path: Path, monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
    numbers = (0.1, (0.0, 0.2), 0.5, 0.9, 1.0, Unit.OBJECTIVE, Evidence(n_runs=9), Decision.APPLY, "better")
    with History(path) as history:
        save_recommendation(history, Recommendation("stored", config, *numbers))
    monkeypatch.setenv("METAHP_PIN", "stored")


def source_of(tuned: Tuned, name: str) -> Source:
    assert tuned.run is not None
    return tuned.run.provenance[name].source


def is_default(tuned: Tuned) -> bool:
    return tuned.values == {name: pytest.approx(value) for name, value in DEFAULTS.items()}


# who decides a value


def test_a_default_gives_way_to_the_meta_model(tune: Tune, taught: Path) -> None:
    tuned = tune(taught)
    assert 3e-3 < tuned.values["learning_rate"] < 3e-2
    assert source_of(tuned, "learning_rate") is Source.METAHP
    rate = tuned.run.provenance["learning_rate"] if tuned.run else None
    assert rate is not None
    assert (rate.value, rate.requested) == (pytest.approx(tuned.values["learning_rate"]), DEFAULTS["learning_rate"])
    assert re.search(r"^metahp: .*learning_rate 5e-05 -> 0\.0", tuned.message)


def test_what_the_user_sets_stays_and_is_named(tune: Tune, taught: Path) -> None:
    tuned = tune(taught, explicit={"learning_rate": 2e-5})
    assert tuned.values["learning_rate"] == 2e-5
    assert source_of(tuned, "learning_rate") is Source.USER
    assert re.search(r"\blearning_rate stays 2e-05: (set by you; list it in space to have it tuned|named in keep)", tuned.message)


def test_a_space_permits_to_rewrite_what_the_user_sets(tune: Tune, taught: Path) -> None:
    tuned = tune(taught, explicit={"learning_rate": 2e-5}, space={"lr": LOG_RATES})
    assert tuned.values["learning_rate"] > 1e-3
    assert tuned.values["weight_decay"] == 0.0, "what the space does not name stays"


def test_what_keep_names_stays_and_is_named(tune: Tune, taught: Path) -> None:
    tuned = tune(taught, space={"learning_rate": LOG_RATES, "weight_decay": [0.0, 0.1]}, keep=("lr",))
    assert tuned.values["learning_rate"] == DEFAULTS["learning_rate"]
    assert "learning_rate stays 5e-05: named in keep" in tuned.message


def test_a_batch_never_exceeds_the_data(tune: Tune, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(taught, monkeypatch, batch_size=64)
    tuned = tune(taught, space={"batch_size": [8, 16, 64]})
    assert tuned.values["batch_size"] == 16
    assert source_of(tuned, PER_DEVICE_BATCH_SIZE) is Source.CONSTRAINT
    assert "the data set has 16 samples" in tuned.message


def test_a_dry_run_changes_nothing_and_shows_what_it_would(tune: Tune, taught: Path) -> None:
    tuned = tune(taught, mode="dry-run")
    assert is_default(tuned)
    assert tuned.run is not None
    assert tuned.run.recommendation_id is None
    assert re.search(r"^metahp: .*learning_rate 5e-05 -> 0\.0", tuned.message)
    assert "Dry run: nothing was rewritten." in tuned.message


def test_a_dry_run_names_a_recommendation_only_where_it_can_be_pinned(tune: Tune, taught: Path, tmp_path: Path) -> None:
    assert tune(taught, mode="dry-run").recommendation is not None
    assert "METAHP_PIN" not in tune(tmp_path / "new.db", mode="dry-run").message


# one decision


def test_the_same_history_gives_the_same_advice(host: str, finished_runs: Path, tmp_path: Path) -> None:
    found = {}
    for name in {host, "suggest"}:
        (tmp_path / name).mkdir()
        path = copied(finished_runs, tmp_path / name / "taught.db")
        found[name] = train(name, Training(path, space={"learning_rate": LOG_RATES}), tmp_path / name)
    ours, reference = found[host], found["suggest"]
    assert ours.values["learning_rate"] == pytest.approx(reference.values["learning_rate"], rel=1e-6)
    assert without_id(ours.message) == without_id(reference.message)


def without_id(message: str) -> list[str]:
    return re.sub(r"\d{6}-\d{9}-[0-9a-f]{8}", "ID", message).splitlines()


# what was recorded


def recorded(tune: Tune, path: Path) -> Any:
    """Train once untuned; return the run as this host records it."""
    tuned = tune(path, mode="dry-run")
    assert tuned.run is not None
    return tuned.run


def test_what_ran_out_of_memory_in_32_bits_limits_32_bits_only(tune: Tune, tmp_path: Path) -> None:
    path = tmp_path / "oom.db"
    like = recorded(tune, path)
    hparams = {"batch_size": 8, "learning_rate": 5e-5, "precision": "32-true"}
    with History(path) as history:
        fields = {"objective": OBJECTIVE, "model_class": like.model_class, "n_parameters": like.n_parameters}
        history.start_run(task="other", hparams=hparams, **fields).finish("oom")
        # What finished with this batch would show that it fits.
        history.start_run(task="points", hparams=hparams, **fields).finish("oom")
    forget(path, like.id)
    low = tune(path, is_low_precision=True)
    assert low.values["batch_size"] == 8
    assert "ran out of memory" not in low.message
    forget(path, low.run.id if low.run else "")
    full = tune(path)
    assert full.values["batch_size"] == 7
    assert source_of(full, PER_DEVICE_BATCH_SIZE) is Source.CONSTRAINT
    assert "batch_size: a batch of 8 per device ran out of memory (10% margin kept)" in full.message


def forget(path: Path, run_id: str) -> None:
    """Take a run out of a history."""
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table, column in (("metrics", "run_id"), ("hparams", "run_id"), ("runs", "id")):
            connection.execute(f"DELETE FROM {table} WHERE {column} = ?", (run_id,))


def test_an_explicit_value_comes_before_a_limit(tune: Tune, tmp_path: Path) -> None:
    path = tmp_path / "oom.db"
    like = recorded(tune, path)
    with History(path) as history:
        fields = {"objective": OBJECTIVE, "model_class": like.model_class, "n_parameters": like.n_parameters}
        history.start_run(task="points", hparams={"batch_size": 4, "precision": "32-true"}, **fields).finish("oom")
    forget(path, like.id)
    assert tune(path, explicit={"batch_size": 5}).values["batch_size"] == 5


def test_runs_of_changed_model_code_count_as_related(tune: Tune, tmp_path: Path) -> None:
    path = tmp_path / "versions.db"
    like = recorded(tune, path)
    assert like.variant is not None
    with History(path) as history:
        for rate in (1e-5, 1e-4, 1e-3, 3e-3, 1e-2):
            hparams = {"learning_rate": rate, "batch_size": 8}
            with history.start_run(task="points", hparams=hparams, objective=OBJECTIVE, variant=like.variant) as run:
                run.log({OBJECTIVE: 1.0 + abs(math.log10(rate) + 2)}, step=2, epoch=1)
    same = tune(path, mode="dry-run")
    assert same.recommendation is not None
    evidence = same.recommendation["recommendation"]["evidence"]
    assert (evidence["n_runs"], evidence["n_related"]) == (6, 0)
    with History(path) as history:
        first, *_, last = history.runs()
    # With one seed and one outcome the dry run is the first run again, and no second draw.
    is_same_again = first.hparams.get("seed") is not None and last.objective_best == pytest.approx(first.objective_best, rel=1e-6)
    changed = tune(path, mode="dry-run", is_changed=True)
    assert changed.recommendation is not None, changed.message
    evidence = changed.recommendation["recommendation"]["evidence"]
    assert (evidence["n_runs"], evidence["n_related"]) == (0, 6 if is_same_again else 7)


def test_no_history_is_made_before_the_training_begins(tune: Tune, tmp_path: Path) -> None:
    tuned = tune(tmp_path / "new.db")
    assert not tuned.was_made_early
    assert is_default(tuned)
    assert "metahp: nothing changed; not enough history (no run with an outcome)" in tuned.message
    assert len(tuned.message.splitlines()) == 1
    assert "METAHP_PIN" not in tuned.message
    assert tuned.run is not None
    assert tuned.recommendation is not None, "it is saved as soon as there is a history"
    assert tuned.run.recommendation_id == tuned.recommendation["recommendation"]["id"]
    assert tuned.recommendation["run_id"] == tuned.run.id


def test_a_run_is_linked_to_what_it_follows(tune: Tune, taught: Path) -> None:
    tuned = tune(taught)
    assert tuned.run is not None
    assert tuned.recommendation is not None
    assert tuned.run.recommendation_id == tuned.recommendation["recommendation"]["id"]
    assert tuned.recommendation["run_id"] == tuned.run.id
    assert "learning_rate" in {change["name"] for change in tuned.recommendation["changes"]}


def test_the_task_of_the_recommendation_is_that_of_the_run(tune: Tune, tmp_path: Path) -> None:
    tuned = tune(tmp_path / "new.db", task=None)
    assert tuned.run is not None
    assert tuned.recommendation is not None
    assert tuned.recommendation["recommendation"]["task_id"] == tuned.run.task_id


# what is pinned


def test_a_pinned_recommendation_names_each_value_that_was_not_applied(tune: Tune, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(taught, monkeypatch, learning_rate=0.02, weight_decay=0.1, zorp=3)
    tuned = tune(taught, space={"learning_rate": [0.02]})
    assert (tuned.values["learning_rate"], tuned.values["weight_decay"]) == (pytest.approx(0.02), 0.0)
    lines = tuned.message.splitlines()
    assert "  weight_decay 0.1 was not applied: it is not in space" in lines
    assert "  zorp 3 was not applied: this run has no such hyperparameter" in lines
    assert "expected" not in tuned.message, "the prediction is for all values together"
    assert tuned.run is not None
    assert tuned.run.recommendation_id == "stored"


def test_a_pinned_recommendation_that_is_applied_as_a_whole_repeats_its_prediction(
    tune: Tune, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pin(taught, monkeypatch, learning_rate=0.02, weight_decay=0.1)
    tuned = tune(taught)
    assert (tuned.values["learning_rate"], tuned.values["weight_decay"]) == (pytest.approx(0.02), pytest.approx(0.1))
    assert "not applied" not in tuned.message
    assert "  expected eval_loss 0.1" in tuned.message


def test_a_value_kept_or_set_by_the_user_is_named_with_that_reason(tune: Tune, taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(taught, monkeypatch, learning_rate=0.02, weight_decay=0.1)
    tuned = tune(taught, explicit={"learning_rate": 2e-5}, keep=("weight_decay",))
    assert (tuned.values["learning_rate"], tuned.values["weight_decay"]) == (2e-5, 0.0)
    reason = r"(set by you; list it in space to have it tuned|named in keep)"
    assert re.search(rf"^  learning_rate stays 2e-05: {reason}; 0.02 was not applied$", tuned.message, re.M)
    assert "  weight_decay stays 0: named in keep; 0.1 was not applied" in tuned.message.splitlines()
    assert tuned.message.startswith("metahp: nothing changed; ")


# switches


@pytest.mark.parametrize("word", OFF_WORDS)
def test_metahp_is_switched_off_by_each_word(tune: Tune, taught: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("METAHP", word)
    tuned = tune(taught)
    assert is_default(tuned)
    assert tuned.message == ""


@pytest.mark.parametrize("word", [*OFF_WORDS, ON_WORDS[2]])
def test_the_starter_history_is_switched_by_each_word(tune: Tune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv("METAHP_STARTER", word)
    tuned = tune(tmp_path / "new.db", mode="dry-run")
    assert ("starter history" in tuned.message) == (word in ON_WORDS)


@pytest.fixture(scope="module")
def three_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three tasks with eight runs each, and no meta-model yet."""
    path, rng = tmp_path_factory.mktemp("three") / "history.db", random.Random(0)
    with History(path) as history:
        for task in ("one", "two", "three"):
            for _ in range(8):
                rate = 10 ** rng.uniform(-5, -1)
                with history.start_run(task=task, hparams={"learning_rate": rate, "batch_size": 8}, objective=OBJECTIVE) as run:
                    run.log({OBJECTIVE: 0.2 + 0.1 * (math.log10(rate) + 2) ** 2}, step=2, epoch=1)
    return path


@pytest.mark.parametrize("word", [OFF_WORDS[2], ON_WORDS[3]])
def test_fitting_is_switched_by_each_word(
    tune: Tune, three_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("METAHP_REFIT", word)
    path = copied(three_tasks, tmp_path / "three.db")
    tune(path, mode="dry-run")
    with History(path) as history:
        assert bool(history.models()) == (word in ON_WORDS)


def test_an_unknown_word_is_one_warning_that_names_the_possible_ones(
    host: str, tune: Tune, three_tasks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, word = ("METAHP", "METAHP_REFIT", "METAHP_STARTER"), f"perhaps {host}".lower()
    for name in names:
        monkeypatch.setenv(name, word)
    path = copied(three_tasks, tmp_path / "three.db")
    warned = [text for _ in range(2) for text in tune(path, mode="dry-run").warned if word in text]
    assert sorted(warned) == [
        f"{name} must be one of 0, 1, false, no, off, on, true, yes, but is '{word}'; it is taken as on. Set {name}=off or {name}=on."
        for name in names
    ]


# a run that resumes another


def test_a_resumed_run_keeps_the_values_it_began_with(
    host: str, tune: Tune, taught: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if host not in CHECKPOINTS:
        pytest.skip(f"{host} has no checkpoints: a loop of one's own saves and loads them itself")
    pin(taught, monkeypatch, learning_rate=0.02)
    first = tune(taught, space={"learning_rate": [0.02, 0.5]}, n_epochs=2, is_interrupted=True)
    assert first.run is not None
    assert (first.run.status, first.values["learning_rate"]) == (RunStatus.INTERRUPTED, pytest.approx(0.02))
    monkeypatch.delenv("METAHP_PIN")
    resumed = tune(taught, space={"learning_rate": [1e-5, 0.5]}, n_epochs=2, checkpoint=CHECKPOINTS[host](tmp_path))
    assert resumed.values["learning_rate"] == pytest.approx(0.02), "neither predicted anew nor the value of this call"
    assert resumed.run is None, "there is no new row"
    (row,) = [run for run in runs_in(taught) if run.id == first.run.id]
    assert (row.status, row.attempt, row.recommendation_id) == (RunStatus.COMPLETED, 1, "stored")
    rate = row.provenance["learning_rate"]
    assert (rate.value, rate.observed) == (pytest.approx(0.02), pytest.approx(0.02))
    assert "expected" not in resumed.message, "nothing is predicted for it"


@pytest.fixture(params=RECORDERS)
def record(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Train with a recording callback; the arguments are those of ``RECORDERS``."""

    def play(n_epochs: int, checkpoint: Path | None = None, *, is_interrupted: bool = False) -> Path:
        with quiet():
            return RECORDERS[request.param](tmp_path / "runs.db", tmp_path, n_epochs, checkpoint, is_interrupted=is_interrupted)

    return play


def test_a_completed_run_that_is_trained_further_is_a_new_row_that_names_its_parent(record: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = record(1)
    (first,) = runs_in(tmp_path / "runs.db")
    assert first.status is RunStatus.COMPLETED
    record(2, checkpoint)
    unchanged, further = runs_in(tmp_path / "runs.db")
    assert unchanged == first
    assert (further.parent_run_id, further.status, further.task_id) == (first.id, RunStatus.COMPLETED, first.task_id)


def test_an_interrupted_run_goes_on_in_its_row(record: Callable[..., Path], tmp_path: Path) -> None:
    checkpoint = record(2, is_interrupted=True)
    (first,) = runs_in(tmp_path / "runs.db")
    assert first.status is RunStatus.INTERRUPTED
    record(2, checkpoint)
    (resumed,) = runs_in(tmp_path / "runs.db")
    assert (resumed.id, resumed.attempt, resumed.status, resumed.parent_run_id) == (first.id, 1, RunStatus.COMPLETED, None)
