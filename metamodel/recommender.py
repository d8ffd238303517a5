"""Public entry point; callbacks, CLI and replay all call ``recommend``."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from metamodel.data.learning_tables import learning_table, with_logged_names
from metamodel.data.observations import LENGTH, LearningTable
from metamodel.data.opened_history import opened_history
from metamodel.data.siblings import siblings_of
from metamodel.data.target_runs import TargetRuns, target_runs
from metamodel.data.task import TaskDescription
from metamodel.evidence_floor import nothing_recommended, thin_evidence
from metamodel.explanation import describe_evidence
from metamodel.fitting import ActiveModel, active_kind, active_model
from metamodel.gp.kernels import one_thread
from metamodel.gp.meta_model import MIN_TASKS_TO_FIT
from metamodel.kinds import check_kind
from metamodel.recommendation import Decision, Evidence, Recommendation
from metamodel.search.candidates import space_from_history
from metamodel.search.distinct_configs import distinct_configs
from metamodel.search.query import Query
from metamodel.search.task_surrogate import CandidatePrediction, TaskSurrogate
from metamodel.source_selection import Sources, combine_with_starter, drop_ineligible_tasks, select_sources
from metamodel.space.batch import as_seen_by_model, name_in_model, with_global_batch
from metamodel.space.dimensions import Space, is_number, limited, parse_space
from metamodel.space.run_configs import Config
from store.errors import InvalidArgumentError, UnknownTaskError
from store.hyperparameters import GLOBAL_BATCH_SIZE, NEEDS_SPACE, PER_DEVICE_BATCH_SIZE
from store.ids import new_id, task_id_of
from store.names import canonical_name, nearest
from store.repeats import definition_of
from store.user_warnings import warn_user
from store.values import plain_value

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from store import History

APPLY_PROBABILITY = 0.55
"""Least probability of improving on the user's own configuration; below, the user's values are as good a choice."""
QUERY_MODES = ("best", "explore")


def recommend(
    history: History | str | os.PathLike[str] | None = None,
    task: str | TaskDescription | None = None,
    space: Mapping[str, BaseDistribution | Sequence[Any]] | None = None,
    k: int = 1,
    mode: str = "best",
    candidates: Sequence[Mapping[str, Any]] | None = None,
    *,
    current: Mapping[str, Any] | None = None,
    allowed: Collection[str] | None = None,
    limits: Mapping[str, float] | None = None,
    pending: Sequence[Mapping[str, Any]] = (),
    variant: str | None = None,
    planned_epochs: float | None = None,
    model: str | None = None,
    max_fit_s: float = 10.0,
    device: str = "auto",
    seed: int = 0,
    min_tasks: int = MIN_TASKS_TO_FIT,
) -> list[Recommendation]:
    """Recommend configurations for a task, from everything finished in the history.

    A missing or outdated meta-model is fitted first, where there are two tasks to learn from. Thin evidence never raises: the
    recommendation then is an abstention, with the reason and what it would have chosen. A batch size in ``space``, ``candidates``,
    ``limits`` and the answer is the global one, under whichever name the query has for it.

    Args:
        history: A history, its path, or None for the default one.
        task: Name, id or description of the task. A new one is answered from the other tasks; a new name that is near to a known one is
            warned about, a description (``TaskDescription(name="digits-2")``) is not.
        space: What may be chosen; None for what the task's runs have tuned, within the values that finished, and what is safe to change
            and varied in other tasks. The answer then has canonical names, and ``evidence.not_advised`` names what it leaves out and why.
        k: How many configurations, best first.
        mode: ``best`` maximises the expected outcome, ``explore`` the expected improvement.
        candidates: Choose among these configurations only; they replace ``space``.
        current: The user's own configuration, all hyperparameters of the run: the rest of it is context, and the gain is
            measured against it.
        allowed: Canonical names that a training may have rewritten where no space is given: then these only, of what is safe to change.
        limits: Canonical name -> largest value that is possible at all.
        pending: Configurations of the task that are being tried now, for example by other workers; ``explore`` looks elsewhere.
        variant: Source version of the model; runs of other versions count as related, not exact, evidence.
        planned_epochs: Length of the run that is asked about, in full passes over the training data; None where unknown.
        model: Kind of meta-model that answers: ``metahp``, ``direct``, ``maml`` or ``reptile``; None for that of the last ``refit``.
        max_fit_s: Time for an automatic fit in seconds.
        device: Where an automatic fit runs.
        seed: Seed; the same history and seed give the same recommendation.
        min_tasks: Tasks from which an automatic fit is worth its time; 1 for a search that follows what is below the evidence floor, too.

    Returns:
        ``k`` recommendations (fewer if there are fewer candidates), best first.

    Raises:
        SpaceError: If the space is malformed.
        InvalidArgumentError: If ``k``, ``mode``, ``model``, ``candidates``, ``planned_epochs`` or ``min_tasks`` is not possible.
    """
    _check_counts(k, mode, model, min_tasks)
    _check_length(planned_epochs)
    _check_task_and_candidates(task, candidates)
    bounds = {name_in_model(canonical_name(name)): high for name, high in (limits or {}).items()}
    parsed = None if space is None else limited(with_global_batch(parse_space(space)), bounds)
    now, fit = _current(current or {}, parsed), _FitOptions(model, max_fit_s, device, seed, min_tasks)
    request = _Request(
        task, parsed, candidates, now, allowed, bounds, pending, variant, planned_epochs, mode, k, fit, _by_model_names(candidates or ())
    )
    with opened_history(history) as opened:
        query, active, nothing, thin = _resolved(opened, request)
    with one_thread():
        return _answer(request, query, active, nothing, thin)


@dataclass(frozen=True, slots=True)
class _FitOptions:
    """Which kind answers, and how an automatic fit is done. Attributes as in ``recommend``."""

    model: str | None
    max_fit_s: float
    device: str
    seed: int
    min_tasks: int


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    """What was asked, checked. Attributes as in ``recommend``; space, configuration and ``configs`` by the names the meta-model knows."""

    task: str | TaskDescription | None
    space: Space | None
    candidates: Sequence[Mapping[str, Any]] | None
    current: Config
    allowed: Collection[str] | None
    limits: Mapping[str, float]
    pending: Sequence[Mapping[str, Any]]
    variant: str | None
    planned_epochs: float | None
    mode: str
    k: int
    fit: _FitOptions
    configs: Sequence[Config]


def _resolved(history: History, request: _Request) -> tuple[Query, ActiveModel, Recommendation, str | None]:
    """Resolve a request against the history.

    Returns:
        The query, the model that answers, the answer without a configuration, and why the evidence is below the floor (None: it is not).
    """
    table, task_id = learning_table(history), _task_id(history, request.task)
    # Runs of another objective than the one asked for would be incomparable.
    objective = request.task.objective if isinstance(request.task, TaskDescription) else None
    own = None if task_id is None else table.of_task(task_id, objective)
    description = own.description if own is not None else TaskDescription()
    description = request.task if isinstance(request.task, TaskDescription) else description
    if request.task == TaskDescription(name=description.name, objective=description.objective, direction=description.direction):
        description = replace(own.description, **description.to_dict()) if own is not None else description  # only a name was given
    fit, space, current = request.fit, request.space, request.current
    not_advised: dict[str, str] = {}
    siblings = () if task_id is None else siblings_of(task_id, description, table.tasks)
    planned_epochs = None if space is not None and LENGTH in space else request.planned_epochs
    if planned_epochs is not None:
        current = {**current, LENGTH: planned_epochs}
    found = TargetRuns()
    if task_id is not None:
        # A name stands for the task as its newest run has it.
        is_named_only = own is not None and description is not request.task
        definition = own.definitions[-1] if own is not None and is_named_only else definition_of(description.comparability)
        found = target_runs(history, task_id, own, siblings, definition, request.variant, planned_epochs)
    target, counted = found.runs, tuple(task for task in (own, *siblings) if task is not None)
    kind = fit.model or active_kind(history)
    sources = select_sources(table, target, counted, _names(space, request.configs), description, current, kind)
    if space is None and request.candidates is None:
        seen = (*sources.tasks, *sources.starter_tasks)
        allowed = None if request.allowed is None else {canonical_name(name) for name in request.allowed}
        supported, not_advised = space_from_history(target, seen, current if request.current else {}, allowed)
        space = limited(supported, request.limits)
        sources = select_sources(table, target, counted, frozenset(space), description, current, kind)
    if target is not None and space is not None:
        defining = [name for name, dimension in space.items() if not target.defining_names.isdisjoint({name, dimension.raw_name})]
        reason = f"it changes what {target.objective} means, so its values cannot be compared"
        not_advised |= dict.fromkeys([*(space[name].name for name in defining), *(target.defining_names & not_advised.keys())], reason)
        space = {name: dimension for name, dimension in space.items() if name not in defining}
    active = ActiveModel(None)
    if sources.should_fit:
        least = sources.min_tasks_to_fit(fit.min_tasks, kind)
        active = active_model(history, table, fit.max_fit_s, fit.device, fit.seed, fit.model, least)
    fitted = drop_ineligible_tasks(active.model, table, sources, siblings, description, task_id)
    model, sources = combine_with_starter(fitted, sources)
    active = replace(active, model=model)
    query = Query(
        task_id=task_id,
        target=target,
        sources=sources.tasks,
        space=space or {},
        current=current,
        mode=request.mode,
        description=description,
        pending=tuple(_by_model_names(request.pending)),
        starter_tasks=sources.starter_tasks,
        feasibility_only_tasks=sources.feasibility_only,
    )
    of_task = with_logged_names(history, table.by_task.get(task_id or "", LearningTable(())))
    evidence = _evidence(query, found, {**of_task.left_out, **found.left_out, **sources.left_out}, active)
    evidence = replace(evidence, not_advised=not_advised)
    return query, active, nothing_recommended(task_id, request.mode, evidence), _thin(evidence, of_task, sources)


def _answer(request: _Request, query: Query, active: ActiveModel, nothing: Recommendation, thin: str | None) -> list[Recommendation]:
    reason = None
    if not query.space and request.candidates is None:
        reasons = "; ".join(f"{name}: {why}" for name, why in nothing.evidence.not_advised.items() if why != NEEDS_SPACE)
        reason = thin or reasons or "no hyperparameter that may be changed varied in the history"
    elif active.model is None and not (query.target is not None and query.target.has_outcome.any()):
        reason = thin or active.note or "no run has an outcome"
    if reason is not None:
        return [replace(nothing, reason=reason)]
    surrogate = TaskSurrogate(active.model, query, request.configs)
    if request.candidates is not None:
        return _among_candidates(query, surrogate, nothing, thin, request.k, request.candidates, request.configs)
    return _in_space(query, surrogate, nothing, thin, request)


def _check_counts(k: int, mode: str, model: str | None, min_tasks: int) -> None:
    check_kind(model)
    for name, count, advice in (("k", k, "Ask for one or more recommendations"), ("min_tasks", min_tasks, "Pass 1 or 2")):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidArgumentError(f"{name} must be a whole number, at least 1, but got {count!r}. {advice}.")
    if mode not in QUERY_MODES:
        raise InvalidArgumentError(f"mode must be one of {', '.join(QUERY_MODES)}, but got {mode!r}. Pass one of these.")


def _check_length(planned_epochs: float | None) -> None:
    if planned_epochs is not None and not (is_number(planned_epochs) and 0 < planned_epochs < math.inf):
        raise InvalidArgumentError(
            f"planned_epochs must be a positive number of passes over the training data, or None, but got {planned_epochs!r:.80}. "
            "Leave it out where it is not known."
        )


def _check_task_and_candidates(task: object, candidates: Sequence[Mapping[str, Any]] | None) -> None:
    if not (task is None or isinstance(task, str | TaskDescription)):
        raise InvalidArgumentError(f"A task must be a name, a TaskDescription or None, but got {task!r:.80}. Pass task='my-task'.")
    if candidates is not None and not (candidates and all(isinstance(candidate, Mapping) for candidate in candidates)):
        raise InvalidArgumentError(
            f"candidates must hold at least one configuration, each a mapping of names to values, but got {candidates!r:.80}. "
            "Leave it out to search a space."
        )


def _current(current: Mapping[str, Any], space: Space | None) -> dict[str, Any]:
    """Return the user's own configuration by the names the meta-model knows, and by those of the space."""
    known = {canonical_name(name): plain_value(value) for name, value in current.items()}
    return {**{name: known[name] for name in space or () if name in known}, **as_seen_by_model(known)}


