"""``metahp refit``, ``metahp model`` and ``metahp recommend``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from metahp_cli.calibration import print_calibration
from metahp_cli.main import main
from metahp_cli.models import accuracy_rows
from store import History


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A history beside which ``metahp refit`` put a model, once for all tests here."""
    path = tmp_path_factory.mktemp("learned") / "history.db"
    with History(path) as history:
        for task in ("wine", "iris", "digits"):
            for index in range(10):
                lr = 10.0 ** (-5 + 0.4 * index)
                with history.start_run(task=task, hparams={"lr": lr, "batch_size": 16 << index % 3}, objective="val_acc") as run:
                    run.log(val_acc=0.9 - abs(index - 5) / 10)
    with redirect_stdout(StringIO()) as out, pytest.raises(SystemExit) as stop:
        main(["refit", "--history", str(path), "--format", "json"])
    assert not stop.value.code
    (path.parent / "refit.json").write_text(out.getvalue())
    return path


def test_refit_shows_what_it_learned_from_and_model_shows_it(call: Callable[..., Any], learned: Path) -> None:
    fitted = json.loads((learned.parent / "refit.json").read_text())
    assert (fitted["n_runs"], fitted["n_tasks"]) == (30, 3)
    assert json.loads(call("model", "--history", learned, "--format", "json").out) == fitted


def test_model_shows_kind_age_and_file(call: Callable[..., Any], learned: Path) -> None:
    answer = call("model", "--history", learned)
    assert answer.code == 0
    shown = dict(line.split(maxsplit=1) for line in answer.out.splitlines())
    assert {"kind", "n_runs", "n_tasks", "age", "file"} <= set(shown)
    assert Path(shown["file"].strip()).exists()


def test_a_recommendation_is_explained_and_kept(call: Callable[..., Any], learned: Path) -> None:
    (given,) = json.loads(call("recommend", "--task", "digits", "--history", learned, "--format", "json").out)
    assert set(given) >= {"id", "config", "prediction", "interval", "evidence", "decision", "reason"}
    with History(learned) as history:
        assert history.recommendation(given["id"])["recommendation"]["config"] == given["config"]
    table = call("recommend", "--task", "digits", "--history", learned).out
    for text in ("recommendation", "decision", "configuration", "prediction", "evidence", "reason", "runs of this task"):
        assert text in table


def test_a_space_file_decides_what_may_be_chosen(call: Callable[..., Any], learned: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.json"
    space.write_text('{"lr": {"name": "FloatDistribution", "attributes": {"low": 1e-4, "high": 1e-3, "log": true, "step": null}}}')
    words = ("recommend", "--task", "wine", "--space", space, "--k", "2", "--mode", "explore", "--history", learned)
    found = json.loads(call(*words, "--format", "json").out)
    assert len(found) == 2
    assert all(set(one["config"]) == {"lr"} and 1e-4 <= one["config"]["lr"] <= 1e-3 for one in found)


def test_a_task_nobody_trained_is_answered_from_the_others_with_a_remark(call: Callable[..., Any], learned: Path) -> None:
    answer = call("recommend", "--task", "brand-new", "--history", learned)
    assert answer.code == 0
    assert "other tasks" in answer.out
    assert "No run of the task 'brand-new' with an outcome" in answer.err


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("not json", "A space file must be a readable JSON file"),
        ('{"lr": {"name": "FloatDistribution", "attributes": {"low": 1.0, "high": 0.1, "log": false}}}', "low"),
        ('{"lr": []}', "at least one value"),
        ("{}", "at least one hyperparameter"),
    ],
)
def test_a_malformed_space_is_one_line(call: Callable[..., Any], learned: Path, tmp_path: Path, content: str, expected: str) -> None:
    space = tmp_path / "space.json"
    space.write_text(content)
    answer = call("recommend", "--task", "digits", "--space", space, "--history", learned)
    assert (answer.code, answer.out) == (1, "")
    assert len(answer.err.splitlines()) == 1
    assert expected in answer.err


