import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch_loadtests.reporting.histogram import RELATIVE_ERROR, SMALLEST, Histogram

values = st.lists(st.floats(min_value=1e-5, max_value=1e5), min_size=1, max_size=200)


def counted(samples):
    histogram = Histogram()
    for sample in samples:
        histogram.record(sample)
    return histogram


@given(values, st.sampled_from([1.0, 50.0, 95.0, 99.0, 100.0]))
def test_a_percentile_is_within_the_stated_error_of_the_nearest_rank(samples, percent):
    rank = max(1, math.ceil(len(samples) * percent / 100))
    exact = sorted(samples)[rank - 1]
    assert counted(samples).percentile(percent) == pytest.approx(exact, rel=RELATIVE_ERROR)


@given(values, values)
def test_merging_gives_what_counting_together_gives(left, right):
    merged = counted(left)
    merged.merge(counted(right))
    together = counted(left + right)
    for percent in (50, 95, 99, 100):
        assert merged.percentile(percent) == together.percentile(percent)
    assert merged.count == together.count
    assert merged.mean == pytest.approx(together.mean)


@given(values)
def test_a_histogram_survives_the_way_to_the_master(samples):
    histogram = counted(samples)
    copy = Histogram.from_message(json.loads(json.dumps(histogram.to_message())))
    assert copy.summary() == histogram.summary()


def test_no_sample_is_not_zero():
    assert Histogram().percentile(95) is None
    assert Histogram().mean is None
    assert Histogram().summary()["max"] is None


def test_zeros_are_counted_and_stay_next_to_nothing():
    histogram = counted([0.0, 0.0, 0.0, 5.0])
    assert histogram.percentile(50) <= SMALLEST
    assert histogram.percentile(100) == pytest.approx(5.0, rel=RELATIVE_ERROR)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_what_is_no_duration_is_refused(value):
    with pytest.raises(ValueError, match="cannot count"):
        Histogram().record(value)
