"""From a Hugging Face ``config.json`` to an architecture.

Only architectures whose attention is known are read: a guess here would become a wrong
number of accelerators. Field names differ between families; they are looked up in one
place each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from trierarch.core.errors import InvalidInput
from trierarch.hardware.architecture import MixtureOfExperts, ModelArchitecture
from trierarch.hardware.attention import (
    Attention,
    CompressedAttention,
    GroupedQueryAttention,
    LatentAttention,
    SparseIndex,
)
from trierarch.hardware.formats import (
    BFLOAT16,
    FLOAT32,
    FP8_BLOCKS,
    INT4_GROUPS,
    INT8_CHANNELS,
    MXFP4,
    NVFP4,
    WeightFormat,
)

GROUPED = frozenset(
    {
        "llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe",
        "qwen3_vl_text", "qwen3_vl_moe_text", "gpt_oss", "glm4_moe",
    }
)  # fmt: skip
LATENT = frozenset(
    {"deepseek_v2", "deepseek_v3", "deepseek_v32", "kimi_k2", "kimi_k25", "glm_moe_dsa"}
)
COMPRESSED = frozenset({"deepseek_v4"})
KNOWN = GROUPED | LATENT | COMPRESSED

INDEXED_RATIO = 4
"""Layers with this compression pick entries by an index; coarser ones read all of them."""

WINDOWED_LAYERS = frozenset({"sliding_attention", "chunked_attention"})

Config = Mapping[str, Any]


def read_architecture(config: Mapping[str, Any]) -> ModelArchitecture:
    """Return the architecture that a ``config.json`` describes.

    Args:
        config: The parsed file; the language part of a multimodal one is found by itself.

    Raises:
        InvalidInput: If a field is missing or wrong, or the architecture is not known.
    """
    text = _language_part(config)
    kind = _text(text, "model_type")
    if kind not in KNOWN:
        raise InvalidInput(
            f"architecture '{kind}' is not known; known are {', '.join(sorted(KNOWN))}"
        )
    layers = _count(text, "num_hidden_layers")
    hidden = _count(text, "hidden_size")
    experts = _experts(text, kind, layers)
    dense_layers = layers - (experts.layers if experts else 0)
    expert_format, dense_format = _formats({**config, **text})
    return ModelArchitecture(
        kind=kind,
        hidden=hidden,
        vocabulary=_count(text, "vocab_size"),
        attention=_attention(text, kind, layers, hidden),
        dense_layers=dense_layers,
        dense_width=_count(text, "intermediate_size") if dense_layers else 0,
        experts=experts,
        output_shares_embedding=bool(
            text.get("tie_word_embeddings", config.get("tie_word_embeddings", False))
        ),
        context_limit_tokens=_count(text, "max_position_embeddings"),
        expert_format=expert_format,
        dense_format=dense_format,
    )


def _language_part(config: Config) -> Config:
    nested = config.get("text_config")
    if isinstance(nested, Mapping):
        return {"model_type": config.get("model_type"), **nested}
    return config


def _text(config: Config, name: str) -> str:
    value = config.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidInput(f"config.json: '{name}' is missing; is this a Hugging Face model?")
    return value


def _optional_count(config: Config, *names: str) -> int | None:
    """Return the first of these fields that is set."""
    for name in names:
        value = config.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidInput(f"config.json: '{name}' must be a whole number, got {value!r}")
        return value
    return None


def _count(config: Config, *names: str) -> int:
    value = _optional_count(config, *names)
    if value is None:
        raise InvalidInput(f"config.json: '{names[0]}' is missing")
    if value == 0:
        raise InvalidInput(f"config.json: '{names[0]}' must be above zero")
    return value


def _index(config: Config) -> SparseIndex | None:
    top = _optional_count(config, "index_topk")
    if not top:
        return None
    return SparseIndex(_count(config, "index_n_heads"), _count(config, "index_head_dim"), top)


def _attention(
    config: Config, kind: str, layers: int, hidden: int
) -> tuple[tuple[Attention, int], ...]:
    if kind in LATENT:
        return ((_latent(config, hidden), layers),)
    if kind in COMPRESSED:
        return _compressed(config, layers, hidden)
    return _grouped(config, layers, hidden)


def _latent(config: Config, hidden: int) -> LatentAttention:
    return LatentAttention(
        hidden=hidden,
        heads=_count(config, "num_attention_heads"),
        query_rank=_optional_count(config, "q_lora_rank"),
        latent_rank=_count(config, "kv_lora_rank"),
        rope_dim=_count(config, "qk_rope_head_dim"),
        nope_dim=_count(config, "qk_nope_head_dim"),
        value_dim=_count(config, "v_head_dim"),
        index=_index(config),
    )


def _compressed(
    config: Config, layers: int, hidden: int
) -> tuple[tuple[CompressedAttention, int], ...]:
    ratios = config.get("compress_ratios")
    if not isinstance(ratios, Sequence) or len(ratios) < layers:
        raise InvalidInput(f"config.json: 'compress_ratios' must list all {layers} layers")
    # Entries beyond the layers belong to draft heads.
    counts = Counter(ratios[:layers])
    if not all(isinstance(ratio, int) and ratio >= 0 for ratio in counts):
        raise InvalidInput("config.json: 'compress_ratios' must be whole numbers")
    index = _index(config)
    return tuple(
        (
            CompressedAttention(
                hidden=hidden,
                heads=_count(config, "num_attention_heads"),
                head_dim=_count(config, "head_dim"),
                rope_dim=_count(config, "qk_rope_head_dim"),
                query_rank=_count(config, "q_lora_rank"),
                output_groups=_count(config, "o_groups"),
                output_rank=_count(config, "o_lora_rank"),
                window_tokens=_count(config, "sliding_window"),
                ratio=ratio,
                index=index if ratio == INDEXED_RATIO else None,
            ),
            count,
        )
        for ratio, count in sorted(counts.items())
    )


def _grouped(
    config: Config, layers: int, hidden: int
) -> tuple[tuple[GroupedQueryAttention, int], ...]:
    heads = _count(config, "num_attention_heads")
    kinds = config.get("layer_types")
    window = _optional_count(config, "sliding_window")
    if isinstance(kinds, Sequence) and len(kinds) == layers:
        unknown = set(kinds) - WINDOWED_LAYERS - {"full_attention"}
        if unknown:
            raise InvalidInput(
                f"config.json: layers of type {', '.join(sorted(map(str, unknown)))} are not known"
            )
        windowed = sum(1 for layer in kinds if layer in WINDOWED_LAYERS)
    else:
        # Without a list, Qwen writes a window that is in use only with a switch of its own.
        uses_window = config.get("use_sliding_window", True) is not False
        windowed = layers if window and uses_window else 0
    if windowed and not window:
        raise InvalidInput("config.json: 'sliding_window' is missing")
    base = GroupedQueryAttention(
        hidden=hidden,
        heads=heads,
        kv_heads=_optional_count(config, "num_key_value_heads") or heads,
        head_dim=_optional_count(config, "head_dim") or hidden // heads,
    )
    narrow = GroupedQueryAttention(hidden, heads, base.kv_heads, base.head_dim, window)
    groups = ((base, layers - windowed), (narrow, windowed))
    return tuple((attention, count) for attention, count in groups if count)


def _experts(config: Config, kind: str, layers: int) -> MixtureOfExperts | None:
    routed = _optional_count(config, "n_routed_experts", "num_experts", "num_local_experts")
    if not routed:
        return None
    width = _count(config, "moe_intermediate_size", "intermediate_size")
    active = _count(config, "num_experts_per_tok", "experts_per_token")
    if active > routed:
        raise InvalidInput(f"config.json: {active} experts per token, but only {routed} experts")
    shared = _optional_count(config, "shared_expert_intermediate_size")
    if shared is None:
        shared = width * (_optional_count(config, "n_shared_experts") or 0)
    first_dense = _optional_count(config, "first_k_dense_replace") or 0
    every = _optional_count(config, "moe_layer_freq", "decoder_sparse_step") or 1
    dense = config.get("mlp_only_layers") or ()
    offset = 1 if "decoder_sparse_step" in config else 0
    sparse = sum(
        1
        for layer in range(layers)
        if layer >= first_dense and layer not in dense and (layer + offset) % every == 0
    )
    if sparse == 0:
        return None
    return MixtureOfExperts(sparse, routed, active, width, shared)


def _formats(config: Config) -> tuple[WeightFormat, WeightFormat]:
    """Return the formats of routed experts and of everything else."""
    plain = FLOAT32 if config.get("torch_dtype", config.get("dtype")) == "float32" else BFLOAT16
    quantization = config.get("quantization_config")
    if not isinstance(quantization, Mapping):
        experts = MXFP4 if config.get("expert_dtype") == "fp4" else plain
        return experts, plain
    method = str(quantization.get("quant_method", "")).lower()
    algorithm = str(quantization.get("quant_algo", "")).upper()
    expert_dtype = config.get("expert_dtype", quantization.get("expert_dtype"))
    if method == "fp8" or algorithm == "FP8":
        return (MXFP4 if expert_dtype == "fp4" else FP8_BLOCKS), FP8_BLOCKS
    if algorithm == "NVFP4":
        # Such checkpoints quantize the experts and leave attention as it was.
        return NVFP4, plain
    if method == "mxfp4":
        return MXFP4, plain
    if method in {"awq", "gptq", "compressed-tensors"}:
        return _by_bits(quantization, method, plain)
    raise InvalidInput(
        f"config.json: quantization '{method or algorithm or 'unnamed'}' is not known; known are"
        " fp8, mxfp4, modelopt with FP8 or NVFP4, awq, gptq, compressed-tensors"
    )


def _by_bits(
    quantization: Config, method: str, plain: WeightFormat
) -> tuple[WeightFormat, WeightFormat]:
    bits: Any = quantization.get("bits")
    kind = "int"
    groups = quantization.get("config_groups")
    if isinstance(groups, Mapping):
        weights = [g.get("weights") for g in groups.values() if isinstance(g, Mapping)]
        found = [w for w in weights if isinstance(w, Mapping)]
        if found:
            bits, kind = found[0].get("num_bits"), str(found[0].get("type", "int"))
    if bits == 8:
        both = FP8_BLOCKS if kind == "float" else INT8_CHANNELS
        return both, both
    if bits == 4:
        four = NVFP4 if kind == "float" else INT4_GROUPS
        # Mixture models quantized so leave attention and shared parts as they were.
        return four, four if method in {"awq", "gptq"} else plain
    raise InvalidInput(f"config.json: {method} with {bits} bits is not known; known are 4 and 8")
