"""The length of the requests that arrive, before any of them has ended."""

from __future__ import annotations

import pytest

from trierarch.autoscaling.lengths import FLOW_SECONDS, Lengths


def served(lengths: Lengths, seconds: float, generated: float, arrivals: float) -> Lengths:
    for _ in range(round(seconds / 15)):
        lengths = lengths.learned(
            15.0, generated_per_second=generated, arrivals_per_second=arrivals, measured=None
        )
    return lengths


def test_nothing_known_leaves_what_was_measured() -> None:
    assert Lengths().output_tokens(120.0, 0.0) == 120.0


def test_in_a_steady_state_both_measures_agree() -> None:
    lengths = served(Lengths(), 3 * FLOW_SECONDS, generated=5_000.0, arrivals=10.0)
    assert lengths.output_tokens(500.0, 900.0) == pytest.approx(500.0)


def test_longer_answers_are_seen_while_they_still_run() -> None:
    lengths = served(Lengths(), 3 * FLOW_SECONDS, generated=5_000.0, arrivals=10.0)
    lengths = served(lengths, FLOW_SECONDS, generated=15_000.0, arrivals=10.0)
    assert 1_000.0 < lengths.output_tokens(500.0, 1_200.0) < 1_500.0


def test_few_requests_say_nothing_of_what_is_generated() -> None:
    lengths = served(Lengths(), 60.0, generated=5_000.0, arrivals=0.1)
    assert lengths.output_tokens(200.0, 60.0) == 200.0


def test_the_usual_length_stands_in_until_long_requests_have_ended() -> None:
    lengths = Lengths(usual_output_tokens=2_000.0)
    begun = lengths.output_tokens(300.0, 0.0)
    later = lengths.output_tokens(300.0, 300.0)
    assert begun == pytest.approx(2_000.0)
    assert 300.0 < later < begun
    assert lengths.output_tokens(300.0, 3_600.0) == pytest.approx(300.0, rel=0.01)


def test_the_usual_length_follows_slowly_what_ends() -> None:
    lengths = Lengths(usual_output_tokens=1_000.0)
    for _ in range(4):
        lengths = lengths.learned(
            15.0, generated_per_second=None, arrivals_per_second=None, measured=2_000.0
        )
    assert lengths.usual_output_tokens == pytest.approx(1_016.6, abs=0.1)


@pytest.mark.parametrize("elapsed", [0.0, -5.0])
def test_an_interval_of_no_length_teaches_nothing(elapsed: float) -> None:
    learned = Lengths().learned(
        elapsed, generated_per_second=1.0, arrivals_per_second=1.0, measured=5.0
    )
    assert learned == Lengths()
