"""``metahp report``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def test_a_report_is_one_page_and_its_findings_are_printed(call: Callable[..., Any], recorded: Path, tmp_path: Path) -> None:
    pytest.importorskip("plotly", reason="plotly, the extra `report`, is not installed")
    out = tmp_path / "r.html"
    answer = call("report", "--history", recorded, "--out", out)
    assert answer.code == 0
    assert answer.out.startswith("- ")
    assert f"Written: {out} (" in answer.err
    assert out.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_pictures_alone_need_no_plotly(recorded: Path, tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['plotly'] = None\nfrom metahp_cli.main import main\n"
        f"main(['report', '--history', {str(recorded)!r}, '--png', {str(tmp_path / 'cost.png')!r}, '--format', 'json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    printed = json.loads(done.stdout)
    assert (printed["page"], printed["pictures"]) == (None, [str(tmp_path / "cost.png")])
    assert (tmp_path / "cost.png").exists()
    assert not Path("report.html").exists()


def test_without_plotly_the_extra_is_named(
    call: Callable[..., Any], recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plotly", None)
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    answer = call("report", "--history", recorded, "--out", tmp_path / "r.html")
    assert answer.code == 1
    assert "pip install 'lightning-metahp[report]'" in answer.err
    assert "--png FOLDER" in answer.err


def test_a_comparison_that_is_not_there_shows_how_to_make_one(call: Callable[..., Any], recorded: Path, tmp_path: Path) -> None:
    answer = call("report", "--history", recorded, "--comparison", "newest", "--out", tmp_path / "r.html")
    assert answer.code == 1
    assert "metahp compare-baselines live" in answer.err
    assert not (tmp_path / "r.html").exists()


def test_a_picture_of_no_known_name_is_an_error_with_the_possible_ones(call: Callable[..., Any], recorded: Path, tmp_path: Path) -> None:
    answer = call("report", "--history", recorded, "--png", tmp_path / "nope.png")
    assert answer.code == 1
    assert "possible are runs-over-time.png" in answer.err
