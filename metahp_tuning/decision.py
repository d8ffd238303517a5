"""The tuning decision, once for every host: what is rewritten, why, and what a person is told of it."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from metahp_tuning.host import Host, TuningRequest, setting_name
from metahp_tuning.ineffective import found_ineffective
from metahp_tuning.lazy_history import LazyHistory, PendingRecommendation
from metahp_tuning.limits import batch_limits
from metahp_tuning.messages import nothing_changed, nothing_left_message, start_message
from metahp_tuning.other_tasks import runs_of_near_task
from metahp_tuning.precedence import Change, Kept, Setting, rewritable
from metahp_tuning.recommendation_query import TuningProblem, earlier_objective, planned_changes, query_meta_model, with_earlier_definition
from metahp_tuning.resumption import plan_resumption
from metamodel.evidence_floor import without_history
from metamodel.recommendation import Decision, Recommendation, load_recommendation, save_recommendation
from store.errors import (
    HistoryPathError,
    HistoryTooNewError,
    InvalidArgumentError,
    MetaHPError,
    NotAHistoryError,
    SpaceError,
    UnknownHyperparameterError,
    UnknownRecommendationError,
)
from store.hyperparameters import (
    ACCUMULATION,
    GLOBAL_BATCH_SIZE,
    NEEDS_SPACE,
    PER_DEVICE_BATCH_SIZE,
    Role,
    conservative_names,
    names_with_role,
)
from store.ids import task_id_of
from store.names import canonical_name
from store.paths import resolve_path
from store.statuses import Source
from store.switches import is_off, pinned_recommendation
from store.user_warnings import is_repeated
from store.values import plain_value, same_value

USER_MISTAKES = (SpaceError, UnknownHyperparameterError, UnknownRecommendationError, InvalidArgumentError)
UNUSABLE_HISTORY = (HistoryPathError, NotAHistoryError, HistoryTooNewError)
_MIN_FIT_S = 0.1
"""Left for fitting a model even where looking at the data took all the time there was."""


@dataclass(frozen=True, slots=True)
class TuningDecision:
    """What is rewritten, and what to say of it.

    Attributes:
        recommendation: What was recommended; None where nothing was asked for, or nothing came.
        changes: What is to be written.
        message: What to tell the user; empty for nothing.
        followed_id: Id of the recommendation that the run follows, None where it follows none.
        pending: The recommendation, where there is no history yet to save it in.
        is_failed: Whether something of ours went wrong; it was warned about, and everything stays as it is.
    """

    recommendation: Recommendation | None = None
    changes: tuple[Change, ...] = ()
    message: str = ""
    followed_id: str | None = None
    pending: PendingRecommendation | None = None
    is_failed: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what another process needs to follow the decision, as plain data."""
        return {"changes": [change.to_dict() for change in self.changes], "followed_id": self.followed_id}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TuningDecision:
        """Rebuild what ``to_dict`` gave."""
        changes = tuple(Change(**{**change, "source": Source(change["source"])}) for change in values["changes"])
        return cls(changes=changes, followed_id=values["followed_id"])


def tune(host: Host, request: TuningRequest) -> TuningDecision:
    """Decide on rank zero, write on every rank, and say so.

    Args:
        host: What is about to train.
        request: What the user asks for.

    Returns:
        The decision as it was carried out.

    Raises:
        MetaHPError: If the user made a mistake: a name that does not exist, an impossible space, an unknown ``METAHP_PIN``, a history given
            here that cannot be used.
    """
    if is_off():
        return TuningDecision()
    try:
        return _tune(host, request)
    except MetaHPError:
        raise
    except Exception as error:  # whatever goes wrong with us must never stop a training
        host.report("rewriting the hyperparameters", error)
        return TuningDecision(is_failed=True)


def _tune(host: Host, request: TuningRequest) -> TuningDecision:
    checked = host.check(request)
    reason = host.standing_down()
    stored = host.resumed_run()
    if stored is not None:
        layout = None if stored.global_batch_size is None else host.layout()
        plan = plan_resumption(stored, host.settings(), layout=layout)
        decision = TuningDecision(None, plan.changes, plan.message, stored.recommendation_id)
    elif reason is not None:
        decision = TuningDecision(message=nothing_changed(reason) if reason else "")
    else:
        decision = host.broadcast(lambda: decide_safely(host, checked))
    if not decision.is_failed:
        decision = host.write(decision)
        message = _without_repeats(decision, request)
        if message:
            host.print(message)
    return decision


def _without_repeats(decision: TuningDecision, request: TuningRequest) -> str:
    """Return what to print of a decision: of one whose like was printed in this place, as by the folds of a loop, what was changed only."""
    if not decision.message:
        return ""
    given = request.history
    path = resolve_path(given) if given is None or isinstance(given, str | os.PathLike) else given.path
    if not is_repeated(decision.message, path):
        return decision.message
    return decision.message.partition("\n")[0] if decision.changes else ""


