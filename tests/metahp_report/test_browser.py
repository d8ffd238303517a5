"""The report in a real browser: Debian's Chromium, driven by Playwright, without a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metahp_report import Report, comparison_report, history_report, write_page
from metahp_report.wording import clean
from store import History
from tests.metahp_report.conftest import HOSTILE
from tests.metahp_report.recorded_comparison import write_comparison
from tests.metahp_report.test_page import report_with

pytest.importorskip("plotly", reason="plotly, the extra `report`, is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium in the path; apt-get install chromium, or set CHROMIUM")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # the sandbox needs rights that containers do not have; the page comes from this test
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield opened
        opened.close()


_PATIENCE_MS = 180_000
"""A page of 5 MB is read in a second, but not where twenty other processes want the same two cores."""


class Visit:
    """A page as it was loaded, and everything it said and asked for."""

    def __init__(self, browser: Any, path: Path, scheme: str = "light") -> None:
        self.said: list[str] = []
        self.asked: list[str] = []
        for earlier in browser.contexts:
            earlier.close()
        context = browser.new_context(viewport={"width": 1280, "height": 800}, color_scheme=scheme, offline=True)
        context.set_default_timeout(_PATIENCE_MS)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(f"error: {error}"))
        self.page.on("dialog", lambda dialog: self.said.append(f"dialog: {dialog.message}"))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")

    def ask(self, script: str) -> Any:
        return self.page.evaluate(script)

    def choose_everything(self) -> None:
        """Show each plot of each list in turn."""
        for choice in self.page.query_selector_all("select"):
            for option in choice.query_selector_all("option"):
                choice.select_option(value=option.get_attribute("value"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[Report], Path]:
    def write(report: Report) -> Path:
        write_page(report, tmp_path / "report.html")
        return tmp_path / "report.html"

    return write


def check_quiet(visit: Visit, path: Path) -> None:
    assert visit.said == []
    assert [url for url in visit.asked if url != path.as_uri() and not url.startswith(("data:", "blob:"))] == []


@pytest.fixture(scope="module")
def page(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a history with every kind of run."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    with History(filled, create=False) as history:
        write_page(history_report(history), path)
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_history_loads_offline_draws_every_plot_and_says_nothing(browser: Any, page: Path, scheme: str) -> None:
    visit = Visit(browser, page, scheme)
    visit.choose_everything()
    check_quiet(visit, page)
    n_plots = visit.ask("document.querySelectorAll('.plot').length")
    assert n_plots >= 6
    # every plot has marks, lines or bars in it, not only axes
    marks = "[...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.trace').length)"
    assert min(visit.ask(marks)) > 0
    assert visit.ask("document.querySelectorAll('.failed').length") == 0
    assert visit.ask("document.documentElement.scrollWidth") <= 1280


def test_a_comparison_loads_offline_and_draws_every_plot(browser: Any, tmp_path: Path, written: Callable[[Report], Path]) -> None:
    with History(tmp_path / "h.db") as history:
        write_comparison(history, has_energy=True)
        path = written(comparison_report(history))
    visit = Visit(browser, path)
    visit.choose_everything()
    check_quiet(visit, path)
    assert min(visit.ask("[...document.querySelectorAll('.plot')].map(plot => plot.querySelectorAll('.trace').length)")) > 0
    assert visit.ask("document.documentElement.scrollWidth") <= 1280


def test_hostile_names_of_a_history_are_shown_and_do_nothing(browser: Any, hostile: Path, written: Callable[[Report], Path]) -> None:
    with History(hostile, create=False) as history:
        path = written(history_report(history))
    visit = Visit(browser, path)
    visit.choose_everything()
    for element in visit.page.query_selector_all(".plot .scatterlayer .point")[:3]:
        element.hover(force=True)
    check_quiet(visit, path)
    assert visit.page.title() == "What your training runs taught"
    assert visit.ask("document.querySelectorAll('main img, main script, main iframe, main b.x, svg a, svg image').length") == 0
    # only the chapters are linked to
    assert all(link.startswith("#s") for link in visit.ask("[...document.querySelectorAll('a[href]')].map(a => a.getAttribute('href'))"))
    assert "</script><script>document.title='broken'</script>" in visit.page.inner_text("table >> nth=0")


def test_hostile_text_in_every_place_of_a_report_does_nothing(browser: Any, written: Callable[[Report], Path]) -> None:
    reports = [report_with(text) for text in HOSTILE]
    path = written(replace(reports[0], sections=tuple(section for report in reports for section in report.sections)))
    visit = Visit(browser, path)
    visit.choose_everything()
    plots = visit.page.query_selector_all(".plot")
    assert len(plots) == 2 * len(HOSTILE)
    for plot in plots:
        bar = plot.query_selector(".bars .point path")
        bar.scroll_into_view_if_needed()
        bar.hover(force=True)
        plot.wait_for_selector(".hoverlayer .hovertext", state="attached")
    check_quiet(visit, path)
    assert visit.page.title() == HOSTILE[0]
    assert visit.ask("document.querySelectorAll('main img, main script, svg a, svg image').length") == 0
    # letter by letter: Plotly's own markup would have taken the tags away
    titles = visit.ask("[...document.querySelectorAll('.plot .xtitle')].map(title => title.textContent)")
    assert titles == [text for text in map(clean, HOSTILE) for _ in range(2)]


def test_a_script_that_got_in_all_the_same_would_not_run(browser: Any, written: Callable[[Report], Path]) -> None:
    path = written(report_with("harmless"))
    page = path.read_text(encoding="utf-8")
    path.write_text(
        page.replace("</main>", "</main><script>document.title = 'broken'</script><img src='data:,' onerror='document.title=1'>")
    )
    visit = Visit(browser, path)
    assert visit.page.title() == "harmless"
    assert any("Content Security Policy" in text for text in visit.said)


def test_colours_follow_the_theme_also_when_it_changes(browser: Any, page: Path) -> None:
    visit = Visit(browser, page, "light")
    colour = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    ground = "getComputedStyle(document.querySelector('section')).backgroundColor"
    light = visit.ask(colour), visit.ask(ground)
    visit.page.emulate_media(color_scheme="dark")
    for _ in range(600):  # the page's policy forbids the predicates that Playwright waits for
        if visit.ask(colour) != light[0]:
            break
        visit.page.wait_for_timeout(50)
    dark = visit.ask(colour), visit.ask(ground)
    assert light == ("rgb(38, 43, 51)", "rgb(255, 255, 255)")
    assert dark == ("rgb(222, 226, 232)", "rgb(24, 28, 35)")
    check_quiet(visit, page)
