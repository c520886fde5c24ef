"""Who takes part in a comparison, and with which settings."""

from __future__ import annotations

from collections.abc import Sequence

from trierarch.core.errors import InvalidInput
from trierarch.simulation.policies import CLAIRVOYANT, OURS, registry
from trierarch.simulation.runs import DEFAULT, SWEPT, TUNED, Contestant
from trierarch.simulation.scenarios import Scenario
from trierarch.simulation.tuning import Tuning

NEVER_TUNED = (OURS, CLAIRVOYANT)
"""Ours has to hold with what an operator writes down; the schedule has nothing to tune."""


def choose_contestants(names: Sequence[str] | None) -> list[Contestant]:
    """Return the contestants asked for; a tuned one still without its setting.

    Args:
        names: Registry names, with ``:tuned`` for a tuned setting; None takes all of both.

    Raises:
        InvalidInput: If a name is unknown or cannot be tuned.
    """
    entries = registry()
    if names is None:
        names = [name for name in entries if name != CLAIRVOYANT]
        names += [f"{name}:{TUNED}" for name in names if name not in NEVER_TUNED]
    chosen: list[Contestant] = []
    for text in names:
        name, _, setting = text.partition(":")
        if name not in entries:
            raise InvalidInput(f"no policy {name!r}; there are {', '.join(sorted(entries))}")
        if setting == "":
            chosen.append(Contestant(name, DEFAULT))
        elif setting == TUNED and name not in NEVER_TUNED:
            chosen.append(Contestant(name, TUNED))
        elif setting == TUNED:
            raise InvalidInput(f"policy {name} is not tuned; name it without ':{TUNED}'")
        else:
            raise InvalidInput(f"policy {name} has no setting {setting!r}; there is {TUNED!r}")
    return list(dict.fromkeys(chosen))


def tuned_policies(contestants: Sequence[Contestant]) -> list[str]:
    """Return the policies that have to be tuned."""
    return [contestant.policy for contestant in contestants if contestant.setting == TUNED]


def with_tuning(contestants: Sequence[Contestant], tuning: Tuning) -> list[Contestant]:
    """Return the contestants with their settings; where the default is the best, it stays so."""
    filled: list[Contestant] = []
    for contestant in contestants:
        if contestant.setting == TUNED:
            options = tuning.best(contestant.policy)
            filled.append(Contestant(contestant.policy, TUNED, options))
        else:
            filled.append(contestant)
    return filled


def with_curves(
    contestants: Sequence[Contestant], scenario: Scenario, tuning: Tuning | None
) -> list[Contestant]:
    """Return the contestants and further settings of theirs, for curves and for hindsight.

    Those are what came next in the tuning, and our own sweep.
    """
    taken = {(contestant.policy, contestant.options) for contestant in contestants}
    more: list[Contestant] = []
    for policy in dict.fromkeys(contestant.policy for contestant in contestants):
        if policy == OURS:
            settings = [tuple(options) for options in registry()[policy].sweep(scenario)]
        else:
            settings = list(tuning.settings.get(policy, ())) if tuning is not None else []
        more += [
            Contestant(policy, SWEPT, options)
            for options in settings
            if (policy, options) not in taken
        ]
    return [*contestants, *more]
