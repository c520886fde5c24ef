"""tiny-deepseek-v3: latent attention, shared and routed experts, untrained.

The architecture of DeepSeek-V3 at a size for tests: the key-value cache holds
one compressed vector per token, the router scores experts with a sigmoid and a
learned bias, within groups, and one expert sees every token.
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
DENSE_LAYERS = 1
HIDDEN = 128
DENSE_INTERMEDIATE = 256
HEADS = 4
QUERY_RANK = 64
KEY_VALUE_RANK = 512
"""As in the full model: vLLM's CPU kernel for latent attention knows no other width."""
ROTARY_HEAD_SIZE = 64
"""As in the full model, for the same reason."""
PLAIN_HEAD_SIZE = 32
VALUE_HEAD_SIZE = 32
EXPERTS = 16
SHARED_EXPERTS = 1
EXPERTS_PER_TOKEN = 4
GROUPS = 4
GROUPS_PER_TOKEN = 2
EXPERT_INTERMEDIATE = 64
CONTEXT_TOKENS = 8192
ORIGINAL_CONTEXT_TOKENS = 4096
"""Where the rotary positions stop being stretched."""


class TinyDeepseekV3Recipe:
    """The recipe of ``tiny-deepseek-v3``."""

    name = "tiny-deepseek-v3"
    revision = 1

    @property
    def config(self) -> Mapping[str, object]:
        """The checkpoint's ``config.json``."""
        return {
            "architectures": ["DeepseekV3ForCausalLM"],
            "model_type": "deepseek_v3",
            "dtype": "float32",
            "vocab_size": VOCABULARY_TOKENS,
            "hidden_size": HIDDEN,
            "intermediate_size": DENSE_INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_nextn_predict_layers": 0,
            "num_attention_heads": HEADS,
            "num_key_value_heads": HEADS,
            "q_lora_rank": QUERY_RANK,
            "kv_lora_rank": KEY_VALUE_RANK,
            "qk_nope_head_dim": PLAIN_HEAD_SIZE,
            "qk_rope_head_dim": ROTARY_HEAD_SIZE,
            "v_head_dim": VALUE_HEAD_SIZE,
            "hidden_act": "silu",
            "max_position_embeddings": CONTEXT_TOKENS,
            "rms_norm_eps": 1e-06,
            "rope_theta": 10000.0,
            # As in the full model. Plain rotary positions would also go wrong in vLLM's CPU
            # kernel, which takes the heads of a token for one.
            "rope_scaling": {
                "type": "yarn",
                "factor": CONTEXT_TOKENS / ORIGINAL_CONTEXT_TOKENS,
                "original_max_position_embeddings": ORIGINAL_CONTEXT_TOKENS,
                "beta_fast": 32,
                "beta_slow": 1,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
            },
            "rope_interleave": True,
            "attention_bias": False,
            "attention_dropout": 0.0,
            "first_k_dense_replace": DENSE_LAYERS,
            "moe_layer_freq": 1,
            "moe_intermediate_size": EXPERT_INTERMEDIATE,
            "n_routed_experts": EXPERTS,
            "n_shared_experts": SHARED_EXPERTS,
            "num_experts_per_tok": EXPERTS_PER_TOKEN,
            "n_group": GROUPS,
            "topk_group": GROUPS_PER_TOKEN,
            "scoring_func": "sigmoid",
            # Without this name the router's bias is not loaded.
            "topk_method": "noaux_tc",
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.5,
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
        return build_card(self.name, "DeepSeek-V3")

    @property
    def tensors(self) -> Sequence[TensorSpec]:
        """Every tensor, in the order ``generate`` yields their numbers."""
        specs = [describe("model.embed_tokens.weight", VOCABULARY_TOKENS, HIDDEN)]
        for layer in range(LAYERS):
            prefix = f"model.layers.{layer}"
            specs.append(describe(f"{prefix}.input_layernorm.weight", HIDDEN))
            specs += _describe_attention(f"{prefix}.self_attn")
            specs.append(describe(f"{prefix}.post_attention_layernorm.weight", HIDDEN))
            if layer < DENSE_LAYERS:
                specs += describe_mlp(f"{prefix}.mlp", HIDDEN, DENSE_INTERMEDIATE)
            else:
                specs += _describe_experts(f"{prefix}.mlp")
        specs.append(describe("model.norm.weight", HIDDEN))
        specs.append(describe("lm_head.weight", VOCABULARY_TOKENS, HIDDEN))
        return specs

    def generate(self) -> Iterator[np.ndarray]:
        """Yield each tensor's numbers in float32."""
        return draw_weights(self.name, self.tensors)


def _describe_attention(prefix: str) -> list[TensorSpec]:
    query_size = HEADS * (PLAIN_HEAD_SIZE + ROTARY_HEAD_SIZE)
    return [
        describe(f"{prefix}.q_a_proj.weight", QUERY_RANK, HIDDEN),
        describe(f"{prefix}.q_a_layernorm.weight", QUERY_RANK),
        describe(f"{prefix}.q_b_proj.weight", query_size, QUERY_RANK),
        describe(f"{prefix}.kv_a_proj_with_mqa.weight", KEY_VALUE_RANK + ROTARY_HEAD_SIZE, HIDDEN),
        describe(f"{prefix}.kv_a_layernorm.weight", KEY_VALUE_RANK),
        describe(
            f"{prefix}.kv_b_proj.weight",
            HEADS * (PLAIN_HEAD_SIZE + VALUE_HEAD_SIZE),
            KEY_VALUE_RANK,
        ),
        describe(f"{prefix}.o_proj.weight", HIDDEN, HEADS * VALUE_HEAD_SIZE),
    ]


def _describe_experts(prefix: str) -> list[TensorSpec]:
    specs = [
        describe(f"{prefix}.gate.weight", EXPERTS, HIDDEN),
        describe(f"{prefix}.gate.e_score_correction_bias", EXPERTS),
    ]
    for expert in range(EXPERTS):
        specs += describe_mlp(f"{prefix}.experts.{expert}", HIDDEN, EXPERT_INTERMEDIATE)
    specs += describe_mlp(f"{prefix}.shared_experts", HIDDEN, SHARED_EXPERTS * EXPERT_INTERMEDIATE)
    return specs