def decide_safely(host: Host, request: TuningRequest) -> TuningDecision:
    """Decide; an error that is not the user's is reported and changes nothing.

    Raises:
        MetaHPError: If the user made a mistake, or the history that the user named cannot be used.
    """
    try:
        with LazyHistory(request.history) as history:
            return decide(host, request, history)
    except USER_MISTAKES:
        raise
    except UNUSABLE_HISTORY as error:
        if request.history is not None:
            raise
        # A default place that cannot be used must not cost a run, e.g. in a read-only container.
        host.report("opening the history", error)
    except Exception as error:  # advice must never stop a training
        host.report("the recommendation", error)
    return TuningDecision(is_failed=True)


def decide(host: Host, request: TuningRequest, history: LazyHistory) -> TuningDecision:
    """Decide what to rewrite, and save the recommendation.

    Args:
        host: What is about to train.
        request: A checked request.
        history: Where past runs are.

    Raises:
        UnknownRecommendationError: If ``METAHP_PIN`` names no stored recommendation.
    """
    started, pinned = time.monotonic(), pinned_recommendation()
    settings = {name: replace(setting, value=plain_value(setting.value)) for name, setting in host.settings().items()}
    allowed, kept = _tunable_settings(host, request, settings)
    if not allowed and not pinned:
        return TuningDecision(message=nothing_left_message(host.why_nothing_left(), kept))
    description = host.describe()
    notes = [*host.notes]
    if not description.is_identified and not pinned:
        if host.needs_known_task:
            return TuningDecision(message=nothing_changed(f"the task cannot be recognised. {host.unknown_task_hint}"))
        notes.insert(0, host.unknown_task_hint)
    if description.objective is None and not pinned:
        found = None if history.is_new else earlier_objective(history.history, description)
        if found is None:
            near = "" if history.is_new else runs_of_near_task(history.history, description)
            hints = [f"the objective is not known. {host.unknown_objective_hint}", near]
            return TuningDecision(message=nothing_changed(" ".join(filter(None, hints))))
        description = description.with_objective(found[0], found[1].value)
        notes.insert(0, f"The objective {found[0]} ({found[1].value}) is that of earlier runs of this task.")
    if not history.is_new:
        description = with_earlier_definition(history.history, description, host.unknown_definition)
    variant = host.variant()
    if not pinned and not history.is_new:
        kept += found_ineffective(history.history, description, variant, allowed)
        allowed = {name: setting for name, setting in allowed.items() if name not in {item.name for item in kept}}
        if not allowed:
            return TuningDecision(message=nothing_left_message("", kept))
    layout = host.layout()
    limits = [] if layout is None else batch_limits(history, description, layout.world_size, host.precision)
    problem = TuningProblem(
        description=description,
        space=_space_of(request, allowed),
        allowed=allowed,
        constraints=limits if PER_DEVICE_BATCH_SIZE in allowed else [],
        layout=layout,
        current={raw: plain_value(value) for raw, value in host.current().items()},
        mode=request.query_mode,
        variant=variant,
        max_fit_s=max(_MIN_FIT_S, request.max_startup_s - (time.monotonic() - started)),
        planned_epochs=host.planned_epochs(description),
    )
    return _answer(host, request, history, problem, settings, kept, notes)


def _answer(
    host: Host,
    request: TuningRequest,
    history: LazyHistory,
    problem: TuningProblem,
    settings: Mapping[str, Setting],
    kept: Sequence[Kept],
    notes: Sequence[str],
) -> TuningDecision:
    """Query, plan the changes, save the recommendation and put the message together."""
    pinned = pinned_recommendation()
    if pinned:
        recommendation, fitting_note = load_recommendation(history.history, pinned), ""
    else:
        recommendation = _quick_abstention(history, problem) or query_meta_model(
            problem, history.history, splits_by_accumulation=host.splits_by_accumulation
        )
        fitting_note = recommendation.evidence.note
    abstains = recommendation.decision is Decision.ABSTAIN
    changes = tuple(planned_changes(recommendation, problem, splits_by_accumulation=host.splits_by_accumulation))
    applied = () if request.is_dry else changes
    pending = None
    if not pinned:  # the stored one says what was first rewritten, and must keep saying it
        pending = PendingRecommendation(recommendation, problem.current, tuple(change.to_dict() for change in applied))
        if not history.is_new:
            save_recommendation(history.history, recommendation, current=problem.current, changes=[change.to_dict() for change in applied])
            pending = None
    missing = _not_applied(recommendation, changes, settings, kept, problem) if pinned and not abstains else []
    remarks = [
        fitting_note,
        *notes,
        _tuned_elsewhere(host, recommendation, request, settings, kept),
        _near_task(history, problem, recommendation),
        "" if pinned or request.space is not None else _taken_for_defaults(changes, settings),
    ]
    remarks += ["Dry run: nothing was rewritten."] if request.is_dry else []
    note = " ".join(text for text in remarks if text)
    is_saved = not (request.is_dry and history.is_new)
    message = start_message(
        recommendation, changes, kept, problem.description.objective, note, missing, is_saved=is_saved, is_pinned=bool(pinned)
    )
    followed = None if request.is_dry else recommendation.id
    return TuningDecision(recommendation, applied, message, followed, None if request.is_dry else pending)


