"""One vLLM engine in this process: random weights, and steps that can be timed one by one."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

WARM_STEPS = 12
"""Decode steps that are not timed: the last prompts have just ended, and queues fill."""

WEIGHT_DEVIATION = 0.02
"""Of random weights. vLLM's own dummy weights are the same numbers in every matrix of a shape,
and their norms are nearly zero, so experts would be chosen by what embedding and router share."""

PREFILL_REPEATS = 7

KERNELS_SHOWN = 16
KERNEL_NAME_LENGTH = 72


@dataclasses.dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the engine is started.

    Attributes:
        model_folder: Holds ``config.json``.
        max_model_tokens: Longest prompt plus answer.
        max_sequences: Seats in the batch.
        chunk_tokens: Most prompt tokens of one step.
        memory_utilization: Share of the accelerator's memory that the engine takes.
        graph_sizes: Batches to record graphs for; the engine chooses if there are none.
        is_eager: Whether nothing is compiled and no graph recorded.
    """

    model_folder: Path
    max_model_tokens: int
    max_sequences: int
    chunk_tokens: int
    memory_utilization: float
    graph_sizes: tuple[int, ...] = ()
    is_eager: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class DecodeSteps:
    """Steps in which every sequence got one token.

    Attributes:
        prompt_tokens: Length of each prompt.
        context_tokens: Mean length of a sequence in the timed steps.
        distinct_tokens: Different tokens among those of one step, at the median: equal tokens
            would choose equal experts.
    """

    sequences: int
    prompt_tokens: int
    context_tokens: float
    steps: int
    median_seconds: float
    tenth_seconds: float
    ninetieth_seconds: float
    distinct_tokens: float


@dataclasses.dataclass(frozen=True, slots=True)
class PrefillStep:
    """Prompts computed together in one step, from the first schedule to the tokens."""

    prompt_tokens: int
    prompts: int
    repeats: int
    median_seconds: float
    fastest_seconds: float


