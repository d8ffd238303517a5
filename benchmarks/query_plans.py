"""How SQLite answers what is asked every day: the statements as the code really issues them, explained by SQLite."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from store import History, resource_totals

WIDE_TABLES = ("runs", "hparams", "metrics", "resources")
"""Tables that grow with every run; the others have a row a task, a recommendation or a model."""


@dataclass(frozen=True)
class Plan:
    """One statement and SQLite's way to answer it."""

    question: str
    statement: str
    steps: tuple[str, ...]

    @property
    def general(self) -> str:
        """The statement without its values."""
        return generalised(self.statement)

    @property
    def full_scans(self) -> tuple[str, ...]:
        """Steps that read a whole growing table; walking an index in order until a LIMIT is none."""
        found = []
        for step in self.steps:
            match = re.match(rf"SCAN ({'|'.join(WIDE_TABLES)})\b(.*)", step)
            if match is None:
                continue
            stops = " LIMIT " in self.statement.upper() and "USING" in match.group(2)
            if not stops:
                found.append(step)
        return tuple(found)


def generalised(statement: str) -> str:
    """Return a statement with a question mark for each value, on one line."""
    return re.sub(r"\s+", " ", re.sub(r"'(?:[^']|'')*'", "?", statement)).strip()


def everyday_questions(history: History, run_id: str, task: str) -> dict[str, Callable[[], object]]:
    """Return what a user and a training ask, by the words for it."""
    return {
        "metahp runs": lambda: history.runs(limit=21, newest_first=True),
        "metahp runs --task": lambda: history.runs(task, limit=21, newest_first=True),
        "metahp show RUN": lambda: (history.run(run_id), history.metrics(run_id), resource_totals(history, run_id)),
        "metahp show (start of an id)": lambda: history.run(run_id[:-2]),
        "metahp tasks": history.tasks,
        "names logged in a run": lambda: history.metric_names(run_id),
        "names logged in a task": lambda: history.metric_names(task=task),
        "a curve of a run": lambda: history.metrics(run_id, "val_loss"),
        "a run starts": lambda: history.start_run(task=task, hparams={"lr": 0.1}, objective="val_loss").finish("interrupted"),
        "the runs of a task, to learn from": lambda: history.runs(task),
    }


def explain(history: History, run_id: str, task: str) -> list[Plan]:
    """Return the plan of every statement that the everyday questions issue, each statement once."""
    plans: list[Plan] = []
    for question, ask in everyday_questions(history, run_id, task).items():
        seen = {plan.general for plan in plans if plan.question == question}
        for statement in _issued(history, ask):
            if (general := generalised(statement)) in seen:
                continue
            seen.add(general)
            with history._reading() as connection:
                steps = tuple(row["detail"] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}"))
            plans.append(Plan(question, statement, steps))
    return plans


def _issued(history: History, ask: Callable[[], object]) -> list[str]:
    """Return the statements that a question issues on the history's own connection, parameters filled in."""
    issued: list[str] = []
    with history._using() as connection:
        connection.set_trace_callback(issued.append)
        try:
            ask()
        finally:
            connection.set_trace_callback(None)
    kept = [text for text in issued if text.lstrip().upper().startswith(("SELECT", "WITH", "UPDATE", "DELETE", "INSERT"))]
    return [text for text in kept if sqlite3.complete_statement(f"{text};") and "sqlite_master" not in text]
