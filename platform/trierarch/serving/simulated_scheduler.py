"""Continuous batching with a stated cost instead of a model.

A step gives every running sequence one token; prompts are worked off when they
enter the batch, less what a prefix cache holds; what does not fit waits.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections import deque
from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trierarch.core.clock import Clock

CACHE_BLOCK_TOKENS = 16
"""Prompts share a cached prefix in whole blocks, as in vLLM."""


@dataclasses.dataclass(frozen=True, slots=True)
class ServiceModel:
    """What work costs.

    Attributes:
        prefill_seconds_per_token: Time of a step for each prompt token that enters the batch.
        step_seconds: Time of a step, whatever is in the batch.
        step_seconds_per_sequence: Time that each running sequence adds to a step.
        max_batch: Sequences that run at once; further ones wait.
        max_model_tokens: Context length.
        default_output_tokens: Length of a chat answer for which no maximum is given.
    """

    prefill_seconds_per_token: float = 0.0
    step_seconds: float = 0.005
    step_seconds_per_sequence: float = 0.0
    max_batch: int = 16
    max_model_tokens: int = 4096
    default_output_tokens: int = 64


@dataclasses.dataclass(slots=True, eq=False)
class Generation:
    """One sequence; a number of tokens is put into ``produced`` per step, 0 at the end."""

    words: Sequence[str]
    output_tokens: int
    finish_reason: str
    arrived_seconds: float
    cached_tokens: int = 0
    generated_tokens: int = 0
    started_seconds: float = 0.0
    first_token_seconds: float = 0.0
    produced: asyncio.Queue[int] = dataclasses.field(default_factory=asyncio.Queue)


class EngineMetrics:
    """The metrics of vLLM that an autoscaler and dashboards read, under vLLM's names."""

    def __init__(self, model: str) -> None:
        self.registry = CollectorRegistry()
        self._values = (model, "0")
        self.running = self._gauge("vllm:num_requests_running")
        self.waiting = self._gauge("vllm:num_requests_waiting")
        self.kv_cache_usage = self._gauge("vllm:kv_cache_usage_perc")
        self.prompt_tokens = self._counter("vllm:prompt_tokens")
        self.prompt_tokens_cached = self._counter("vllm:prompt_tokens_cached")
        self.generation_tokens = self._counter("vllm:generation_tokens")
        self.prefix_cache_queries = self._counter("vllm:prefix_cache_queries")
        self.prefix_cache_hits = self._counter("vllm:prefix_cache_hits")
        self.preemptions = self._counter("vllm:num_preemptions")
        self.time_to_first_token = self._histogram("vllm:time_to_first_token_seconds")
        self.inter_token_latency = self._histogram("vllm:inter_token_latency_seconds")
        self.time_per_output_token = self._histogram("vllm:request_time_per_output_token_seconds")
        self.end_to_end = self._histogram("vllm:e2e_request_latency_seconds")
        self.queue_time = self._histogram("vllm:request_queue_time_seconds")
        self._success = Counter(
            "vllm:request_success",
            "Finished requests.",
            ("model_name", "engine", "finished_reason"),
            registry=self.registry,
        )

    def _gauge(self, name: str) -> Gauge:
        return Gauge(name, name, ("model_name", "engine"), registry=self.registry).labels(
            *self._values
        )

    def _counter(self, name: str) -> Counter:
        return Counter(name, name, ("model_name", "engine"), registry=self.registry).labels(
            *self._values
        )

    def _histogram(self, name: str) -> Histogram:
        return Histogram(name, name, ("model_name", "engine"), registry=self.registry).labels(
            *self._values
        )

    def finished(self, reason: str) -> None:
        """Count a request that has ended."""
        self._success.labels(*self._values, reason).inc()


