"""Who takes part in a comparison, and with which settings.

Tuned settings come from ``tuned_settings.json``, written by the tuning run on
the training halves; a policy without an entry takes part with its defaults only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from trierarch.core.errors import InvalidInput
from trierarch.simulation.comparison import DEFAULT, SWEPT, TUNED, Contestant
from trierarch.simulation.policies import CLAIRVOYANT, registry
from trierarch.simulation.scenarios import Scenario

TUNED_SETTINGS = Path(__file__).parent / "tuned_settings.json"


def choose_contestants(
    scenario: Scenario, names: Sequence[str] | None, *, is_swept: bool
) -> list[Contestant]:
    """Return the contestants asked for.

    Args:
        scenario: Decides which tuned setting applies.
        names: Registry names, with ``:tuned`` for a tuned setting; None takes all of both.
        is_swept: Add each policy's sweep, for the plot.

    Raises:
        InvalidInput: If a name is unknown or has no tuned setting.
    """
    entries = registry()
    tuned = read_tuned_settings().get(scenario.setup.name, {})
    if names is None:
        names = [name for name in entries if name != CLAIRVOYANT]
        names += [f"{name}:{TUNED}" for name in names if name in tuned]
    chosen: list[Contestant] = []
    for text in names:
        name, _, setting = text.partition(":")
        if name not in entries:
            raise InvalidInput(f"no policy {name!r}; there are {', '.join(sorted(entries))}")
        if setting == "":
            chosen.append(Contestant(name, DEFAULT))
        elif setting == TUNED and name in tuned:
            chosen.append(Contestant(name, TUNED, tuple(sorted(tuned[name].items()))))
        else:
            raise InvalidInput(f"policy {name} has no setting {setting!r} for this fleet")
    if is_swept:
        policies = dict.fromkeys(contestant.policy for contestant in chosen)
        chosen += [
            Contestant(policy, SWEPT, options)
            for policy in policies
            for options in entries[policy].sweep(scenario)
        ]
    return list(dict.fromkeys(chosen))


def read_tuned_settings(
    path: Path = TUNED_SETTINGS,
) -> Mapping[str, Mapping[str, Mapping[str, str]]]:
    """Return options by fleet and policy; empty if nothing was tuned."""
    if not path.exists():
        return {}
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        fleet: {policy: entry["options"] for policy, entry in policies.items()}
        for fleet, policies in document["fleets"].items()
    }
