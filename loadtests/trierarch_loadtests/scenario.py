"""A scenario: what is sent, when, and what counts as good, in one YAML file.

The file is the whole test: the same file, seed and endpoint give the same
requests at the same planned times. Command-line overrides are applied here and
the effective scenario is saved with the results.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from trierarch_loadtests.arrivals import ArrivalLaw
from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.shapes.burst import BurstShape
from trierarch_loadtests.shapes.diurnal import DiurnalShape
from trierarch_loadtests.shapes.steady import SteadyShape
from trierarch_loadtests.shapes.step import StepShape
from trierarch_loadtests.shapes.trace_replay import TraceReplayShape
from trierarch_loadtests.workloads.lengths import Length

SCENARIOS_DIRECTORY = Path(__file__).resolve().parent.parent / "scenarios"

RatedShape = SteadyShape | StepShape | BurstShape | DiurnalShape
Shape = Annotated[RatedShape | TraceReplayShape, Field(discriminator="kind")]
RequestKind = Literal["chat", "completion", "long_context", "embedding"]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class SharedPrefix(_Section):
    """A beginning that requests have in common, for tests of prefix caches."""

    tokens: PositiveInt
    groups: PositiveInt = 1
    """How many different prefixes there are; each request takes one at random."""


class MixEntry(_Section):
    """One kind of request and its share of the arrivals."""

    kind: RequestKind
    weight: PositiveFloat = 1.0
    stream: bool = True
    """Chat and completion kinds only; an embedding never streams."""
    input_tokens: Length
    output_tokens: Length | None = None
    """Sent as ``max_tokens``; required for every kind but embeddings."""
    shared_prefix: SharedPrefix | None = None
    extra_body: dict[str, Any] = Field(default_factory=dict)
    """Further members of the request body, such as ``ignore_eos`` or ``service_tier``."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "MixEntry":
        if self.kind != "embedding" and self.output_tokens is None:
            raise ValueError(f"{self.kind} needs output_tokens")
        return self

    @property
    def row_name(self) -> str:
        """The stable name of this kind in every table."""
        if self.kind == "embedding":
            return "embedding"
        return f"{self.kind}/{'stream' if self.stream else 'whole'}"


class LatencyThresholds(_Section):
    """Upper limits on latencies; what is left out is reported and not judged."""

    ttft_p50_seconds: PositiveFloat | None = None
    ttft_p95_seconds: PositiveFloat | None = None
    tpot_p50_seconds: PositiveFloat | None = None
    tpot_p95_seconds: PositiveFloat | None = None
    gap_p99_seconds: PositiveFloat | None = None
    latency_p95_seconds: PositiveFloat | None = None


class Thresholds(LatencyThresholds):
    """What the run must keep to pass."""

    error_ratio: NonNegativeFloat | None = None
    """Failed over planned requests, measured stages only."""
    lost_streams: NonNegativeInt | None = None
    """Streams that began and broke, warm-up included."""
    ledger_token_difference: NonNegativeInt | None = None
    """Largest difference of input, cached or output tokens between client and ledger."""
    dropped_requests: NonNegativeInt | None = None
    """Planned requests that were never sent because too many were ongoing."""
    start_lag_p99_seconds: PositiveFloat | None = None
    """How late the generator itself may be."""
    goodput_ratio: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """At least this share of planned requests must meet the SLO."""
    stages: dict[str, LatencyThresholds] = Field(default_factory=dict)
    """Further limits for one stage."""


class Slo(_Section):
    """What one request must keep to count as good; both must hold."""

    ttft_seconds: PositiveFloat
    tpot_seconds: PositiveFloat


class LedgerCheck(_Section):
    """How the server's own usage account is compared with what the client counted."""

    required: bool = False
    """Fail, rather than report, when the endpoint has no usage account."""
    settle_seconds: PositiveFloat = 20.0
    """How long to wait after the last request for the account to catch up."""


class Timeouts(_Section):
    """When the client gives a request up."""

    connect_seconds: PositiveFloat = 10.0
    silence_seconds: PositiveFloat = 300.0
    """Longest time without a byte, the wait for the first one included."""
    drain_seconds: PositiveFloat = 300.0
    """Longest wait for ongoing requests after the last planned start."""


class Scenario(_Section):
    """The whole test."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    description: str
    seed: int = 1
    shape: Shape
    arrivals: ArrivalLaw = ArrivalLaw()
    mix: tuple[MixEntry, ...] = Field(min_length=1)
    maximum_ongoing_requests: PositiveInt = 512
    """Over all workers; a request planned while so many are ongoing is dropped and counted."""
    slo: Slo
    thresholds: Thresholds
    ledger: LedgerCheck = LedgerCheck()
    timeouts: Timeouts = Timeouts()

    @model_validator(mode="after")
    def _is_consistent(self) -> "Scenario":
        names = [entry.row_name for entry in self.mix]
        if len(set(names)) != len(names):
            raise ValueError("two mix entries have the same kind and streaming; merge them")
        if isinstance(self.shape, TraceReplayShape):
            if len(self.mix) != 1:
                raise ValueError("a trace is replayed with exactly one mix entry")
        else:
            stages = {stage.name for stage in self.shape.stages() if stage.measured}
            if unknown := sorted(set(self.thresholds.stages) - stages):
                raise ValueError(
                    f"thresholds name {', '.join(unknown)}, measured stages are "
                    f"{', '.join(sorted(stages))}"
                )
        return self

    def override(
        self,
        *,
        seed: int | None = None,
        rate_per_second: float | None = None,
        maximum_ongoing_requests: int | None = None,
        trace: str | None = None,
    ) -> "Scenario":
        """Return the scenario with what the command line changes.

        Raises:
            UsageError: If an override does not fit the scenario's shape.
        """
        changes: dict[str, Any] = {}
        if seed is not None:
            changes["seed"] = seed
        if maximum_ongoing_requests is not None:
            changes["maximum_ongoing_requests"] = maximum_ongoing_requests
        if rate_per_second is not None:
            if isinstance(self.shape, TraceReplayShape):
                raise UsageError("--rate has no meaning for a trace; set its speed in the scenario")
            changes["shape"] = self.shape.with_peak(rate_per_second)
        if trace is not None:
            if not isinstance(self.shape, TraceReplayShape):
                raise UsageError(f"--trace needs a trace_replay scenario, {self.name} is not one")
            changes["shape"] = self.shape.with_path(trace)
        return self.model_copy(update=changes)


def available_scenarios(directory: Path = SCENARIOS_DIRECTORY) -> list[str]:
    """Return the names of the scenarios that come with the load tests."""
    return sorted(path.stem for path in directory.glob("*.yaml"))


def load_scenario(name_or_path: str, directory: Path = SCENARIOS_DIRECTORY) -> Scenario:
    """Read a scenario by its name, or by the path of a YAML file.

    Raises:
        UsageError: If it does not exist or is not valid, in one line that says where.
    """
    is_path = name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path
    path = Path(name_or_path) if is_path else directory / f"{name_or_path}.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = ", ".join(available_scenarios(directory))
        raise UsageError(
            f"no scenario {name_or_path!r}; there are {known}, or give a file"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        first_line = str(error).replace("\n", " ")
        raise UsageError(f"cannot read scenario {path}: {first_line}") from error
    return parse_scenario(content, source=str(path))


def parse_scenario(content: object, *, source: str) -> Scenario:
    """Check a scenario's content.

    Raises:
        UsageError: If it is not valid; the line names the first bad field.
    """
    try:
        return Scenario.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "scenario"
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise UsageError(f"scenario {source}: {field}: {first['msg']}{more}") from error
