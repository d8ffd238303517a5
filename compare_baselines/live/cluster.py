"""The same searches on a Ray cluster; Ray schedules them, we do not."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compare_baselines.live.search import MAX_DEATHS, SearchJob, carry_out
from store.errors import HistoryPathError
from store.extras import needed_for


@contextmanager
def ray_cluster(address: str, jobs: int) -> Iterator[Callable[[Sequence[SearchJob]], Iterator[SearchJob]]]:
    """Connect to a cluster, or start one on this machine, and let it go in the end.

    Args:
        address: ``local`` for one of this machine with ``jobs`` workers, else an address as ``ray.init`` takes it.
        jobs: Workers of a local cluster; a cluster of one's own runs as many searches as it has CPUs.

    Yields:
        A function that carries searches out, in any order, and yields each when it is done.

    Raises:
        MissingDependencyError: If Ray is not installed.
        HistoryPathError: If a worker does not see the history.
    """
    with needed_for("--ray", otherwise="use --jobs"):
        import ray
    # The driver's path, so that workers find the packages of a checkout as well.
    environment = {"env_vars": {"PYTHONPATH": ":".join(dict.fromkeys(path for path in sys.path if path)), "OMP_NUM_THREADS": "1"}}
    options: dict[str, Any] = {"num_cpus": jobs, "include_dashboard": False} if address == "local" else {"address": address}
    ray.init(**options, runtime_env=environment, log_to_driver=False, logging_level="ERROR")
    try:
        # Where a worker dies Ray starts the search again, which goes on where the history ends.
        remote = ray.remote(num_cpus=1, max_retries=MAX_DEATHS + 1)(_carry_out_there)
        yield lambda searches: _carry_out(ray, remote, searches)
    finally:
        ray.shutdown()


def _carry_out(ray: Any, remote: Any, searches: Sequence[SearchJob]) -> Iterator[SearchJob]:
    waiting = {remote.remote(search): search for search in searches}
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), num_returns=1)
            for each in done:
                search = waiting.pop(each)
                try:
                    ray.get(each)
                except ray.exceptions.RayTaskError as error:
                    raise getattr(error, "cause", error) from error
                yield search
    finally:
        for each in waiting:
            ray.cancel(each, force=True)


def _carry_out_there(search: SearchJob) -> int:
    if not Path(search.history).exists():
        raise HistoryPathError(
            f"Every worker must see the history, but {search.history} is not there on one of them. Put it on a file system that all share, "
            "or use --ray local."
        )
    return carry_out(search)
