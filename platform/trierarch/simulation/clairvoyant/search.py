"""Finds the cheapest schedule that meets a share of the objective, in the simulator itself.

Fixed fleets of several sizes say what each slot misses at each count. Plan with a
price on every predicted miss, run the plan, learn from the run what each slot
really misses at its count, adjust the price, and plan again. At last take single
replicas out of the cheapest schedule for as long as it still meets the share.
Every run that meets the share is a candidate; the cheapest is kept. A plan alone
would be a bound on its own model only; running it makes it one on the metric that
policies are judged by. Runs of policies are learned from and are candidates
too: whoever knows the future can do what they did.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from trierarch.simulation.clairvoyant.evidence import (
    Evidence,
    gather_evidence,
    request_slots,
    slot_count,
    slot_length_seconds,
)
from trierarch.simulation.clairvoyant.miss_table import MissTable
from trierarch.simulation.clairvoyant.planning import SwitchingCost, plan
from trierarch.simulation.clairvoyant.schedule import (
    ReplayController,
    ScheduleController,
)
from trierarch.simulation.fleet.setup import SECONDS_PER_HOUR, FleetSetup
from trierarch.simulation.fleet.simulator import simulate
from trierarch.simulation.fleet.spot_market import build_changes
from trierarch.simulation.summary import RunSummary
from trierarch.simulation.traces.trace import Tier, Trace

LOAD_FACTORS = (1.0, 1.15, 1.35, 1.8, 2.5, 3.5, 5.0, 8.0)
"""Replicas over the work that arrives, for the first runs that fill the table; the higher ones
only until one of them meets the share."""
FACTORS_ALWAYS_TRIED = 3
FIXED_FLEETS = 6
"""Runs to find the smallest fixed fleet that meets the share, at most; a bisection."""
REFINEMENTS = 8
"""Plans made with the table; each costs one run."""
TRIMMED_REQUESTS = 3_000_000
"""Requests to simulate while taking single replicas out: many runs of a short trace, few of a
long one."""
FEWEST_TRIMS, MOST_TRIMS = 6, 40
TRIM_DRAW = 0x7213
PRICE_HALVINGS = 30
"""Bisection steps for the price of a miss; doubles hold no more that matters."""


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """The cheapest run that met the share, or the best-attaining one if none did."""

    evidence: Evidence
    is_feasible: bool

    @property
    def summary(self) -> RunSummary:
        """The run's figures, under the schedule's name."""
        return dataclasses.replace(self.evidence.summary, policy="clairvoyant")

    def replay(self) -> ReplayController:
        """Return a controller that does the same again."""
        return ReplayController(self.evidence.moments)


class ClairvoyantSearch:
    """One search on one fleet, trace and seed."""

    def __init__(
        self, setup: FleetSetup, trace: Trace, *, attainment_ratio: float, seed: int
    ) -> None:
        self._setup = setup
        self._trace = trace
        self._seed = seed
        self._attainment = attainment_ratio
        self._slot_seconds = slot_length_seconds(setup, trace)
        self._slots = slot_count(setup, trace)
        self._is_interactive = trace.tiers != Tier.FLEX
        slots_of_requests = request_slots(setup, trace)[self._is_interactive]
        arrived = np.bincount(slots_of_requests, minlength=self._slots)
        self._load = self._offered_load()
        needed = math.ceil(self._load.max() * max(LOAD_FACTORS)) + 1
        limits = [variant.maximum_replicas for variant in setup.variants]
        initial = setup.initial_replicas or tuple(v.minimum_replicas for v in setup.variants)
        most = max(needed, *initial)
        self._initial = tuple(initial)
        self._sizes = tuple(min(limit, most) + 1 for limit in limits)
        self._table = MissTable(arrived.astype(np.float64), sum(self._sizes))
        self._budget = (1.0 - attainment_ratio) * float(self._is_interactive.sum())
        self._drain_seconds = 0.0
        self._flex_reward = 0.0
        self._own: tuple[tuple[bool, float], NDArray[np.int64]] | None = None
        self.best: Found | None = None

    def learn(self, evidence: Evidence, *, is_candidate: bool = True) -> None:
        """Take a run of any policy as evidence, and as a candidate if it began as ours do."""
        self._table.learn(evidence.ready.sum(axis=1), evidence.misses)
        if evidence.drain_seconds is not None:
            self._drain_seconds = evidence.drain_seconds
        if is_candidate:
            self._offer(evidence)

    def run(self, *, progress: Callable[[float], None] | None = None) -> Found:
        """Search and return the cheapest schedule found."""
        trims = min(MOST_TRIMS, max(FEWEST_TRIMS, TRIMMED_REQUESTS // max(1, len(self._trace))))
        total = FIXED_FLEETS + len(LOAD_FACTORS) + REFINEMENTS + trims
        if self.best is not None:
            # What the best policy had ready, with starts as late as the future allows.
            self._try(self.best.evidence.ready)
        self._try_fixed_fleets()
        _report(progress, FIXED_FLEETS / total)
        for done, factor in enumerate(LOAD_FACTORS):
            is_met = self.best is not None and self.best.is_feasible
            if is_met and done >= FACTORS_ALWAYS_TRIED:
                break
            self._try(self._counts_for_load(factor))
            _report(progress, (FIXED_FLEETS + done + 1) / total)
        caution = 1.0
        for done in range(REFINEMENTS):
            summary = self._refine(caution).summary
            missed = (1.0 - summary.slo_attainment.both) * float(self._is_interactive.sum())
            caution *= min(1.3, max(0.6, (self._budget + 1.0) / (missed + 1.0))) ** 0.7
            self._adjust_flex(summary)
            _report(progress, (FIXED_FLEETS + len(LOAD_FACTORS) + done + 1) / total)
        self._trim(trims)
        if self.best is None:
            raise RuntimeError("the search made no run")
        return self.best

    def _try_fixed_fleets(self) -> None:
        """Learn from fixed fleets around the smallest that meets the share."""
        low = max(0, math.floor(self._load.mean()) - 1)
        high = sum(size - 1 for size in self._sizes)
        guess = math.ceil(1.3 * self._load.max())
        for _ in range(FIXED_FLEETS):
            if high - low <= 1:
                break
            middle = min(max(guess, low + 1), high - 1)
            evidence = self._try(self._counts_for(np.full(self._slots, middle)))
            if evidence.summary.slo_attainment.both >= self._attainment:
                high = middle
            else:
                low = middle
            guess = (low + min(high, 2 * low + 2)) // 2

    def _trim(self, trims: int) -> None:
        """Take a replica out of a stretch of the cheapest schedule, again and again.

        Long stretches first, then shorter ones. What a stretch without it would miss is known
        roughly from the table; those that would miss least come first.
        """
        generator = np.random.default_rng([self._seed, TRIM_DRAW])
        for trial in range(trims):
            longest = max(2, round(self._slots * 0.5 ** (1 + 5 * trial / trims)))
            if self._own is None:
                return
            before = self._own[1]
            counts = before.copy()
            variant = int(generator.integers(len(self._sizes)))
            begin = self._best_stretch(counts, longest, generator)
            stretch = slice(begin, begin + longest)
            least = self._setup.variants[variant].minimum_replicas
            counts[stretch, variant] = np.maximum(counts[stretch, variant] - 1, least)
            if (counts != before).any():
                self._try(counts)

    def _best_stretch(
        self, counts: NDArray[np.int64], length: int, generator: np.random.Generator
    ) -> int:
        """Return where one replica fewer is likely to be missed least, of a few places drawn."""
        misses = self._table.estimate()
        slots, total = np.arange(self._slots), counts.sum(axis=1)
        harm = misses[slots, np.maximum(total - 1, 0)] - misses[slots, total]
        harm = np.where(total > 1, harm, np.inf)
        places = generator.integers(0, max(1, self._slots - length + 1), 4)
        return int(min(places, key=lambda place: harm[place : place + length].mean()))

    def _refine(self, caution: float) -> Evidence:
        return self._try(self._plan_for_budget(self._budget * caution))

    def _try(self, counts: NDArray[np.int64]) -> Evidence:
        """Run a schedule and learn from it."""
        controller = ScheduleController(counts, self._slot_seconds)
        evidence = gather_evidence(simulate(self._setup, self._trace, controller, seed=self._seed))
        self.learn(evidence)
        rank = _rank(self._judge(evidence))
        if self._own is None or rank < self._own[0]:
            self._own = (rank, counts)
        return evidence

    def _offer(self, evidence: Evidence) -> None:
        candidate = self._judge(evidence)
        if self.best is None or _rank(candidate) < _rank(self.best):
            self.best = candidate

    def _judge(self, evidence: Evidence) -> Found:
        summary = evidence.summary
        is_feasible = summary.slo_attainment.both >= self._attainment and (
            summary.flex_attainment is None or summary.flex_attainment >= self._attainment
        )
        return Found(evidence, is_feasible)

    def _adjust_flex(self, summary: RunSummary) -> None:
        """Pay for idle capacity until it holds the flex work, and no longer than that."""
        if summary.flex_attainment is None:
            return
        price = min(variant.price.at(0.0) for variant in self._setup.variants)
        step = price * self._slot_seconds / SECONDS_PER_HOUR / 8
        if summary.flex_attainment < self._attainment:
            self._flex_reward += step
        else:
            self._flex_reward = max(0.0, self._flex_reward - step / 4)

    def _offered_load(self) -> NDArray[np.float64]:
        """Return busy replicas per slot, decoding spread over the time it takes."""
        trace, service = self._trace, self._setup.variants[0].service
        keep = self._is_interactive
        work = service.request_work_seconds(trace.input_tokens[keep], trace.output_tokens[keep])
        pace = service.step_time_seconds(decoding=service.maximum_requests)
        start = trace.arrival_seconds[keep]
        end = start + np.maximum(trace.output_tokens[keep] * pace, self._setup.tick_seconds)
        return spread_work(work, start, end, self._slot_seconds, self._slots)

    def _counts_for_load(self, factor: float) -> NDArray[np.int64]:
        return self._counts_for(np.maximum(np.ceil(self._load * factor), 1).astype(np.int64))

    def _counts_for(self, left: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return so many replicas per slot, of the cheapest variants that have them."""
        counts = np.zeros((self._slots, len(self._sizes)), np.int64)
        limits = self._limits()
        order = np.argsort([variant.price.at(0.0) for variant in self._setup.variants])
        for variant in order:
            counts[:, variant] = np.minimum(left, limits[:, variant])
            left = left - counts[:, variant]
        minimum = np.array([variant.minimum_replicas for variant in self._setup.variants])
        counts = np.maximum(counts, minimum)
        # Nothing is given back before a first start can have replaced it.
        warming = math.ceil(
            max(v.cold_start.median_seconds for v in self._setup.variants) / self._slot_seconds
        )
        counts[:warming] = np.maximum(counts[:warming], self._initial)
        return np.asarray(counts)

    def _limits(self) -> NDArray[np.int64]:
        """Return how many replicas of each variant each slot allows.

        Before a first start can have been of use there are those that were there at the start.
        """
        limits = np.tile(np.array(self._sizes) - 1, (self._slots, 1))
        end = self._slots * self._slot_seconds
        for index, variant in enumerate(self._setup.variants):
            if variant.supply is not None:
                for change in build_changes(variant.supply, end):
                    slot = int(change.at_seconds / self._slot_seconds)
                    available = min(change.available_replicas, self._sizes[index] - 1)
                    limits[slot, index] = min(limits[slot, index], available)
                    limits[slot + 1 :, index] = available
            first_start_seconds = float(variant.cold_start.draw(self._seed, index)[0])
            warming = math.ceil(first_start_seconds / self._slot_seconds)
            limits[:warming, index] = np.minimum(limits[:warming, index], self._initial[index])
        return limits

    def _slot_costs(self, miss_price: float) -> NDArray[np.float64]:
        misses = self._table.estimate()
        axes = np.meshgrid(*(np.arange(size) for size in self._sizes), indexing="ij")
        total = sum(axes)
        costs = miss_price * misses[:, total]
        middles = (np.arange(self._slots) + 0.5) * self._slot_seconds
        limits = self._limits()
        shape = (self._slots, *(1,) * len(self._sizes))
        for index, variant in enumerate(self._setup.variants):
            prices = np.array([variant.price.at(at) for at in middles]).reshape(shape)
            costs = costs + axes[index] * prices * (self._slot_seconds / SECONDS_PER_HOUR)
            too_many = axes[index] > limits[:, index].reshape(shape)
            too_few = axes[index] < variant.minimum_replicas
            costs[too_many | too_few] = np.inf
        if self._flex_reward > 0.0:
            idle = np.maximum(total - self._load.reshape(shape), 0.0)
            costs = costs - self._flex_reward * np.minimum(idle, self._load.max())
        return np.asarray(costs)

    def _switching(self) -> list[SwitchingCost]:
        return [
            SwitchingCost(
                start=variant.price.at(0.0) * variant.cold_start.median_seconds / SECONDS_PER_HOUR,
                stop=variant.price.at(0.0) * self._drain_seconds / SECONDS_PER_HOUR,
            )
            for variant in self._setup.variants
        ]

    def _plan_for_budget(self, budget: float) -> NDArray[np.int64]:
        """Return the plan whose predicted misses just fit, by bisecting the price of a miss."""
        misses = self._table.estimate()
        switching = self._switching()
        low, high = 1e-9, 1e3
        chosen: NDArray[np.int64] | None = None
        for _ in range(PRICE_HALVINGS):
            middle = math.sqrt(low * high)
            counts = plan(self._slot_costs(middle), switching, self._initial).counts
            predicted = misses[np.arange(self._slots), counts.sum(axis=1)].sum()
            if predicted <= budget:
                chosen, high = counts, middle
            else:
                low = middle
            if high / low < 1.02:
                break
        if chosen is None:
            chosen = plan(self._slot_costs(high), switching, self._initial).counts
        return chosen


