"""A report as one HTML file that needs nothing else: no network, no other file.

Foreign text cannot act: the templates escape it as HTML, and it is escaped as JSON inside the page and as Plotly's own markup
(``figures``). A content security policy lets only the page's two scripts run, known by their digests, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metahp_report.figures import figure
from metahp_report.parts import Report
from metahp_report.theme import DARK, LIGHT
from metahp_report.wording import clean, show_size
from store.errors import HistoryPathError
from store.extras import needed_for

if TYPE_CHECKING:
    from jinja2 import Environment

LONGEST_TEXT = 2000
_SIZE = "\x00size\x00"  # stands for the file's own size until it is known; no text of the page can hold it


def write_page(report: Report, path: str | Path) -> int:
    """Write a report as an HTML file.

    Args:
        report: Its content.
        path: The file; its folder must exist.

    Returns:
        Its size in bytes.

    Raises:
        MissingDependencyError: If Plotly or Jinja2 is not installed.
        HistoryPathError: If the file cannot be written.
    """
    content = render_page(report).encode("utf-8")
    try:
        Path(path).write_bytes(content)
    except OSError as error:
        raise HistoryPathError(
            f"The report must go into a file that can be written, but {str(path)!r} gives: {error.strerror or error}. "
            "Name a file in an existing folder with --out."
        ) from error
    return len(content)


def render_page(report: Report) -> str:
    """Return a report as HTML.

    Raises:
        MissingDependencyError: If Plotly or Jinja2 is not installed.
    """
    plotly, environment = _imported()
    script, style = (resources.files("metahp_report").joinpath(name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    policy = f"default-src 'none'; script-src {_digest(plotly)} {_digest(script)}; "
    policy += "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'"
    # What the template marks as safe is our own, or JSON that holds no markup.
    text = environment.get_template("page.html").render(
        report=report,
        sections=[section for section in report.sections if section.parts],
        next_number=itertools.count().__next__,
        policy=policy,
        style=style,
        script=script,
        plotly=plotly,
        themes=embedded({"light": LIGHT, "dark": DARK}),
        figures=embedded([figure(plot) for plot in report.plots()]),
        size=_SIZE,
    )
    size = f"{show_size(len(text.encode('utf-8')))}, of which {show_size(len(plotly))} are Plotly"
    return text.replace(_SIZE, size)


def _imported() -> tuple[str, Environment]:
    """Return Plotly's script and what renders the templates: every text cleaned, then escaped."""
    way = "draw pictures without it: metahp report --png FOLDER" if find_spec("matplotlib") else ""
    with needed_for("A report as a page", otherwise=way):
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from plotly.offline import get_plotlyjs

    def cleaned(value: Any) -> Any:
        return clean(value, LONGEST_TEXT) if isinstance(value, str) and not hasattr(value, "__html__") else value

    environment = Environment(
        loader=PackageLoader("metahp_report"),
        autoescape=True,
        finalize=cleaned,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["shortened"] = clean
    return str(get_plotlyjs()), environment


def embedded(value: Any) -> str:
    """Return JSON that can stand in a ``<script>`` element: no text in it can end the element or begin a comment.

    Raises:
        ValueError: If a number is not finite; figures hold None there.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _digest(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode('utf-8')).digest()).decode()}'"
