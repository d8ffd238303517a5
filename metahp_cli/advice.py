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


def recommend(
    task: Annotated[str, typer.Option("--task", help="Task to recommend for: its name or id.")],
    space: Annotated[
        Path | None, typer.Option("--space", metavar="FILE", help="JSON file of a search space; default: from the history.")
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, help="How many configurations.")] = 1,
    mode: Annotated[Mode, typer.Option("--mode", help="best: highest expected result; explore: highest expected improvement.")] = Mode.BEST,
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
        from metamodel import recommend as recommend_  # torch is loaded for a history that exists
        from metamodel.recommendation import save_recommendation
        from metamodel.space.dimensions import load_space_file

        names = None if space is None else load_space_file(space)
        found = recommend_(opened, task=task, space=names, k=k, mode=mode.value, model=model)
        for recommendation in found:
            save_recommendation(opened, recommendation)
    print_recommendations(found, format)
    if not any(recommendation.evidence.n_runs for recommendation in found):
        output.note(f"No finished run of the task {task!r} is in the history; metahp tasks lists the names it knows.")


def print_recommendations(recommendations: Sequence[Recommendation], format: Format) -> None:
    """Print recommendations with prediction, evidence, decision and reason."""
    from metamodel.explanation import describe_evidence, describe_prediction

    if format is Format.JSON:
        output.print_json([recommendation.to_dict() for recommendation in recommendations])
        return
    for index, given in enumerate(recommendations):
        if index:
            output.print_line("")
        output.print_fields(
            {
                "recommendation": given.id,
                "decision": given.decision,
                "configuration": given.config or "none",
                "prediction": describe_prediction(given),
                "P(completes)": f"{given.finish_probability:.0%}",
                "evidence": describe_evidence(given.evidence),
                "reason": given.reason,
            }
        )
