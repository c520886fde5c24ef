"""Several policies and the clairvoyant schedule on one trace, on one metric.

Every policy meets the same requests, cold starts, market, prices, router and
metrics. A policy qualifies if it meets the attainment target; the best peer is
the cheapest that does, at its defaults or with the setting that was found on the
training half. Settings that were tried on this very trace count apart, as
hindsight: no operator has it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from trierarch.simulation.clairvoyant.bounds import fluid_bound_usd
from trierarch.simulation.clairvoyant.evidence import Evidence
from trierarch.simulation.clairvoyant.search import ClairvoyantSearch
from trierarch.simulation.policies import CLAIRVOYANT, OURS, STATIC
from trierarch.simulation.runs import (
    SWEPT,
    Contestant,
    RunCache,
    Task,
    attainable_target,
    attained,
    ceiling_contestant,
    run_contestants,
)
from trierarch.simulation.scenarios import Scenario
from trierarch.simulation.summary import Attainment, RunSummary
from trierarch.simulation.workers import run_all


@dataclasses.dataclass(frozen=True, slots=True)
class Row:
    """One line of the comparison: means over the seeds.

    Attributes:
        contestant: Who.
        runs: One summary per seed.
        regret: Cost over the clairvoyant schedule's, seed by seed, averaged.
        meets_target: In every seed interactive and flex attainment are at least the target.
    """

    contestant: Contestant
    runs: tuple[RunSummary, ...]
    regret: float
    meets_target: bool

    @property
    def cost_usd(self) -> float:
        """Mean cost."""
        return _mean(run.cost_usd for run in self.runs)

    @property
    def attainment(self) -> float:
        """Mean share of requests that met both objectives."""
        return _mean(run.slo_attainment.both for run in self.runs)

    @property
    def usd_per_million_slo_tokens(self) -> float:
        """Mean; infinite if a seed served nothing in time."""
        values = [run.usd_per_million_slo_tokens for run in self.runs]
        return _mean(math.inf if value is None else value for value in values)

    def to_json(self) -> dict[str, Any]:
        """Return the keys of a single run, as means, and what the comparison adds."""
        row = mean_summary(self.runs).to_json()
        row["policy"] = self.contestant.label
        row["setting"] = self.contestant.setting
        row["options"] = dict(self.contestant.options)
        row["regret"] = self.regret
        row["meets_target"] = self.meets_target
        row["seeds"] = [run.seed for run in self.runs]
        del row["seed"]
        return row


@dataclasses.dataclass(frozen=True, slots=True)
class Comparison:
    """The whole result.

    Attributes:
        scenario: What it ran on.
        rows: Policies in the order asked for, the clairvoyant schedule last.
        swept: Further settings of the same policies, for the plot only.
        attainment_target: Share of interactive requests that must meet both objectives.
        ceiling: Attainment of the largest fleet allowed, ready from the start.
        fluid_bound_usd: What no schedule can undercut.
        timelines: Per row label, the evidence of the first seed.
    """

    scenario: Scenario
    rows: tuple[Row, ...]
    swept: tuple[Row, ...]
    attainment_target: float
    ceiling: float
    fluid_bound_usd: float
    timelines: Mapping[str, Evidence]

    def row(self, label: str) -> Row | None:
        """Return a row by its label."""
        return next((row for row in self.rows if row.contestant.label == label), None)

    @property
    def clairvoyant(self) -> Row:
        """The schedule's row."""
        return self.rows[-1]

    @property
    def ours(self) -> Row | None:
        """Our policy at its defaults, if it took part."""
        return self.row(OURS)

    @property
    def best_peer(self) -> Row | None:
        """The cheapest policy that is not ours and meets the target."""
        return _cheapest_peer(self.rows[:-1])

    @property
    def best_hindsight_peer(self) -> Row | None:
        """The same, with settings tried on this very trace as well."""
        return _cheapest_peer((*self.rows[:-1], *self.swept))

    @property
    def captured_share(self) -> float | None:
        """(best peer - ours) / (best peer - clairvoyant) in cost; None if it has no meaning."""
        return self._captured_share(self.best_peer)

    @property
    def hindsight_captured_share(self) -> float | None:
        """The same against the best peer of hindsight."""
        return self._captured_share(self.best_hindsight_peer)

    def _captured_share(self, peer: Row | None) -> float | None:
        ours = self.ours
        if ours is None or peer is None or not ours.meets_target:
            return None
        gap = peer.cost_usd - self.clairvoyant.cost_usd
        return (peer.cost_usd - ours.cost_usd) / gap if gap > 0 else None

    @property
    def slo_token_saving(self) -> float | None:
        """1 - ours / best peer in dollars per million SLO-met tokens."""
        return self._slo_token_saving(self.best_peer)

    @property
    def hindsight_slo_token_saving(self) -> float | None:
        """The same against the best peer of hindsight."""
        return self._slo_token_saving(self.best_hindsight_peer)

    def _slo_token_saving(self, peer: Row | None) -> float | None:
        ours = self.ours
        if ours is None or peer is None or not ours.meets_target:
            return None
        return 1.0 - ours.usd_per_million_slo_tokens / peer.usd_per_million_slo_tokens

    def losses(self) -> list[str]:
        """Return one sentence per thing in which another policy did better than ours."""
        ours = self.ours
        if ours is None:
            return []
        found = []
        if not ours.meets_target:
            found.append(
                f"{OURS} misses the target: {ours.attainment:.2%} of {self.attainment_target:.2%}"
            )
        for row in self.rows[:-1]:
            name = row.contestant.label
            if row.contestant.policy == OURS:
                continue
            if row.attainment >= min(ours.attainment, self.attainment_target) and (
                row.usd_per_million_slo_tokens < ours.usd_per_million_slo_tokens
            ):
                saving = 1 - row.usd_per_million_slo_tokens / ours.usd_per_million_slo_tokens
                found.append(
                    f"{name} is {saving:.1%} cheaper per SLO token at {row.attainment:.2%}"
                )
            if _mean(r.reversals for r in row.runs) < _mean(r.reversals for r in ours.runs) and (
                row.meets_target and row.contestant.policy != STATIC
            ):
                found.append(f"{name} reverses less often")
        return found

    def to_json(self) -> dict[str, Any]:
        """Return the JSON document of the command."""
        peer, hindsight = self.best_peer, self.best_hindsight_peer
        return {
            "trace": self.scenario.trace.name,
            "fleet": self.scenario.setup.name,
            "rate_factor": self.scenario.rate_factor,
            "notes": list(self.scenario.trace.notes),
            "attainment_target": self.attainment_target,
            "attainment_ceiling": self.ceiling,
            "fluid_bound_usd": self.fluid_bound_usd,
            "best_peer": None if peer is None else peer.contestant.label,
            "captured_share": self.captured_share,
            "slo_token_saving": self.slo_token_saving,
            "best_hindsight_peer": None if hindsight is None else hindsight.contestant.label,
            "hindsight_captured_share": self.hindsight_captured_share,
            "hindsight_slo_token_saving": self.hindsight_slo_token_saving,
            "where_we_lose": self.losses(),
            "policies": [row.to_json() for row in self.rows],
            "swept": [row.to_json() for row in self.swept],
        }


