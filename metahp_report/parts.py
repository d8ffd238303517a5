"""What a report is made of, without a word of HTML, Plotly or matplotlib.

Every text here is literal: run names and hyperparameters may hold anything, and each of the two ways out (``page``, ``pictures``) makes
it inert for its own language. Nothing is escaped before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """How a series is drawn."""

    LINE = "line"
    STEP = "step"
    POINTS = "points"
    BARS = "bars"
    TEXT = "text"


class Tone(StrEnum):
    """Colours by their meaning; ``theme`` knows them in light and dark. Those of ``SEQUENCE`` distinguish series."""

    BLUE = "blue"
    ORANGE = "orange"
    GREEN = "green"
    PURPLE = "purple"
    RED = "red"
    SKY = "sky"
    OLIVE = "olive"
    INK = "ink"
    MUTED = "muted"
    FAINT = "faint"


SEQUENCE = (Tone.BLUE, Tone.GREEN, Tone.PURPLE, Tone.SKY, Tone.RED, Tone.OLIVE, Tone.INK, Tone.MUTED)
"""In this order for series of equal rank. Orange is kept for what the meta-model recommended."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "star", "x")
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, slots=True)
class Series:
    """One line, cloud of points or row of bars.

    Attributes:
        name: For the legend.
        x: Numbers, UTC times in ISO 8601, or labels; None breaks a line.
        y: Likewise, as many.
        kind: How it is drawn.
        tone: Its colour.
        low: Lower ends: of a band around a line, of whiskers at points and bars; in units of y (of x where the plot lies on its side).
        high: Upper ends.
        hover: What is shown beside each point; one text for all stands beside their numbers; empty: the numbers alone.
        symbol: Marker.
        dash: Line style.
        is_strong: Whether it stands out.
        in_legend: Whether the legend names it.
    """

    name: str
    x: Sequence[Any]
    y: Sequence[Any]
    kind: Kind = Kind.LINE
    tone: Tone = Tone.BLUE
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    hover: Sequence[str] = ()
    symbol: str = "circle"
    dash: str = "solid"
    is_strong: bool = False
    in_legend: bool = True


@dataclass(frozen=True, slots=True)
class Plot:
    """One picture.

    Attributes:
        name: File name of its picture, without suffix.
        title: What it shows.
        series: What is drawn, the last on top.
        x_title: Meaning and unit of x.
        y_title: Meaning and unit of y.
        x_is_log: Whether x has a logarithmic scale.
        y_is_log: Whether y has one.
        x_range: Ends of x, None: from the data.
        y_range: Ends of y.
        x_ticks: Positions and labels, empty: by themselves.
        y_ticks: Likewise.
        x_is_percent: Whether x is a share.
        y_is_percent: Whether y is one.
        is_sideways: Whether bars and whiskers run along x.
        is_stacked: Whether bars stand on each other.
        has_diagonal: Whether the line y = x is drawn.
        has_frame: Whether axes and grid are drawn.
        note: What a reader must know, below.
        height: In pixels.
    """

    name: str
    title: str
    series: tuple[Series, ...]
    x_title: str = ""
    y_title: str = ""
    x_is_log: bool = False
    y_is_log: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    x_ticks: tuple[tuple[float, str], ...] = ()
    y_ticks: tuple[tuple[float, str], ...] = ()
    x_is_percent: bool = False
    y_is_percent: bool = False
    is_sideways: bool = False
    is_stacked: bool = False
    has_diagonal: bool = False
    has_frame: bool = True
    note: str = ""
    height: int = 380


@dataclass(frozen=True, slots=True)
class Gallery:
    """Several pictures of which one is shown, chosen from a list.

    Attributes:
        label: What the list is of, e.g. ``Task``.
        plots: Label -> picture, the first is shown.
        note: What a reader must know of all of them.
    """

    label: str
    plots: tuple[tuple[str, Plot], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        columns: ValueColumn names.
        rows: Cells as text.
        best: For each row, the columns whose cell is the best of its kind and set in bold.
        note: What a reader must know, below.
        is_text: Columns of words, which stand left; the first always does.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    best: tuple[frozenset[int], ...] = ()
    note: str = ""
    is_text: frozenset[int] = frozenset()

    def kind_of(self, column: int) -> str:
        """Return whether a column holds ``words`` or is a ``number``."""
        return "words" if column == 0 or column in self.is_text else "number"


@dataclass(frozen=True, slots=True)
class Prose:
    """A paragraph."""

    text: str


Part = Plot | Gallery | Table | Prose


@dataclass(frozen=True, slots=True)
class Section:
    """A chapter: a question, its answer in a sentence or two, and what shows it."""

    title: str
    about: str
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """Everything on a page, in its order.

    Attributes:
        title: Headline.
        subtitle: A line below.
        tiles: Figure, what it is, and a remark to it.
        findings: The headline findings, the most important first.
        sections: The chapters; empty ones are left out.
        remarks: What a reader should know about how it was made.
    """

    title: str
    subtitle: str
    tiles: tuple[tuple[str, str, str], ...]
    findings: tuple[str, ...]
    sections: tuple[Section, ...]
    remarks: tuple[str, ...] = field(default_factory=tuple)

    def plots(self) -> Iterator[Plot]:
        """Yield every picture, those of galleries too."""
        for section in self.sections:
            for part in section.parts:
                if isinstance(part, Plot):
                    yield part
                elif isinstance(part, Gallery):
                    yield from (plot for _, plot in part.plots)


def slug(text: str) -> str:
    """Return a text as a part of a file name: letters, digits and hyphens only."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "unnamed"


def slugs(texts: Sequence[str]) -> list[str]:
    """Return distinct file names for texts, in their order."""
    found: list[str] = []
    for text in texts:
        name, n = slug(text), 2
        while name in found:
            name, n = f"{slug(text)}-{n}", n + 1
        found.append(name)
    return found
