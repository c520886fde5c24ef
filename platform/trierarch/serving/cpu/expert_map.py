"""Running only the experts a rank holds.

A router names experts by their number in the whole model; a rank holds some of
them and numbers those from zero. vLLM's CPU kernel takes the router's numbers
for its own and reads past its weights. Here the router's choices are reduced to
the (token, expert) pairs this rank holds before the kernel sees them: experts of
other ranks cost no work and cannot contribute, also where the kernel would
ignore the router's weight because it is in the input already.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch

ExpertKernel = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], None]
"""Fills its first argument: output, hidden states, weights and local experts, a row per pair."""


@dataclasses.dataclass(frozen=True, slots=True)
class LocalPairs:
    """The router's choices that fall on experts of this rank, by token.

    Attributes:
        tokens: Row of the hidden states, one per pair.
        experts: Local number of the expert, a column.
        weights: The router's weight, a column.
    """

    tokens: torch.Tensor
    experts: torch.Tensor
    weights: torch.Tensor


def select_local_pairs(
    router_weights: torch.Tensor, router_experts: torch.Tensor, expert_map: torch.Tensor
) -> LocalPairs:
    """Return the choices that fall on this rank's experts.

    Args:
        router_weights: Of shape (tokens, experts per token).
        router_experts: Numbers in the whole model; same shape.
        expert_map: Local number of every expert of the model, negative for other ranks'.
    """
    local = expert_map[router_experts.long()]
    tokens, choices = (local >= 0).nonzero(as_tuple=True)
    return LocalPairs(
        tokens=tokens,
        experts=local[tokens, choices].unsqueeze(1).to(router_experts.dtype),
        weights=router_weights[tokens, choices].unsqueeze(1),
    )


def run_local_experts(
    kernel: ExpertKernel,
    output: torch.Tensor,
    hidden_states: torch.Tensor,
    router_weights: torch.Tensor,
    router_experts: torch.Tensor,
    expert_map: torch.Tensor,
) -> None:
    """Fill ``output`` with what this rank's experts contribute to each token.

    A token none of whose experts are here gets zeros; ranks are summed afterwards.
    """
    pairs = select_local_pairs(router_weights, router_experts, expert_map)
    if pairs.tokens.numel() == 0:
        output.zero_()
        return
    contributions = hidden_states.new_empty(pairs.tokens.numel(), output.shape[-1])
    kernel(contributions, hidden_states[pairs.tokens], pairs.weights, pairs.experts)
    # Summed in float32, as the kernel itself sums a token's experts.
    total = torch.zeros_like(output, dtype=torch.float32)
    output.copy_(total.index_add_(0, pairs.tokens, contributions.float()))
