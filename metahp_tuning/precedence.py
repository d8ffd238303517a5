"""Who decides a value, in one order everywhere.

On a resumed run checkpoint and stored recommendation come before everything. Otherwise: explicit user value > hard constraint >
meta-model > default. Listing a name in ``space`` is permission to rewrite it; the value passed becomes the fallback.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

from metamodel.explanation import show_change
from metamodel.recommendation import Decision, Recommendation
from store.errors import InvalidArgumentError, UnknownHyperparameterError
from store.hyperparameters import conservative_names
from store.names import canonical_name
from store.statuses import Source


@dataclass(frozen=True, slots=True)
class Setting:
    """A value the run would have without us, and who chose it.

    Attributes:
        raw_name: The host's name.
        value: The value.
        source: Who chose it.
        may_be_typed: Whether a default may be what the user typed, which the host cannot tell.
    """

    raw_name: str
    value: Any
    source: Source = Source.USER
    may_be_typed: bool = False

    @property
    def name(self) -> str:
        """Canonical name."""
        return canonical_name(self.raw_name)


@dataclass(frozen=True, slots=True)
class Change:
    """One rewritten value."""

    name: str
    raw_name: str
    old: Any
    new: Any
    source: Source
    reason: str

    def to_dict(self) -> dict[str, Any]:
        """Return every field, JSON-compatible as far as the values are."""
        return {**{item.name: getattr(self, item.name) for item in fields(self)}, "source": str(self.source)}


@dataclass(frozen=True, slots=True)
class Kept:
    """One value that could have been rewritten and was not, and why."""

    name: str
    raw_name: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class Constraint:
    """A hard limit on one name: a batch no larger than the data set, a memory known to be too small."""

    name: str
    high: float
    reason: str


def check_names(
    names: Collection[str],
    available: Collection[str],
    where: str,
    advice: str = "Use one of these names, or save_hyperparameters() with it.",
) -> None:
    """Check that every name exists.

    Args:
        names: Names the user wrote, raw or canonical.
        available: Raw names that exist.
        where: What should have them, for the message, e.g. ``"LitModel.hparams"``.
        advice: What to do where no name is close to the unknown one.

    Raises:
        UnknownHyperparameterError: If a name matches none of the available ones, raw or canonical.
    """
    known = {canonical_name(raw) for raw in available} | set(available)
    for name in names:
        if name in known or canonical_name(name) in known:
            continue
        last = canonical_name(name.rpartition(".")[2])  # a flat lr for optimizer.lr
        close = [last] if "." in name and last in known else difflib.get_close_matches(name, [*available, *sorted(known)], n=1)
        meant = [raw for raw in available if close and canonical_name(raw) == close[0]] or close
        hint = f" Did you mean {meant[0]!r}?" if meant else f" {advice}"
        possible = ", ".join(sorted(available)) or "none"
        raise UnknownHyperparameterError(
            f"A name to rewrite must be a hyperparameter of {where}, but got {name!r}; it has: {possible}.{hint}"
        )


def check_keep(keep: Collection[str] | str) -> tuple[str, ...]:
    """Return ``keep`` as a tuple of names; a single string is one name, not its letters.

    Raises:
        InvalidArgumentError: If it is neither a name nor a collection of names.
    """
    names = tuple(keep) if isinstance(keep, Collection) and not isinstance(keep, str) else (keep,)
    for name in names:
        if not isinstance(name, str):
            raise InvalidArgumentError(f"keep must list hyperparameter names, but got {name!r} in {names!r}. Pass strings.")
    return names


def rewritable(
    settings: Mapping[str, Setting],
    space_names: Collection[str] | None,
    keep: Collection[str],
    conservative: Collection[str] = conservative_names(),
) -> tuple[dict[str, Setting], list[Kept]]:
    """Split the settings into those a recommendation may rewrite and those it must leave alone.

    Args:
        settings: Canonical name -> what the run would have without us.
        space_names: Raw or canonical names of the user's space; None where none was passed.
        keep: Raw or canonical names never to touch.
        conservative: Canonical names that may be rewritten where no space was passed.

    Returns:
        The rewritable settings by canonical name, and the kept ones that a user may wonder about, with the reason.
    """
    kept_names = {canonical_name(name) for name in check_keep(keep)}
    permitted = conservative if space_names is None else {canonical_name(name) for name in space_names}
    allowed: dict[str, Setting] = {}
    kept: list[Kept] = []
    for name, setting in settings.items():
        if name not in permitted:
            continue
        if name in kept_names:
            kept.append(Kept(name, setting.raw_name, setting.value, "named in keep"))
        elif space_names is None and setting.source is not Source.DEFAULT:
            kept.append(Kept(name, setting.raw_name, setting.value, "set by you; list it in space to have it tuned"))
        else:
            allowed[name] = setting
    return allowed, kept


def plan_changes(allowed: Mapping[str, Setting], recommendation: Recommendation, constraints: Collection[Constraint] = ()) -> list[Change]:
    """Turn a recommendation into the list of values to rewrite.

    An abstaining recommendation changes nothing, except that a hard constraint still caps a value that nobody chose.

    Args:
        allowed: What may be rewritten, as ``rewritable`` gives it.
        recommendation: The recommendation; its config may use raw or canonical names.
        constraints: Hard limits by canonical name.

    Returns:
        The changes, unchanged values (also but for rounding) left out, in the order of ``allowed``.
    """
    wanted = {canonical_name(raw): value for raw, value in recommendation.config.items()}
    applies = recommendation.decision is Decision.APPLY
    limits = {constraint.name: constraint for constraint in constraints}
    changes = []
    for name, setting in allowed.items():
        new, source, reason = setting.value, Source.METAHP, recommendation.reason
        if applies and name in wanted:
            new = wanted[name]
        limit = limits.get(name)
        can_cap = limit is not None and isinstance(new, int | float) and not isinstance(new, bool) and new > limit.high
        if limit is not None and can_cap and (applies or setting.source is Source.DEFAULT):
            new, source, reason = type(new)(limit.high), Source.CONSTRAINT, limit.reason
        if show_change(setting.raw_name, setting.value, new):
            changes.append(Change(name, setting.raw_name, setting.value, new, source, reason))
    return changes
