"""Why runs belong to a task, in plain words: what they share, which tasks are siblings, and which runs compare only in order."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metahp_cli import output

if TYPE_CHECKING:
    from store import History, TaskRecord

WIDTH = 80
_INDENT = " " * 4
_LABEL_WIDTH = 12


@dataclass(frozen=True, slots=True)
class TaskReasons:
    """What makes a task.

    Attributes:
        record: The task.
        siblings: Sibling tasks, each with what differs.
        groups: Definition of the objective -> number of runs; the empty one is the usual.
        n_judged: Runs with an outcome.
    """

    record: TaskRecord
    siblings: Sequence[tuple[TaskRecord, Sequence[str]]]
    groups: Mapping[str, int]
    n_judged: int

    def facts(self) -> dict[str, Any]:
        """Return siblings and groups for JSON."""
        siblings = [
            {"id": other.id, "name": other.name, "n_runs": other.n_runs, "differs_in": list(signs)} for other, signs in self.siblings
        ]
        return {"siblings": siblings, "comparable_groups": [{"defined_by": name, "n_runs": count} for name, count in self.groups.items()]}

    def lines(self) -> Iterator[str]:
        """Yield a block of text, at most ``WIDTH`` wide."""
        record = self.record
        yield record.name
        runs = f"{record.n_runs} {_runs(record.n_runs)}, {self.n_judged or 'none'} with an outcome"
        yield from _wrapped("id", f"{record.id}; {runs}")
        for label, text in _shared(record.identity):
            yield from _wrapped(label, text)
        if record.merged_ids:
            yield from _wrapped("merged", f"{', '.join(record.merged_ids)} merged into it by hand")
        for other, signs in self.siblings:
            yield from _wrapped("sibling", f"{other.name}: {'; '.join(signs)}")
        if len(self.groups) > 1 or "" not in self.groups:
            counts = [f"{count} {_runs(count)} with {name or 'the usual objective'}" for name, count in self.groups.items()]
            rest = "runs of different groups are compared in order only" if len(counts) > 1 else ""
            yield from _wrapped("groups", "; ".join(filter(None, [*counts, rest])))


def reasons_of(history: History, records: Sequence[TaskRecord], all_records: Sequence[TaskRecord]) -> list[TaskReasons]:
    """Return the reasons of some tasks.

    Args:
        history: Open history.
        records: The tasks to explain.
        all_records: All tasks of the history, among which siblings are looked for.
    """
    from metamodel.data.siblings import are_siblings, sibling_signs
    from metamodel.data.task import TaskDescription
    from store.learning_columns import learning_runs
    from store.repeats import definition_of_run, outcome_of

    described = {record.id: TaskDescription.from_dict(record.description) for record in all_records if not record.is_named}
    groups: dict[str, Counter[str]] = {}
    judged: Counter[str] = Counter()
    for run in learning_runs(history, [record.id for record in records]):
        judged[run.task_id] += outcome_of(run) is not None
        groups.setdefault(run.task_id, Counter())[definition_of_run(run)] += 1
    found = []
    for record in records:
        ours = described.get(record.id)
        siblings = [
            (other, sibling_signs(ours, described[other.id]))
            for other in all_records
            if ours is not None and other.id != record.id and other.id in described and are_siblings(ours, described[other.id])
        ]
        found.append(TaskReasons(record, siblings, dict(sorted(groups.get(record.id, {"": 0}).items())), judged[record.id]))
    return found


def _runs(count: int) -> str:
    return "run" if count == 1 else "runs"


def _shared(identity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what two runs must share, a label and a text each."""
    if set(identity) == {"name"}:
        yield "name", f"{identity['name']}, set by you; nothing else counts"
        return
    if "script" in identity:
        folder = f" in the folder {identity['folder']}" if identity.get("folder") else ""
        yield "script", f"{identity['script']}{folder}; what it trains is not known"
    shape = _shape("inputs", identity, "input"), _shape("targets", identity, "target")
    classes = f"{identity['n_classes']} classes" if identity.get("n_classes") is not None else None
    schema = dict(identity.get("schema") or {})
    texts = {
        "names": _named(dict(identity.get("data_names") or identity.get("data_hparams") or {})),
        "fold": _named(dict(identity.get("fold") or {})),
        "data set": ", ".join(part for part in (identity.get("dataset_class"), *shape, classes) if part),
        **{_words(key): _named(schema[key]) for key in sorted(schema) if key != "rows"},
        "content": f"sketch {identity['content']} of its rows" if identity.get("content") else None,
        "rows": f"{identity['n_train']:,} (by an earlier version)" if identity.get("n_train") is not None else None,
        "model": identity.get("model_class"),
        "objective": f"{identity['objective']} ({identity.get('direction')})" if identity.get("objective") else None,
    }
    yield from ((label, str(text)) for label, text in texts.items() if text)


def _shape(name: str, identity: Mapping[str, Any], part: str) -> str | None:
    shape, kind = identity.get(f"{part}_shape"), identity.get(f"{part}_kind") or identity.get(f"{part}_dtype")
    if shape is None:
        return None
    size = " x ".join("any" if axis == -1 else str(axis) for axis in shape) or "one"
    return f"{name} {size} {kind or ''}".rstrip()


def _named(values: Any) -> str:
    if isinstance(values, Mapping):
        return ", ".join(f"{key} {_named(value)}" for key, value in values.items())
    return ", ".join(str(item) for item in values) if isinstance(values, list | tuple) else output.show_value(values)


def _words(key: str) -> str:
    return key.replace("_", " ")


def _wrapped(label: str, text: str) -> Iterator[str]:
    head = f"{_INDENT}{label:{_LABEL_WIDTH}}"
    yield from textwrap.wrap(text, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False) or [head.rstrip()]
