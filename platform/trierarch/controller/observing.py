"""From what gateway, engines and ledger say to one observation: counters become rates here.

A source that stops answering leaves its last reading, marked stale with the time
at which it was true; it never becomes zero. A counter that goes back was
restarted, and the interval in which that happened has no rate.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client.parser import text_string_to_metric_families

from trierarch.autoscaling.service_learning import LATENCY_WINDOW_SECONDS
from trierarch.autoscaling.signals import (
    NOT_REPORTED,
    CostSignals,
    EngineSignals,
    GatewaySignals,
    LatencySignal,
    LatencySummary,
    Measured,
    Missing,
    Signal,
    Stale,
    TierSignals,
    measure,
)
from trierarch.controller.outcomes import FINISHED_COUNTER, HTTP_COUNTER, outcome_key

MEAN_WINDOW_SECONDS = 60.0
"""Over which request lengths are averaged."""

_LATENCY_RATIOS = (("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99))

_ENGINE_GAUGES = (
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:kv_cache_usage_perc",
)
_ENGINE_COUNTERS = (
    "vllm:prompt_tokens_total",
    "vllm:prompt_tokens_cached_total",
    "vllm:generation_tokens_total",
    "vllm:num_preemptions_total",
)
_TPOT_HISTOGRAM = "vllm:request_time_per_output_token_seconds"

SignalsT = TypeVar("SignalsT", GatewaySignals, EngineSignals, CostSignals, TierSignals)


def age(signals: SignalsT) -> SignalsT:
    """Return the same signals with every measurement marked stale."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(signals):
        value = getattr(signals, field.name)
        if isinstance(value, Measured):
            changed[field.name] = Stale(value.value, value.at_unix_seconds)
        elif isinstance(value, TierSignals):
            changed[field.name] = age(value)
    return dataclasses.replace(signals, **changed)


def oldest_unix_seconds(signals: GatewaySignals) -> float | None:
    """Return when the oldest reading was true; None if nothing is known."""
    times = [
        value.at_unix_seconds
        for field in dataclasses.fields(signals)
        if isinstance(value := getattr(signals, field.name), Measured | Stale)
    ]
    return min(times) if times else None


def _rate(now: float | None, before: float | None, seconds: float) -> float | None:
    if now is None or before is None or seconds <= 0 or now < before:
        return None
    return (now - before) / seconds


def _latency(summary: Mapping[str, Any] | None, at_unix_seconds: float) -> LatencySignal:
    if not summary or not summary.get("count"):
        return Missing("NoSamples")
    values = [(ratio, summary.get(name)) for name, ratio in _LATENCY_RATIOS]
    mean_seconds = summary.get("mean")
    if mean_seconds is None or any(value is None for _, value in values):
        return NOT_REPORTED
    try:
        found = LatencySummary(
            samples=int(summary["count"]),
            mean_seconds=float(mean_seconds),
            quantiles=tuple((ratio, float(value)) for ratio, value in values if value is not None),
        )
    except ValueError:
        return Missing("NotANumber")
    return Measured(found, at_unix_seconds)


def _tiers(values: Mapping[str, Any] | None, at_unix_seconds: float) -> TierSignals:
    if not isinstance(values, Mapping):
        return TierSignals()
    return TierSignals(
        **{
            tier: measure(values.get(tier), at_unix_seconds)
            for tier in ("priority", "default", "flex")
        }
    )


@dataclasses.dataclass(frozen=True, slots=True)
class _Counts:
    at_unix_seconds: float
    arrivals: Mapping[str, float]
    completed: float
    refused: float
    input_tokens: float
    output_tokens: float
    interactive: Mapping[str, float] | None

    @property
    def all_arrivals(self) -> float:
        """Over all lanes."""
        return sum(self.arrivals.values())


