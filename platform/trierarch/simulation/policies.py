"""Which policies there are, and how a name and ``--option k=v`` become a controller."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from trierarch.core.errors import InvalidInput
from trierarch.simulation.clairvoyant.search import ClairvoyantSearch
from trierarch.simulation.controllers import PipelineController
from trierarch.simulation.fleet.simulator import Controller, simulate
from trierarch.simulation.peers import PEERS, Peer
from trierarch.simulation.scenarios import Scenario
from trierarch.simulation.schedules import StaticController
from trierarch.simulation.sizing import peak_fleet

STATIC, OURS, CLAIRVOYANT = "static", "trierarch", "clairvoyant"
OUR_SWEEP_PERCENTILES = (90, 95, 98, 99, 99.5)
STATIC_SWEEP_RATIOS = (0.5, 0.7, 0.85, 1.0, 1.2, 1.5)
Options = Mapping[str, str]
OptionItems = tuple[tuple[str, str], ...]
Builder = Callable[[Scenario, Options, int], Controller]


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyEntry:
    """One policy that can be named on the command line.

    Attributes:
        name: Kebab-case.
        summary: One line for help texts.
        build: Makes a controller for a scenario, options and a seed.
        options: Names it takes, with what they mean.
        sweep: Settings to try on a scenario, for tuning and for the curve in the plot.
    """

    name: str
    summary: str
    build: Builder
    options: Mapping[str, str] = dataclasses.field(default_factory=dict)
    sweep: Callable[[Scenario], Sequence[OptionItems]] = lambda scenario: ()


def parse_options(texts: Sequence[str]) -> dict[str, str]:
    """Return ``k=v`` texts as a mapping.

    Raises:
        InvalidInput: If one has no ``=``, no name, or comes twice.
    """
    options: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InvalidInput(f"an option is written NAME=VALUE, got {text!r}")
        if name in options:
            raise InvalidInput(f"option {name!r} is given twice")
        options[name.strip()] = value.strip()
    return options


def build_controller(name: str, scenario: Scenario, options: Options, seed: int) -> Controller:
    """Return the controller of a named policy.

    Raises:
        InvalidInput: If there is no such policy or it refuses an option.
    """
    entry = registry().get(name)
    if entry is None:
        raise InvalidInput(f"no policy {name!r}; there are {', '.join(sorted(registry()))}")
    unknown = [option for option in options if not _is_known(entry, option)]
    if unknown:
        known = ", ".join(entry.options) or "none"
        raise InvalidInput(f"policy {name} has no option {unknown[0]!r}; it takes {known}")
    return entry.build(scenario, options, seed)


def registry() -> dict[str, PolicyEntry]:
    """Return every policy by name."""
    entries = [
        PolicyEntry(
            STATIC,
            "a fixed fleet, by default as large as the trace's hardest five minutes ask for",
            _build_static,
            {"replicas": "count, or one per variant separated by commas"},
            _sweep_static,
        ),
        *(_peer_entry(peer) for peer in PEERS),
        PolicyEntry(
            OURS,
            "our whole pipeline, from observation to decision",
            _build_ours,
            {"*": "any field of the scaling spec, e.g. behavior.backlog_drain_seconds=30"},
            _sweep_ours,
        ),
        PolicyEntry(
            CLAIRVOYANT,
            "the cheapest schedule found with the whole future known",
            _build_clairvoyant,
            {"attainment": "share of requests that must meet the objective, default 0.99"},
        ),
    ]
    return {entry.name: entry for entry in entries}


def _peer_entry(peer: Peer) -> PolicyEntry:
    return PolicyEntry(
        peer.name,
        peer.summary,
        lambda scenario, options, seed: peer.build(scenario, options),
        {"*": "any setting of its law"},
        peer.grid,
    )


def number(options: Options, name: str, default: float) -> float:
    """Return a numeric option.

    Raises:
        InvalidInput: If it is not a finite number.
    """
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError as error:
        raise InvalidInput(f"option {name} must be a number, got {text!r}") from error
    if not math.isfinite(value):
        raise InvalidInput(f"option {name} must be finite, got {text!r}")
    return value


def _is_known(entry: PolicyEntry, option: str) -> bool:
    return option in entry.options or any(
        known.endswith("*") and option.startswith(known[:-1]) for known in entry.options
    )


def _build_static(scenario: Scenario, options: Options, seed: int) -> Controller:
    setup = scenario.setup
    text = options.get("replicas")
    if text is None:
        count = peak_fleet(setup, scenario.trace)
        return StaticController([count] + [v.minimum_replicas for v in setup.variants[1:]])
    try:
        counts = [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidInput(f"option replicas must be whole numbers, got {text!r}") from error
    counts += [variant.minimum_replicas for variant in setup.variants[len(counts) :]]
    if len(counts) != len(setup.variants) or min(counts) < 0:
        raise InvalidInput(f"option replicas: {len(setup.variants)} counts from 0, got {text!r}")
    return StaticController(counts)


def _sweep_static(scenario: Scenario) -> list[OptionItems]:
    peak = peak_fleet(scenario.setup, scenario.trace)
    counts = sorted({max(1, round(peak * ratio)) for ratio in STATIC_SWEEP_RATIOS})
    return [(("replicas", str(count)),) for count in counts]


def _build_ours(scenario: Scenario, options: Options, seed: int) -> Controller:
    overrides = {path: _json_value(text) for path, text in options.items()}
    try:
        before = None
        if scenario.training is not None:
            # It is not tuned: it serves the half on which the others are, and so learns.
            before = PipelineController(scenario.training.setup, overrides, name=OURS)
            simulate(scenario.training.setup, scenario.training.trace, before, seed=seed)
        learned = None if before is None else before.state.learned(0.0)
        return PipelineController(scenario.setup, overrides, name=OURS, learned=learned)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the scaling spec"
        raise InvalidInput(f"policy {OURS}: {field}: {first['msg']}") from error
    except ValueError as error:
        raise InvalidInput(f"policy {OURS}: {error}") from error


def _json_value(text: str) -> Any:
    """Return a number, boolean or null as such, and any other text as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _sweep_ours(scenario: Scenario) -> list[OptionItems]:
    return [(("slo.percentile", str(value)),) for value in OUR_SWEEP_PERCENTILES]


def _build_clairvoyant(scenario: Scenario, options: Options, seed: int) -> Controller:
    attainment = number(options, "attainment", 0.99)
    if not 0 < attainment <= 1:
        raise InvalidInput(f"option attainment must lie in (0, 1], got {attainment}")
    search = ClairvoyantSearch(
        scenario.setup, scenario.trace, attainment_ratio=attainment, seed=seed
    )
    return search.run().replay()
