"""Which runs are evidence of the same thing: those of a query's own task, version and length, and those that are only related."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from metamodel.space.arrays import FloatArray

VARIANT_CORRELATION = 0.8
"""Correlation between two versions of the model's source: related evidence, not an exact observation."""


@dataclass(frozen=True, slots=True, eq=False)
class RunGroups:
    """Groups of runs, and how much each group's runs count for the query.

    The function of group ``g`` is ``f_g``, with ``corr(f_g(x), f_h(x)) = c_g c_h`` for two groups, which is a valid covariance: a part that
    all groups share and one of each group's own.

    Attributes:
        index: Group of each run, shape ``(n,)``; 0 is the group that is asked about.
        correlation: Correlation ``c`` of each run's group with that one, shape ``(n,)``; 1 in group 0.
    """

    index: npt.NDArray[np.intp]
    correlation: FloatArray

    def __len__(self) -> int:
        """Return the number of runs ``n``."""
        return len(self.index)

    def __getitem__(self, keep: npt.NDArray[np.generic] | slice | list[int]) -> RunGroups:
        """Return the groups of some of the runs."""
        return RunGroups(self.index[keep], self.correlation[keep])

    @property
    def n_asked(self) -> int:
        """Number of runs in the group that is asked about."""
        return int((self.index == 0).sum())

    def between(self) -> FloatArray:
        """Return the correlations of the runs by their groups, shape ``(n, n)``."""
        return np.where(self.index[:, None] == self.index[None, :], 1.0, np.outer(self.correlation, self.correlation))

    def extended(self, n: int) -> RunGroups:
        """Return the same with ``n`` more runs of group 0."""
        more = RunGroups.asked(n)
        return RunGroups(np.concatenate([self.index, more.index]), np.concatenate([self.correlation, more.correlation]))

    @classmethod
    def asked(cls, n: int) -> RunGroups:
        """Return ``n`` runs of the group that is asked about."""
        return cls(np.zeros(n, dtype=np.intp), np.ones(n))

    @classmethod
    def of_versions(cls, is_same: npt.NDArray[np.bool_]) -> RunGroups:
        """Return the groups of runs of two versions of a model's source.

        Versions are compared with that of the query only, so two different others count as equal to each other.

        Args:
            is_same: Whether a run's version is that of the query, shape ``(n,)``.
        """
        return cls((~is_same).astype(np.intp), np.where(is_same, 1.0, VARIANT_CORRELATION))