def _by_model_names(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return configurations by the names the meta-model knows. Each spelling is looked up once, since there may be thousands of them."""
    spellings: set[str] = set().union(*configs)
    names = {name: canonical_name(name) for name in spellings}
    found = [{names[name]: value for name, value in config.items()} for config in configs]
    has_batch = not {GLOBAL_BATCH_SIZE, PER_DEVICE_BATCH_SIZE}.isdisjoint(names.values())
    return [as_seen_by_model(config) for config in found] if has_batch else found


def _names(space: Space | None, configs: Sequence[Config]) -> frozenset[str] | None:
    if configs:
        return frozenset().union(*configs)
    return None if space is None else frozenset(space)


def _task_id(history: History, task: str | TaskDescription | None) -> str | None:
    """Return the id of a task, also of one that has no run yet; a merged task answers with what it was merged into."""
    if task is None:
        return None
    identity = {"name": task} if isinstance(task, str) else task.identity()
    try:
        return history.task(task if isinstance(task, str) else task_id_of(identity)).id
    except UnknownTaskError as error:
        if isinstance(task, str) and nearest(task, [known.name for known in history.tasks()]):
            warn_user(f"{error} Until then the answer is for a new task; TaskDescription(name={task!r}) means one.")
        return task_id_of(identity)


def _evidence(query: Query, found: TargetRuns, left_out: Mapping[str, int], active: ActiveModel) -> Evidence:
    target = query.target
    n_same = 0 if target is None or target.groups is None else target.groups.n_asked
    tasks = [*query.sources, *query.feasibility_only_tasks, *([target] if target is not None else [])]
    return Evidence(
        n_runs=n_same,
        n_related=0 if target is None else len(target) - n_same - found.n_sibling_runs,
        related={} if target is None else dict(target.related),
        n_siblings=found.n_siblings,
        n_sibling_runs=found.n_sibling_runs,
        n_tasks=len(query.sources),
        n_other_runs=sum(len(task) for task in query.sources),
        n_starter_tasks=len(query.starter_tasks),
        n_starter_runs=sum(len(task) for task in query.starter_tasks),
        n_failed=int(sum(task.is_failed.sum() for task in tasks)),
        best_run_id=None if target is None else target.best_run_id,
        left_out=dict(left_out),
        model_id=None if active.model is None else active.model.id,
        note="; ".join(part for part in (active.note, "" if active.model is None else active.model.remark) if part),
    )


def _thin(evidence: Evidence, of_task: LearningTable, sources: Sources) -> str | None:
    """Say why the evidence is below the floor, and which runs of the task were not used; None where it is enough."""
    thin = thin_evidence(evidence)
    return None if thin is None else "; ".join(text for text in (thin, of_task.describe_left_out(), sources.starter_message) if text)


def _among_candidates(
    query: Query,
    surrogate: TaskSurrogate,
    nothing: Recommendation,
    thin: str | None,
    k: int,
    candidates: Sequence[Mapping[str, Any]],
    configs: Sequence[Config],
) -> list[Recommendation]:
    """Rank candidates; ``configs`` are the same by the names the meta-model knows."""
    names = sorted(_names(None, configs) or ())
    nothing = _with_untuned(nothing, [name for name in names if name not in surrogate.informed_names])
    if len(nothing.evidence.untuned) == len(names):
        return [_abstention(nothing, thin)]
    order = surrogate.rank(configs)[:k]
    return [_recommendation(query, surrogate, nothing, thin, configs[i], dict(candidates[i])) for i in order]


def _in_space(query: Query, surrogate: TaskSurrogate, nothing: Recommendation, thin: str | None, request: _Request) -> list[Recommendation]:
    """Search the part of the space with evidence; the rest stays at the user's values, and is left out where the user gave no space."""
    space, untuned = surrogate.informed_space, [name for name in query.space if name not in surrogate.informed_names]
    nothing = _with_untuned(nothing, [query.space[name].name for name in untuned])
    if not space:
        return [_abstention(nothing, thin)]
    rng = np.random.default_rng([request.fit.seed, zlib.crc32((query.task_id or "").encode())])
    found = distinct_configs(surrogate, space, request.k, rng)
    if request.space is None:
        raw = [{space[name].raw_name: value for name, value in config.items()} for config in found]
    else:
        rest = {name: query.current.get(name, query.space[name].from_unit(0.5)) for name in untuned}
        raw = [{dim.raw_name: {**config, **rest}[name] for name, dim in query.space.items()} for config in found]
    return [_recommendation(query, surrogate, nothing, thin, *pair) for pair in zip(found, raw, strict=True)]


def _with_untuned(nothing: Recommendation, names: Sequence[str]) -> Recommendation:
    return replace(nothing, evidence=replace(nothing.evidence, untuned=tuple(names)))


def _abstention(nothing: Recommendation, thin: str | None) -> Recommendation:
    return replace(nothing, reason=thin or f"no run varied {' or '.join(nothing.evidence.untuned)}, so nothing is known about it")


def _recommendation(
    query: Query, surrogate: TaskSurrogate, nothing: Recommendation, thin: str | None, config: Config, raw: dict[str, Any]
) -> Recommendation:
    predicted = surrogate.predict(config)
    decision, reason = _decide(predicted, thin, nothing.evidence, surrogate.unseen(config) if query.mode == "best" else ())
    return replace(
        nothing,
        id=new_id(),
        config=raw,
        prediction=predicted.prediction,
        interval=predicted.interval,
        own_prediction=predicted.own_prediction,
        gain_probability=predicted.gain_probability,
        finish_probability=predicted.finish_probability,
        unit=predicted.unit,
        decision=decision,
        reason=reason,
    )


def _decide(predicted: CandidatePrediction, thin: str | None, evidence: Evidence, unseen: Sequence[str]) -> tuple[Decision, str]:
    basis = f"from {describe_evidence(evidence)}"
    if thin is not None:
        return Decision.ABSTAIN, thin
    if unseen:
        return Decision.ABSTAIN, f"{' and '.join(unseen)} would lie far outside the values any run had, {basis}"
    if predicted.gain_probability is None:
        return Decision.APPLY, f"best expected outcome, {basis}"
    if predicted.is_own:
        return Decision.ABSTAIN, f"your own values are already what would be recommended, {basis}"
    chance = f"{predicted.gain_probability:.0%}"
    if predicted.gain_probability < APPLY_PROBABILITY:
        chance = f"{math.floor(100 * predicted.gain_probability)}%"  # else it may round to what is required
        return Decision.ABSTAIN, f"only a {chance} chance of improving on your values ({APPLY_PROBABILITY:.0%} required), {basis}"
    return Decision.APPLY, f"better than your own values with probability {chance}, {basis}"
