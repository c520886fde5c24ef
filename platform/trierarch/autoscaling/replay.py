"""A decision made again from its record: the proof that the record holds all that mattered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.pipeline import decide


def replay(record: Mapping[str, Any]) -> ScalingDecision:
    """Return the decision that today's rules make from a record's inputs.

    Equal to the recorded one as long as ``policy_version`` is.

    Raises:
        ValueError: If the record is not one.
    """
    recorded = ScalingDecision.from_record(record)
    inputs = recorded.inputs
    decision, _ = decide(inputs.observation, inputs.spec, inputs.state, recorded.id)
    return decision
