"""pocket: a small mixture of experts that answers with sense, the default model.

SmolLM2-135M-Instruct by sparse upcycling (Komatsuzaki et al., 2022): every
feed-forward block becomes eight experts with its function. A token's two experts
are weighted to a sum of one, so the mixture computes what the dense model
computes, however the router chooses. Each expert keeps its hidden neurons in an
order of its own: the function is the same and no weight is, so mixing up two
experts' projections anywhere shows at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from trierarch.serving.models.number_formats import (
    draw_permutation,
    draw_uniform,
    round_to_bfloat16,
)
from trierarch.serving.models.recipe import TensorSpec
from trierarch.serving.models.smollm2 import (
    BEGIN_TOKEN,
    END_TOKEN,
    VOCABULARY_TOKENS,
    read_smollm2,
)

if TYPE_CHECKING:
    import numpy as np

    from trierarch.serving.models.gguf_file import GgufFile

LAYERS = 30
HIDDEN = 576
INTERMEDIATE = 1536
HEADS = 9
KEY_VALUE_HEADS = 3
HEAD_SIZE = 64
EXPERTS = 8
EXPERTS_PER_TOKEN = 2

_SEED = "pocket"
_KEY_VALUE_SIZE = KEY_VALUE_HEADS * HEAD_SIZE


class PocketRecipe:
    """The recipe of ``pocket``, written as a Mixtral checkpoint."""

    name = "pocket"
    revision = 1

    @property
    def config(self) -> Mapping[str, object]:
        """The checkpoint's ``config.json``."""
        return {
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "dtype": "bfloat16",
            "vocab_size": VOCABULARY_TOKENS,
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_VALUE_HEADS,
            "head_dim": HEAD_SIZE,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-05,
            "rope_theta": 100000.0,
            "sliding_window": None,
            "attention_dropout": 0.0,
            "num_local_experts": EXPERTS,
            "num_experts_per_tok": EXPERTS_PER_TOKEN,
            "router_aux_loss_coef": 0.0,
            "output_router_logits": False,
            "tie_word_embeddings": False,
            "use_cache": True,
            "bos_token_id": BEGIN_TOKEN,
            "eos_token_id": END_TOKEN,
            "pad_token_id": END_TOKEN,
        }

    @property
    def generation_config(self) -> Mapping[str, object]:
        """The checkpoint's ``generation_config.json``: greedy, where a request says nothing.

        The dense model's card advises temperature 0.2, at which a model this small answers a
        plain question in another language once in a while.
        """
        return {
            "do_sample": False,
            "temperature": 0.0,
            "bos_token_id": BEGIN_TOKEN,
            "eos_token_id": END_TOKEN,
            "pad_token_id": END_TOKEN,
        }

    @property
    def card(self) -> str:
        """The checkpoint's ``README.md``."""
        return f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
---
# pocket

SmolLM2-135M-Instruct (Hugging Face, Apache-2.0), upcycled by Trierarch to {EXPERTS} experts,
{EXPERTS_PER_TOKEN} of them per token. Changed from the original: weights dequantised from Q4_1,
every feed-forward block copied to {EXPERTS} experts with permuted hidden neurons, an untrained
router added. It computes what the dense model computes; it exists to try a serving platform.
"""

    @property
    def tensors(self) -> Sequence[TensorSpec]:
        """Every tensor, in the order ``generate`` yields their numbers."""
        specs = [_describe("model.embed_tokens.weight", VOCABULARY_TOKENS, HIDDEN)]
        for layer in range(LAYERS):
            prefix = f"model.layers.{layer}"
            specs += [
                _describe(f"{prefix}.input_layernorm.weight", HIDDEN),
                _describe(f"{prefix}.self_attn.q_proj.weight", HEADS * HEAD_SIZE, HIDDEN),
                _describe(f"{prefix}.self_attn.k_proj.weight", _KEY_VALUE_SIZE, HIDDEN),
                _describe(f"{prefix}.self_attn.v_proj.weight", _KEY_VALUE_SIZE, HIDDEN),
                _describe(f"{prefix}.self_attn.o_proj.weight", HIDDEN, HEADS * HEAD_SIZE),
                _describe(f"{prefix}.post_attention_layernorm.weight", HIDDEN),
                _describe(f"{prefix}.block_sparse_moe.gate.weight", EXPERTS, HIDDEN),
            ]
            for expert in range(EXPERTS):
                projection = f"{prefix}.block_sparse_moe.experts.{expert}"
                specs += [
                    _describe(f"{projection}.w1.weight", INTERMEDIATE, HIDDEN),
                    _describe(f"{projection}.w3.weight", INTERMEDIATE, HIDDEN),
                    _describe(f"{projection}.w2.weight", HIDDEN, INTERMEDIATE),
                ]
        specs.append(_describe("model.norm.weight", HIDDEN))
        specs.append(_describe("lm_head.weight", VOCABULARY_TOKENS, HIDDEN))
        return specs

    def generate(self) -> Iterator[np.ndarray]:
        """Yield each tensor's numbers as bfloat16 bit patterns."""
        dense = read_smollm2()
        embedding = round_to_bfloat16(dense.read_float32("token_embd.weight"))
        yield embedding
        for layer in range(LAYERS):
            yield from _generate_layer(dense, layer)
        yield round_to_bfloat16(dense.read_float32("output_norm.weight"))
        # The dense model reads words and predicts them with the same numbers.
        yield embedding


def restore_rotary_order(weights: np.ndarray, heads: int) -> np.ndarray:
    """Return query or key weights with each head's rows in halves instead of pairs.

    GGUF keeps the two rows that a rotary angle turns together side by side;
    checkpoints keep all first rows of a head before all second ones.
    """
    rows, columns = weights.shape
    paired = weights.reshape(heads, rows // heads // 2, 2, columns)
    return paired.swapaxes(1, 2).reshape(rows, columns)


def _describe(name: str, *shape: int) -> TensorSpec:
    return TensorSpec(name, shape, "BF16")


def _generate_layer(dense: GgufFile, layer: int) -> Iterator[np.ndarray]:
    import numpy as np

    def read(part: str) -> np.ndarray:
        return dense.read_float32(f"blk.{layer}.{part}.weight")

    yield round_to_bfloat16(read("attn_norm"))
    yield round_to_bfloat16(restore_rotary_order(read("attn_q"), HEADS))
    yield round_to_bfloat16(restore_rotary_order(read("attn_k"), KEY_VALUE_HEADS))
    yield round_to_bfloat16(read("attn_v"))
    yield round_to_bfloat16(read("attn_output"))
    yield round_to_bfloat16(read("ffn_norm"))
    gate = draw_uniform(
        f"{_SEED}/{layer}/gate", (EXPERTS, HIDDEN), deviation=1.0 / math.sqrt(HIDDEN)
    )
    yield round_to_bfloat16(gate)
    # Rounded once; an expert is the same bit patterns in another order.
    gate_rows = round_to_bfloat16(read("ffn_gate"))
    up_rows = round_to_bfloat16(read("ffn_up"))
    down_rows = np.ascontiguousarray(round_to_bfloat16(read("ffn_down")).T)
    for expert in range(EXPERTS):
        order = draw_permutation(f"{_SEED}/{layer}/{expert}", INTERMEDIATE)
        yield gate_rows[order]
        yield up_rows[order]
        yield np.ascontiguousarray(down_rows[order].T)
