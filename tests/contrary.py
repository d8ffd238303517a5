"""An object that no program should have to cope with, and that people pass all the same."""

from __future__ import annotations

from typing import Any


class Contrary:
    """An object that answers no question about itself."""

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("no comparison")

    def __hash__(self) -> int:
        raise TypeError("no hash")

    def __bool__(self) -> bool:
        raise ValueError("no truth")

    def __len__(self) -> int:
        raise OSError("no length")

    def __repr__(self) -> str:
        raise KeyError("no text")

    def to_dict(self) -> dict[str, Any]:
        raise OSError("no dictionary")
