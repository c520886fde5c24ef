"""Collectives for ranks with different numbers of tokens, on Gloo.

Data-parallel ranks bring different batches to an expert layer. Gloo gathers and
sums equal shapes only, so rows are padded on the way in and cut on the way out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
import torch.distributed


class Communicator(Protocol):
    """What a collective needs of vLLM's device communicator."""

    world_size: int
    rank_in_group: int
    device_group: torch.distributed.ProcessGroup


def all_gatherv(
    self: Communicator,
    input_: torch.Tensor | list[torch.Tensor],
    dim: int = 0,
    sizes: Sequence[int] | None = None,
) -> torch.Tensor | list[torch.Tensor]:
    """Return the rows of all ranks, one rank after another.

    Args:
        self: The group.
        input_: This rank's rows, or several tensors with as many rows each.
        dim: Must be 0.
        sizes: Rows of each rank; None says that all have as many as this one.

    Raises:
        NotImplementedError: For another dimension.
    """
    if dim != 0:
        raise NotImplementedError("all_gatherv gathers rows only (dim 0)")
    if self.world_size == 1:
        return input_
    if isinstance(input_, list):
        return [_gather_rows(self, tensor, sizes) for tensor in input_]
    return _gather_rows(self, input_, sizes)


def reduce_scatterv(
    self: Communicator,
    input_: torch.Tensor,
    dim: int = -1,
    sizes: Sequence[int] | None = None,
) -> torch.Tensor:
    """Return this rank's rows of the sum over all ranks.

    Args:
        self: The group.
        input_: The rows of all ranks, one rank after another.
        dim: Must name the first dimension.
        sizes: Rows of each rank; None says that all have the same.

    Raises:
        NotImplementedError: For another dimension.
        ValueError: If the rows do not add up.
    """
    if dim not in (0, -input_.dim()):
        raise NotImplementedError("reduce_scatterv scatters rows only (dim 0)")
    if self.world_size == 1:
        return input_
    if sizes is None:
        sizes = [input_.shape[0] // self.world_size] * self.world_size
    if sum(sizes) != input_.shape[0]:
        raise ValueError(f"{input_.shape[0]} rows to scatter, but the ranks' are {list(sizes)}")
    total = input_.clone(memory_format=torch.contiguous_format)
    torch.distributed.all_reduce(total, group=self.device_group)
    start = sum(sizes[: self.rank_in_group])
    # A copy: a view would keep every rank's rows in memory.
    return total[start : start + sizes[self.rank_in_group]].clone()


def _gather_rows(
    group: Communicator, rows: torch.Tensor, sizes: Sequence[int] | None
) -> torch.Tensor:
    if sizes is None:
        sizes = [rows.shape[0]] * group.world_size
    if rows.shape[0] != sizes[group.rank_in_group]:
        raise ValueError(
            f"rank {group.rank_in_group} has {rows.shape[0]} rows, announced are {list(sizes)}"
        )
    padded = rows.new_zeros((max(sizes), *rows.shape[1:]))
    padded[: rows.shape[0]] = rows
    gathered = [torch.empty_like(padded) for _ in sizes]
    torch.distributed.all_gather(gathered, padded, group=group.device_group)
    return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])
