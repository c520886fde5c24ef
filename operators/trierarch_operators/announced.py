"""What replicas say of themselves, found by the address of their pod."""

from __future__ import annotations

from collections.abc import Iterable

from trierarch.controller.replica_records import Announcement

FORGET_SECONDS = 120.0
"""A replica that says nothing for so long is gone: it speaks every second while it lives."""


class AnnouncementBook:
    """The last words of every replica, by the address it listens on."""

    def __init__(self) -> None:
        self._by_host: dict[str, Announcement] = {}

    def add(self, announcement: Announcement) -> bool:
        """Keep an announcement; return whether the replica's state is another than before."""
        host = announcement.endpoint.host
        if not host:
            return False
        before = self._by_host.get(host)
        self._by_host[host] = announcement
        said = announcement.endpoint
        return before is None or (before.endpoint.state, before.endpoint.reason) != (
            said.state,
            said.reason,
        )

    def at(self, hosts: Iterable[str]) -> list[Announcement]:
        """Return what is said from these addresses."""
        return [found for host in hosts if (found := self._by_host.get(host)) is not None]

    def forget(self, now_seconds: float) -> None:
        """Drop what was said too long ago."""
        for host, announcement in list(self._by_host.items()):
            if now_seconds - announcement.heard_seconds > FORGET_SECONDS:
                del self._by_host[host]
