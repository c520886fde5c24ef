"""What replicas say of themselves, found by the address of their pod."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trierarch.controller.replica_records import Announcement
from trierarch.core.replicas import ReplicaState

FORGET_SECONDS = 120.0
"""A replica that says nothing for so long is gone: it speaks every second while it lives."""

FAILURE_SECONDS = 900.0
"""How long a failure is told of without another: longer than Ray Serve waits between tries."""


class AnnouncementBook:
    """The last words of every replica, by the address of its pod."""

    def __init__(self) -> None:
        self._last: dict[str, Announcement] = {}
        self._failures: dict[str, Announcement] = {}

    def add(self, announcement: Announcement) -> bool:
        """Keep an announcement; return whether the replica's state is another than before."""
        address = announcement.address
        if not address:
            return False
        before = self._last.get(address)
        self._last[address] = announcement
        said = announcement.endpoint
        # The next try begins seconds after a failure: why the last one failed is told until
        # one succeeds.
        if said.state is ReplicaState.FAILED:
            self._failures[address] = announcement
        elif said.state is ReplicaState.READY:
            self._failures.pop(address, None)
        return before is None or (before.endpoint.state, before.endpoint.reason) != (
            said.state,
            said.reason,
        )

    def at(self, addresses: Iterable[str]) -> list[Announcement]:
        """Return what is said from these addresses."""
        return _found(self._last, addresses)

    def failures_at(self, addresses: Iterable[str]) -> list[Announcement]:
        """Return the last words of replicas that failed there, where none has served since."""
        return _found(self._failures, addresses)

    def forget(self, now_seconds: float) -> None:
        """Drop what was said too long ago."""
        for said, seconds in ((self._last, FORGET_SECONDS), (self._failures, FAILURE_SECONDS)):
            for address, announcement in list(said.items()):
                if now_seconds - announcement.heard_seconds > seconds:
                    del said[address]


def _found(said: Mapping[str, Announcement], addresses: Iterable[str]) -> list[Announcement]:
    return [found for address in addresses if (found := said.get(address)) is not None]
