"""Architectures are read as they are, and what is not understood is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trierarch.hardware
from trierarch.core.errors import InvalidInput
from trierarch.hardware.config_json import read_architecture
from trierarch.serving.models.pocket import PocketRecipe
from trierarch.serving.models.tiny_deepseek_v3 import TinyDeepseekV3Recipe
from trierarch.serving.models.tiny_qwen3_moe import TinyQwen3MoeRecipe

MODELS = Path(trierarch.hardware.__file__).parent / "models"


def config(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MODELS / f"{name}.json").read_text())
    return loaded


DENSE: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 80,
    "hidden_size": 8192,
    "intermediate_size": 28672,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "torch_dtype": "bfloat16",
}
"""Llama 3.3 70B, from its published configuration."""


@pytest.mark.parametrize(
    ("name", "total", "active"),
    [
        ("deepseek-v3", 671e9, 37e9),
        ("deepseek-v3.2", 671e9, 37e9),
        ("deepseek-v4-flash", 284e9, 13e9),
        ("deepseek-v4-pro", 1600e9, 49e9),
        ("qwen3-30b-a3b", 30.5e9, 3.3e9),
        ("qwen3-235b-a22b", 235e9, 22e9),
    ],
)
def test_parameters_are_those_their_makers_state(name: str, total: float, active: float) -> None:
    architecture = read_architecture(config(name))
    assert architecture.total_parameters == pytest.approx(total, rel=0.02)
    # Makers count embeddings in different ways; V4-Flash's "13B" is 13.76 with both.
    assert architecture.active_parameters == pytest.approx(active, rel=0.06)


def test_a_dense_model_has_no_experts() -> None:
    architecture = read_architecture(DENSE)
    assert architecture.experts is None
    assert architecture.total_parameters == pytest.approx(70.6e9, rel=0.01)
    assert architecture.active_parameters == architecture.total_parameters
    assert architecture.attention_names == "80 x GQA"


def test_every_bundled_configuration_says_where_its_figures_come_from() -> None:
    names = sorted(path.stem for path in MODELS.glob("*.json"))
    assert names
    assert [name for name in names if not config(name)["source_of_figures"]] == []


def test_layers_of_deepseek_v4_keep_their_own_compression() -> None:
    pro = read_architecture(config("deepseek-v4-pro"))
    flash = read_architecture(config("deepseek-v4-flash"))
    assert pro.attention_names == "30 x CSA/4, 31 x HCA/128"
    assert flash.attention_names == "2 x window, 21 x CSA/4, 20 x HCA/128"
    assert (pro.expert_format.name, pro.dense_format.name) == ("MXFP4", "FP8")


@pytest.mark.parametrize(
    ("recipe", "attention", "experts"),
    [
        (PocketRecipe(), "GQA", (8, 2)),
        (TinyDeepseekV3Recipe(), "MLA", (16, 4)),
        (TinyQwen3MoeRecipe(), "GQA", (16, 4)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_models_made_here_are_understood(
    recipe: PocketRecipe | TinyDeepseekV3Recipe | TinyQwen3MoeRecipe,
    attention: str,
    experts: tuple[int, int],
) -> None:
    architecture = read_architecture(recipe.config)
    assert architecture.attention_names.endswith(attention)
    assert architecture.experts is not None
    assert (architecture.experts.routed, architecture.experts.active) == experts


def test_the_language_part_of_a_multimodal_model_is_found() -> None:
    text = config("deepseek-v3")
    nested = {
        "model_type": "kimi_k25",
        "text_config": {**text, "model_type": "kimi_k2"},
        "vision_config": {"hidden_size": 1152, "num_hidden_layers": 27},
        "quantization_config": text.pop("quantization_config"),
    }
    nested["text_config"].pop("quantization_config")
    found = read_architecture(nested)
    assert found.total_parameters == read_architecture(config("deepseek-v3")).total_parameters
    assert found.expert_format.name == "FP8"


def test_first_layers_may_be_dense() -> None:
    architecture = read_architecture(config("deepseek-v3"))
    assert architecture.dense_layers == 3
    assert architecture.experts is not None
    assert architecture.experts.layers == 58
    assert architecture.experts.shared_width == 2048


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"decoder_sparse_step": 2}, 24),
        ({"mlp_only_layers": [0, 1, 2]}, 45),
        ({"decoder_sparse_step": 1}, 48),
    ],
    ids=["every-second-layer", "listed-layers-are-dense", "every-layer"],
)
def test_qwen_says_which_layers_have_experts(changes: dict[str, Any], layers: int) -> None:
    experts = read_architecture({**config("qwen3-30b-a3b"), **changes}).experts
    assert experts is not None
    assert experts.layers == layers


def test_windowed_layers_are_told_from_full_ones() -> None:
    kinds = ["sliding_attention", "full_attention"] * 40
    found = read_architecture({**DENSE, "layer_types": kinds, "sliding_window": 128})
    windows = {getattr(kind, "window_tokens", None): count for kind, count in found.attention}
    assert windows == {None: 40, 128: 40}


@pytest.mark.parametrize(
    ("quantization", "formats"),
    [
        ({"quant_method": "fp8"}, ("FP8", "FP8")),
        ({"quant_method": "mxfp4"}, ("MXFP4", "BF16")),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, ("NVFP4", "BF16")),
        ({"quant_method": "awq", "bits": 4}, ("INT4", "INT4")),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            ("INT4", "BF16"),
        ),
        (
            {
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": {"num_bits": 8, "type": "float"}}},
            },
            ("FP8", "FP8"),
        ),
    ],
    ids=["fp8", "mxfp4", "nvfp4", "awq", "int4-experts", "fp8-groups"],
)
def test_quantization_decides_the_formats(
    quantization: dict[str, Any], formats: tuple[str, str]
) -> None:
    found = read_architecture({**config("qwen3-30b-a3b"), "quantization_config": quantization})
    assert (found.expert_format.name, found.dense_format.name) == formats


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mamba"}, "architecture 'mamba' is not known; known are deepseek_v2"),
        ({"model_type": None}, "'model_type' is missing"),
        ({"hidden_size": None}, "'hidden_size' is missing"),
        ({"hidden_size": -1}, "'hidden_size' must be a whole number, got -1"),
        ({"hidden_size": "8192"}, "'hidden_size' must be a whole number"),
        ({"vocab_size": 0}, "'vocab_size' must be above zero"),
        ({"layer_types": ["linear_attention"] * 80}, "layers of type linear_attention"),
        ({"quantization_config": {"quant_method": "magic"}}, "quantization 'magic' is not known"),
        ({"quantization_config": {"quant_method": "awq", "bits": 3}}, "awq with 3 bits"),
        ({"num_experts": 4, "num_experts_per_tok": 8}, "8 experts per token, but only 4"),
    ],
)
def test_what_is_not_understood_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_architecture({**DENSE, **changes})


@pytest.mark.parametrize("ratios", [None, [4] * 10, ["a"] * 43, [-4] * 43])
def test_compression_must_be_given_for_every_layer(ratios: object) -> None:
    with pytest.raises(InvalidInput, match="compress_ratios"):
        read_architecture({**config("deepseek-v4-flash"), "compress_ratios": ratios})
