"""What gateways are told of lanes, and for how long it holds."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch.autoscaling.pipeline import decide
from trierarch.autoscaling.signals import Observation, VariantObservation
from trierarch.autoscaling.specification import Behavior, ScalingSpec, VariantSpec
from trierarch.autoscaling.state import PipelineState
from trierarch.controller.admissions import AdmissionBook
from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import DecisionId, ModelName, VariantName
from trierarch.gateway.replicas import parse_admission


def noted(book: AdmissionBook, **behavior: Any) -> None:
    name = VariantName("v")
    observation = Observation(
        now_unix_seconds=1.0,
        deployment="ns/m",
        model=ModelName("m"),
        variants=(VariantObservation(name=name),),
    )
    spec = ScalingSpec(variants=(VariantSpec(name=name),), behavior=Behavior(**behavior))
    decision, _ = decide(observation, spec, PipelineState(), DecisionId("d"))
    book.note(decision)


@pytest.mark.parametrize(
    ("behavior", "seconds"),
    [({}, 45.0), ({"interval_seconds": 60.0}, 120.0), ({"stale_after_seconds": 5.0}, 5.0)],
    ids=["a-few-intervals", "never-longer-than-signals", "as-told"],
)
def test_a_word_holds_as_long_as_signals_do(behavior: dict[str, float], seconds: float) -> None:
    clock = ManualClock(100.0)
    book = AdmissionBook(clock)
    noted(book, **behavior)
    clock.advance(seconds - 1.0)
    assert book.document()["m"]["valid_seconds"] == 1.0
    clock.advance(1.0)
    assert book.document() == {}


def test_gateways_read_what_is_written_and_nothing_of_what_is_forgotten() -> None:
    book = AdmissionBook(ManualClock(100.0))
    noted(book)
    assert parse_admission(book.document()["m"]).admission.flex_open
    book.forget("ns/m")
    assert book.document() == {}
