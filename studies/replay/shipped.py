"""Tables for a replay that need no data of others: what each shipped network was worth, ``python -m studies.replay.shipped``.

The runs of the starter history (``metamodel/starter/data``) as one row a run. Of the meta-model only how well past tasks must predict each
other (``metamodel.gp.calibration.FULL_TRUST_CORRELATION``) was chosen with a look at them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metamodel.data.task import TaskDescription
from metamodel.starter.scope import FAMILIES
from store.errors import InvalidArgumentError
from store.importers.table import TableColumns
from store.names import Direction
from studies.starter.pack import HYPERPARAMETERS, TARGET, outcome, read_shipped

COLUMNS = TableColumns("task", "run", HYPERPARAMETERS, "score", "max")
"""What the columns of such a table mean; ``score`` is the objective, negated where it was minimised."""


def write_table(family: str, path: Path) -> None:
    """Write the shipped networks of one family as Parquet, one row a run; a diverged one has NaN.

    Args:
        family: ``mlp``, ``cnn``, ``rnn`` or ``transformer``.
        path: The file.

    Raises:
        InvalidArgumentError: If there is no such family, or the runs are not in this installation.
    """
    import pyarrow as pa
    from pyarrow import parquet

    if family not in FAMILIES:
        raise InvalidArgumentError(f"A family must be shipped, but got {family!r}. Possible are {', '.join(FAMILIES)}.")
    rows: list[dict[str, Any]] = []
    for task in read_shipped(TARGET):
        description = TaskDescription.from_dict(task["description"])
        if description.model_family != family:
            continue
        objective = str(description.objective)
        sign = -1.0 if description.direction == Direction.MIN else 1.0
        for number, run in enumerate(task["runs"]):
            value, _ = outcome(run, objective)
            rows.append({COLUMNS.task: description.name, COLUMNS.run: number, **run["hparams"], COLUMNS.objective: sign * value})
    parquet.write_table(pa.Table.from_pylist(rows), path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table asked for."""
    parser = argparse.ArgumentParser(prog="python -m studies.replay.shipped", description="Write shipped runs as a table.")
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("file", type=Path, help="the Parquet file to write")
    given = parser.parse_args(arguments)
    write_table(given.family, given.file)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
