from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from metahp_report import Report, history_report, render_page, write_page
from metahp_report.page import embedded
from metahp_report.parts import Gallery, Kind, Plot, Prose, Section, Series, Table
from store import History, HistoryPathError
from tests.metahp_report.conftest import HOSTILE

pytest.importorskip("plotly", reason="plotly, the extra `report`, is not installed")


class Elements(HTMLParser):
    """Every element of a page with its attributes, as a browser would read them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def report_with(text: str) -> Report:
    """Return a report that has a text in every place a report has."""
    plot = Plot(
        text, text, (Series(text, [text, "b"], [1, 2], Kind.BARS, hover=[text, text]),), text, text, x_ticks=((0.0, text),), note=text
    )
    parts = (plot, Gallery(text, ((text, plot), (text, plot)), text), Table(text, (text, text), ((text, text),), note=text), Prose(text))
    return Report(text, text, ((text, text, text),), (text,), (Section(text, text, parts),), (text,))


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_adds_an_element_an_attribute_or_a_script(text: str) -> None:
    plain, hostile = (Elements(render_page(report_with(given))).found for given in ("harmless", text))
    assert [tag for tag, _ in hostile] == [tag for tag, _ in plain]
    assert [sorted(attributes) for _, attributes in hostile] == [sorted(attributes) for _, attributes in plain]
    assert sum(tag == "script" for tag, _ in hostile) == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_data_in_a_script_can_neither_end_it_nor_begin_a_comment(text: str) -> None:
    written = embedded({"name": text})
    assert json.loads(written) == {"name": text}
    assert not re.search(r"[<>&\u2028\u2029]", written)


def test_a_number_that_json_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        embedded({"value": float("nan")})


def test_the_page_asks_for_nothing_from_outside_and_lets_only_its_own_scripts_run(opened: Callable[[], History]) -> None:
    with opened() as history:
        page = render_page(history_report(history))
    elements = Elements(page).found
    assert not [tag for tag, attributes in elements if attributes.get("src")]
    assert [attributes["href"] for tag, attributes in elements if tag == "link"] == ["data:,"]
    (policy,) = (item["content"] for tag, item in elements if tag == "meta" and item.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-eval" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_the_page_says_its_size(opened: Callable[[], History], tmp_path: Path) -> None:
    with opened() as history:
        size = write_page(history_report(history), tmp_path / "r.html")
    assert size == (tmp_path / "r.html").stat().st_size
    assert f"This file is {size / 1e6:.1f} MB, of which" in (tmp_path / "r.html").read_text()


def test_a_page_that_cannot_be_written_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(HistoryPathError, match="No such file or directory"):
        write_page(report_with("a"), tmp_path / "missing" / "r.html")
