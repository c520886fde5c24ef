"""What the untrained models share: their numbers, and how a checkpoint names them.

The scales keep every block as loud as the stream it adds to. With the usual
small initial weights a wrong expert would hardly be heard in the next word.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from trierarch.serving.models.number_formats import draw_uniform
from trierarch.serving.models.recipe import TensorSpec
from trierarch.serving.models.smollm2 import BEGIN_TOKEN, END_TOKEN

if TYPE_CHECKING:
    import numpy as np

UNTRAINED_GENERATION_CONFIG: Mapping[str, object] = {
    "do_sample": False,
    "temperature": 0.0,
    "bos_token_id": BEGIN_TOKEN,
    "eos_token_id": END_TOKEN,
    "pad_token_id": END_TOKEN,
}
"""The likeliest word always: an untrained model is there to be compared."""

_NORM_SPREAD = 0.2
"""Norm weights lie around 1; if they all were 1, a swapped pair would not show."""

_ROUTER_BIAS_DEVIATION = 0.1
"""Of the order of the scores' spread, so that it changes some choices and not all."""

_DOWN_GAIN = 1.7
"""Makes up for the gated unit, whose output is 0.6 as loud as its input."""

_ROUTER_GAIN = 2.0
"""Experts' weights clearly apart from each other."""

_HEAD_GAIN = 3.0
"""The likeliest word leads by more than rounding can move."""


def describe(name: str, *shape: int) -> TensorSpec:
    """Return a float32 tensor's description."""
    return TensorSpec(name, shape, "F32")


def describe_mlp(prefix: str, hidden: int, intermediate: int) -> list[TensorSpec]:
    """Return the three projections of a gated feed-forward block."""
    return [
        describe(f"{prefix}.gate_proj.weight", intermediate, hidden),
        describe(f"{prefix}.up_proj.weight", intermediate, hidden),
        describe(f"{prefix}.down_proj.weight", hidden, intermediate),
    ]


def draw_weights(model: str, tensors: Sequence[TensorSpec]) -> Iterator[np.ndarray]:
    """Yield the numbers of each tensor, decided by the model's and the tensor's name."""
    import numpy as np

    for tensor in tensors:
        seed = f"{model}/{tensor.name}"
        if tensor.name.endswith("norm.weight"):
            spread = draw_uniform(seed, tensor.shape, deviation=_NORM_SPREAD)
            yield np.float32(1.0) + spread
        else:
            yield draw_uniform(seed, tensor.shape, deviation=_choose_deviation(tensor))


def build_card(name: str, architecture: str) -> str:
    """Return the ``README.md`` of an untrained checkpoint."""
    return f"""---
license: apache-2.0
---
# {name}

{architecture} with random weights, made by Trierarch from a fixed seed to test architectures and
expert parallelism. Its text means nothing. Tokenizer and chat template are those of
SmolLM2-135M-Instruct (Hugging Face, Apache-2.0).
"""


def _choose_deviation(tensor: TensorSpec) -> float:
    if tensor.name.endswith("embed_tokens.weight"):
        return 1.0
    if tensor.name.endswith("e_score_correction_bias"):
        return _ROUTER_BIAS_DEVIATION
    per_input = 1.0 / math.sqrt(tensor.shape[1])
    if tensor.name.endswith("down_proj.weight"):
        return _DOWN_GAIN * per_input
    if tensor.name.endswith("gate.weight"):
        return _ROUTER_GAIN * per_input
    if tensor.name == "lm_head.weight":
        return _HEAD_GAIN * per_input
    return per_input