class GatewayReader:
    """Turns one model's entries of ``/api/v1/signals`` into signals, one after the other."""

    def __init__(self) -> None:
        self._history: deque[_Counts] = deque()
        self._epoch: object = None
        self._last = GatewaySignals()

    def read(self, document: Mapping[str, Any], model: str) -> GatewaySignals:
        """Return the signals of one model.

        Args:
            document: The gateway's answer, or that of several processes together.
            model: Served model name.
        """
        at = float(document["at"])
        entry = document["models"].get(model)
        if entry is None:
            return self.lose()
        ended = entry["ended_total"]
        counts = _Counts(
            at_unix_seconds=at,
            arrivals=entry.get("tier_arrivals_total") or {"default": entry["arrivals_total"]},
            completed=entry["completed_total"],
            refused=ended.get("shed", 0),
            input_tokens=entry["tokens_total"]["input"],
            output_tokens=entry["tokens_total"]["output"],
            interactive=entry.get("interactive_total"),
        )
        epoch = document.get("epoch")
        if epoch != self._epoch or (
            self._history and counts.all_arrivals < self._history[-1].all_arrivals
        ):
            self._history.clear()
        self._epoch = epoch
        before = self._history[-1] if self._history else None
        self._history.append(counts)
        while self._history[0].at_unix_seconds < at - MEAN_WINDOW_SECONDS:
            self._history.popleft()
        seconds = at - before.at_unix_seconds if before else 0.0

        def rate(name: str) -> Signal:
            then = getattr(before, name) if before else None
            return measure(_rate(getattr(counts, name), then, seconds), at)

        self._last = GatewaySignals(
            arrivals_per_second=_tiers(
                {
                    tier: _rate(count, before.arrivals.get(tier) if before else None, seconds)
                    for tier, count in counts.arrivals.items()
                },
                at,
            ),
            waiting_requests=_tiers(entry["waiting"], at),
            waiting_tokens=_tiers(entry["waiting_tokens"], at),
            in_flight_requests=measure(entry["in_flight"], at),
            flex_in_flight_requests=measure(entry.get("flex_in_flight"), at),
            flex_deadline_unix_seconds=measure(entry.get("flex_deadline_unix_seconds"), at),
            flex_patience_seconds=measure(entry.get("flex_patience_seconds"), at),
            queue_wait=_latency(entry["queue_wait_seconds"], at),
            ttft=_latency(entry["ttft_seconds"], at),
            tpot=_latency(entry["tpot_seconds"], at),
            mean_input_tokens=self._mean("input_tokens", at),
            mean_output_tokens=self._mean("output_tokens", at),
            completed_per_second=rate("completed"),
            shed_per_second=rate("refused"),
            slo_met_ratio=_share(counts, before, "met", "judged"),
            ttft_met_ratio=_share(counts, before, "in_time", "judged"),
            interactive_completed_per_second=measure(
                _rate(
                    _interactive(counts, "completed"), _interactive(before, "completed"), seconds
                ),
                at,
            ),
        )
        return self._last

    def lose(self) -> GatewaySignals:
        """Return the last signals as stale ones: the gateway did not answer."""
        self._last = age(self._last)
        return self._last

    def _mean(self, name: str, at: float) -> Signal:
        first, last = self._history[0], self._history[-1]
        requests = last.completed - first.completed
        if requests <= 0:
            return Missing("NoSamples")
        return measure((getattr(last, name) - getattr(first, name)) / requests, at)


def _interactive(counts: _Counts | None, name: str) -> float | None:
    """Return a counter of the lanes with an objective; None where the gateway does not tell."""
    if counts is None or counts.interactive is None:
        return None
    return counts.interactive.get(name)


def _share(counts: _Counts, before: _Counts | None, part: str, whole: str) -> Signal:
    """Return what share of the whole's growth since the last reading the part has."""
    pairs = [(_interactive(counts, name), _interactive(before, name)) for name in (part, whole)]
    (part_now, part_before), (whole_now, whole_before) = pairs
    if part_now is None or part_before is None or whole_now is None or whole_before is None:
        return NOT_REPORTED
    grown = whole_now - whole_before
    if grown <= 0 or part_now < part_before:
        return Missing("NoSamples")
    return measure(min(1.0, (part_now - part_before) / grown), counts.at_unix_seconds)


def parse_engine_metrics(text: str) -> dict[str, float]:
    """Return the metrics that scaling reads from an engine's ``/metrics``, labels summed.

    A bucket of a histogram goes by the histogram's name and its upper edge, as in
    ``NAME_bucket:0.05``, and how requests ended by the names of ``outcomes``.
    """
    buckets = f"{_TPOT_HISTOGRAM}_bucket"
    sums = (f"{_TPOT_HISTOGRAM}_sum", f"{_TPOT_HISTOGRAM}_count")
    wanted = (*_ENGINE_GAUGES, *_ENGINE_COUNTERS, *sums, buckets, FINISHED_COUNTER, HTTP_COUNTER)
    # An engine has hundreds of histogram lines; parsing them all would cost more than deciding.
    lines = [line for line in text.splitlines() if line.startswith(wanted)]
    found: dict[str, float] = {}
    for family in text_string_to_metric_families("\n".join(lines) + "\n"):
        for sample in family.samples:
            if sample.name not in wanted:
                continue
            name = sample.name
            if name in (FINISHED_COUNTER, HTTP_COUNTER):
                outcome = outcome_key(name, sample.labels)
                if outcome is None:
                    continue
                name = outcome
            if name == buckets:
                name = f"{name}:{sample.labels['le']}"
            found[name] = found.get(name, 0.0) + sample.value
    return found


