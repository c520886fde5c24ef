"""How long one engine step takes on one replica, as a handful of coefficients.

The time of a step is a constant, plus the expert weights it has to read (which
saturate as more tokens touch more experts), plus a share per decoded token, per
prefilled token, per token of context read, and per pair of prompt tokens. A
replica is one whole expert-parallel group; its ranks are taken together.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from trierarch.core.errors import InvalidInput
from trierarch.simulation.engine.records import VARIANT, Records


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceCoefficients:
    """The service model of one replica.

    Attributes:
        step_seconds: Time of a step with nothing in it: launch, attention weights, all-to-all.
        expert_seconds: Time to read every expert's weights once.
        expert_share_ratio: Share of the experts that one token touches.
        decode_token_seconds: Per decoded token.
        prefill_token_seconds: Per prompt token.
        context_token_seconds: Per token of KV memory that a decode step reads.
        prefill_context_seconds: Per pair of a prompt token and one before it.
        maximum_requests: Requests that run at once (seats).
        step_tokens: Tokens of one step at most, decoded and prefilled together.
        kv_limit_tokens: Tokens that fit into the KV memory.
        prefix_cache_tokens: Tokens of finished prompts kept for reuse; 0 turns it off.
        pending_prefill_limit_tokens: Prompt tokens that may wait on the replica itself; more
            wait at the gateway, where another replica can take them.
        flex_seats_ratio: Share of the seats up to which flex requests may fill a replica.
        flex_prefill_ratio: Share of its time that flex prompts may take on a replica that also
            serves interactive requests.
    """

    step_seconds: float
    expert_seconds: float
    expert_share_ratio: float
    decode_token_seconds: float
    prefill_token_seconds: float
    context_token_seconds: float
    prefill_context_seconds: float
    maximum_requests: int
    step_tokens: int
    kv_limit_tokens: int
    prefix_cache_tokens: int = 0
    pending_prefill_limit_tokens: int = 32_768
    flex_seats_ratio: float = 0.6
    flex_prefill_ratio: float = 0.15

    def __post_init__(self) -> None:
        times = dataclasses.astuple(self)[:7]
        if not all(math.isfinite(value) and value >= 0 for value in times):
            raise InvalidInput(f"a service model's times must be finite and not negative: {self}")
        if self.step_seconds <= 0:
            raise InvalidInput("a service model's step_seconds must be positive")
        if not 0 <= self.expert_share_ratio < 1:
            raise InvalidInput("a service model's expert_share_ratio must lie in [0, 1)")
        if self.maximum_requests < 1 or self.kv_limit_tokens < 2:
            raise InvalidInput("a service model needs at least one seat and two KV tokens")
        if self.step_tokens <= self.maximum_requests:
            raise InvalidInput(
                "a service model's step_tokens must exceed its maximum_requests, "
                "or decoding would leave no room to prefill"
            )
        if not (0 < self.flex_seats_ratio <= 1 and 0 < self.flex_prefill_ratio <= 1):
            raise InvalidInput("a service model's flex ratios must lie in (0, 1]")

    def step_time_seconds(
        self,
        *,
        decoding: int,
        context_tokens: float = 0.0,
        prefill_tokens: int = 0,
        prefill_pairs: float = 0.0,
    ) -> float:
        """Return the duration of one step."""
        touched = 1.0 - (1.0 - self.expert_share_ratio) ** (decoding + prefill_tokens)
        return (
            self.step_seconds
            + self.expert_seconds * touched
            + self.decode_token_seconds * decoding
            + self.prefill_token_seconds * prefill_tokens
            + self.context_token_seconds * context_tokens
            + self.prefill_context_seconds * prefill_pairs
        )

    def request_work_seconds(
        self, input_tokens: np.ndarray, output_tokens: np.ndarray, *, batch: int | None = None
    ) -> np.ndarray:
        """Return each request's share of replica time when ``batch`` requests decode together.

        With ``batch`` at its maximum this is the least time the model allows: fixed costs are
        shared by as many as can be, and a request always pays for its own tokens and context.
        """
        seats = self.maximum_requests if batch is None else batch
        inputs = input_tokens.astype(np.float64)
        steps = np.maximum(output_tokens.astype(np.float64) - 1.0, 0.0)
        fixed = self.step_time_seconds(decoding=seats) / seats
        context = steps * inputs + steps * (steps - 1.0) / 2.0
        pairs = inputs * inputs / 2.0
        return np.asarray(
            inputs * self.prefill_token_seconds
            + pairs * self.prefill_context_seconds
            + steps * fixed
            + context * self.context_token_seconds
        )


def variant_records(coefficients: list[ServiceCoefficients], prefix_block_tokens: int) -> Records:
    """Return the engine's records for a fleet's variants, in order."""
    records = np.zeros(len(coefficients), VARIANT)
    fastest = min(_full_step_seconds_per_token(model) for model in coefficients)
    for record, model in zip(records, coefficients, strict=True):
        for name in (
            "step_seconds",
            "expert_seconds",
            "decode_token_seconds",
            "prefill_token_seconds",
            "context_token_seconds",
            "prefill_context_seconds",
            "maximum_requests",
            "step_tokens",
            "kv_limit_tokens",
            "pending_prefill_limit_tokens",
            "flex_prefill_ratio",
        ):
            record[name] = getattr(model, name)
        record["expert_miss_log"] = math.log1p(-model.expert_share_ratio)
        record["relative_capacity"] = fastest / _full_step_seconds_per_token(model)
        record["flex_request_limit"] = max(1, int(model.flex_seats_ratio * model.maximum_requests))
        blocks = model.prefix_cache_tokens // prefix_block_tokens if prefix_block_tokens else 0
        record["cache_blocks"] = max(1, blocks)
    return records


def _full_step_seconds_per_token(model: ServiceCoefficients) -> float:
    return model.step_time_seconds(decoding=model.maximum_requests) / model.maximum_requests
