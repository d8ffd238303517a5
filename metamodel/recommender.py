"""``recommend``: the one door through which everything asks, from a callback to a replay."""

from __future__ import annotations

import os
import zlib
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from metamodel.borrowed import borrowed
from metamodel.data.learning_tables import learning_table
from metamodel.data.observations import LearningTable, TaskRuns
from metamodel.data.task import TaskDescription
from metamodel.evidence_floor import MIN_OTHER_RUNS, nothing_recommended, thin_evidence
from metamodel.explanation import describe_evidence
from metamodel.fitting import Serving, serving_kind, serving_model
from metamodel.gp.gp_meta_model import MetaModel
from metamodel.gp.kernels import one_thread
from metamodel.gp.meta_model import MIN_TASKS, is_teaching
from metamodel.kinds import DEFAULT, check_kind
from metamodel.recommendation import Decision, Evidence, Recommendation
from metamodel.search.candidates import conservative_space
from metamodel.search.maximizer import best_configs
from metamodel.search.task_surrogate import Advisor, Judgement
from metamodel.space.batch import GLOBAL, PER_DEVICE, as_seen_by_model
from metamodel.space.dimensions import Space, limited, parse_space
from metamodel.space.run_configs import varies
from metamodel.starter.scope import MIN_BESIDE_STARTER, is_wanted
from store.errors import InvalidArgumentError, UnknownTaskError
from store.ids import new_id, task_id_of
from store.names import canonical_name

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from metamodel.starter.starter_prior import Voice
    from store import History

FloatArray = npt.NDArray[np.float64]

APPLY_PROBABILITY = 0.55
"""Least probability of beating the user's own configuration; below, the user's values are as good a choice."""
MODES = ("best", "explore")


