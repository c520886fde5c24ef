"""Allocation: where the money for a window's capacity went.

The cost of every replica in the window is split into what served requests and what
served nobody: warm-up while it started, idle while it was ready without a request,
drain while it emptied without a request, failed while it could not serve. The serving
part goes to tenants by the serving weights of their tokens. Sums are exact: the parts
add up to the capacity cost to the last digit, and the costs of adjoining windows add
up to the cost of the whole.

A replica serves in every instant at which at least one request runs on it, full or
not: capacity bought for one request is that request's cost. Requests that run over
the edge of a window count in each window by the time they spent in it. Tokens of
failed requests were paid for with capacity, but no customer got them: their share is
part of ``failed``.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum

from trierarch.core.identifiers import ReplicaId, TenantId, VariantName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.replicas import ReplicaState
from trierarch.core.usage import Outcome
from trierarch.cost.exact import QUANTA_PER_DOLLAR, money_from_quanta, share_out
from trierarch.cost.rates import is_charged
from trierarch.cost.unit_cost import ServingWeights

MICROSECONDS_PER_HOUR = 3_600_000_000
"""Prices are per hour, instants are in microseconds."""

PLATFORM = TenantId("")
"""Who pays when no tenant does: whoever runs the platform."""


class Part(StrEnum):
    """What a piece of capacity cost was spent on."""

    SERVING = "serving"
    IDLE = "idle"
    WARM_UP = "warm_up"
    DRAIN = "drain"
    FAILED = "failed"


OVERHEAD_OF_STATE = {
    ReplicaState.STARTING: Part.WARM_UP,
    ReplicaState.READY: Part.IDLE,
    ReplicaState.DRAINING: Part.DRAIN,
    ReplicaState.FAILED: Part.FAILED,
}
"""What a replica's time is called when no request runs on it."""

SERVING_STATES = frozenset({ReplicaState.READY, ReplicaState.DRAINING})
"""States in which a replica answers requests."""


class IdlePayer(StrEnum):
    """Who pays for capacity that served nobody."""

    OWNER = "owner"
    """The tenant that owns the model deployment."""
    PROPORTIONAL = "proportional"
    """Every tenant served in the window, in proportion to its serving cost."""
    PLATFORM = "platform"
    """Nobody: it stays with the platform, in plain sight."""


@dataclasses.dataclass(frozen=True, slots=True)
class AllocationRule:
    """How a window is split.

    Raises:
        ValueError: If the owner is to pay and none is named.
    """

    weights: ServingWeights = ServingWeights()  # noqa: RUF009  # frozen
    idle_payer: IdlePayer = IdlePayer.PLATFORM
    owner: TenantId = PLATFORM

    def __post_init__(self) -> None:
        if self.idle_payer is IdlePayer.OWNER and self.owner == PLATFORM:
            raise ValueError("the owner is to pay for idle capacity, but none is named")


@dataclasses.dataclass(frozen=True, slots=True)
class CapacityInterval:
    """A replica in one state at one price.

    Attributes:
        accelerators: How many it holds; all of its expert-parallel group.
        ended_unix_microseconds: Not before the start.
    """

    replica_id: ReplicaId
    variant: VariantName
    state: ReplicaState
    accelerators: int
    usd_per_accelerator_hour: Decimal
    started_unix_microseconds: int
    ended_unix_microseconds: int

    def quanta_between(self, start_unix_microseconds: int, end_unix_microseconds: int) -> int:
        """Return what the part of it between two instants cost.

        The cost since the start is rounded down at both ends, so the costs of adjoining
        parts add up to the cost of the whole exactly.
        """
        start = max(start_unix_microseconds, self.started_unix_microseconds)
        end = min(end_unix_microseconds, self.ended_unix_microseconds)
        if end <= start:
            return 0
        return self._quanta_until(end) - self._quanta_until(start)

    def _quanta_until(self, unix_microseconds: int) -> int:
        numerator, denominator = self.usd_per_accelerator_hour.as_integer_ratio()
        elapsed = unix_microseconds - self.started_unix_microseconds
        return (self.accelerators * numerator * elapsed * QUANTA_PER_DOLLAR) // (
            denominator * MICROSECONDS_PER_HOUR
        )


@dataclasses.dataclass(frozen=True, slots=True)
class ServedRequest:
    """The part of a usage record that allocation needs."""

    replica_id: ReplicaId
    tenant: TenantId
    tokens: TokenCounts
    outcome: Outcome
    started_unix_microseconds: int
    finished_unix_microseconds: int


@dataclasses.dataclass(frozen=True, slots=True)
class AllocatedCost:
    """One part of a window's cost and who pays for it."""

    variant: VariantName
    tenant: TenantId
    part: Part
    amount: Money


@dataclasses.dataclass(frozen=True, slots=True)
class Allocation:
    """A window's cost, split.

    Attributes:
        parts: Sorted; their sum is ``capacity_cost`` to the last digit.
        unmatched_requests: Requests whose replica had no capacity in the window. Their
            cost cannot be known; more than zero means that capacity was not recorded.
    """

    parts: tuple[AllocatedCost, ...]
    capacity_cost: Money
    unmatched_requests: int


def capacity_cost(
    intervals: Iterable[CapacityInterval],
    start_unix_microseconds: int,
    end_unix_microseconds: int,
) -> Money:
    """Return what the capacity between two instants cost."""
    return money_from_quanta(
        sum(i.quanta_between(start_unix_microseconds, end_unix_microseconds) for i in intervals)
    )


def variance(charged: Money, actual: Money) -> Money:
    """Return what customers were charged minus what serving them cost."""
    return charged - actual


