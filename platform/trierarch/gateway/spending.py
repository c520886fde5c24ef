"""What one request may spend: reserved before it runs, followed while it runs, settled at its end.

A stream whose output is not limited, or whose prompt was longer than it seemed, can come to cost
more than was reserved. Its counts are looked at every few events; more is reserved ahead of need,
from memory. Only if the lease is used up the stream is held until the ledger has answered, and
if the budget is used up it ends there, with what it has used until then.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from trierarch.core.identifiers import HolderId, ModelName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.cost.budgets import TenantTerms
from trierarch.gateway.admission.lease_keeper import LeaseKeeper
from trierarch.gateway.admission.leases import Reservation
from trierarch.gateway.endpoints.endpoint import GenerationRequest
from trierarch.gateway.errors import GatewayError
from trierarch.gateway.metering import StreamMeter

CHECK_BYTES = 2048
"""How often counts are looked at; an event is some three hundred bytes and a token or a few."""

MARGIN_TOKENS = 64
"""Reserved beyond the counts, per choice: more than arrives between two looks."""

AHEAD_TOKENS = 512
"""Reserved ahead where output is not limited, per choice: seconds of a fast stream, in which the
ledger can be asked."""


class SpendWatch:
    """Follows one stream.

    Args:
        reservation: What it may spend.
        price: The charge for counts.
        want_more: Asks the ledger soon, in the background.
        call: The request.
    """

    __slots__ = (
        "_choices",
        "_is_covered",
        "_most_output",
        "_price",
        "_reservation",
        "_unseen_bytes",
        "_want_more",
    )

    def __init__(
        self,
        reservation: Reservation,
        price: Callable[[TokenCounts], Money],
        want_more: Callable[[], None],
        call: GenerationRequest,
    ) -> None:
        self._reservation = reservation
        self._price = price
        self._want_more = want_more
        self._choices = call.choice_count * call.prompt_count
        self._most_output = most_output_tokens(call)
        self._unseen_bytes = CHECK_BYTES
        self._is_covered = False

    def lacks(self, arrived_bytes: int, meter: StreamMeter) -> Decimal | None:
        """Return how much must be reserved before more is passed on; None if it is.

        Args:
            arrived_bytes: Since the last call.
            meter: Has read them.
        """
        if meter.is_done:
            return self._lacks_at_end(meter.tokens_so_far())
        self._unseen_bytes += arrived_bytes
        if self._is_covered or self._unseen_bytes < CHECK_BYTES:
            return None
        tokens = meter.tokens_so_far()
        if tokens is None:
            return None
        self._unseen_bytes = 0
        reservation = self._reservation
        if self._most_output is not None and reservation.extend(self._with_output(tokens, None)):
            # Output cannot be more than this, and the prompt is counted now.
            self._is_covered = True
            return None
        if self._with_output(tokens, AHEAD_TOKENS // 2) <= reservation.amount_usd:
            return None
        ahead_usd = self._with_output(tokens, AHEAD_TOKENS)
        if reservation.extend(ahead_usd):
            return None
        reservation.want(ahead_usd)
        self._want_more()
        least_usd = self._with_output(tokens, MARGIN_TOKENS)
        return None if reservation.extend(least_usd) else least_usd

    def _lacks_at_end(self, tokens: TokenCounts | None) -> Decimal | None:
        if tokens is None:
            return None
        usd = self._price(tokens).amount
        return None if self._reservation.extend(usd) else usd

    def _with_output(self, tokens: TokenCounts, more_tokens: int | None) -> Decimal:
        """Return the charge after that many more tokens per choice; after all if None."""
        most = self._most_output
        output = tokens.output_tokens
        if more_tokens is not None:
            output += more_tokens * self._choices
        if most is not None:
            output = most if more_tokens is None else min(output, most)
        output = max(output, tokens.output_tokens)
        return self._price(TokenCounts(tokens.input_tokens, tokens.cached_tokens, output)).amount


def most_output_tokens(call: GenerationRequest) -> int | None:
    """Return how many tokens a request may generate, all choices together; None if unlimited."""
    if call.max_output_tokens is None:
        return None
    return call.max_output_tokens * call.choice_count * call.prompt_count


class Spending:
    """The reservation of one request, and who is asked for more."""

    __slots__ = ("_keeper", "_reservation", "_terms")

    def __init__(self, keeper: LeaseKeeper, terms: TenantTerms, reservation: Reservation) -> None:
        self._keeper = keeper
        self._terms = terms
        self._reservation = reservation

    @classmethod
    async def begin(
        cls, keeper: LeaseKeeper, terms: TenantTerms, model: ModelName, worst_usd: Decimal
    ) -> Spending | ModelName:
        """Reserve the most that a request may cost.

        Args:
            keeper: Of the process.
            terms: With budgets.
            model: That is to answer.
            worst_usd: Dollars.

        Returns:
            The cheaper model that has to answer instead, if it comes to that.

        Raises:
            GatewayError: If the budgets cannot pay, or nobody can say.
        """
        at_full_price = any(one.downgrade_to not in {None, model} for one in terms.budgets)
        reserved = await keeper.reserve(terms, worst_usd, at_full_price=at_full_price)
        if reserved == model:
            reserved = await keeper.reserve(terms, worst_usd)
        if isinstance(reserved, Reservation):
            return cls(keeper, terms, reserved)
        return reserved

    @property
    def holder(self) -> HolderId:
        """Return whose lease pays."""
        return self._reservation.holder

    def refusal(self) -> GatewayError:
        """Return what a client is told whose budget cannot pay any more."""
        return self._keeper.refusal(self._terms)

    def watch(
        self, call: GenerationRequest, price: Callable[[TokenCounts], Money]
    ) -> SpendWatch | None:
        """Return what follows the request's answer; None if it comes in one piece."""
        if not call.is_stream:
            return None
        return SpendWatch(self._reservation, price, self._keeper.want_more, call)

    async def cover(self, usd: Decimal) -> bool:
        """Have that much reserved and return whether it is; may ask the ledger."""
        return await self._keeper.extend(self._reservation, usd)

    def settle(self, charge_usd: Decimal) -> Decimal:
        """End with a charge and return how much of it the budgets can pay: all, in the ordinary."""
        return self._reservation.settle(charge_usd)

    def release(self) -> None:
        """End without a charge, if it has not ended yet."""
        self._reservation.release()
