"""Print the lowest version of every dependency of a user as constraints, and the tested version of every test tool.

``python tests/install/lowest.py > FILE`` writes what ``make test-lowest`` installs.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("lightning", "hf", "report", "import", "bench")
"""Extras that are installed; Ray and NVIDIA's sensors are left out, since no test of ours needs them."""


def lowest_versions() -> dict[str, str]:
    """Return distribution -> the version behind ``>=`` in ``pyproject.toml``.

    Raises:
        ValueError: If a line has no lower bound, or two lines of one distribution differ.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in EXTRAS for line in project["optional-dependencies"][extra])]
    lowest: dict[str, str] = {}
    for line in lines:
        found = re.match(r"([A-Za-z0-9-]+)(?:\[\w+\])?>=([0-9.a-z]+)", line)
        if found is None or lowest.setdefault(found[1], found[2]) != found[2]:
            raise ValueError(f"A dependency must have one lower bound, but pyproject.toml has {line!r}.")
    return lowest | {"pytorch-lightning": lowest["lightning"]}  # one framework under two names


def tool_versions() -> list[str]:
    """Return the lines of ``constraints.txt`` for the tools that run the tests."""
    tools = {"hypothesis", "pytest", "pytest-xdist", "setuptools"}
    return [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if line.partition("==")[0] in tools]


if __name__ == "__main__":
    print("\n".join([*(f"{name}=={version}" for name, version in sorted(lowest_versions().items())), *tool_versions()]))
