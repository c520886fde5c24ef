"""What every controller of the operator works with."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from trierarch.adapters.kubernetes import KubernetesApi
from trierarch.core.clock import Clock
from trierarch_operators.fleet import ClusterFleet
from trierarch_operators.object_cache import ObjectCache


@dataclasses.dataclass(frozen=True, slots=True)
class ControllerContext:
    """One for all controllers of a process.

    Attributes:
        api: For writes.
        cache: For reads.
        fleet: Knows plans, groups and replicas.
        clock: Time.
        leads: Whether this process may act now.
    """

    api: KubernetesApi
    cache: ObjectCache
    fleet: ClusterFleet
    clock: Clock
    leads: Callable[[], bool]
