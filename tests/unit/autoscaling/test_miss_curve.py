"""What the curve of misses says after traffic that people can count by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.autoscaling.miss_curve import (
    HALF_LIFE_SECONDS,
    MOST_BINS,
    MissCurve,
    fit_curve,
    learn_misses,
)


def learn(*seen: tuple[float, float, float, float], now: float = 0.0) -> MissCurve:
    """Each is (load, requests, misses, late)."""
    curve = MissCurve()
    for load, requests, misses, late in seen:
        curve = learn_misses(
            curve, now_unix_seconds=now, load=load, requests=requests, misses=misses, late=late
        )
    return curve


def test_nothing_seen_says_nothing() -> None:
    assert fit_curve(MissCurve()) is None


def test_the_share_of_misses_is_what_was_counted() -> None:
    fitted = fit_curve(learn((0.5, 20_000, 100, 0), (0.7, 20_000, 1_000, 0)))
    assert fitted is not None
    assert fitted.miss_ratio(0.5) == pytest.approx(0.005, rel=0.2)
    assert fitted.miss_ratio(0.7) == pytest.approx(0.05, rel=0.2)
    assert 0.005 < fitted.miss_ratio(0.6) < 0.05


def test_violators_are_pooled() -> None:
    fitted = fit_curve(learn((0.4, 10_000, 200, 0), (0.6, 10_000, 100, 0)))
    assert fitted is not None
    assert fitted.miss_ratio(0.45) == pytest.approx(fitted.miss_ratio(0.5))


def test_beyond_what_was_seen_misses_grow_steeply() -> None:
    fitted = fit_curve(learn((0.5, 50_000, 50, 0)))
    assert fitted is not None
    assert fitted.miss_ratio(1.0) == 1.0
    assert fitted.miss_ratio(0.1) < 1e-6


def test_what_is_late_at_any_load_is_incurable() -> None:
    fitted = fit_curve(learn((0.2, 10_000, 300, 300), (0.4, 10_000, 400, 300)))
    assert fitted is not None
    assert fitted.incurable_ratio == pytest.approx(0.03)
    assert fitted.miss_ratio(0.4) == pytest.approx(0.01, rel=0.2)


def test_a_model_is_believed_until_as_much_was_seen() -> None:
    few = learn((0.9, 1_000, 0, 0))
    alone, guarded = fit_curve(few), fit_curve(few, saturated_load=0.9, prior_requests=10_000)
    assert alone is not None
    assert guarded is not None
    assert alone.miss_ratio(0.9) < 0.01
    assert guarded.miss_ratio(0.9) > 0.3
    many = fit_curve(learn((0.9, 1e6, 0, 0)), saturated_load=0.9, prior_requests=10_000)
    assert many is not None
    assert many.miss_ratio(0.89) < 0.01


def test_old_counts_fade_and_bins_stay_few() -> None:
    curve = learn((0.5, 1_000, 10, 0))
    curve = learn_misses(
        curve, now_unix_seconds=HALF_LIFE_SECONDS, load=0.0, requests=0, misses=0, late=0
    )
    assert curve.requests == pytest.approx(500)
    wide = learn(*((1.2**n, 100.0 + n, 0.0, 0.0) for n in range(2 * MOST_BINS)))
    assert len(wide.bins) == MOST_BINS


@given(
    st.lists(
        st.tuples(st.floats(0.01, 3.0), st.floats(1, 1e5), st.floats(0, 1), st.floats(0, 1)),
        min_size=1,
        max_size=12,
    ),
    st.one_of(st.none(), st.floats(0.05, 2.0)),
    st.floats(0.001, 10.0),
    st.floats(1.0, 3.0),
)
def test_a_higher_load_never_misses_less(
    seen: list[tuple[float, float, float, float]],
    saturated: float | None,
    load: float,
    factor: float,
) -> None:
    curve = learn(*((x, n, n * m, n * m * share) for x, n, m, share in seen))
    fitted = fit_curve(curve, saturated_load=saturated, prior_requests=100.0)
    assert fitted is not None
    low, high = fitted.miss_ratio(load), fitted.miss_ratio(load * factor)
    assert 0.0 <= low <= high + 1e-12 <= 1.0 + 1e-9