Span = tuple[int, int]


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


def _covered(spans: Sequence[Span], start: int, end: int) -> int:
    """Return how much of an interval the spans (sorted, apart from each other) cover."""
    return sum(max(0, min(end, last) - max(start, first)) for first, last in spans)


@dataclasses.dataclass(slots=True)
class _ReplicaWork:
    """What ran on one replica in the window."""

    spans: list[Span] = dataclasses.field(default_factory=list)
    weight: dict[tuple[TenantId, Part], int] = dataclasses.field(
        default_factory=lambda: defaultdict(int)
    )
    time: dict[tuple[TenantId, Part], int] = dataclasses.field(
        default_factory=lambda: defaultdict(int)
    )

    def add(self, request: ServedRequest, weights: ServingWeights, start: int, end: int) -> None:
        began, finished = request.started_unix_microseconds, request.finished_unix_microseconds
        first, last = max(began, start), min(finished, end)
        if last <= first:
            return
        overlap = last - first
        failed = request.outcome is Outcome.FAILED
        key = (PLATFORM, Part.FAILED) if failed else (request.tenant, Part.SERVING)
        self.spans.append((first, last))
        weight = weights.weigh_millionths(request.tokens)
        self.weight[key] += weight * overlap // (finished - began)
        self.time[key] += overlap

    def split(self, quanta: int) -> dict[tuple[TenantId, Part], int]:
        """Share a serving cost by weight, or by time where nothing has a weight."""
        shares = self.weight if any(self.weight.values()) else self.time
        keys = sorted(shares)
        return dict(zip(keys, share_out(quanta, [shares[key] for key in keys]), strict=True))


def allocate(
    intervals: Iterable[CapacityInterval],
    requests: Iterable[ServedRequest],
    *,
    start_unix_microseconds: int,
    end_unix_microseconds: int,
    rule: AllocationRule | None = None,
) -> Allocation:
    """Split what the capacity in a window cost.

    Args:
        intervals: Every interval of the model that touches the window.
        requests: Every request of the model that ran in the window.
        start_unix_microseconds: First instant of the window.
        end_unix_microseconds: First instant after it.
        rule: Weights and payer; the defaults if None.

    Raises:
        ValueError: If the window ends before it starts.
    """
    start, end = start_unix_microseconds, end_unix_microseconds
    if end < start:
        raise ValueError("a window cannot end before it starts")
    rule = rule or AllocationRule()
    pieces = [
        piece
        for piece in intervals
        if piece.started_unix_microseconds < end and piece.ended_unix_microseconds > start
    ]
    known = {piece.replica_id for piece in pieces}
    work: dict[ReplicaId, _ReplicaWork] = defaultdict(_ReplicaWork)
    unmatched = 0
    for request in requests:
        if request.replica_id in known:
            work[request.replica_id].add(request, rule.weights, start, end)
        elif request.replica_id or is_charged(request.outcome):
            unmatched += 1
    busy = {replica_id: _merged(done.spans) for replica_id, done in work.items()}

    serving: dict[tuple[VariantName, ReplicaId], int] = defaultdict(int)
    costs: dict[tuple[VariantName, TenantId, Part], int] = defaultdict(int)
    overhead: dict[tuple[VariantName, Part], int] = defaultdict(int)
    total = 0
    for piece in pieces:
        quanta = piece.quanta_between(start, end)
        total += quanta
        first = max(start, piece.started_unix_microseconds)
        last = min(end, piece.ended_unix_microseconds)
        busy_time = 0
        if piece.state in SERVING_STATES:
            busy_time = _covered(busy.get(piece.replica_id, ()), first, last)
        served, unused = share_out(quanta, [busy_time, last - first - busy_time])
        serving[piece.variant, piece.replica_id] += served
        overhead[piece.variant, OVERHEAD_OF_STATE[piece.state]] += unused

    for (variant, replica_id), quanta in serving.items():
        if quanta:
            for (tenant, part), share in work[replica_id].split(quanta).items():
                if part is Part.SERVING:
                    costs[variant, tenant, part] += share
                else:
                    overhead[variant, part] += share

    served_by = {key: quanta for key, quanta in costs.items() if quanta}
    for (variant, part), quanta in overhead.items():
        for tenant, share in _overhead_shares(variant, quanta, served_by, rule):
            costs[variant, tenant, part] += share

    return Allocation(
        parts=tuple(
            AllocatedCost(variant, tenant, part, money_from_quanta(quanta))
            for (variant, tenant, part), quanta in sorted(costs.items())
            if quanta
        ),
        capacity_cost=money_from_quanta(total),
        unmatched_requests=unmatched,
    )


def _overhead_shares(
    variant: VariantName,
    quanta: int,
    served_by: dict[tuple[VariantName, TenantId, Part], int],
    rule: AllocationRule,
) -> list[tuple[TenantId, int]]:
    if rule.idle_payer is IdlePayer.OWNER:
        return [(rule.owner, quanta)]
    if rule.idle_payer is IdlePayer.PROPORTIONAL:
        same_variant = {key: cost for key, cost in served_by.items() if key[0] == variant}
        by_tenant: dict[TenantId, int] = defaultdict(int)
        for (_, tenant, _), cost in (same_variant or served_by).items():
            by_tenant[tenant] += cost
        if by_tenant:
            tenants = sorted(by_tenant)
            shares = share_out(quanta, [by_tenant[tenant] for tenant in tenants])
            return list(zip(tenants, shares, strict=True))
    return [(PLATFORM, quanta)]
