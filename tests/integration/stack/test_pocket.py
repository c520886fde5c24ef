"""``pocket`` speaks the dense model's tokens, served; the oracle reads the weights by itself."""

from __future__ import annotations

import json
import math
from typing import Any

import httpx
import pytest

from trierarch.serving.models.smollm2 import find_smollm2
from trierarch.testing.running_stack import RunningStack

pytestmark = pytest.mark.engine

PROMPTS = (
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "Water freezes at zero degrees. A ship that sails north in winter",
    "def add(a, b):\n    return",
)
TOKENS = 24
ALLOWED_TIES = 3
BFLOAT16_FRACTION_BITS = 7
BFLOAT16_STEPS = 4.0


PARTS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


@pytest.fixture(scope="module")
def dense() -> Any:
    """Return the dense model, by other code than ours: gguf's own reader, transformers' Llama."""
    import torch
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from transformers import LlamaConfig, LlamaForCausalLM

    heads, key_value_heads, layers = 9, 3, 30
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        rms_norm_eps=1e-5,
        rope_theta=100000.0,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
    )
    weights = {
        tensor.name: torch.tensor(dequantize(tensor.data, tensor.tensor_type))
        for tensor in GGUFReader(find_smollm2()).tensors
    }

    def halves(rows: Any, count: int) -> Any:
        paired = rows.reshape(count, rows.shape[0] // count // 2, 2, rows.shape[1])
        return paired.transpose(1, 2).reshape(rows.shape)

    state = {
        "model.embed_tokens.weight": weights["token_embd.weight"],
        "model.norm.weight": weights["output_norm.weight"],
    }
    for layer in range(layers):
        for part, name in PARTS.items():
            rows = weights[f"blk.{layer}.{part}.weight"]
            if part == "attn_q":
                rows = halves(rows, heads)
            if part == "attn_k":
                rows = halves(rows, key_value_heads)
            state[f"model.layers.{layer}.{name}.weight"] = rows
    model = LlamaForCausalLM(config)
    found = model.load_state_dict(state, strict=False)
    assert found.missing_keys in ([], ["lm_head.weight"])
    assert found.unexpected_keys == []
    model.tie_weights()
    # pocket's weights are rounded to bfloat16, which must not count as a difference.
    return model.to(torch.bfloat16).to(torch.float32).eval()


@pytest.mark.parametrize("prompt", PROMPTS)
@pytest.mark.filterwarnings("ignore")  # of transformers, about itself
def test_the_served_mixture_speaks_the_dense_models_tokens(
    stack: RunningStack, dense: Any, prompt: str
) -> None:
    import torch

    [replica, *_] = stack.ready()
    address = f"http://{replica['host']}:{replica['port']}"
    tokenized = httpx.post(
        f"{address}/tokenize", json={"model": "pocket", "prompt": prompt}, timeout=60.0
    )
    prompt_tokens = tokenized.json()["tokens"]
    answer = httpx.post(
        f"{address}/v1/completions",
        json={
            "model": "pocket",
            "prompt": prompt_tokens,
            "max_tokens": TOKENS,
            "temperature": 0,
            "ignore_eos": True,
            "return_token_ids": True,
        },
        timeout=120.0,
    )
    served = list(answer.json()["choices"][0]["token_ids"])
    assert len(served) == TOKENS
    agreed = 0
    with torch.no_grad():
        # Each token is judged after the served ones before it, so one pass tells of all of them.
        seen = torch.tensor([[*prompt_tokens, *served[:-1]]])
        after = dense(seen).logits[0, len(prompt_tokens) - 1 :]
    for place, (token, logits) in enumerate(zip(served, after, strict=True)):
        highest = float(logits.max())
        behind = highest - float(logits[token])
        assert behind <= find_tolerance(stack, highest), (token, served[:place])
        agreed += behind == 0.0
    assert agreed >= TOKENS - ALLOWED_TIES


def find_tolerance(stack: RunningStack, logit: float) -> float:
    """Return how far below the dense model's first choice a served one may be: nothing in float32.

    In bfloat16, which the run chooses where the processor computes it, each of thirty layers
    rounds, and two tokens that are nearly as likely can change places.
    """
    document = json.loads(next(stack.data_dir.rglob("deployment.json")).read_text("utf-8"))
    if document["models"][0]["engine"]["dtype"] == "float32":
        return 0.0
    step = 2.0 ** (math.floor(math.log2(logit)) - BFLOAT16_FRACTION_BITS)
    return BFLOAT16_STEPS * step
