"""What recursive least squares learns, against the solution in one piece."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trierarch.autoscaling.regression import FORGETTING, PRIOR_SPREAD, Regression

PRIOR = (0.5, 0.5, 0.0)
NOISE = 0.1


def samples(count: int, seed: int) -> list[tuple[tuple[float, ...], float]]:
    noise = random.Random(seed)  # noqa: S311 - a reproducible series, not a secret
    rows = [tuple(noise.uniform(0.0, 2.0) for _ in PRIOR) for _ in range(count)]
    return [(row, 0.2 * row[0] + 1.1 * row[2] + noise.gauss(0.0, 0.05)) for row in rows]


def test_nothing_learned_is_the_prior() -> None:
    assert Regression.prior(PRIOR).predict((2.0, 4.0, 9.0)) == pytest.approx(3.0)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(1, 60), seed=st.integers(0, 1000))
def test_the_weights_are_those_of_weighted_ridge_regression(count: int, seed: int) -> None:
    seen = samples(count, seed)
    regression = Regression.prior(PRIOR)
    for features, value in seen:
        regression = regression.learn(features, value, NOISE)
    # In one piece: the prior fades like the samples do.
    weights = FORGETTING ** np.arange(count - 1, -1, -1)
    x, y = np.array([row for row, _ in seen]), np.array([value for _, value in seen])
    precision = FORGETTING**count * np.eye(len(PRIOR)) / PRIOR_SPREAD**2
    left = precision + (x.T * weights) @ x / NOISE
    right = precision @ np.array(PRIOR) + (x.T * weights) @ y / NOISE
    assert regression.weights == pytest.approx(np.linalg.solve(left, right), rel=1e-6, abs=1e-9)


def test_what_changed_is_followed() -> None:
    regression = Regression.prior(PRIOR)
    for features, value in samples(2_000, 1):
        regression = regression.learn(features, value, NOISE)
    assert regression.weights[2] == pytest.approx(1.1, abs=0.05)
    for features, value in samples(2_000, 2):
        regression = regression.learn(features, value - 0.6 * features[2], NOISE)
    assert regression.weights[2] == pytest.approx(0.5, abs=0.05)


@given(
    features=st.tuples(*(st.floats(0.0, 1e6) for _ in PRIOR)),
    value=st.floats(0.0, 1e6),
)
def test_no_sample_makes_it_useless(features: tuple[float, ...], value: float) -> None:
    regression = Regression.prior(PRIOR)
    for _ in range(5):
        regression = regression.learn(features, value, NOISE)
    assert all(math.isfinite(weight) for weight in regression.weights)
