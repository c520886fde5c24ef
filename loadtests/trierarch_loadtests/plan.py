"""The plan: every request of a run, known before the first is sent.

A pure function of the scenario and its seed. Workers split it by taking every
n-th request, so the load is the same for any number of workers.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from trierarch_loadtests.arrivals import Arrival, arrivals
from trierarch_loadtests.scenario import MixEntry, Scenario
from trierarch_loadtests.shapes.stages import Stage, stretch
from trierarch_loadtests.shapes.trace_replay import TraceReplayShape, TraceRequest
from trierarch_loadtests.workloads.seeds import stream


@dataclasses.dataclass(frozen=True, slots=True)
class PlannedRequest:
    """One request: when it starts and what it asks."""

    index: int
    seconds: float
    stage: Stage
    entry: MixEntry
    input_tokens: int
    output_tokens: int
    """Sent as ``max_tokens``; 0 for an embedding."""
    prefix_group: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """The table of stages and the requests that fill it."""

    scenario: Scenario
    stages: tuple[Stage, ...]
    kinds: frozenset[str]
    recorded: tuple[TraceRequest, ...] | None

    @property
    def arrivals_summary(self) -> dict[str, Any]:
        """What decides the planned starts: the scenario's law, or the recording."""
        if self.recorded is not None:
            return {"law": "recorded"}
        return self.scenario.arrivals.model_dump(mode="json")

    def requests(self) -> Iterator[PlannedRequest]:
        """Yield the requests in order of their planned start.

        A kind that the endpoint does not have leaves its share to the others.
        """
        seed = self.scenario.seed
        lengths = stream(seed, "lengths")
        entries = [entry for entry in self.scenario.mix if entry.kind in self.kinds]
        weights = [entry.weight for entry in entries]
        for index, arrival in enumerate(self._arrivals()):
            entry = lengths.choices(entries, weights)[0]
            input_tokens = entry.input_tokens.draw(lengths)
            output_tokens = entry.output_tokens.draw(lengths) if entry.output_tokens else 0
            if self.recorded is not None:
                input_tokens = self.recorded[index].input_tokens
                output_tokens = self.recorded[index].output_tokens if entry.output_tokens else 0
            prefix = entry.shared_prefix
            yield PlannedRequest(
                index=index,
                seconds=arrival.seconds,
                stage=arrival.stage,
                entry=entry,
                input_tokens=input_tokens,
                output_tokens=output_tokens,
                prefix_group=lengths.randrange(prefix.groups) if prefix else None,
            )

    def share(self, worker: int, workers: int) -> Iterator[PlannedRequest]:
        """Yield the part of worker number ``worker`` of ``workers``."""
        for request in self.requests():
            if request.index % workers == worker:
                yield request

    def to_message(self) -> dict[str, Any]:
        """Return plain values that survive a message between processes."""
        recorded = self.recorded
        return {
            "scenario": self.scenario.model_dump(mode="json"),
            "stages": [dataclasses.asdict(stage) for stage in self.stages],
            "kinds": sorted(self.kinds),
            "recorded": None if recorded is None else [dataclasses.asdict(one) for one in recorded],
        }

    @classmethod
    def from_message(cls, message: dict[str, Any]) -> "Plan":
        """Return the plan that ``to_message`` described."""
        recorded = message["recorded"]
        return cls(
            scenario=Scenario.model_validate(message["scenario"]),
            stages=tuple(Stage(**stage) for stage in message["stages"]),
            kinds=frozenset(message["kinds"]),
            recorded=None if recorded is None else tuple(TraceRequest(**one) for one in recorded),
        )

    def _arrivals(self) -> Iterator[Arrival]:
        if self.recorded is None:
            generator = stream(self.scenario.seed, "arrivals")
            yield from arrivals(self.scenario.arrivals, self.stages, generator)
            return
        row_seconds = self.stages[0].duration_seconds
        for request in self.recorded:
            row = min(len(self.stages) - 1, int(request.seconds / row_seconds))
            yield Arrival(request.seconds, self.stages[row])


def make_plan(
    scenario: Scenario,
    *,
    kinds: frozenset[str],
    trace: Sequence[TraceRequest] | None = None,
    duration_factor: float = 1.0,
) -> Plan:
    """Return the plan of a scenario.

    Args:
        scenario: What to send.
        kinds: The kinds that the endpoint has; at least one of the mix.
        trace: The recorded requests, for a replay only.
        duration_factor: Multiplies every stage's duration; for a replay, the part of it to play.

    Raises:
        ValueError: If no kind of the mix is left, or a replay comes without its trace.
    """
    if not any(entry.kind in kinds for entry in scenario.mix):
        raise ValueError("the endpoint has none of the kinds in the mix")
    shape = scenario.shape
    if not isinstance(shape, TraceReplayShape):
        return Plan(scenario, tuple(stretch(shape.stages(), duration_factor)), kinds, None)
    if trace is None:
        raise ValueError("a trace_replay scenario needs its trace")
    cut = shape.model_copy(update={"duration_seconds": shape.duration_seconds * duration_factor})
    recorded = tuple(cut.requests(trace, stream(scenario.seed, "jitter")))
    return Plan(scenario, tuple(cut.stages(recorded)), kinds, recorded)