def _taken_for_defaults(changes: Sequence[Change], settings: Mapping[str, Setting]) -> str:
    """Name what is rewritten since it equals its default, and may be typed nonetheless."""
    found = [change.raw_name for change in changes if change.name in settings and settings[change.name].may_be_typed]
    if not found:
        return ""
    names = ", ".join(f"{name!r}" for name in found)
    return f"A value that equals its default counts as not set; if you typed it, keep=({names},) leaves it as it is."


def _tuned_elsewhere(
    host: Host, recommendation: Recommendation, request: TuningRequest, settings: Mapping[str, Setting], kept: Sequence[Kept]
) -> str:
    """Name what earlier runs of the task tuned, no start rewrites without a space, and can be changed here."""
    named = {item.name for item in kept} | names_with_role(Role.LENGTH)
    left_out = [name for name, reason in recommendation.evidence.not_advised.items() if reason == NEEDS_SPACE]
    able = [name for name in left_out if name in settings and name not in named and host.why_fixed(name, settings[name]) is None]
    found = [settings[name].raw_name for name in able]
    if not found or request.space is not None:
        return ""
    return f"Earlier runs also varied {' and '.join(found)}: list {'it' if len(found) == 1 else 'them'} in space to have it tuned."


def _near_task(history: LazyHistory, problem: TuningProblem, recommendation: Recommendation) -> str:
    """Name a task with runs, where this one has none and nothing of the user's own is recommended."""
    evidence = recommendation.evidence
    is_from_own = recommendation.decision is Decision.APPLY and not evidence.n_starter_tasks
    if history.is_new or is_from_own or evidence.n_runs + evidence.n_related + evidence.n_sibling_runs:
        return ""
    return runs_of_near_task(history.history, problem.description)


def _quick_abstention(history: LazyHistory, problem: TuningProblem) -> Recommendation | None:
    """Return the abstention where nothing is known at all, without loading anything for it."""
    if not history.is_new:
        return None
    named = {canonical_name(name): value for name, value in problem.current.items()}
    return without_history(problem.description, named, problem.mode, task_id_of(problem.description.identity()))


def _tunable_settings(host: Host, request: TuningRequest, settings: Mapping[str, Setting]) -> tuple[dict[str, Setting], list[Kept]]:
    """Split the settings into those that may be rewritten, and those left alone with the reason."""
    names = None if request.space is None else permitted_names(request.space, splits_by_accumulation=host.splits_by_accumulation)
    keep = [setting_name(name) for name in request.keep]
    allowed, kept = rewritable(settings, names, keep, conservative_names(host.framework))
    # What cannot be changed anyway is no matter of listing it.
    fixed = {item.name: None if item.name in keep else host.why_fixed(item.name, settings[item.name]) for item in kept}
    kept = [replace(item, reason=fixed[item.name] or item.reason) for item in kept]
    free: dict[str, Setting] = {}
    for name, setting in allowed.items():
        reason = host.why_fixed(name, setting)
        if reason is None:
            free[name] = setting
        else:
            kept.append(Kept(name, setting.raw_name, setting.value, reason))
    return free, kept


def permitted_names(space: Mapping[str, Any], *, splits_by_accumulation: bool) -> list[str]:
    """Return the canonical names of the settings that a space permits to rewrite; a global batch permits its factors."""
    names = [setting_name(raw) for raw in space]
    if splits_by_accumulation and GLOBAL_BATCH_SIZE in {canonical_name(raw) for raw in space}:
        names.append(ACCUMULATION)
    return names


def _space_of(request: TuningRequest, allowed: Collection[str]) -> dict[str, Any] | None:
    """Return the user's space without what cannot be changed."""
    if request.space is None:
        return None
    return {raw: values for raw, values in request.space.items() if setting_name(raw) in allowed}


def _not_applied(
    recommendation: Recommendation,
    changes: Sequence[Change],
    settings: Mapping[str, Setting],
    kept: Sequence[Kept],
    problem: TuningProblem,
) -> list[Kept]:
    """Return each value of a pinned recommendation that is not in force afterwards, and why."""
    changed = {change.name for change in changes}
    reasons = {item.name: item.reason for item in kept}
    found = []
    for raw, value in recommendation.config.items():
        name = canonical_name(raw)
        here = setting_name(raw)
        setting = settings.get(here)
        now = problem.layout.global_size if problem.layout is not None and here == PER_DEVICE_BATCH_SIZE else None
        now = (None if setting is None else setting.value) if now is None else now
        if here in changed or (ACCUMULATION in changed and name == GLOBAL_BATCH_SIZE) or (now is not None and same_value(now, value)):
            continue
        if setting is None:
            reason = "this run has no such hyperparameter"
        elif here in reasons:
            reason = reasons[here]
        elif here not in problem.allowed:
            reason = "it is not in space" if problem.space is not None else "without a space it is never rewritten; list it in space"
        else:
            reason = "the nearest value that is possible here is the one you have"
        found.append(Kept(name, raw, value, reason))
    return found


def with_message(decision: TuningDecision, message: str) -> TuningDecision:
    """Return a decision of which nothing could be carried out, with the reason."""
    return replace(decision, changes=(), message=message, followed_id=None)
