"""The shipped networks as tables: the same runs as the starter history, ready for a replay."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from compare_baselines.replay import run_replay
from metamodel.starter.starter_prior import shipped
from store import InvalidArgumentError
from studies.replay.shipped import COLUMNS, main, write_table
from studies.replay.tables import REPLAY_TABLES, load_table


def test_a_table_has_every_run_of_a_family_with_its_worth(tmp_path: Path) -> None:
    assert main(["cnn", str(tmp_path / "cnn.parquet")]) == 0
    table = pq.read_table(tmp_path / "cnn.parquet").to_pandas()
    assert set(table.columns) == {*COLUMNS.read, *COLUMNS.hparams}
    family = shipped("cnn")
    assert family is not None
    name = str(family.task(0).description.name)
    rows = table[(table.task == name) & (table.optimizer == "SGD")]
    assert table.task.nunique() == 18
    assert len(table) == 18 * 64
    # What the shipped model learned from are the same values, in single precision.
    assert np.sort(rows.score) == pytest.approx(np.sort(family.task(0).values), abs=1e-5)


def test_a_family_that_is_not_shipped_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match=r"got 'resnet'\. Possible are"):
        write_table("resnet", tmp_path / "t.parquet")


def test_shipped_networks_are_replayed_without_the_data_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("METAHP_SHARED_DATA", str(tmp_path / "missing"))
    table = next(table for table in REPLAY_TABLES if table.name == "shipped_transformer")
    with load_table(table, 1) as (_, benchmark):
        report = run_replay(benchmark, ["best-of-past"], workers=1)
    assert len(report["protocol"]["tasks"]) == 15
    assert report["protocol"]["n_hist"] == 30
    # Tasks that say nothing of each other would leave it at random search.
    assert report["methods"]["best-of-past"]["regret"][4] < report["random_exact"][4]
