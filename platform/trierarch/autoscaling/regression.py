"""Linear regression that learns from one sample at a time and forgets slowly.

Recursive least squares with exponential forgetting: the weights that minimize the
squared errors of all samples so far, later ones counting more, and the distance
from the prior weights. Immutable and small: a vector and a symmetric matrix.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

FORGETTING = 0.998
"""Weight of each sample against the next one: about the last 500 count."""

PRIOR_SPREAD = 0.3
"""Spread of each weight around its prior, in units of the errors' spread."""

MOST_VARIANCE = 10.0
"""Where nothing new was seen for long, forgetting must not make the next sample everything."""


@dataclasses.dataclass(frozen=True, slots=True)
class Regression:
    """Weights of the features and how little is known of them.

    Attributes:
        weights: One per feature.
        covariance: Rows of a symmetric matrix.
    """

    weights: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]

    @staticmethod
    def prior(weights: Sequence[float]) -> Regression:
        """Return a regression that has seen nothing."""
        size = len(weights)
        rows = tuple(
            tuple(PRIOR_SPREAD**2 if row == column else 0.0 for column in range(size))
            for row in range(size)
        )
        return Regression(tuple(weights), rows)

    def predict(self, features: Sequence[float]) -> float:
        """Return the expected value."""
        return math.fsum(w * x for w, x in zip(self.weights, features, strict=True))

    def learn(self, features: Sequence[float], value: float, noise: float) -> Regression:
        """Return the regression after a sample.

        Args:
            features: Of the sample.
            value: What came.
            noise: Variance of one sample's error that no weights explain.
        """
        projected = [
            math.fsum(p * x for p, x in zip(row, features, strict=True)) for row in self.covariance
        ]
        total = math.fsum(p * x for p, x in zip(projected, features, strict=True))
        scale = FORGETTING * noise + total
        if not (math.isfinite(scale) and scale > 0):
            return self
        error = value - self.predict(features)
        weights = tuple(w + p / scale * error for w, p in zip(self.weights, projected, strict=True))
        covariance = tuple(
            tuple(
                min(MOST_VARIANCE, max(-MOST_VARIANCE, (cell - p * q / scale) / FORGETTING))
                for cell, q in zip(row, projected, strict=True)
            )
            for row, p in zip(self.covariance, projected, strict=True)
        )
        return Regression(weights, covariance)
