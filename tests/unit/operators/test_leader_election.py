"""One leads, by clocks of its own; after any gap everything is looked at again."""

from __future__ import annotations

from typing import Any

import pytest

from trierarch.adapters.kubernetes import Conflict
from trierarch.core.clock import ManualClock
from trierarch_operators.leader_election import LeaderElection


class LeaseStore:
    """Keeps one Lease as the API server does, with its versions."""

    field_manager = "test"

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self._version = 0

    async def get(self, *_: Any) -> dict[str, Any] | None:
        return self.lease

    async def create(self, _resource: Any, _namespace: str, lease: dict[str, Any]) -> Any:
        if self.lease is not None:
            raise Conflict(409, "AlreadyExists", "exists")
        return self._keep(lease)

    async def replace(self, _resource: Any, lease: dict[str, Any]) -> Any:
        assert self.lease is not None
        version = self.lease["metadata"]["resourceVersion"]
        if lease["metadata"]["resourceVersion"] != version:
            raise Conflict(409, "Conflict", "changed")
        return self._keep(lease)

    def _keep(self, lease: dict[str, Any]) -> dict[str, Any]:
        self._version += 1
        version = {"resourceVersion": str(self._version)}
        self.lease = {**lease, "metadata": {**lease["metadata"], **version}}
        return self.lease


def election(store: LeaseStore, clock: ManualClock, identity: str, begun: list[str]) -> Any:
    api: Any = store
    return LeaderElection(api, "ns", identity, 15.0, clock, lambda: begun.append(identity))


@pytest.mark.asyncio
async def test_the_second_waits_for_a_whole_silent_lease() -> None:
    store, clock, begun = LeaseStore(), ManualClock(1000.0), list[str]()
    one, two = (election(store, clock, name, begun) for name in ("one", "two"))
    await one.renew()
    await two.renew()
    assert (one.leads, two.leads) == (True, False)
    clock.advance(10.0)
    await two.renew()
    assert (one.leads, two.leads) == (False, False)  # nobody acts before the other may
    clock.advance(5.0)
    await two.renew()
    assert (one.leads, two.leads, begun) == (False, True, ["one", "two"])
    await one.renew()
    assert not one.leads


@pytest.mark.asyncio
async def test_a_lease_that_is_renewed_is_not_taken() -> None:
    store, clock, begun = LeaseStore(), ManualClock(1000.0), list[str]()
    one, two = (election(store, clock, name, begun) for name in ("one", "two"))
    for _ in range(10):
        await one.renew()
        await two.renew()
        clock.advance(3.0)
    assert begun == ["one"]


@pytest.mark.asyncio
async def test_after_a_gap_everything_is_looked_at_again() -> None:
    """What was due while nobody led was not done, although the Lease was never another's."""
    store, clock, begun = LeaseStore(), ManualClock(1000.0), list[str]()
    one = election(store, clock, "one", begun)
    await one.renew()
    clock.advance(11.0)
    assert not one.leads
    await one.renew()
    assert begun == ["one", "one"]


@pytest.mark.asyncio
async def test_a_lease_given_back_is_free_at_once() -> None:
    store, clock, begun = LeaseStore(), ManualClock(1000.0), list[str]()
    one, two = (election(store, clock, name, begun) for name in ("one", "two"))
    await one.renew()
    await one.release()
    await two.renew()
    assert begun == ["one", "two"]
