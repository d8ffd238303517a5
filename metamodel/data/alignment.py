"""Outcomes of related groups of runs on the scale of one of them: folds, other validations and other lengths beside a task's own runs.

The outcome of a run of group ``g`` is modelled as ``y = f_g(x) + b_g + noise``: ``f_g`` are Gaussian processes with correlation
``c_g c_h`` between groups (``RunGroups``), and ``b_g`` is a normal random offset. A sibling's offset is small and its correlation high, how
small and how high is learned; the offset of a group that is comparable only in order is free. What is returned is ``y - E[b_g | y]``, the
best linear unbiased prediction (Robinson, "That BLUP is a good thing", Statistical Science 1991).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.linalg import LinAlgError, cho_solve, cholesky

from metamodel.space.arrays import FloatArray

FREE_OFFSET = 100.0
"""Variance of an offset of which nothing is known, in variances of the outcomes."""
SIBLING_OFFSETS = (0.0, 0.1, 1.0, 10.0)
"""Variances of a sibling's offset that are weighed against each other."""
SIBLING_CORRELATIONS = {0.3: 0.1, 0.6: 0.15, 0.8: 0.25, 0.9: 0.25, 0.97: 0.25}
"""Correlations with a sibling, and how probable each is before any run: folds and grown data are seldom strangers."""
LENGTHS = (0.3, 1.0, 3.0)
"""Length scales, in ranges of a hyperparameter."""
NOISES = (0.02, 0.2)
"""Variances of the noise, in variances of the outcomes."""
MAX_RUNS = 150
"""Runs that are looked at, the newest of each group in turn; a Cholesky for each hypothesis."""
MIN_RUNS_FOR_SCALE = 4
"""Runs of a group from which its spread is worth something."""
MAX_RESCALING = 10.0
CLIP, CLIP_OF_ALL = 4.0, 12.0
"""Spreads from the middle of its group, and of all, beyond which an outcome counts no further: one exploded loss is no offset."""


@dataclass(frozen=True, slots=True)
class Kinship:
    """How a group is related to the one that is asked about.

    Attributes:
        correlation: What is known of the correlation by itself, in (0, 1]: of another version, another length.
        is_learned: Whether it is a sibling, whose correlation is learned from the runs and multiplies ``correlation``.
        is_order_only: Whether its outcomes are comparable only among each other.
    """

    correlation: float = 1.0
    is_learned: bool = False
    is_order_only: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class AlignedOutcomes:
    """Outcomes on the scale of the reference group.

    Attributes:
        values: Shape ``(n,)``, NaN where they were.
        correlations: Of each group with the one that is asked about, shape ``(g,)``.
        is_level_known: Whether the scale is that of the group that is asked about, or of a sibling of it.
    """

    values: FloatArray
    correlations: FloatArray
    is_level_known: bool


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    length: float
    noise: float
    correlation: float
    offset: float


def align(inputs: FloatArray, values: FloatArray, index: npt.NDArray[np.intp], kinships: Sequence[Kinship]) -> AlignedOutcomes:
    """Put the outcomes of related groups on one scale.

    Args:
        inputs: Encoded configurations, shape ``(n, d)``.
        values: Oriented outcomes, shape ``(n,)``; NaN for runs without.
        index: Group of each run, shape ``(n,)``; group 0 is the one that is asked about, and may be empty.
        kinships: Of each group, ``g`` of them.
    """
    known = np.isfinite(values)
    reference = _reference(index[known], kinships)
    is_free = np.array([kin.is_order_only for kin in kinships])
    aligned = values.copy()
    if reference is not None:
        for group in np.flatnonzero(is_free):
            if group != reference:
                aligned[index == group] = _on_scale_of(values[known & (index == reference)], values[index == group])
    is_free[reference if reference is not None else 0] = False
    correlation, offsets = _estimate(inputs, aligned, index, kinships, is_free, reference)
    correlations = np.array([kin.correlation * (correlation if kin.is_learned else 1.0) for kin in kinships])
    is_level_known = reference is not None and not kinships[reference].is_order_only
    return AlignedOutcomes(aligned - offsets[index], correlations, is_level_known)


def _reference(index: npt.NDArray[np.intp], kinships: Sequence[Kinship]) -> int | None:
    """Return the group whose scale is used: the one asked about, else the largest sibling, else the largest of all."""
    sizes = np.bincount(index, minlength=len(kinships))
    if not sizes.any():
        return None
    if sizes[0]:
        return 0
    return max(np.flatnonzero(sizes).tolist(), key=lambda group: (not kinships[group].is_order_only, sizes[group]))


