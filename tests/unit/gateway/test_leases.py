"""What a process keeps of a budget, when it asks for more, and what it does if there is none."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from trierarch.core.clock import ManualClock
from trierarch.core.identifiers import HolderId, ModelName, TenantId
from trierarch.cost.budgets import Action, Budget, Period, TenantTerms, day_of
from trierarch.cost.leases import Lease
from trierarch.gateway.admission.lease_keeper import LeaseKeeper
from trierarch.gateway.admission.leases import KEPT_SECONDS, Reservation
from trierarch.gateway.errors import GatewayError
from trierarch.ports import TenantBook
from trierarch.testing.books import InMemoryTenants

NOON = 86_400.0 * 20_000 + 43_200.0
TENANT = TenantId("acme")
CHEAP, CHEAPER = ModelName("cheap"), ModelName("cheaper")
OTHER = HolderId("other")


class Office:
    """A keeper, and a ledger that a test moves."""

    def __init__(self, *budgets: Budget) -> None:
        self.clock = ManualClock(NOON)
        self.tenants = InMemoryTenants(clock=self.clock)
        self.tell("0", *budgets)
        self.keeper = LeaseKeeper(self.tenants, self.clock)

    def tell(self, spent: str, *budgets: Budget) -> None:
        if budgets:
            self.terms = TenantTerms(TENANT, budgets=budgets)
        days = {day_of(self.clock.unix_seconds()): Decimal(spent)}
        self.tenants.read = TenantBook({TENANT: self.terms}, {TENANT: days})

    async def reserve(self, worst: str, **options: Any) -> Reservation | ModelName:
        return await self.keeper.reserve(self.terms, Decimal(worst), **options)

    async def refused(self, worst: str) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            await self.reserve(worst)
        return caught.value

    def another_holds(self, usd: str, *, spare: str = "0") -> None:
        lease = Lease(OTHER, Decimal(usd), Decimal(0), Decimal(spare), NOON + 1e6)
        self.tenants.leases[TENANT][OTHER] = lease

    async def exchange(self) -> None:
        """Wait until the keeper has told the ledger everything there is now."""
        await self.keeper._exchanged()

    @property
    def held_usd(self) -> Decimal:
        return sum(
            (one.outstanding_usd for one in self.tenants.leases[TENANT].values()), Decimal(0)
        )


@contextlib.asynccontextmanager
async def office(*budgets: Budget) -> AsyncIterator[Office]:
    opened = Office(*(budgets or (daily("1.00"),)))
    opened.keeper.start()
    try:
        yield opened
    finally:
        await opened.keeper.close()


def daily(amount: str, action: Action = Action.BLOCK, **fields: Any) -> Budget:
    return Budget(Period.DAY, Decimal(amount), action, **fields)


@pytest.mark.asyncio
async def test_one_process_can_use_a_small_budget_up_to_the_last_cent() -> None:
    async with office() as at:
        running = [await at.reserve("0.10") for _ in range(10)]
        error = await at.refused("0.01")
        assert (error.status, error.code) == (429, "insufficient_quota")
        # One of them was cheaper than reserved.
        assert running[0].settle(Decimal("0.04")) == Decimal("0.04")
        await at.reserve("0.06")
        assert (await at.refused("0.01")).code == "insufficient_quota"


@pytest.mark.asyncio
async def test_what_is_beyond_the_budget_is_refused_without_asking_the_ledger() -> None:
    async with office() as at:
        at.tell("0.95")
        await at.refused("0.10")
        at.tenants.is_away = True
        assert (await at.refused("0.10")).code == "insufficient_quota"


@pytest.mark.asyncio
async def test_requests_that_follow_one_another_do_not_wait_for_the_ledger() -> None:
    async with office() as at:
        (await at.reserve("0.01")).settle(Decimal("0.005"))
        await at.exchange()
        at.tenants.is_away = True
        (await at.reserve("0.01")).settle(Decimal("0.005"))


@pytest.mark.asyncio
async def test_a_lease_outlives_an_absent_ledger_for_its_time_and_no_longer() -> None:
    async with office() as at:
        (await at.reserve("0.01")).settle(Decimal(0))
        at.tenants.is_away = True
        at.clock.advance(at.tenants.lease_seconds * 0.9)
        error = await at.refused("0.01")
        assert (error.status, error.code) == (503, "unavailable")
        # It comes back: the lease that lapsed is followed by another.
        at.tenants.is_away = False
        reserved = await at.reserve("0.01")
        assert reserved.holder != HolderId("one")


@pytest.mark.asyncio
async def test_what_is_not_used_goes_back_at_first_mostly_and_then_all() -> None:
    async with office() as at:
        (await at.reserve("0.60")).settle(Decimal("0.10"))
        at.clock.advance(15.0)
        await at.exchange()
        assert Decimal("0.10") < at.held_usd <= Decimal("0.10") + Decimal("0.90") / 64
        at.clock.advance(7.0)
        await at.exchange()
        assert at.held_usd > Decimal("0.10"), "renewed"
        at.clock.advance(8.0)
        await at.exchange()
        at.clock.advance(KEPT_SECONDS - 30.0)
        await at.exchange()
        assert at.held_usd == Decimal("0.10")


@pytest.mark.asyncio
async def test_a_clean_end_gives_everything_back() -> None:
    async with office() as at:
        (await at.reserve("0.60")).settle(Decimal("0.10"))
        await at.reserve("0.20")
        assert at.held_usd > Decimal("0.30")
    assert at.held_usd == Decimal("0.30"), "what is charged and what still runs"


@pytest.mark.asyncio
async def test_what_another_holds_and_does_not_use_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with office() as at:
        at.another_holds("0.95", spare="0.90")
        rounds = 0
        exchange = at.tenants.exchange_leases

        def gives_back_in_the_second_round(asks: Any) -> Any:
            nonlocal rounds
            rounds += 1
            if rounds == 2:
                at.another_holds("0.05")
            return exchange(asks)

        monkeypatch.setattr(at.tenants, "exchange_leases", gives_back_in_the_second_round)
        assert isinstance(await at.reserve("0.50"), Reservation)
        assert rounds >= 2


@pytest.mark.asyncio
async def test_what_another_uses_is_not_waited_for() -> None:
    async with office() as at:
        at.another_holds("0.95")
        assert (await at.refused("0.10")).code == "insufficient_quota"


@pytest.mark.asyncio
async def test_what_others_lack_is_not_kept() -> None:
    async with office() as at:
        (await at.reserve("0.20")).release()
        await at.exchange()
        assert at.held_usd >= Decimal("0.20")
        at.tenants.wanted = frozenset({TENANT})
        # The first round brings the news, the second acts on it.
        await at.exchange()
        await at.exchange()
        assert at.held_usd == 0


@pytest.mark.asyncio
async def test_a_request_that_costs_more_than_reserved_takes_more_or_is_covered_in_part() -> None:
    async with office() as at:
        first = await at.reserve("0.10")
        assert await at.keeper.extend(first, Decimal("0.70"))
        second = await at.reserve("0.20")
        assert not await at.keeper.extend(second, Decimal("0.31"))
        assert second.settle(Decimal("0.31")) <= Decimal("0.30")
        assert first.settle(Decimal("0.70")) == Decimal("0.70")


@pytest.mark.asyncio
async def test_downgrade_answers_with_the_cheaper_model_until_something_blocks() -> None:
    async with office(daily("1.00", Action.DOWNGRADE, downgrade_to=CHEAP), daily("2.00")) as at:
        assert isinstance(await at.reserve("0.10", at_full_price=True), Reservation)
        assert await at.reserve("0.95", at_full_price=True) == CHEAP
        assert isinstance(await at.reserve("0.95"), Reservation)
        assert (await at.refused("1.00")).code == "insufficient_quota"


@pytest.mark.asyncio
async def test_of_two_cheaper_models_the_one_whose_budget_is_used_up_answers() -> None:
    month = Budget(Period.MONTH, Decimal("0.50"), Action.DOWNGRADE, CHEAPER)
    async with office(daily("1.00", Action.DOWNGRADE, downgrade_to=CHEAP), month) as at:
        at.tell("0.45")
        assert await at.reserve("0.10", at_full_price=True) == CHEAPER


@pytest.mark.asyncio
async def test_a_new_day_starts_from_zero() -> None:
    async with office() as at:
        at.tell("1.00")
        assert (await at.refused("0.10")).code == "insufficient_quota"
        at.clock.advance(43_200.0)
        assert isinstance(await at.reserve("0.10"), Reservation)


@pytest.mark.asyncio
async def test_the_budget_that_starts_again_last_is_named() -> None:
    async with office(daily("1.00"), Budget(Period.MONTH, Decimal("0.50"))) as at:
        assert "0.50 USD per month" in (await at.refused("0.60")).message
