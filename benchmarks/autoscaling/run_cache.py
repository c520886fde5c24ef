"""Keeps runs on disk, so that a benchmark that was stopped goes on where it was.

A run is named by everything it depends on: the requests, the fleet, the policy
with its settings, the seed, and the sources that produced it. Sources of the
peers and of ours count apart: a change of our policy repeats our runs only. For
tuning the peers' own sources count alone: a setting found with an older
simulator is still one found on the training half, and it is judged by a new run.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Iterable
from pathlib import Path

import trierarch
from trierarch.simulation.clairvoyant.evidence import Evidence
from trierarch.simulation.policies import OURS
from trierarch.simulation.runs import Task
from trierarch.simulation.scenarios import Scenario

PACKAGE = Path(trierarch.__file__).parent
PEER_SOURCES = ("autoscaling/policies", "simulation/peers.py")
SIMULATOR_SOURCES = (
    *PEER_SOURCES,
    "simulation/engine",
    "simulation/fleet",
    "simulation/observing.py",
    "simulation/service.py",
    "simulation/sizing.py",
    "simulation/summary.py",
    "simulation/clairvoyant/evidence.py",
    "autoscaling/signals.py",
)
OUR_SOURCES = (*SIMULATOR_SOURCES, "autoscaling", "simulation/controllers.py", "hardware", "cost")
DIGEST_LENGTH = 24


class DiskCache:
    """Runs in a folder, one file each."""

    def __init__(self, folder: Path, sources: Iterable[str] = SIMULATOR_SOURCES) -> None:
        self._folder = folder
        self._peers_digest = digest_of_sources(sources)
        self._our_digest = digest_of_sources(OUR_SOURCES)
        self._scenarios: list[tuple[Scenario, str]] = []

    def load(self, scenario: Scenario, task: Task) -> Evidence | None:
        """Return an earlier result of the same run, or None."""
        path = self._path(scenario, task)
        if not path.exists():
            return None
        # The folder is this benchmark's own; nothing from elsewhere is ever put there.
        evidence: Evidence = pickle.loads(path.read_bytes())  # noqa: S301  # our own folder
        return evidence

    def save(self, scenario: Scenario, task: Task, evidence: Evidence) -> None:
        """Keep a result; a process that is killed leaves no half of it."""
        path = self._path(scenario, task)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_bytes(pickle.dumps(evidence))
        partial.replace(path)

    def _path(self, scenario: Scenario, task: Task) -> Path:
        contestant, seed = task
        sources = self._our_digest if contestant.policy == OURS else self._peers_digest
        # The kind matters: the fleet that shows the ceiling begins ready, a swept one does not.
        kind = "ceiling" if contestant.setting == "ceiling" else "run"
        key = repr((kind, contestant.policy, contestant.options, seed, sources))
        name = hashlib.sha256(key.encode()).hexdigest()[:DIGEST_LENGTH]
        return self._folder / self._fingerprint(scenario) / f"{contestant.policy}-{name}.pickle"

    def _fingerprint(self, scenario: Scenario) -> str:
        for known, fingerprint in self._scenarios:
            if known is scenario:
                return fingerprint
        digest = hashlib.sha256(repr(scenario.setup).encode())
        trace = scenario.trace
        for column in (
            trace.arrival_seconds,
            trace.input_tokens,
            trace.output_tokens,
            trace.tiers,
            trace.prefix_block_ids,
            trace.prefix_block_offsets,
        ):
            digest.update(column.tobytes())
        fingerprint = digest.hexdigest()[:DIGEST_LENGTH]
        self._scenarios.append((scenario, fingerprint))
        return fingerprint


def digest_of_sources(places: Iterable[str]) -> str:
    """Return a digest of Python files, given as files or folders of the package."""
    digest = hashlib.sha256()
    for place in sorted(set(places)):
        path = PACKAGE / place
        for source in [path] if path.is_file() else sorted(path.rglob("*.py")):
            digest.update(source.relative_to(PACKAGE).as_posix().encode())
            digest.update(source.read_bytes())
    return digest.hexdigest()[:DIGEST_LENGTH]
