"""Conditions say one thing at a time, and a status that holds is not written again."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch_operators.conditions import Finding, build_conditions, holds
from trierarch_operators.model_deployment.status import (
    VariantState,
    build_status,
    find_conditions,
)

NOW = 1_000_000.0


def conditions(*variants: VariantState, **flags: bool) -> dict[str, tuple[str, str]]:
    given = {"is_paused": False, "is_suspended": False, "is_deleting": False, **flags}
    return {c.type: (c.status, c.reason) for c in find_conditions(variants, **given)}


@pytest.mark.parametrize(
    ("variant", "flags", "available", "progressing"),
    [
        (VariantState("v", desired=2, ready=2), {}, ("True", "Serving"), ("False", "Settled")),
        (
            VariantState("v", desired=2, ready=1, starting=1),
            {},
            ("True", "Serving"),
            ("True", "Starting"),
        ),
        (VariantState("v", desired=1), {}, ("False", "NoReadyReplica"), ("True", "Starting")),
        (VariantState("v"), {}, ("False", "ScaledToZero"), ("False", "Settled")),
        (
            VariantState("v", ready=1, draining=1),
            {},
            ("True", "Serving"),
            ("True", "Draining"),
        ),
        (
            VariantState("v", ready=1, is_updating=True),
            {},
            ("True", "Serving"),
            ("True", "Updating"),
        ),
        (
            VariantState("v", desired=1, starting=1, waiting="no node"),
            {},
            ("False", "NoReadyReplica"),
            ("False", "InsufficientCapacity"),
        ),
        (
            VariantState("v", desired=1, problem="x", problem_reason="InvalidSpec"),
            {},
            ("False", "NoReadyReplica"),
            ("False", "InvalidSpec"),
        ),
        (
            VariantState("v", ready=1),
            {"is_paused": True},
            ("True", "Serving"),
            ("False", "Paused"),
        ),
        (
            VariantState("v"),
            {"is_suspended": True},
            ("False", "Suspended"),
            ("False", "Suspended"),
        ),
        (
            VariantState("v", draining=1),
            {"is_deleting": True},
            ("False", "ScaledToZero"),
            ("True", "Deleting"),
        ),
    ],
)
def test_each_situation_has_its_reason(
    variant: VariantState,
    flags: dict[str, bool],
    available: tuple[str, str],
    progressing: tuple[str, str],
) -> None:
    assert conditions(variant, **flags) == {"Available": available, "Progressing": progressing}


def test_a_transition_is_a_change_of_the_status_only() -> None:
    first = build_conditions([Finding("Available", "True", "Serving", "1 of 2")], [], 1, NOW)
    later = build_conditions([Finding("Available", "True", "Serving", "2 of 2")], first, 2, NOW + 9)
    assert later[0]["lastTransitionTime"] == first[0]["lastTransitionTime"]
    assert (later[0]["message"], later[0]["observedGeneration"]) == ("2 of 2", 2)
    other = build_conditions([Finding("Available", "False", "X", "")], later, 2, NOW + 60)
    assert other[0]["lastTransitionTime"] == "1970-01-12T13:47:40Z"


def test_a_status_that_was_written_holds_beside_what_others_write() -> None:
    variants = [VariantState("a", desired=1, ready=1), VariantState("b")]
    findings = find_conditions(variants, is_paused=False, is_suspended=False, is_deleting=False)
    written = build_status("md", 3, {}, variants, findings, NOW)
    stored: dict[str, Any] = {
        **written,
        "costPerMillionTokens": "0.5",
        "conditions": [{"type": "SLOMet", "status": "True"}, *reversed(written["conditions"])],
        "variants": [{**v, "desiredReplicas": 1} for v in reversed(written["variants"])],
    }
    again = build_status("md", 3, stored, variants, findings, NOW + 100)
    assert holds(again, stored)


@pytest.mark.parametrize(
    ("wanted", "found", "expected"),
    [
        ({"a": 1}, {"a": 1, "b": 2}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": {"b": 1}}, {"a": {}}, False),
        ({"a": [1, 2]}, {"a": [1, 2]}, True),
        ({"a": [1, 2]}, {"a": [1, 2, 3]}, False),
        ({"a": []}, {"a": [1]}, False),
        ([{"name": "x", "v": 1}], [{"name": "y"}, {"name": "x", "v": 1, "w": 2}], True),
        ([{"name": "x", "v": 1}], [{"name": "x", "v": 2}], False),
        ([{"name": "x"}], [], False),
        ({"a": 1}, None, False),
    ],
)
def test_more_than_wanted_is_no_difference_and_less_is(
    wanted: Any, found: Any, expected: bool
) -> None:
    assert holds(wanted, found) is expected
