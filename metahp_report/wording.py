"""Numbers, durations and names as a report writes them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

NOTHING = "\u2013"
"""What stands where there is no figure."""
LONGEST = 60
"""Characters of a name that are shown: a longer one would push everything else off the page."""

_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})


def clean(text: object, longest: int = LONGEST) -> str:
    """Return a foreign text as one short visible line.

    Control characters are dropped, and those that turn the direction of writing or do not show: with them a name can pretend to be another.
    """
    line = " ".join(str(text).split())
    shown = "".join(char for char in line if unicodedata.category(char) not in _UNSEEN)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def moment(utc: str | None) -> str | None:
    """Return a stored time to the second as a plot takes it, None where it is no time: histories come from elsewhere as well."""
    try:
        found = datetime.fromisoformat(utc or "")
    except ValueError:
        return None
    return (found.astimezone(UTC) if found.tzinfo else found).strftime("%Y-%m-%dT%H:%M:%S")


def show_number(value: float | None) -> str:
    """Write a number with four significant digits; a dash where there is none."""
    if value is None or math.isnan(value):
        return NOTHING
    if math.isinf(value):
        return "∞" if value > 0 else "\u2212∞"
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value)}"
    return f"{value:.4g}"


def show_value(value: Any, longest: int = 40) -> str:
    """Write a hyperparameter's value."""
    if isinstance(value, bool) or value is None:
        return str(value)
    return show_number(float(value)) if isinstance(value, int | float) else clean(value, longest)


def show_config(config: Mapping[str, Any], names: Sequence[str] | None = None, most: int = 6) -> str:
    """Write a configuration as ``learning_rate 0.001, batch_size 32``; of many names the first."""
    wanted = [name for name in (config if names is None else names) if name in config]
    text = ", ".join(f"{clean(name, 30)} {show_value(config[name], 30)}" for name in wanted[:most])
    return text + (f" and {len(wanted) - most} more" if len(wanted) > most else "")


def show_share(value: float | None) -> str:
    """Write a share in percent; only what is nothing at all is 0 %."""
    if value is None or math.isnan(value):
        return NOTHING
    return "< 1 %" if 0 < value < 0.005 else "> 99 %" if 0.995 < value < 1 else f"{value:.0%}".replace("%", " %")


def show_duration(seconds: float | None) -> str:
    """Write a duration: ``0.8 s``, ``12 min``, ``3.4 h``, ``2.1 days``."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    for unit, size, limit in (("min", 60.0, 120.0), ("h", 3600.0, 96.0)):
        if seconds / size < limit:
            return f"{seconds / size:.1f} {unit}" if seconds / size < 10 else f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.1f} days"


def show_energy(joules: float | None) -> str:
    """Write an energy in joules, and from a tenth of a kilowatt hour on in those."""
    if joules is None:
        return "not measured"
    if joules >= 3.6e5:
        return f"{joules / 3.6e6:.3g} kWh"
    return f"{joules / 1000:.3g} kJ" if joules >= 1000 else f"{joules:.3g} J"


def show_size(n_bytes: int) -> str:
    """Write a size in bytes, kB or MB."""
    if n_bytes < 1000:
        return f"{n_bytes} bytes"
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 1e6 else f"{n_bytes / 1e3:.0f} kB"


def count(number: int, noun: str) -> str:
    """Write a number with its noun: ``1 run``, ``2,000 runs``."""
    ending = "es" if noun.endswith(("ch", "sh", "s", "x")) else "s"
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}{ending}"


def listed(names: Sequence[str], most: int = 5) -> str:
    """Join names: ``a, b and c``; of many the first."""
    shown = [clean(name, 40) for name in names[:most]]
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""