class MeasuredEngine:
    """An engine to measure.

    Args:
        options: How it is started.
        seed: Of prompts and weights.
    """

    def __init__(self, options: EngineOptions, seed: int = 0) -> None:
        # Importing vLLM takes seconds; ``--help`` and ``--compare`` do without.
        from vllm import LLM

        config = json.loads((options.model_folder / "config.json").read_text(encoding="utf-8"))
        self._vocabulary = int(config["vocab_size"])
        self._random = random.Random(seed)  # noqa: S311  # prompts, not a secret
        self._chunk_tokens = options.chunk_tokens
        arguments: dict[str, Any] = {}
        if options.graph_sizes and not options.is_eager:
            arguments["cudagraph_capture_sizes"] = sorted(options.graph_sizes)
        self._llm = LLM(
            model=str(options.model_folder),
            load_format="dummy",
            skip_tokenizer_init=True,
            dtype="bfloat16",
            max_model_len=options.max_model_tokens,
            max_num_seqs=options.max_sequences,
            max_num_batched_tokens=options.chunk_tokens,
            gpu_memory_utilization=options.memory_utilization,
            enforce_eager=options.is_eager,
            # A prompt found in the cache would not be computed.
            enable_prefix_caching=False,
            **arguments,
        )
        self.engine: Any = self._llm.llm_engine
        self._llm.apply_model(randomize_weights)
        self._number = 0

    @property
    def cache_tokens(self) -> int:
        """Tokens that the cache holds."""
        cache = self.engine.vllm_config.cache_config
        return int(cache.num_gpu_blocks) * int(cache.block_size)

    def describe(self) -> dict[str, Any]:
        """Return what the engine chose for itself."""
        config = self.engine.vllm_config
        return {
            "cache_blocks": int(config.cache_config.num_gpu_blocks),
            "cache_block_tokens": int(config.cache_config.block_size),
            "async_scheduling": bool(config.scheduler_config.async_scheduling),
            "compilation_mode": str(config.compilation_config.mode),
            "graph_mode": str(config.compilation_config.cudagraph_mode),
            "weight_bytes": self._llm.apply_model(count_weight_bytes)[0],
            **self._llm.apply_model(describe_layers)[0],
        }

    def time_decode(self, sequences: int, prompt_tokens: int, steps: int) -> DecodeSteps | None:
        """Fill the batch, then time steps; None if the cache is too small for it.

        Args:
            sequences: In the batch.
            prompt_tokens: Length of each prompt.
            steps: To time.
        """
        prompt_steps = sequences * prompt_tokens // self._chunk_tokens + 2
        answer_tokens = prompt_steps + WARM_STEPS + steps + 4
        if sequences * (prompt_tokens + answer_tokens) > self.cache_tokens:
            return None
        self._add(sequences, prompt_tokens, answer_tokens)
        lengths: list[int] = []
        taken: dict[str, int] = {}
        full = 0
        seconds: list[float] = []
        distinct: list[int] = []
        before = time.perf_counter()
        while len(seconds) < steps:
            tokens = self._step()
            now = time.perf_counter()
            for name, found in tokens.items():
                taken[name] = taken.get(name, 0) + len(found)
            if len(tokens) == sequences:
                full += 1
                if full > WARM_STEPS:
                    seconds.append(now - before)
                    distinct.append(len({token for found in tokens.values() for token in found}))
                    lengths.append(sum(taken.values()))
            if tokens:
                before = now
        self._abort(list(taken))
        ordered = sorted(seconds)
        return DecodeSteps(
            sequences=sequences,
            prompt_tokens=prompt_tokens,
            context_tokens=prompt_tokens + statistics.fmean(lengths) / sequences,
            steps=steps,
            median_seconds=statistics.median(ordered),
            tenth_seconds=ordered[len(ordered) // 10],
            ninetieth_seconds=ordered[len(ordered) * 9 // 10],
            distinct_tokens=statistics.median(distinct),
        )

    def time_prefill(self, prompt_tokens: int, prompts: int) -> PrefillStep:
        """Time the step that computes so many new prompts."""
        seconds: list[float] = []
        for repeat in range(PREFILL_REPEATS + 2):
            self._add(prompts, prompt_tokens, 1)
            before = time.perf_counter()
            while self.engine.has_unfinished_requests():
                self._step()
            # The first two warm up.
            if repeat >= 2:
                seconds.append(time.perf_counter() - before)
        return PrefillStep(
            prompt_tokens=prompt_tokens,
            prompts=prompts,
            repeats=PREFILL_REPEATS,
            median_seconds=statistics.median(seconds),
            fastest_seconds=min(seconds),
        )

    def profile_decode(self, sequences: int, prompt_tokens: int, steps: int) -> dict[str, float]:
        """Return microseconds of the longest kernels in one decode step, and of all together."""
        from torch.profiler import ProfilerActivity, profile

        self._add(sequences, prompt_tokens, steps + 64)
        names: set[str] = set()
        full = 0
        while full < WARM_STEPS:
            tokens = self._step()
            names |= set(tokens)
            full += len(tokens) == sequences
        with profile(activities=[ProfilerActivity.CUDA]) as profiled:
            for _ in range(steps):
                self._step()
        self._abort(list(names))
        return shorten_profile(
            {
                str(event.key): event.self_device_time_total / steps
                for event in profiled.key_averages()
            }
        )

    def observe_routing(self, prompts: int, prompt_tokens: int) -> list[list[list[int]]] | None:
        """Return the experts that each prompt's last token chose, by layer; None if none are seen.

        Only last tokens: tokens of one prompt resemble each other, more so in deep layers, while
        those of a decode step come from as many sequences. A step that replays a graph calls
        nothing of ours, so each step needs more tokens than the largest graph; and a prompt must
        not be cut, so its length divides that of a chunk.
        """
        kept: dict[int, list[list[int]]] = {}

        def keep(layer: int, chosen: Any) -> None:
            rows = chosen[prompt_tokens - 1 :: prompt_tokens]
            kept.setdefault(layer, []).extend(rows.detach().cpu().tolist())

        if not self._llm.apply_model(lambda model: watch_routers(model, keep))[0]:
            return None
        self._add(prompts, prompt_tokens, 1)
        while self.engine.has_unfinished_requests():
            self._step()
        self._llm.apply_model(lambda model: watch_routers(model, None))
        return [kept[layer] for layer in sorted(kept)] or None

    def _add(self, prompts: int, prompt_tokens: int, answer_tokens: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        for _ in range(prompts):
            self._number += 1
            self.engine.add_request(
                str(self._number),
                {"prompt_token_ids": self._draw(prompt_tokens)},
                SamplingParams(
                    # Equal answers would choose equal experts.
                    temperature=1.0,
                    max_tokens=answer_tokens,
                    ignore_eos=True,
                    detokenize=False,
                    output_kind=RequestOutputKind.DELTA,
                ),
            )

    def _draw(self, tokens: int) -> list[int]:
        return [self._random.randrange(self._vocabulary) for _ in range(tokens)]

    def _step(self) -> dict[str, Sequence[int]]:
        """Return the new tokens by request."""
        return {
            found.request_id: found.outputs[0].token_ids
            for found in self.engine.step()
            if found.outputs[0].token_ids
        }

    def _abort(self, names: list[str]) -> None:
        self.engine.abort_request(names)
        while self.engine.has_unfinished_requests():
            self._step()


def randomize_weights(model: Any) -> int:
    """Give each matrix numbers of its own and set norms to one; return how many there are."""
    import torch

    device = next(model.parameters()).device
    source = torch.Generator(device=device)
    source.manual_seed(1)
    count = 0
    for name, parameter in model.named_parameters():
        if not torch.is_floating_point(parameter):
            continue
        count += 1
        if "norm" in name:
            parameter.data.fill_(1.0)
        elif name.endswith("bias"):
            parameter.data.zero_()
        else:
            parameter.data.normal_(0.0, WEIGHT_DEVIATION, generator=source)
    return count


def count_weight_bytes(model: Any) -> int:
    """Return the bytes of all parameters."""
    return sum(value.numel() * value.element_size() for value in model.parameters())


def describe_layers(model: Any) -> dict[str, str]:
    """Return the class names of what computes attention and experts."""
    found: dict[str, str] = {}
    for module in model.modules():
        for key, attribute in (("attention", "attn_backend"), ("experts", "_quant_method")):
            value = getattr(module, attribute, None)
            if value is None or key in found:
                continue
            kernel = getattr(getattr(value, "moe_kernel", None), "impl", None)
            kernel = getattr(kernel, "fused_experts", None) or value
            found[key] = kernel.__name__ if isinstance(kernel, type) else type(kernel).__name__
    return found


def watch_routers(model: Any, keep: Callable[[int, Any], None] | None) -> int:
    """Tell ``keep`` what the router of each layer chooses, or nobody; return how many there are."""
    routers = 0
    for name, module in model.named_modules():
        router: Any = getattr(module, "router", None)
        method = getattr(module, "_quant_method", None)
        # A monolithic kernel chooses inside; its router is never asked.
        if not hasattr(router, "set_capture_fn") or method is None or method.is_monolithic:
            continue
        found = re.search(r"layers\.(\d+)\.", name)
        layer = int(found.group(1)) if found else routers
        routers += 1
        router.set_capture_fn(None if keep is None else functools.partial(keep, layer))
    return routers


def shorten_profile(microseconds: Mapping[str, float]) -> dict[str, float]:
    """Return the longest kernels under names that fit a line, after the sum of all."""
    ordered = sorted(microseconds.items(), key=lambda row: -row[1])
    found = {"all kernels": round(sum(microseconds.values()), 1)}
    for name, taken in ordered[:KERNELS_SHOWN]:
        short = name[:KERNEL_NAME_LENGTH]
        found[short] = round(found.get(short, 0.0) + taken, 1)
    return found


def count_distinct(
    routing: Sequence[Sequence[Sequence[int]]], batches: Sequence[int], seed: int = 0
) -> Mapping[int, float]:
    """Return how many experts of a layer batches of so many tokens touch on average."""
    source = random.Random(seed)  # noqa: S311  # picks tokens, not a secret
    found: dict[int, float] = {}
    for tokens in batches:
        counts: list[int] = []
        for layer in routing:
            if tokens <= len(layer):
                counts += _counts(layer, tokens, source)
        if counts:
            found[tokens] = statistics.fmean(counts)
    return found


def _counts(layer: Sequence[Sequence[int]], tokens: int, source: random.Random) -> Iterator[int]:
    for _ in range(4):
        picked = source.sample(range(len(layer)), tokens)
        yield len({expert for token in picked for expert in layer[token]})