class Question(NamedTuple):
    """What is asked, resolved against the history.

    Attributes:
        task_id: Id of the task, None if none was named.
        own: The task's usable runs.
        others: Other tasks with enough runs that tuned something of the space.
        space: What may change.
        current: The user's own configuration by canonical name.
        variant: Source version of the model.
        mode: ``best`` or ``explore``.
        description: What is known of the task.
        left_out: Which runs were not used and why, in words.
        voice: What the starter history says, None where it is silent.
        pending: What is being tried now, by canonical name.
        unheard: Further other tasks, of which only where runs fail and what was tried is taken.
    """

    task_id: str | None
    own: TaskRuns | None
    others: tuple[TaskRuns, ...]
    space: Space
    current: Mapping[str, Any]
    variant: str | None
    mode: str
    description: TaskDescription
    left_out: str = ""
    voice: Voice | None = None
    pending: tuple[Mapping[str, Any], ...] = ()
    unheard: tuple[TaskRuns, ...] = ()

    @property
    def shipped(self) -> tuple[TaskRuns, ...]:
        """Tasks of the starter history that speak."""
        return () if self.voice is None else self.voice.tasks


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
    model: str | None = None,
    max_fit_s: float = 10.0,
    device: str = "auto",
    seed: int = 0,
    min_tasks: int = MIN_TASKS,
) -> list[Recommendation]:
    """Recommend configurations for a task, from everything finished in the history.

    A missing or outdated meta-model is fitted first, where there are two tasks to learn from. Thin evidence never raises: the
    recommendation then says ``abstain``, why, and what it would have chosen.

    Args:
        history: A history, its path, or None for the default one.
        task: Name, id or description of the task; a new one is answered from the other tasks alone.
        space: What may be chosen; None for what is safe to change and varied in the history.
        k: How many configurations, best first.
        mode: ``best`` maximises the expected outcome, ``explore`` what a run would teach.
        candidates: Choose among these configurations only; they replace ``space``.
        current: The user's own configuration, all hyperparameters of the run: the rest of it is context, and the gain is
            measured against it.
        allowed: Canonical names that may be rewritten where no space is given.
        limits: Canonical name -> largest value that is possible at all; a batch size is the global one.
        pending: Configurations of the task that are being tried now, for example by other workers; ``explore`` looks elsewhere.
        variant: Source version of the model; runs of other versions count as related, not exact, evidence.
        model: Kind of meta-model that answers: ``metahp``, ``direct``, ``maml`` or ``reptile``; None for that of the last ``refit``.
        max_fit_s: Time for an automatic fit in seconds.
        device: Where an automatic fit runs.
        seed: Seed; the same history and seed give the same recommendation.
        min_tasks: Tasks from which an automatic fit is worth its time; 1 for a search that follows what is below the evidence floor, too.

    Returns:
        ``k`` recommendations (fewer if there are fewer candidates), best first.

    Raises:
        SpaceError: If the space is malformed.
        InvalidArgumentError: If ``k``, ``mode``, ``model``, ``candidates`` or ``min_tasks`` is not possible.
    """
    _check_counts(k, mode, model, min_tasks)
    _check_question(task, candidates)
    with borrowed(history) as opened:
        table, task_id = learning_table(opened), _task_id(opened, task)
        # Runs of another objective than the one asked for would be incomparable.
        own = None if task_id is None else table.of_task(task_id, task.objective if isinstance(task, TaskDescription) else None)
        parsed = None if space is None else limited(_with_global_batch(parse_space(space)), limits or {})
        now = _seen_now({canonical_name(name): value for name, value in (current or {}).items()}, parsed)
        configs = _canonical(candidates or ())
        names, kind = _names_of(parsed, configs), model or serving_kind(opened)
        description = task if isinstance(task, TaskDescription) else own.description if own is not None else TaskDescription()
        others, left_out, voice, silence = _speakers(table, own, names, description, now, kind)
        if parsed is None and candidates is None:
            seen = (*others, *(voice.tasks if voice is not None else ()))
            parsed = limited(conservative_space(own, seen, now, allowed), limits or {})
            names = frozenset(parsed)
            others, left_out, voice, silence = _speakers(table, own, names, description, now, kind)
        unused = "; ".join(text for text in (table.describe_left_out(), silence) if text)
        serving = Serving(None)
        if _are_heard(others, voice):
            serving = serving_model(opened, table, max_fit_s, device, seed, model, _least_to_fit(min_tasks, kind, others))
        serving = _without_silent(serving, table, description, task_id, others, is_beside_starter=voice is not None)
        serving, voice, others, unheard = _side_by_side(serving, voice, others)
        waiting = tuple(_canonical(pending))
        question = Question(task_id, own, others, parsed or {}, now, variant, mode, description, unused, voice, waiting, unheard)
    evidence = _evidence(question, {**table.left_out, **left_out, **_why_unheard(unheard)}, serving)
    with one_thread():
        return _answer(question, serving, evidence, k, candidates, configs, seed)


def _check_counts(k: int, mode: str, model: str | None, min_tasks: int) -> None:
    check_kind(model)
    for name, count, advice in (("k", k, "Ask for one or more recommendations"), ("min_tasks", min_tasks, "Pass 1 or 2")):
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise InvalidArgumentError(f"{name} must be a whole number, at least 1, but got {count!r}. {advice}.")
    if mode not in MODES:
        raise InvalidArgumentError(f"mode must be one of {', '.join(MODES)}, but got {mode!r}. Pass one of these.")


def _check_question(task: object, candidates: Sequence[Mapping[str, Any]] | None) -> None:
    if not (task is None or isinstance(task, str | TaskDescription)):
        raise InvalidArgumentError(f"A task must be a name, a TaskDescription or None, but got {task!r:.80}. Pass task='my-task'.")
    if candidates is not None and not (candidates and all(isinstance(candidate, Mapping) for candidate in candidates)):
        raise InvalidArgumentError(
            f"candidates must hold at least one configuration, each a mapping of names to values, but got {candidates!r:.80}. "
            "Leave it out to search a space."
        )


