from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from metahp_report import comparison_report, history_report, save_pictures
from metahp_report.parts import Kind, Plot, Report, Section, Series
from metahp_report.pictures import draw
from store import History, HistoryPathError, InvalidArgumentError
from tests.metahp_report.conftest import HOSTILE
from tests.metahp_report.recorded_comparison import write_comparison


def size_of(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    return width, height


def test_a_folder_gets_every_plot_of_a_comparison(tmp_path: Path) -> None:
    with History(tmp_path / "h.db") as history:
        write_comparison(history, tasks=("series",), has_energy=True)
        report = comparison_report(history)
    files = save_pictures(report, tmp_path / "new" / "pictures")
    assert [path.stem for path in files] == [plot.name for plot in report.plots()]
    assert all(size_of(path)[0] > 1000 for path in files)


def test_a_file_gets_the_plot_it_is_named_after(opened: Callable[[], History], tmp_path: Path) -> None:
    with opened() as history:
        report = history_report(history)
    assert save_pictures(report, tmp_path / "cost.png") == [tmp_path / "cost.png"]
    assert [path.name for path in tmp_path.glob("*.png")] == ["cost.png"]
    with pytest.raises(
        InvalidArgumentError, match=r"'costs.png'; possible are runs-over-time.png, .*cost.png. Name a folder for all of them."
    ):
        save_pictures(report, tmp_path / "costs.png")


def test_foreign_text_is_no_formula(tmp_path: Path) -> None:
    for index, text in enumerate([*HOSTILE, "$\\broken{"]):
        series = Series(text, [text, "b"], [1.0, 2.0], Kind.BARS), Series("b", [text, "b"], [1.0, None], Kind.POINTS, symbol="x")
        assert size_of(draw(Plot("p", text, series, text, text), tmp_path / f"{index}.png"))[1] > 300


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HistoryPathError, match="Name another place with --png"):
        save_pictures(Report("t", "s", (), (), (Section("a", "b", ()),)), tmp_path / "file")