def spread_work(
    work: NDArray[np.float64],
    start_seconds: NDArray[np.float64],
    end_seconds: NDArray[np.float64],
    slot_seconds: float,
    slots: int,
) -> NDArray[np.float64]:
    """Return the mean work under way per slot, each piece spread evenly from start to end."""
    edges: NDArray[np.float64] = np.arange(slots + 1, dtype=np.float64) * slot_seconds
    rate = work / (end_seconds - start_seconds)
    # The integral of the running rate up to each edge, from sorted starts and ends.
    done = _integral(start_seconds, rate, edges) - _integral(end_seconds, rate, edges)
    return np.asarray(np.diff(done) / slot_seconds)


def _integral(
    times: NDArray[np.float64], rates: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the sum of ``rate x (edge - time)`` over all times before each edge."""
    order = np.argsort(times, kind="stable")
    times, rates = times[order], rates[order]
    rate_sums = np.concatenate(([0.0], np.cumsum(rates)))
    moment_sums = np.concatenate(([0.0], np.cumsum(rates * times)))
    places = np.searchsorted(times, edges)
    return np.asarray(edges * rate_sums[places] - moment_sums[places])


def _rank(found: Found) -> tuple[bool, float]:
    if found.is_feasible:
        return (False, found.summary.cost_usd)
    return (True, -found.summary.slo_attainment.both)


def _report(progress: Callable[[float], None] | None, share: float) -> None:
    if progress is not None:
        progress(share)