@pytest.mark.parametrize("command", ["refit", "model"])
def test_an_empty_history_teaches_nothing_and_shows_what_is_missing(call: Callable[..., Any], tmp_path: Path, command: str) -> None:
    path = tmp_path / "empty.db"
    History(path).close()
    answer = call(command, "--history", path)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("Error: ")
    assert len(answer.err.splitlines()) == 1


def test_with_thin_evidence_recommend_abstains_with_the_reason(call: Callable[..., Any], tmp_path: Path) -> None:
    path = tmp_path / "thin.db"
    with History(path) as history, history.start_run(task="t", hparams={"lr": 0.1}, objective="val_acc") as run:
        run.log(val_acc=0.5)
    answer = call("recommend", "--task", "t", "--history", path)
    assert answer.code == 0
    assert "abstain" in answer.out


def test_model_shows_the_coverage_of_its_intervals(call: Callable[..., Any], learned: Path, tmp_path: Path) -> None:
    """The fitted history has too few tasks to measure that, so a model is noted as a larger one would be."""
    coverage = {"levels": [0.5, 0.8], "half_widths": {"0": [0.4, 0.9]}, "coverage_before": {"0": [0.75, 0.98]}, "n_tasks": 8}
    path = tmp_path / "history.db"
    with History(path) as history, History(learned) as fitted:
        info = {**fitted.models()[-1]["info"], "coverage": coverage}
        history.models_path.mkdir()
        (history.models_path / "m.json").write_text("{}")
        history.save_model({"id": "m", "kind": "metahp", "file": "m.json", "n_runs": 30, "n_tasks": 3, "info": info})
    answer = call("model", "--history", path, "--png", tmp_path / "c.png")
    assert answer.code == 0
    lines = [line.split() for line in answer.out.splitlines() if "runs of the task" in line]
    assert [(line[5], line[6], line[-1]) for line in lines] == [("50%", "75%", "0.59"), ("80%", "98%", "0.70")]
    assert "=" * 20 + "|" in answer.out
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")


def test_a_picture_of_intervals_nobody_measured_is_refused(call: Callable[..., Any], learned: Path, tmp_path: Path) -> None:
    answer = call("model", "--history", learned, "--png", tmp_path / "c.png")
    assert answer.code == 1
    assert "too few tasks" in answer.err
    assert "ending in .png, but got 'c.txt'" in call("model", "--history", learned, "--png", tmp_path / "c.txt").err


def test_an_unknown_kind_of_model_is_refused_with_those_there_are(call: Callable[..., Any], learned: Path) -> None:
    for command in (["refit"], ["recommend", "--task", "t"]):
        answer = call(*command, "--model", "reptil", "--history", learned)
        assert answer.code == 1
        assert "did you mean 'reptile'?" in answer.err


def test_the_accuracy_of_direct_has_a_row_for_each_measure() -> None:
    errors = {"batch_size": {"exact": 0.25, "log2_error": 1.5}, "learning_rate": {"log10_error": 0.4}}
    columns, rows = accuracy_rows({"n_tasks": 6, "after": {"0": errors, "4": {"batch_size": errors["batch_size"]}}, "same_for_all": errors})
    assert columns == ["hyperparameter", "measure", "new task", "4 runs known", "same for all tasks"]
    assert rows == [
        ["batch_size", "exactly right", "25%", "25%", "25%"],
        ["batch_size", "off, doublings", "1.50", "1.50", "1.50"],
        ["learning_rate", "off, powers of ten", "0.40", "-", "0.40"],
    ]


@pytest.mark.parametrize(("trust", "shown"), [(1.0, ""), (0.12, "the prior weight of the history is reduced to 12%")])
def test_a_reduced_prior_weight_is_shown(trust: float, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    widths = {"0": [0.7, 1.3, 2.0]}
    coverage = {"levels": [0.5, 0.8, 0.95], "half_widths": widths, "coverage_before": {"0": [0.5, 0.8, 0.95]}, "n_tasks": 9, "trust": trust}
    print_calibration({"coverage": coverage})
    out = capsys.readouterr().out
    assert shown in out
    assert ("predict each other only weakly" in out) == bool(shown)