def _on_scale_of(reference: FloatArray, values: FloatArray) -> FloatArray:
    """Give values that are comparable only in order the middle of the reference, and its spread where both are known."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return values
    factor = 1.0
    if min(len(finite), len(reference)) >= MIN_RUNS_FOR_SCALE:
        spreads = _spread(reference), _spread(finite)
        if min(spreads) > 0:
            factor = float(np.clip(spreads[0] / spreads[1], 1 / MAX_RESCALING, MAX_RESCALING))
    middle: FloatArray = np.median(reference) + factor * (values - np.median(finite))
    return middle


def _spread(values: FloatArray) -> float:
    """Return the standard deviation of the middle half, else of all; 0 where there is none."""
    if len(values) < 2:
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        spread = float(np.subtract(*np.quantile(values, [0.75, 0.25]))) / 1.349 or float(values.std())
    return spread if math.isfinite(spread) else 0.0


def _clipped(scores: FloatArray, index: npt.NDArray[np.intp]) -> FloatArray:
    """Cut off what lies far from the middle of its group."""
    middle = np.zeros(int(index.max()) + 1)
    for group in np.unique(index):
        middle[group] = np.median(scores[index == group])
    return np.clip(middle[index] + np.clip(scores - middle[index], -CLIP, CLIP), -CLIP_OF_ALL, CLIP_OF_ALL)


def _estimate(
    inputs: FloatArray,
    values: FloatArray,
    index: npt.NDArray[np.intp],
    kinships: Sequence[Kinship],
    is_free: npt.NDArray[np.bool_],
    reference: int | None,
) -> tuple[float, FloatArray]:
    """Return the expected correlation with a sibling, and each group's expected offset, shape ``(g,)``."""
    prior_mean = sum(rho * weight for rho, weight in SIBLING_CORRELATIONS.items())
    keep = _looked_at(values, index)
    seen = values[keep]
    group, points = index[keep], inputs[keep]
    spread = _spread(seen)
    if spread == 0:
        return prior_mean, np.zeros(len(kinships))
    scores = _clipped((seen - np.median(seen)) / spread, group)
    is_sibling = np.array([kin.is_learned for kin in kinships])
    fixed = np.array([kin.correlation for kin in kinships])
    has_siblings = bool(is_sibling[group].any())
    rhos = SIBLING_CORRELATIONS if has_siblings else {1.0: 1.0}
    distance = np.sqrt(np.square(points[:, None] - points[None]).sum(-1))
    same_group = group[:, None] == group[None]
    found = []
    for hypothesis in (_Hypothesis(*each) for each in product(LENGTHS, NOISES, rhos, SIBLING_OFFSETS if has_siblings else (0.0,))):
        part = np.where(is_sibling, fixed * hypothesis.correlation, fixed)[group]
        variances = np.where(is_free, FREE_OFFSET, np.where(is_sibling, hypothesis.offset, 0.0))
        if reference is not None:
            variances[reference] = 0.0
        q = math.sqrt(5) * distance / hypothesis.length
        kernel = (1 + q + q * q / 3) * np.exp(-q) * np.where(same_group, 1.0, np.outer(part, part))
        covariance = kernel + np.where(same_group, variances[group], 0.0) + 1.0 + hypothesis.noise * np.eye(len(scores))
        evidence, solved = _solve(covariance, scores)
        offsets = variances * np.bincount(group, weights=solved, minlength=len(kinships))
        found.append((evidence + math.log(rhos[hypothesis.correlation]), hypothesis.correlation, offsets))
    logits = np.array([evidence for evidence, _, _ in found])
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    correlation = float(weights @ np.array([rho for _, rho, _ in found]))
    return correlation if has_siblings else prior_mean, spread * (weights @ np.array([offsets for _, _, offsets in found]))


def _looked_at(values: FloatArray, index: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the runs that decide, at most ``MAX_RUNS``: the newest of each group first, then the second newest, and so on."""
    known = np.flatnonzero(np.isfinite(values))
    age = np.zeros(len(known), dtype=np.intp)
    counts: dict[int, int] = {}
    for place in range(len(known) - 1, -1, -1):
        group = int(index[known[place]])
        age[place] = counts.get(group, 0)
        counts[group] = int(age[place]) + 1
    order = np.lexsort((index[known], age))
    return np.sort(known[order[:MAX_RUNS]])


def _solve(covariance: FloatArray, scores: FloatArray) -> tuple[float, FloatArray]:
    """Return the log marginal likelihood of centred scores, and the covariance's inverse times them, shape ``(n,)``."""
    try:
        factor = cholesky(covariance, lower=True, check_finite=False)
    except LinAlgError:
        return -1e6, np.zeros(len(scores))
    solved: FloatArray = cho_solve((factor, True), scores, check_finite=False)
    return float(-0.5 * scores @ solved - np.log(np.diag(factor)).sum()), solved