Progress = Callable[[str, float], None]
SEARCH_RUNS = 14
"""What a search is worth on the progress bar, in runs."""


def compare(
    scenario: Scenario,
    contestants: Sequence[Contestant],
    *,
    seeds: Sequence[int],
    attainment: float,
    jobs: int = 1,
    cache: RunCache | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Run every contestant, then search the schedule knowing all of their runs.

    Args:
        scenario: Fleet and trace.
        contestants: Who takes part; the clairvoyant schedule is added by itself.
        seeds: One run each; settings that are only swept run with the first.
        attainment: The target share.
        jobs: Processes to use.
        cache: Of runs of policies.
        progress: Called with a label and the share of the whole that is done.
    """
    peers = [contestant for contestant in contestants if contestant.policy != CLAIRVOYANT]
    ceiling = (ceiling_contestant(scenario), seeds[0])
    tasks: list[Task] = [ceiling]
    tasks += [(peer, seed) for peer in peers for seed in _seeds_of(peer, seeds)]
    evidence: dict[Task, Evidence] = {}
    total = len(tasks) + SEARCH_RUNS * len(seeds)
    for task, result in run_contestants(scenario, tasks, jobs=jobs, cache=cache):
        evidence[task] = result
        if progress is not None:
            progress(task[0].label, len(evidence) / total)
    highest = evidence[ceiling].summary.slo_attainment.both
    target = attainable_target(attainment, highest)
    searches = [
        (seed, target, evidence[ceiling], _lessons(evidence, peers, seed, target)) for seed in seeds
    ]
    schedules: dict[int, Evidence] = {}
    for search, result in run_all(_run_search, scenario, searches, jobs):
        schedules[search[0]] = result
        if progress is not None:
            progress(CLAIRVOYANT, (len(tasks) + SEARCH_RUNS * len(schedules)) / total)
    return _tabulate(scenario, peers, seeds, evidence, schedules, target, highest)


def _seeds_of(contestant: Contestant, seeds: Sequence[int]) -> Sequence[int]:
    return seeds[:1] if contestant.setting == SWEPT else seeds


def _lessons(
    evidence: Mapping[Task, Evidence], peers: Sequence[Contestant], seed: int, target: float
) -> tuple[Evidence, ...]:
    """Return a seed's runs for the search; only the best of them keeps its decisions.

    They are what makes a run a candidate, and they are large.
    """
    runs = [evidence[peer, seed] for peer in peers if (peer, seed) in evidence]
    qualified = [run for run in runs if attained(run.summary) >= target]
    best = min(qualified, key=lambda run: run.summary.cost_usd, default=None)
    return tuple(run if run is best else dataclasses.replace(run, moments=()) for run in runs)


def _tabulate(
    scenario: Scenario,
    peers: Sequence[Contestant],
    seeds: Sequence[int],
    evidence: Mapping[tuple[Contestant, int], Evidence],
    schedules: Mapping[int, Evidence],
    target: float,
    ceiling: float,
) -> Comparison:
    def row(contestant: Contestant, runs: Sequence[Evidence]) -> Row:
        summaries = tuple(run.summary for run in runs)
        regret = _mean(
            run.cost_usd / schedules[seed].summary.cost_usd
            for run, seed in zip(summaries, seeds, strict=False)
        )
        meets_target = min(attained(run) for run in summaries) >= target
        return Row(contestant, summaries, regret, meets_target)

    by_contestant = {
        peer: [evidence[peer, seed] for seed in _seeds_of(peer, seeds)] for peer in peers
    }
    rows = [row(peer, runs) for peer, runs in by_contestant.items() if peer.setting != SWEPT]
    swept = [row(peer, runs) for peer, runs in by_contestant.items() if peer.setting == SWEPT]
    best = Contestant(CLAIRVOYANT)
    rows.append(row(best, [schedules[seed] for seed in seeds]))
    timelines = {
        peer.label: runs[0] for peer, runs in by_contestant.items() if peer.setting != SWEPT
    }
    timelines[CLAIRVOYANT] = schedules[seeds[0]]
    return Comparison(
        scenario=scenario,
        rows=tuple(rows),
        swept=tuple(swept),
        attainment_target=target,
        ceiling=ceiling,
        fluid_bound_usd=fluid_bound_usd(scenario.setup, scenario.trace, served_ratio=target),
        timelines=timelines,
    )


def _cheapest_peer(rows: Iterable[Row]) -> Row | None:
    """Return the cheapest row of another policy that meets the target."""
    peers = [
        row for row in rows if row.contestant.policy not in (OURS, CLAIRVOYANT) and row.meets_target
    ]
    return min(peers, key=lambda row: row.usd_per_million_slo_tokens, default=None)


def _run_search(
    scenario: Scenario, task: tuple[int, float, Evidence, tuple[Evidence, ...]]
) -> Evidence:
    seed, target, ceiling, known = task
    search = ClairvoyantSearch(scenario.setup, scenario.trace, attainment_ratio=target, seed=seed)
    search.learn(ceiling, is_candidate=False)
    for evidence in known:
        search.learn(evidence, is_candidate=bool(evidence.moments))
    found = search.run()
    return dataclasses.replace(found.evidence, summary=found.summary)


def mean_summary(runs: Sequence[RunSummary]) -> RunSummary:
    """Return the mean of each figure; counts are rounded."""
    if len(runs) == 1:
        return runs[0]

    def mean(name: str) -> float:
        return _mean(getattr(run, name) for run in runs)

    def optional(name: str) -> float | None:
        values = [getattr(run, name) for run in runs]
        return None if any(value is None for value in values) else _mean(values)

    counts = (
        "scale_events",
        "reversals",
        "max_queue",
        "lost_requests",
        "unfinished_requests",
        "requests",
        "slo_tokens",
    )
    return RunSummary(
        policy=runs[0].policy,
        cost_usd=mean("cost_usd"),
        usd_per_million_tokens=optional("usd_per_million_tokens"),
        usd_per_million_slo_tokens=optional("usd_per_million_slo_tokens"),
        slo_attainment=Attainment(
            *(
                _mean(getattr(run.slo_attainment, name) for run in runs)
                for name in ("ttft", "tpot", "both")
            )
        ),
        flex_attainment=optional("flex_attainment"),
        replica_hours=mean("replica_hours"),
        seed=runs[0].seed,
        **{name: round(mean(name)) for name in counts},
    )


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return math.fsum(numbers) / len(numbers)