class SimulatedScheduler:
    """Continuous batching in real time."""

    def __init__(self, service: ServiceModel, metrics: EngineMetrics, clock: Clock) -> None:
        self._service = service
        self._metrics = metrics
        self._clock = clock
        self._waiting: deque[Generation] = deque()
        self._running: list[Generation] = []
        self._cached_blocks: set[bytes] = set()
        self._work = asyncio.Event()

    def submit(self, words: Sequence[str], output_tokens: int, finish_reason: str) -> Generation:
        """Queue a sequence."""
        now_seconds = self._clock.monotonic_seconds()
        generation = Generation(words, output_tokens, finish_reason, now_seconds)
        self._waiting.append(generation)
        self._work.set()
        return generation

    def abort(self, generation: Generation) -> None:
        """Stop a sequence whose client has left; finished ones are not touched."""
        if generation in self._waiting:
            self._waiting.remove(generation)
            self._metrics.finished("abort")
        elif generation in self._running:
            self._running.remove(generation)
            self._metrics.finished("abort")

    async def run(self) -> None:
        """Step for ever."""
        while True:
            if not self._running and not self._waiting:
                self._work.clear()
                self._publish()
                await self._work.wait()
            began_seconds = self._clock.monotonic_seconds()
            duration_seconds = self._admit()
            duration_seconds += self._service.step_seconds
            duration_seconds += self._service.step_seconds_per_sequence * len(self._running)
            self._publish()
            spent_seconds = self._clock.monotonic_seconds() - began_seconds
            await asyncio.sleep(max(0.0, duration_seconds - spent_seconds))
            self._produce(duration_seconds)

    def _admit(self) -> float:
        """Move waiting sequences into the batch; return the time their prompts take."""
        seconds = 0.0
        now_seconds = self._clock.monotonic_seconds()
        while self._waiting and len(self._running) < self._service.max_batch:
            generation = self._waiting.popleft()
            generation.started_seconds = now_seconds
            generation.cached_tokens = self._look_up_prefix(generation.words)
            new_tokens = len(generation.words) - generation.cached_tokens
            seconds += new_tokens * self._service.prefill_seconds_per_token
            self._running.append(generation)
            self._metrics.queue_time.observe(now_seconds - generation.arrived_seconds)
            self._metrics.prompt_tokens.inc(len(generation.words))
            self._metrics.prompt_tokens_cached.inc(generation.cached_tokens)
            self._metrics.prefix_cache_queries.inc(len(generation.words))
            self._metrics.prefix_cache_hits.inc(generation.cached_tokens)
        return seconds

    def _look_up_prefix(self, words: Sequence[str]) -> int:
        """Return the tokens of the longest cached prefix and cache the whole prompt."""
        digest = hashlib.sha256()
        hit_tokens = 0
        is_hit = True
        # The last token is always computed, as in vLLM.
        for end in range(CACHE_BLOCK_TOKENS, len(words), CACHE_BLOCK_TOKENS):
            digest.update(" ".join(words[end - CACHE_BLOCK_TOKENS : end]).encode() + b"\0")
            block = digest.copy().digest()
            is_hit = is_hit and block in self._cached_blocks
            if is_hit:
                hit_tokens = end
            self._cached_blocks.add(block)
        return hit_tokens

    def _produce(self, step_seconds: float) -> None:
        now_seconds = self._clock.monotonic_seconds()
        for generation in list(self._running):
            generation.generated_tokens += 1
            self._metrics.generation_tokens.inc()
            if generation.generated_tokens == 1:
                generation.first_token_seconds = now_seconds
                self._metrics.time_to_first_token.observe(now_seconds - generation.arrived_seconds)
            else:
                self._metrics.inter_token_latency.observe(step_seconds)
            generation.produced.put_nowait(1)
            if generation.generated_tokens >= generation.output_tokens:
                self._running.remove(generation)
                generation.produced.put_nowait(0)
                self._finish(generation, now_seconds)

    def _finish(self, generation: Generation, now_seconds: float) -> None:
        self._metrics.finished(generation.finish_reason)
        self._metrics.end_to_end.observe(now_seconds - generation.arrived_seconds)
        if generation.generated_tokens > 1:
            decode_seconds = now_seconds - generation.first_token_seconds
            self._metrics.time_per_output_token.observe(
                decode_seconds / (generation.generated_tokens - 1)
            )

    def _publish(self) -> None:
        held_tokens = sum(len(g.words) + g.generated_tokens for g in self._running)
        capacity_tokens = self._service.max_batch * self._service.max_model_tokens
        self._metrics.running.set(len(self._running))
        self._metrics.waiting.set(len(self._waiting))
        self._metrics.kv_cache_usage.set(held_tokens / capacity_tokens)
