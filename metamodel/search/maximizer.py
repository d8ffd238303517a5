"""The best configurations of a space: everywhere first, then up the slope from the best.

A posterior that knows its gradient is climbed by L-BFGS along the continuous numbers, in turn with single steps of everything else (after
Balandat et al., "BoTorch", NeurIPS 2020, and the mixed spaces of Optuna's GPSampler); any other is searched by ever smaller random steps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from metamodel.space.arrays import FloatArray
from metamodel.space.coordinates import Coordinates, is_complete, listed
from metamodel.space.dimensions import Space

N_EVERYWHERE = (256, 512, 1024)
"""Candidates all over a space of one, two, and more hyperparameters."""
N_EVERYWHERE_WITH_GRADIENT = 512
"""Fewer are enough where the best of them are climbed from."""
MAX_GRID = 2048
"""A space with no more configurations than this is listed in full."""
LOCAL_SCALES = tuple(np.geomspace(0.2, 0.01, 10))
"""Widths of the random local rounds, in units of a dimension's range. Each round starts from what the one before found, so with seven
numbers many small rounds end higher than a few large ones of twice as many candidates; among labels neither is better."""
MAX_ELITES = 128
"""Of the best runs known; those of the task come first."""
ELITE_SCALES = (0.1, 0.01)
N_LOCAL = (8, 16, 32)
"""Random steps from each centre in a space of one, two, and more hyperparameters."""
N_AROUND_ELITE = 16
N_CENTRES = 4
"""Best candidates around which the search is refined."""
N_CLIMBS = 6
MAX_CLIMB = 60
MAX_TURNS = 4
"""Times that climbing and single steps take turns."""
NEAR = 0.1
"""Several recommendations differ by at least this share of some number's range: two almost equal ones would be one."""
POOL = 16
"""For each recommendation wanted, so many candidates that are not near each other are compared."""


class Landscape(Protocol):
    """What is searched: larger is better."""

    @property
    def has_gradient(self) -> bool:
        """Whether ``gradient`` can be asked."""

    def values(self, inputs: FloatArray) -> FloatArray:
        """Return the value of encoded configurations, shape ``(n,)``."""

    def gradient(self, row: FloatArray) -> tuple[float, FloatArray]:
        """Return the value of one encoded configuration, shape ``(d,)``, and its gradient."""

    def is_supported(self, points: Mapping[str, FloatArray]) -> npt.NDArray[np.bool_]:
        """Say which candidates may be proposed, given the numbers of each name, shape ``(n,)``."""


def best_configs(
    landscape: Landscape,
    space: Space,
    coordinates: Coordinates,
    elites: Sequence[Mapping[str, Any]],
    k: int,
    rng: np.random.Generator,
    *,
    taken: Sequence[Mapping[str, Any]] = (),
    is_alike: Callable[[FloatArray], npt.NDArray[np.bool_]] | None = None,
) -> list[dict[str, Any]]:
    """Find the ``k`` best configurations of a space.

    Args:
        landscape: What is searched.
        space: The space, not empty.
        coordinates: The same space as arrays.
        elites: Configurations worth looking around, by canonical name.
        k: How many; two never are almost equal.
        rng: Source of randomness.
        taken: Configurations that none may be almost equal to.
        is_alike: Says of encoded configurations, shape ``(n, d)``, which of them cannot be told apart, shape ``(n, n)``; these come last.

    Returns:
        Up to ``k`` configurations, best first.
    """
    search = _Search(landscape, coordinates)
    grid = listed(coordinates, MAX_GRID)
    if grid is not None:
        search.add(grid)
    else:
        known = coordinates.points([elite for elite in elites if is_complete(elite, space)][:MAX_ELITES])
        size = min(len(space), len(N_EVERYWHERE)) - 1
        n_everywhere = N_EVERYWHERE_WITH_GRADIENT if landscape.has_gradient else N_EVERYWHERE[size]
        search.add(np.concatenate([coordinates.sample(n_everywhere, rng), known]))
        if landscape.has_gradient:
            search.add(np.concatenate([coordinates.neighbours(known, N_AROUND_ELITE, scale, rng) for scale in ELITE_SCALES]))
            search.climb()
        else:
            for scale in LOCAL_SCALES:
                search.add(coordinates.neighbours(search.best(N_CENTRES), N_LOCAL[size], scale, rng))
    pool = _spread(search.ranked(), coordinates, coordinates.points(taken), 1 if k == 1 else POOL * k)
    if is_alike is not None and 1 < k < len(pool):
        pool = pool[_told_apart_first(is_alike(coordinates.encode(pool)), k)]
    return [coordinates.config(point) for point in pool[:k]]


