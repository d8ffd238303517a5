from __future__ import annotations

import json
from pathlib import Path

import pytest

from metahp_cli.output import UNLIMITED_WIDTH

OPTIONS = ("--n-hist", 5, "--budget", 4, "--seeds", 1, "--methods", "random,grid", "--workers", 1)


def test_replaying_a_history_prints_the_table_and_draws(call, recorded: Path, tmp_path: Path) -> None:
    answer = call("compare-baselines", "replay", *OPTIONS, "--history", recorded, "--picture", tmp_path / "r.png")
    assert answer.code == 0, answer.err
    assert "Normalised regret of val_acc: 3 tasks" in answer.out
    assert "grid" in answer.out
    assert (tmp_path / "r.png").exists()


def test_json_is_the_report(call, recorded: Path) -> None:
    answer = call("compare-baselines", "replay", *OPTIONS, "--history", recorded, "--format", "json", "--folds", "loo")
    found = json.loads(answer.out)
    assert set(found) == {"protocol", "random_exact", "methods"}
    assert found["protocol"]["folds"] == "loo"
    assert found["methods"]["random"]["regret"] == found["random_exact"]


def test_the_bare_command_shows_how_many_runs_are_missing(call, tmp_path: Path) -> None:
    from store import History

    with History(tmp_path / "few.db") as history:
        for i in range(3):
            with history.start_run(task="wine", hparams={"lr": 0.1 * (i + 1)}, objective="val_acc") as run:
                run.log(val_acc=0.1 * i)
    answer = call("compare-baselines", "--history", tmp_path / "few.db")
    assert answer.code == 1
    assert "27 runs are missing: 7 more of 'wine' (3 now), 10 of each of 2 other tasks" in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_scenario_is_explained_and_compared(call, recorded: Path) -> None:
    words = ("--methods", "best-of-past,metahp", "--scenario", "few-1", "--history", recorded)
    answer = call("compare-baselines", "replay", *OPTIONS, *words)
    assert answer.code == 0, answer.err
    assert "Scenario few-1: 1 past task with 3 to 80 runs each." in answer.err
    assert "below 0 where metahp is better" in answer.out


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (("--methods", "magic"), "ossible are random, grid"),
        (("--methods", "metaph"), "did you mean 'metahp'"),
        (("--scenario", "failure"), "did you mean 'failures'"),
        (("--scenario", "few-12"), "needs as many past tasks"),
        (("--folds", 9), "at most as many as tasks, but got 9 for 3"),
        (("--holdout", "digits,iris,wine"), "all 3 are held out"),
        (("--budget", 500), "500 are needed"),
        (("--folds", "one"), "'loo' or a number"),
        (("--holdout", "mnist"), "possible are digits, iris, wine"),
        (("--objective", "f1"), "got 'f1'; possible are val_acc"),
        (("--n-hist", 50), "has 0"),
        (("--budget", 0), "budget must be at least 1"),
    ],
)
def test_bad_input_is_one_line(call, recorded: Path, extra: tuple[object, ...], message: str) -> None:
    answer = call("compare-baselines", "replay", *OPTIONS, *extra, "--history", recorded)
    assert answer.code == 1
    assert message in answer.err
    assert len(answer.err.strip().splitlines()) == 1


def test_a_replay_of_the_first_day_needs_a_mapping_and_no_past(call, recorded: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("METAHP_STARTER")
    (tmp_path / "mapping.json").write_text('{"known": {"model_family": "mlp", "optimizer": "Adam"}}')
    options = ("--budget", 2, "--seeds", 1, "--methods", "random,defaults,starter", "--workers", 1, "--history", recorded)
    answer = call("compare-baselines", "replay", *options, "--starter", tmp_path / "mapping.json")
    assert answer.code == 0, answer.err
    assert "starter" in answer.out
    assert "defaults" in answer.out
    missing = call("compare-baselines", "replay", *options, "--starter", tmp_path / "none.json")
    assert missing.code == 1
    assert "A mapping file must be a JSON object" in missing.err


def test_a_narrow_terminal_gets_two_tables_and_no_cell_is_broken(capsys) -> None:
    from metahp_cli.replay import print_wide

    columns, row = ["method", "k=1", "k=2", "x" * UNLIMITED_WIDTH], ["grid", ".5", ".4", "y"]
    print_wide(columns, [row], 3, "Title")
    lines = capsys.readouterr().out.splitlines()
    assert lines[:4] == ["Title", "method  k=1  k=2", "------  ---  ---", "grid    .5   .4"]
    assert lines[4] == ""
    assert lines[7] == "grid    y"
