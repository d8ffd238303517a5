"""``metahp recommend``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metahp_cli import output
from metahp_cli.options import DebugOption, Format, FormatOption, HistoryOption, Mode

if TYPE_CHECKING:
    from metamodel import Recommendation
    from store import History, TaskRecord


def recommend(
    task: Annotated[str, typer.Option("--task", help="Task to recommend for: its name or id.")],
    space: Annotated[
        Path | None,
        typer.Option("--space", metavar="FILE", help="JSON file of a search space; default: what the task's runs tuned, as far as seen."),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many configurations.")] = 1,
    mode: Annotated[Mode, typer.Option("--mode", help="best: highest expected result; explore: highest expected improvement.")] = Mode.BEST,
    new: Annotated[bool, typer.Option("--new", help="The task has no run yet: answer from the other tasks.")] = False,
    model: Annotated[str | None, typer.Option("--model", metavar="KIND", help="{kinds}; default: that of the last refit.")] = None,
    history: HistoryOption = None,
    format: FormatOption = Format.TABLE,
    debug: DebugOption = False,
) -> None:
    """Recommend a configuration, and give the reason.

    It is stored in the history under the id shown; METAHP_PIN=<id> makes a run use exactly this one.

    Example: metahp recommend --task digits --k 3 --mode explore
    """
    from store import History

    with History(history, create=False) as opened, output.progress("predicting"):
        from metamodel.kinds import check_kind

        check_kind(model)
        known = None if new else _known_task(opened, task)
        from metamodel import recommend as recommend_  # torch is loaded for a history that exists
        from metamodel.data.task import TaskDescription
        from metamodel.recommendation import save_recommendation
        from metamodel.space.dimensions import load_space_file

        names = None if space is None else load_space_file(space)
        asked = TaskDescription(name=task) if known is None else known.id
        found = recommend_(opened, task=asked, space=names, k=k, mode=mode.value, model=model)
        for recommendation in found:
            save_recommendation(opened, recommendation)
    print_recommendations(found, format, None if known is None else known.objective)
    if not any(given.evidence.n_runs + given.evidence.n_related for given in found):
        output.note(f"No run of the task {task!r} with an outcome is in the history; metahp tasks lists the names it knows.")


def _known_task(history: History, name: str) -> TaskRecord | None:
    """Return a task of the history, None for a new one.

    Raises:
        UnknownTaskError: If a task that there is may be meant, or more than one is.
    """
    from store import UnknownTaskError
    from store.names import nearest

    try:
        return history.task(name)
    except UnknownTaskError as error:
        names = [task.name for task in history.tasks()]
        if name in names:
            raise
        if nearest(name, names):
            raise UnknownTaskError(f"{error} Add --new for a task that has no run yet.") from None
        return None


def print_recommendations(recommendations: Sequence[Recommendation], format: Format, objective: str | None = None) -> None:
    """Print recommendations with prediction, evidence, decision and reason."""
    from metamodel.explanation import describe_evidence, describe_prediction
    from store.hyperparameters import conservative_names
    from store.names import canonical_name

    if format is Format.JSON:
        output.print_json([recommendation.to_dict() for recommendation in recommendations])
        return
    for index, given in enumerate(recommendations):
        if index:
            output.print_line("")
        careful = [name for name in given.config if canonical_name(name) not in conservative_names()]
        output.print_fields(
            {
                "recommendation": given.id,
                "decision": given.decision,
                "configuration": given.config or "none",
                "needs a space": f"{', '.join(careful)} (no training has it rewritten unless it is listed in space)" if careful else None,
                "not advised": "; ".join(f"{name}: {reason}" for name, reason in given.evidence.not_advised.items()) or None,
                "prediction": describe_prediction(given, objective),
                "P(completes)": f"{given.finish_probability:.0%}",
                "evidence": describe_evidence(given.evidence),
                "reason": given.reason,
            }
        )