def _spread(points: FloatArray, coordinates: Coordinates, taken: FloatArray, n: int) -> FloatArray:
    """Return the first ``n`` points near neither each other nor those taken; near: equal labels, numbers within ``NEAR``."""
    places, tolerances = coordinates.positions(points), np.where(coordinates.is_interval, NEAR, 1e-9)
    is_free = np.ones(len(points), dtype=bool)
    for place in coordinates.positions(taken):
        is_free &= (np.abs(places - place) >= tolerances).any(1)
    found: list[int] = []
    while is_free.any() and len(found) < n:
        found.append(int(is_free.argmax()))
        is_free &= (np.abs(places - places[found[-1]]) >= tolerances).any(1)
    return points[found]


def _told_apart_first(is_alike: npt.NDArray[np.bool_], k: int) -> list[int]:
    """Order candidates, best first: ``k`` that can be told apart from each other, then those that cannot."""
    chosen: list[int] = []
    for i in range(len(is_alike)):
        if len(chosen) < k and not is_alike[i, chosen].any():
            chosen.append(i)
    return [*chosen, *(i for i in range(len(is_alike)) if i not in chosen)]


class _Search:
    """Points seen so far, with their values."""

    def __init__(self, landscape: Landscape, coordinates: Coordinates) -> None:
        self._landscape, self._coordinates = landscape, coordinates
        self._points = np.zeros((0, len(coordinates.axes)))
        self._values = np.zeros(0)

    def add(self, points: FloatArray) -> FloatArray:
        """Evaluate points, drop those far from any run unless nothing would remain, and return the values of all given."""
        if not len(points):
            return np.zeros(0)
        values = self._landscape.values(self._coordinates.encode(points))
        numbers = {
            name: points[:, j] if axis.dimension.choices is None else np.asarray(axis.dimension.choices)[points[:, j].astype(np.intp)]
            for j, (name, axis) in enumerate(zip(self._coordinates.names, self._coordinates.axes, strict=True))
            if axis.dimension.is_numeric
        }
        keep = self._landscape.is_supported(numbers) if numbers else np.ones(len(points), dtype=bool)
        if not keep.any() and not len(self._values):
            keep = np.ones(len(points), dtype=bool)
        self._points = np.concatenate([self._points, points[keep]])
        self._values = np.concatenate([self._values, values[keep]])
        return np.where(keep, values, -np.inf)

    def best(self, n: int) -> FloatArray:
        """Return the ``n`` best different points, shape ``(n, d)``."""
        found: list[FloatArray] = []
        for point in self.ranked():
            if not any(np.array_equal(point, other) for other in found):
                found.append(point)
            if len(found) == n:
                break
        return np.array(found)

    def ranked(self) -> FloatArray:
        """Return all points, best first."""
        return self._points[np.argsort(-self._values, kind="stable")]

    def climb(self) -> None:
        """Walk up from the best points, in turn along the gradient and by single steps of what has none."""
        for start in self.best(N_CLIMBS):
            point, value = start, float(self.add(start[None])[0])
            for _ in range(MAX_TURNS):
                before = value
                if self._coordinates.free:
                    point, value = self._better(point, value, self._along_gradient(point)[None])
                is_flipped = False
                for _ in range(len(point)):
                    previous = value
                    point, value = self._better(point, value, self._coordinates.flips(point))
                    if value <= previous:
                        break
                    is_flipped = True
                if not is_flipped or value <= before:
                    break

    def _better(self, point: FloatArray, value: float, others: FloatArray) -> tuple[FloatArray, float]:
        values = self.add(others)
        if len(values) and values.max() > value:
            return others[int(values.argmax())], float(values.max())
        return point, value

    def _along_gradient(self, point: FloatArray) -> FloatArray:
        coordinates, landscape = self._coordinates, self._landscape
        row, columns = coordinates.encode(point[None])[0], coordinates.free_columns

        def falling(z: FloatArray) -> tuple[float, FloatArray]:
            row[columns] = z
            value, gradient = landscape.gradient(row)
            return -value, -gradient[columns]

        found = minimize(
            falling, row[columns].copy(), jac=True, method="L-BFGS-B", bounds=coordinates.free_bounds, options={"maxiter": MAX_CLIMB}
        )
        return coordinates.with_free(point, found.x)
