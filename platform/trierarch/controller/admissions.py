"""What the latest decisions say of lanes, for the list that gateways read.

A word is published with the time for which it still holds, counted on one clock: who does not
decide any more (a lost leader, a paused deployment, signals that are away) falls silent, and
gateways open their lanes when the last word has run out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from trierarch.autoscaling.decision import ScalingDecision
from trierarch.autoscaling.load import hold_after_seconds
from trierarch.core.admission import Admission
from trierarch.core.clock import Clock


@dataclasses.dataclass(frozen=True, slots=True)
class _Word:
    model: str
    admission: Admission
    until_seconds: float


class AdmissionBook:
    """The last word on every deployment's lanes.

    Args:
        clock: For ages.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._words: dict[str, _Word] = {}

    def note(self, decision: ScalingDecision) -> None:
        """Take what a decision says; it holds as long as signals would."""
        until_seconds = self._clock.monotonic_seconds() + hold_after_seconds(decision.inputs.spec)
        self._words[decision.deployment] = _Word(decision.model, decision.admission, until_seconds)

    def forget(self, deployment: str) -> None:
        """Drop the word on a deployment that is gone, or that another process decides on."""
        self._words.pop(deployment, None)

    def document(self) -> dict[str, Any]:
        """Return the words that hold, by model, as gateways read them."""
        now_seconds = self._clock.monotonic_seconds()
        return {
            word.model: {
                "flex_open": word.admission.flex_open,
                "shed_tiers": [tier.value for tier in word.admission.shed_tiers],
                "valid_seconds": round(word.until_seconds - now_seconds, 3),
            }
            for word in self._words.values()
            if word.until_seconds > now_seconds
        }
