"""Colours in light and dark: Okabe and Ito's palette for every kind of colour vision, adjusted so that each stands out from its ground.

Okabe & Ito, "Color universal design", 2008. Yellow is left out: on white nobody sees it.
"""

from __future__ import annotations

from collections.abc import Mapping

Colours = Mapping[str, tuple[int, int, int]]

LIGHT: Colours = {
    "blue": (0, 104, 163),
    "orange": (208, 121, 0),
    "green": (0, 135, 99),
    "purple": (171, 83, 135),
    "red": (196, 71, 0),
    "sky": (47, 150, 205),
    "olive": (122, 111, 20),
    "ink": (38, 43, 51),
    "muted": (117, 124, 135),
    "faint": (196, 201, 209),
    "text": (38, 43, 51),
    "grid": (229, 232, 236),
    "ground": (255, 255, 255),
}
DARK: Colours = {
    "blue": (93, 173, 226),
    "orange": (240, 167, 50),
    "green": (62, 193, 150),
    "purple": (219, 143, 190),
    "red": (243, 121, 67),
    "sky": (137, 206, 245),
    "olive": (199, 188, 92),
    "ink": (230, 233, 238),
    "muted": (142, 150, 163),
    "faint": (75, 83, 96),
    "text": (222, 226, 232),
    "grid": (48, 55, 66),
    "ground": (24, 28, 35),
}
