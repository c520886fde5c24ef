"""tiny-qwen3-moe: grouped-query attention and small experts, untrained.

For tests of architecture and of expert parallelism. Its text means nothing, but
every expert is different, so a token sent to the wrong one changes the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from trierarch.serving.models.recipe import TensorSpec
from trierarch.serving.models.smollm2 import BEGIN_TOKEN, END_TOKEN, VOCABULARY_TOKENS
from trierarch.serving.models.untrained import (
    UNTRAINED_GENERATION_CONFIG,
    build_card,
    describe,
    describe_mlp,
    draw_weights,
)

if TYPE_CHECKING:
    import numpy as np

LAYERS = 4
HIDDEN = 128
HEADS = 8
KEY_VALUE_HEADS = 2
HEAD_SIZE = 32
EXPERTS = 16
EXPERTS_PER_TOKEN = 4
EXPERT_INTERMEDIATE = 64


class TinyQwen3MoeRecipe:
    """The recipe of ``tiny-qwen3-moe``."""

    name = "tiny-qwen3-moe"
    revision = 1

    @property
    def config(self) -> Mapping[str, object]:
        """The checkpoint's ``config.json``."""
        return {
            "architectures": ["Qwen3MoeForCausalLM"],
            "model_type": "qwen3_moe",
            "dtype": "float32",
            "vocab_size": VOCABULARY_TOKENS,
            "hidden_size": HIDDEN,
            "intermediate_size": 2 * HIDDEN,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KEY_VALUE_HEADS,
            "head_dim": HEAD_SIZE,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-06,
            "rope_theta": 100000.0,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "use_sliding_window": False,
            "sliding_window": None,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "moe_intermediate_size": EXPERT_INTERMEDIATE,
            "num_experts": EXPERTS,
            "num_experts_per_tok": EXPERTS_PER_TOKEN,
            "norm_topk_prob": True,
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
        """The checkpoint's ``generation_config.json``."""
        return UNTRAINED_GENERATION_CONFIG

    @property
    def card(self) -> str:
        """The checkpoint's ``README.md``."""
        return build_card(self.name, "Qwen3-MoE")

    @property
    def tensors(self) -> Sequence[TensorSpec]:
        """Every tensor, in the order ``generate`` yields their numbers."""
        specs = [describe("model.embed_tokens.weight", VOCABULARY_TOKENS, HIDDEN)]
        for layer in range(LAYERS):
            prefix = f"model.layers.{layer}"
            attention = f"{prefix}.self_attn"
            specs += [
                describe(f"{prefix}.input_layernorm.weight", HIDDEN),
                describe(f"{attention}.q_proj.weight", HEADS * HEAD_SIZE, HIDDEN),
                describe(f"{attention}.k_proj.weight", KEY_VALUE_HEADS * HEAD_SIZE, HIDDEN),
                describe(f"{attention}.v_proj.weight", KEY_VALUE_HEADS * HEAD_SIZE, HIDDEN),
                describe(f"{attention}.o_proj.weight", HIDDEN, HEADS * HEAD_SIZE),
                describe(f"{attention}.q_norm.weight", HEAD_SIZE),
                describe(f"{attention}.k_norm.weight", HEAD_SIZE),
                describe(f"{prefix}.post_attention_layernorm.weight", HIDDEN),
                describe(f"{prefix}.mlp.gate.weight", EXPERTS, HIDDEN),
            ]
            for expert in range(EXPERTS):
                specs += describe_mlp(f"{prefix}.mlp.experts.{expert}", HIDDEN, EXPERT_INTERMEDIATE)
        specs.append(describe("model.norm.weight", HIDDEN))
        specs.append(describe("lm_head.weight", VOCABULARY_TOKENS, HIDDEN))
        return specs

    def generate(self) -> Iterator[np.ndarray]:
        """Yield each tensor's numbers in float32."""
        return draw_weights(self.name, self.tensors)