def _with_global_batch(space: Space) -> Space:
    """Give the global batch the one name that a batch has in the meta-model."""
    if GLOBAL not in space or PER_DEVICE in space:
        return space
    return {PER_DEVICE if name == GLOBAL else name: dimension for name, dimension in space.items()}


def _seen_now(now: Mapping[str, Any], space: Space | None) -> dict[str, Any]:
    seen = as_seen_by_model(now)
    return {**{name: now[name] for name in space or () if name in now}, **seen}


def _task_id(history: History, task: str | TaskDescription | None) -> str | None:
    """Return the id of a task, also of one that has no run yet; a merged task answers with what it was merged into."""
    if task is None:
        return None
    identity = {"name": task} if isinstance(task, str) else task.identity()
    try:
        return history.task(task if isinstance(task, str) else task_id_of(identity)).id
    except UnknownTaskError:
        return task_id_of(identity)


def _canonical(configs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return configurations as the meta-model knows them: by canonical name, with one batch size, the global one.

    Each spelling is looked up once, since there may be thousands of them.
    """
    spellings: set[str] = set().union(*configs)
    names = {name: canonical_name(name) for name in spellings}
    found = [{names[name]: value for name, value in config.items()} for config in configs]
    return [as_seen_by_model(config) for config in found] if GLOBAL in names.values() else found


def _names_of(space: Space | None, configs: Sequence[Mapping[str, Any]]) -> frozenset[str] | None:
    if configs:
        return frozenset().union(*configs)
    return None if space is None else frozenset(space)


def _speaking_tasks(
    table: LearningTable, own: TaskRuns | None, names: frozenset[str] | None, is_pretrained: bool
) -> tuple[tuple[TaskRuns, ...], dict[str, int]]:
    """Choose the other tasks that may speak, and say why the rest may not.

    Fine-tuning wants learning rates hundreds of times smaller than training from scratch: the two never speak for each other.
    """
    speaking: list[TaskRuns] = []
    left_out: Counter[str] = Counter()
    for task in table.tasks:
        if own is not None and task.task_id == own.task_id:
            continue
        if len(task) < MIN_OTHER_RUNS:
            left_out[f"task has fewer than {MIN_OTHER_RUNS} runs"] += len(task)
        elif bool(task.description.is_pretrained) != is_pretrained:
            left_out["task starts from other weights (pre-trained or not)"] += len(task)
        elif names is not None and not any(varies(task.configs, name) for name in names):
            left_out["task tuned none of these hyperparameters"] += len(task)
        else:
            speaking.append(task)
    return tuple(speaking), dict(left_out)


def _speakers(
    table: LearningTable,
    own: TaskRuns | None,
    names: frozenset[str] | None,
    description: TaskDescription,
    now: Mapping[str, Any],
    kind: str,
) -> tuple[tuple[TaskRuns, ...], dict[str, int], Voice | None, str]:
    """Choose who may speak: other tasks, with why the rest may not, and the starter history, with why it is silent."""
    others, left_out = _speaking_tasks(table, own, names, bool(description.is_pretrained))
    voice, silence = _starter(description, own, others, now, kind)
    return others, left_out, voice, silence


def _starter(
    description: TaskDescription, own: TaskRuns | None, others: Sequence[TaskRuns], now: Mapping[str, Any], kind: str
) -> tuple[Voice | None, str]:
    """Ask the starter history; return what it says, or why it says nothing. The optimizer is that of the last run, if it is not known."""
    if kind != DEFAULT or not is_wanted(len(others)):
        return None, ""
    from metamodel.starter.starter_prior import consult

    last = own.configs[-1] if own is not None and own.configs else {}
    current = {**{name: last[name] for name in ("optimizer", "model_family") if name in last}, **now}
    answer = consult(description, current)
    return (None, answer) if isinstance(answer, str) else (answer, "")


def _are_heard(others: Sequence[TaskRuns], voice: Voice | None) -> bool:
    """Say whether a model is fitted to the user's own tasks; beside the starter history one of them alone says too little."""
    return bool(others) if voice is None else _are_enough(others)


def _are_enough(others: Sequence[TaskRuns]) -> bool:
    return sum(is_teaching(task) for task in others) >= MIN_BESIDE_STARTER


def _least_to_fit(min_tasks: int, kind: str, others: Sequence[TaskRuns]) -> int:
    """Return how many tasks an automatic fit takes; a single one must be another than the task in question."""
    return min_tasks if kind == DEFAULT and any(is_teaching(task) for task in others) else MIN_TASKS


def _without_silent(
    serving: Serving,
    table: LearningTable,
    description: TaskDescription,
    task_id: str | None,
    others: Sequence[TaskRuns],
    *,
    is_beside_starter: bool,
) -> Serving:
    """Take out of the model what must not speak here: beside the starter all tasks but those heard, else those of other weights.

    Tasks that have been merged into another are counted there, and a model of nothing but the task in question would count its own runs
    twice. One of a single task serves as long as there is a single one to hear.
    """
    if not isinstance(serving.model, MetaModel):
        return serving
    known = set(serving.model.info["task_ids"])
    if len(known) < MIN_TASKS <= len(others):
        return serving._replace(model=None)
    heard = {task_id, *(task.task_id for task in others)}
    if not is_beside_starter:
        is_pretrained = bool(description.is_pretrained)
        heard |= {task.task_id for task in table.tasks if bool(task.description.is_pretrained) == is_pretrained}
    model = serving.model.forgetting(known - heard)
    return serving._replace(model=None if model is not None and set(model.info["task_ids"]) == {task_id} else model)


def _side_by_side(
    serving: Serving, voice: Voice | None, others: tuple[TaskRuns, ...]
) -> tuple[Serving, Voice | None, tuple[TaskRuns, ...], tuple[TaskRuns, ...]]:
    """Put the starter history, where it speaks, beside the model of the user's own tasks; return also which of these are heard, and not."""
    if voice is None:
        return serving, None, others, ()
    own = serving.model
    if isinstance(own, MetaModel) and not {task.task_id for task in others}.isdisjoint(own.info["task_ids"]):
        voice = voice.beside(own)
        return serving._replace(model=voice.model), voice, others, ()
    return serving._replace(model=voice.model), voice, (), others


def _why_unheard(unheard: Sequence[TaskRuns]) -> dict[str, int]:
    if not unheard:
        return {}
    few, unfitted = "too few other tasks to stand beside the starter history", "other tasks without a meta-model of them"
    return {unfitted if _are_enough(unheard) else few: sum(len(task) for task in unheard)}


def _evidence(question: Question, left_out: Mapping[str, int], serving: Serving) -> Evidence:
    own = question.own
    n_same = 0 if own is None else sum(question.variant is None or variant == question.variant for variant in own.variants)
    best = None
    if own is not None and np.isfinite(own.values).any():
        best = own.run_ids[int(np.nanargmax(own.values))]
    tasks = [*question.others, *question.unheard, *([own] if own is not None else [])]
    return Evidence(
        n_runs=n_same,
        n_related=0 if own is None else len(own) - n_same,
        n_tasks=len(question.others),
        n_other_runs=sum(len(task) for task in question.others),
        n_starter_tasks=len(question.shipped),
        n_starter_runs=sum(len(task) for task in question.shipped),
        n_failed=int(sum(task.is_failed.sum() for task in tasks)),
        best_run_id=best,
        left_out=dict(left_out),
        model_id=None if serving.model is None else serving.model.id,
        note="; ".join(part for part in (serving.note, "" if serving.model is None else serving.model.remark) if part),
    )


def _answer(
    question: Question,
    serving: Serving,
    evidence: Evidence,
    k: int,
    candidates: Sequence[Mapping[str, Any]] | None,
    configs: Sequence[Mapping[str, Any]],
    seed: int,
) -> list[Recommendation]:
    nothing = nothing_recommended(question.task_id, question.mode, evidence)
    thin = thin_evidence(evidence)
    if thin is not None and question.left_out:
        thin = f"{thin}; {question.left_out}"
    has_outcomes = question.own is not None and bool(question.own.has_outcome.any())
    if not question.space and candidates is None:
        return [replace(nothing, reason=thin or "no hyperparameter that may be changed varied in the history")]
    if serving.model is None and not has_outcomes:
        return [replace(nothing, reason=thin or serving.note or "no finished run has an outcome")]
    advisor = Advisor(
        serving.model,
        question.own,
        (*question.others, *question.unheard),
        question.space,
        question.current,
        question.variant,
        question.description,
        configs,
        question.pending,
        question.shipped,
    )
    known = advisor.informed_names
    asked = list(question.space) if candidates is None else sorted(_names_of(None, configs) or ())
    untuned = tuple(name for name in asked if name not in known)
    evidence = replace(evidence, untuned=untuned)
    nothing = replace(nothing, evidence=evidence)
    if len(untuned) == len(asked):
        return [replace(nothing, reason=thin or f"no run varied {' or '.join(untuned)}, so nothing is known about it")]
    if candidates is not None:
        order = advisor.rank(configs, question.mode)[:k]
        chosen = [(configs[i], dict(candidates[i])) for i in order]
    else:
        found = _search(question, advisor, k, np.random.default_rng([seed, zlib.crc32((question.task_id or "").encode())]))
        fallback = {name: question.current.get(name, question.space[name].from_unit(0.5)) for name in untuned}
        chosen = [(config, {dim.raw_name: {**config, **fallback}[name] for name, dim in question.space.items()}) for config in found]
    result = []
    for config, raw in chosen:
        judged = advisor.judge(config)
        decision, reason = _decide(judged, thin, evidence, advisor.unseen(config) if question.mode == "best" else ())
        result.append(
            replace(
                nothing,
                id=new_id(),
                config=raw,
                prediction=judged.prediction,
                interval=judged.interval,
                own_prediction=judged.own_prediction,
                gain_probability=judged.gain_probability,
                finish_probability=judged.finish_probability,
                unit=judged.unit,
                decision=decision,
                reason=reason,
            )
        )
    return result


def _search(question: Question, advisor: Advisor, k: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Find the ``k`` best configurations of the space."""
    space = advisor.informed_space
    if not space:
        return [{}]
    elites = [
        config for task in (question.own, *question.others, *question.shipped) if task is not None for config in advisor.best_configs(task)
    ]
    if question.current:
        elites.append(question.current)
    return best_configs(advisor.landscape(question.mode), space, advisor.coordinates, elites, k, rng)


def _decide(judged: Judgement, thin: str | None, evidence: Evidence, unseen: Sequence[str]) -> tuple[Decision, str]:
    basis = f"from {describe_evidence(evidence)}"
    if thin is not None:
        return Decision.ABSTAIN, thin
    if unseen:
        return Decision.ABSTAIN, f"{' and '.join(unseen)} would lie far outside the values any run had, {basis}"
    if judged.gain_probability is None:
        return Decision.APPLY, f"best expected outcome, {basis}"
    if judged.is_own:
        return Decision.ABSTAIN, f"your own values are already what would be recommended, {basis}"
    chance = f"{judged.gain_probability:.0%}"
    if judged.gain_probability < APPLY_PROBABILITY:
        return Decision.ABSTAIN, f"a gain over your own values is not probable enough ({chance}, {APPLY_PROBABILITY:.0%} needed), {basis}"
    return Decision.APPLY, f"better than your own values with probability {chance}, {basis}"
