"""``python -m benchmarks.hardware.serving``: a replica's own vLLM options, on this machine.

Feeds the options that replicas of several variants would get to vLLM's parser, then starts one
engine with them as a replica does, sends it a request over its HTTP surface, and says what it
answered. Weights are random, so no model has to be there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
from pydantic import JsonValue

from trierarch.serving.layout import Rendezvous, build_engine_environment, build_vllm_arguments
from trierarch.serving.specification import EngineSpec, Parallelism
from trierarch.serving.vllm_engine import VllmEngine, parse_vllm_arguments

PROMPT_TOKENS = 64
ANSWER_TOKENS = 32
GROUP_PORT = 29500


def build_variants(folder: str, events_endpoint: str) -> Mapping[str, EngineSpec]:
    """Return engines as variants of model deployments describe them, by what is special in them."""
    events: JsonValue = {
        "enable_kv_cache_events": True,
        "publisher": "zmq",
        "endpoint": events_endpoint,
    }
    eplb: JsonValue = {"window_size": 1000, "num_redundant_experts": 32}
    return {
        "plain": EngineSpec(model_path=folder, served_name="m", device="cuda"),
        "tensor 8, experts spread": EngineSpec(
            model_path=folder,
            served_name="m",
            device="cuda",
            parallelism=Parallelism(tensor=8, expert=True),
            dtype="bfloat16",
            max_model_tokens=32768,
            max_running_requests=256,
        ),
        "data 8, experts spread and balanced": EngineSpec(
            model_path=folder,
            served_name="m",
            device="cuda",
            parallelism=Parallelism(data=8, expert=True),
            kv_cache_bytes=20 << 30,
            max_running_requests=256,
            engine_arguments={
                "enable-eplb": True,
                "eplb-config": eplb,
                "all2all-backend": "deepep_low_latency",
                "max-num-batched-tokens": 8192,
                "kv-cache-dtype": "fp8",
            },
        ),
        "prefix cache and its events": EngineSpec(
            model_path=folder,
            served_name="m",
            device="cuda",
            max_running_requests=64,
            otlp_traces_endpoint="http://127.0.0.1:4318",
            engine_arguments={
                "enable-prefix-caching": True,
                "kv-events-config": events,
                "gpu-memory-utilization": 0.9,
                "stream-interval": 1,
            },
        ),
    }


def check_parser(variants: Mapping[str, EngineSpec]) -> dict[str, str]:
    """Return by variant and rank what vLLM's parser says: "accepted" or its error."""
    meeting = Rendezvous("127.0.0.1", GROUP_PORT)
    found: dict[str, str] = {}
    for name, spec in variants.items():
        for rank in sorted({0, spec.parallelism.data - 1}):
            try:
                parse_vllm_arguments(build_vllm_arguments(spec, meeting, rank))
            except Exception as error:  # noqa: BLE001  # any refusal is the finding
                found[f"{name}, rank {rank}"] = f"{type(error).__name__}: {error}"
            else:
                found[f"{name}, rank {rank}"] = "accepted"
    return found


async def serve_once(spec: EngineSpec) -> dict[str, Any]:
    """Start an engine as a replica does, ask it the same twice, and return what was seen."""
    began = time.perf_counter()
    engine = await VllmEngine.start(build_vllm_arguments(spec))
    started_seconds = time.perf_counter() - began
    try:
        await engine.check_health()
        transport = httpx.ASGITransport(app=engine.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://engine") as client:
            body = {
                "model": spec.served_name,
                "prompt": list(range(10, 10 + PROMPT_TOKENS)),
                "max_tokens": ANSWER_TOKENS,
                "ignore_eos": True,
                "return_token_ids": True,
                "temperature": 0,
            }
            answers = [
                (await client.post("/v1/completions", json=body, timeout=300)).json()
                for _ in range(2)
            ]
            metrics = (await client.get("/metrics")).text
    finally:
        await engine.close()
    return {
        "start_seconds": round(started_seconds, 1),
        "max_model_tokens": engine.max_model_tokens,
        "usage": [answer.get("usage", answer) for answer in answers],
        "same_tokens": answers[0].get("choices", [{}])[0].get("token_ids")
        == answers[1].get("choices", [{}])[0].get("token_ids"),
        "metric_families": metrics.count("# TYPE vllm:"),
    }


def main() -> int:
    """Check the parser, then one engine."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hardware.serving", description=main.__doc__
    )
    parser.add_argument("--model", type=Path, required=True, help="config.json of the model")
    parser.add_argument("--layers", type=int, help="build only so many layers")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--out", type=Path, help="also write what was found here, as JSON")
    options = parser.parse_args()
    config = json.loads(options.model.read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": options.layers} if options.layers else {}
    with tempfile.TemporaryDirectory(prefix="trierarch-options-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config), encoding="utf-8")
        variants = build_variants(folder, "tcp://127.0.0.1:5557")
        found: dict[str, Any] = {"parser": check_parser(variants)}
        _show(found, options.out)
        spec = variants["prefix cache and its events"]
        further = {**spec.engine_arguments, "load-format": "dummy", "skip-tokenizer-init": True}
        if options.device == "cpu":
            further.pop("gpu-memory-utilization")
        spec = spec.model_copy(
            update={
                "device": options.device,
                "otlp_traces_endpoint": None,
                "max_model_tokens": 1024,
                "engine_arguments": further,
            }
        )
        variables = build_engine_environment(spec)
        variables["VLLM_CONFIGURE_LOGGING"] = "1"
        os.environ.update(variables)
        found["arguments"] = build_vllm_arguments(spec)
        found["engine"] = asyncio.run(serve_once(spec))
        _show(found, options.out)
    return 0


def _show(found: Mapping[str, Any], out: Path | None) -> None:
    text = json.dumps(found, indent=1)
    sys.stdout.write(text + "\n")
    if out:
        out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
