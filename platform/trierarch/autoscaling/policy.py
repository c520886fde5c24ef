"""The one shape of every scaling policy, ours and its peers'.

A policy is a frozen object of settings. What it remembers between two calls is
an explicit value that it takes and gives back, so that it survives a restart
and a replay decides the same.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol, TypeVar

from trierarch.autoscaling.signals import Observation
from trierarch.core.identifiers import VariantName

StateT = TypeVar("StateT")


@dataclasses.dataclass(frozen=True, slots=True)
class Recommendation:
    """A policy's wish, before stabilization, bounds and budget.

    Attributes:
        replicas: Desired count (ready plus starting) of each variant.
        policy: Kebab-case name of the policy.
        reason: CamelCase word.
        message: One sentence with the numbers.
    """

    replicas: Mapping[VariantName, int]
    policy: str
    reason: str
    message: str = ""

    @property
    def desired_replicas(self) -> int:
        """Sum over the variants."""
        return sum(self.replicas.values())


class Policy(Protocol[StateT]):
    """Turns observations into recommendations.

    ``StateT`` is immutable and made of dataclasses, tuples, strings and numbers only.
    """

    @property
    def name(self) -> str:
        """Kebab-case name that the command line and tables use."""
        ...

    @property
    def interval_seconds(self) -> float | None:
        """Time between two calls; None takes the fleet's control interval."""
        ...

    def initial_state(self) -> StateT:
        """Return the state before the first call."""
        ...

    def recommend(self, observation: Observation, state: StateT) -> tuple[Recommendation, StateT]:
        """Return the desired counts and the state for the next call."""
        ...
