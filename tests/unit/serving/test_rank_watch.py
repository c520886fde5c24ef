"""When a rank of a group counts as lost."""

from __future__ import annotations

import pytest
from ray.exceptions import GetTimeoutError, RayActorError

from trierarch.serving.expert_group import RankWatch


class Rank:
    """Answers as it is told."""

    def __init__(self) -> None:
        self.answer: int | Exception | None = None

    def ask(self) -> int | None:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def test_a_rank_that_has_not_started_is_waited_for() -> None:
    rank = Rank()
    watch = RankWatch(rank.ask)
    rank.answer = GetTimeoutError("timed out")
    assert (watch.look(), watch.has_answered) == ("", False)
    rank.answer = None
    assert (watch.look(), watch.has_answered) == ("", True)


def test_a_rank_that_has_answered_and_falls_silent_is_lost() -> None:
    rank = Rank()
    watch = RankWatch(rank.ask)
    assert watch.look() == ""
    rank.answer = GetTimeoutError("timed out")
    assert "timed out" in watch.look()


@pytest.mark.parametrize("has_answered", [True, False])
def test_a_rank_that_is_gone_or_has_ended_is_lost(has_answered: bool) -> None:
    rank = Rank()
    watch = RankWatch(rank.ask, has_answered)
    rank.answer = RayActorError()
    assert "cannot be asked" in watch.look()
    rank.answer = 1
    assert watch.look() == "ended with exit code 1"
