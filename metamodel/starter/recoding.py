"""A meta-model's prior seen through the columns of another encoder, so that two models answer the same query. Arrays in, arrays out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from metamodel.gp.prior import Conditioning, MeanFunction, Prior, PriorFeatures
from metamodel.space.arrays import FloatArray
from metamodel.space.dimensions import is_number
from metamodel.space.encoding import Column, Encoder
from metamodel.starter.scope import optimizer_of


def merged_column(first: Column, second: Column) -> Column:
    """Return the first column, wide enough for the values of the second, too; the second where one is a number and the other a label.

    Args:
        first: Decides on which scale a number is.
        second: Of the same hyperparameter.
    """
    if bool(first.choices) != bool(second.choices):
        return second
    can_miss = first.can_miss or second.can_miss
    if first.choices:
        choices = (*first.choices, *(choice for choice in second.choices if choice not in first.choices))
        return replace(first, choices=choices, can_miss=can_miss)
    ends = second.decode_numbers(np.array([0.0, 1.0]))
    low, high = (math.log(max(end, first.floor)) if first.is_log else float(end) for end in ends)
    return replace(first, low=min(first.low, low), high=max(first.high, high), can_miss=can_miss)


class Recoding:
    """From one encoder's columns to those of another, by name.

    Args:
        source: Of the rows that are given.
        target: Of the rows that are wanted; the source has every column of it.
    """

    def __init__(self, source: Encoder, target: Encoder) -> None:
        places = source.places
        missing = [column.name for column in target.columns if column.name not in places]
        if missing:
            raise AssertionError(f"the source must have every column of the target, but it has none for {', '.join(missing)}")
        self._pairs = [(*places[column.name], column) for column in target.columns]
        # What each label becomes is looked up once: there are few of them, and thousands of rows.
        self._labels = {source.name: _labels(source, target) for source, _, target in self._pairs if source.choices and source != target}
        self._width = source.width

    def __call__(self, inputs: FloatArray) -> FloatArray:
        """Recode ``n`` rows, shape ``(n, d_source + d_extra)``; further columns are handed on, shape ``(n, d_target + d_extra)``."""
        parts = [
            _recoded(inputs[:, at : at + source.width], source, target, self._labels.get(source.name)) for source, at, target in self._pairs
        ]
        return np.concatenate([*parts, inputs[:, self._width :]], axis=1)


def _labels(source: Column, target: Column) -> FloatArray:
    return target.encode([_spelt(choice, target.choices) for choice in source.choices])


def _recoded(rows: FloatArray, source: Column, target: Column, labels: FloatArray | None) -> FloatArray:
    if source == target:
        return rows
    n_values = len(source.choices) or 1
    is_missing = rows[:, n_values] > 0.5 if source.can_miss else np.zeros(len(rows), dtype=bool)
    found: FloatArray
    if labels is not None:
        best = rows[:, :n_values].argmax(1)
        is_missing |= rows[np.arange(len(rows)), best] < 0.75  # a label that it does not know is spread over all
        found = labels[best]
    elif target.choices:
        found = target.encode([_nearest(number, target.choices) for number in source.decode_numbers(rows[:, 0])])
    else:
        found = target.encode_numbers(source.decode_numbers(rows[:, 0]))
    found[is_missing] = target.encode([None])
    return found


def _spelt(label: Any, choices: Sequence[Any]) -> Any:
    """Return a label as the choices spell it: optimizers have many names."""
    if label in choices or (kind := optimizer_of(label)) is None:
        return label
    return next((choice for choice in choices if optimizer_of(choice) == kind), label)


def _nearest(number: float, choices: Sequence[Any]) -> Any:
    """Return the label that is this number, which went through a logarithm and back."""
    return next((choice for choice in choices if is_number(choice) and math.isclose(choice, number, rel_tol=1e-6)), number)


class RecodedPrior:
    """A prior over one encoder's columns as a prior over another's.

    Args:
        prior: The prior.
        recode: From the other encoder's columns to its own.
        n_columns: How many columns of the other encoder there are.
    """

    def __init__(self, prior: Prior, recode: Recoding, n_columns: int) -> None:
        self._prior, self._recode = prior, recode
        self.log_weights, self.noise_variance, self.n_columns = prior.log_weights, prior.noise_variance, n_columns

    def prepare(self, inputs: FloatArray) -> PriorFeatures:
        """Evaluate mean and variance of the components."""
        return self._prior.prepare(self._recode(inputs))

    def covariance(self, left: PriorFeatures, right: PriorFeatures) -> Tensor:
        """Return the covariance of the components, shape ``(e, n_left, n_right)``."""
        return self._prior.covariance(left, right)

    def mean_given(self, conditioning: Conditioning) -> MeanFunction:
        """Return the conditioned mean of the components."""
        mean = self._prior.mean_given(conditioning)
        return lambda inputs: mean(self._recode(inputs))