class EngineReader:
    """Turns the metrics of a variant's ready replicas into signals, one after the other."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, dict[str, float]]] = {}
        self._window: deque[tuple[float, dict[str, dict[str, float]]]] = deque()

    def read(
        self, scraped: Mapping[str, dict[str, float] | None], at_unix_seconds: float
    ) -> EngineSignals:
        """Return the signals of one variant.

        Args:
            scraped: Metrics by ready replica; None for one that did not answer.
            at_unix_seconds: When they were read.
        """
        answers = {replica: values for replica, values in scraped.items() if values}
        rates = {
            name: self._sum_of_rates(name, answers, at_unix_seconds) for name in _ENGINE_COUNTERS
        }
        self._before = {
            replica: (at_unix_seconds, dict(values)) for replica, values in answers.items()
        }
        tpot = self._time_per_output_token(answers, at_unix_seconds)
        if len(answers) < len(scraped):
            return EngineSignals()

        def gauges(name: str) -> list[float]:
            return [values[name] for values in answers.values() if name in values]

        return EngineSignals(
            running_requests=_sum(gauges("vllm:num_requests_running"), at_unix_seconds),
            waiting_requests=_sum(gauges("vllm:num_requests_waiting"), at_unix_seconds),
            kv_used_ratio=_mean(gauges("vllm:kv_cache_usage_perc"), at_unix_seconds),
            preemptions_per_second=rates["vllm:num_preemptions_total"],
            input_tokens_per_second=_computed(rates),
            cached_tokens_per_second=rates["vllm:prompt_tokens_cached_total"],
            output_tokens_per_second=rates["vllm:generation_tokens_total"],
            tpot=tpot,
        )

    def _time_per_output_token(
        self, answers: Mapping[str, dict[str, float]], at_unix_seconds: float
    ) -> LatencySignal:
        """Return the latency of the requests that ended in the window, on engines known in it."""
        mine = {
            replica: {
                name: value for name, value in values.items() if name.startswith(_TPOT_HISTOGRAM)
            }
            for replica, values in answers.items()
        }
        self._window.append((at_unix_seconds, mine))
        while self._window[0][0] < at_unix_seconds - LATENCY_WINDOW_SECONDS:
            self._window.popleft()
        grown: dict[str, float] = {}
        for replica, values in mine.items():
            first = next(seen[replica] for _, seen in self._window if replica in seen)
            steps = {name: value - first.get(name, 0.0) for name, value in values.items()}
            # A counter that went back was restarted; it counts again from the next window on.
            if all(step >= 0 for step in steps.values()):
                for name, step in steps.items():
                    grown[name] = grown.get(name, 0.0) + step
        return _summarize_histogram(grown, _TPOT_HISTOGRAM, at_unix_seconds)

    def _sum_of_rates(
        self, name: str, answers: Mapping[str, dict[str, float]], at_unix_seconds: float
    ) -> Signal:
        total = None
        for replica, values in answers.items():
            then_unix_seconds, before = self._before.get(replica, (at_unix_seconds, {}))
            seconds = at_unix_seconds - then_unix_seconds
            rate = _rate(values.get(name), before.get(name), seconds)
            if rate is not None:
                total = (total or 0.0) + rate
        return measure(total, at_unix_seconds)


def _computed(rates: Mapping[str, Signal]) -> Signal:
    """Return the prompt tokens per second that were computed: all but those found in caches."""
    prompts = rates["vllm:prompt_tokens_total"]
    cached = rates["vllm:prompt_tokens_cached_total"]
    if not isinstance(prompts, Measured) or not isinstance(cached, Measured):
        return prompts
    return measure(max(0.0, prompts.value - cached.value), prompts.at_unix_seconds)


def _summarize_histogram(
    grown: Mapping[str, float], name: str, at_unix_seconds: float
) -> LatencySignal:
    """Return mean and quantiles of a histogram's growth; a quantile is its bucket's upper edge."""
    if f"{name}_count" not in grown:
        return NOT_REPORTED
    samples = grown[f"{name}_count"]
    if samples < 1:
        return Missing("NoSamples")
    mark = f"{name}_bucket:"
    cumulative = sorted(
        (float(key.removeprefix(mark)), value)
        for key, value in grown.items()
        if key.startswith(mark) and not key.endswith("+Inf")
    )
    mean_seconds = grown.get(f"{name}_sum", 0.0) / samples
    quantiles = []
    for _, ratio in _LATENCY_RATIOS:
        edge = next((edge for edge, below in cumulative if below >= ratio * samples), None)
        # Beyond the last edge nothing is known but that it is slower.
        quantiles.append((ratio, cumulative[-1][0] if edge is None and cumulative else edge))
    found = LatencySummary(
        samples=int(samples),
        mean_seconds=mean_seconds,
        quantiles=tuple((ratio, mean_seconds if s is None else s) for ratio, s in quantiles),
    )
    return Measured(found, at_unix_seconds)


def _sum(values: Sequence[float], at_unix_seconds: float) -> Signal:
    return measure(sum(values), at_unix_seconds) if values else NOT_REPORTED


def _mean(values: Iterable[float], at_unix_seconds: float) -> Signal:
    found = list(values)
    return measure(sum(found) / len(found), at_unix_seconds) if found else NOT_REPORTED
