"""What the gateway asks on every request, answered from memory.

A thread reads the ledger about once a second; a question never waits for it. While the
ledger does not answer, the last answer holds: serving goes on, and the age says so.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from trierarch.adapters.ledger.ledger import Ledger
from trierarch.core.clock import Clock
from trierarch.core.errors import TrierarchError
from trierarch.core.identifiers import ModelName
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier
from trierarch.cost.rates import RateCard
from trierarch.ports import ApiKey

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 1.0
"""A revoked key lives at most this long, plus one read of the ledger."""

T = TypeVar("T")


class Refreshed(Generic[T]):
    """A value that a background thread keeps fresh."""

    def __init__(self, name: str, load: Callable[[T | None], T], clock: Clock) -> None:
        """Load the value for the first time.

        Args:
            name: What it is, for messages.
            load: Reads the value; gets the one known so far, and may return it.
            clock: Tells the age.

        Raises:
            Unavailable: If the first read fails.
        """
        self._name = name
        self._load = load
        self._clock = clock
        self._reading = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failures = 0
        self._value = load(None)
        self._loaded_monotonic_seconds = clock.monotonic_seconds()

    @property
    def value(self) -> T:
        """The last value that could be read."""
        return self._value

    @property
    def age_seconds(self) -> float:
        """Time since the last read that succeeded."""
        return self._clock.monotonic_seconds() - self._loaded_monotonic_seconds

    def refresh(self) -> bool:
        """Read now and return whether it worked; the last value stays if it did not."""
        with self._reading:
            try:
                self._value = self._load(self._value)
            except TrierarchError as error:
                self._failures += 1
                if self._failures == 1:
                    logger.warning(
                        "%s cannot be refreshed, the last ones hold: %s", self._name, error
                    )
                return False
            if self._failures:
                logger.info("%s are fresh again", self._name)
            self._failures = 0
            self._loaded_monotonic_seconds = self._clock.monotonic_seconds()
            return True

    def start(self, refresh_seconds: float) -> None:
        """Refresh in the background until closed."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, args=(refresh_seconds,), name=f"refresh {self._name}", daemon=True
            )
            self._thread.start()

    def _run(self, refresh_seconds: float) -> None:
        while not self._stopping.wait(refresh_seconds):
            self.refresh()

    def close(self) -> None:
        """Stop the background thread."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None


_Keys = tuple[tuple[int, int], dict[bytes, ApiKey]]


class CachedKeySource:
    """API keys from memory: a ``KeySource``."""

    def __init__(
        self, ledger: Ledger, clock: Clock, *, refresh_seconds: float = REFRESH_SECONDS
    ) -> None:
        """Read all keys once and keep them fresh.

        Raises:
            Unavailable: If the ledger does not answer now.
        """
        self._ledger = ledger
        self._keys: Refreshed[_Keys] = Refreshed("API keys", self._load, clock)
        self._keys.start(refresh_seconds)

    def _load(self, known: _Keys | None) -> _Keys:
        version = self._ledger.keys_version()
        if known is not None and known[0] == version:
            return known
        return version, self._ledger.live_keys()

    def find(self, key_sha256: bytes) -> ApiKey | None:
        """Return the live key with this hash, or None; does no I/O.

        The lookup is by digest: what its time reveals is a part of the hash of a guess,
        from which nobody can work towards the hash of a key.
        """
        _, by_hash = self._keys.value
        return by_hash.get(key_sha256)

    @property
    def age_seconds(self) -> float:
        """Time since the keys were last read."""
        return self._keys.age_seconds

    def refresh(self) -> bool:
        """Read the keys now and return whether it worked."""
        return self._keys.refresh()

    def close(self) -> None:
        """Stop refreshing."""
        self._keys.close()


class CachedRateCard:
    """The rate card from memory: a ``RateCardSource``."""

    def __init__(
        self, ledger: Ledger, clock: Clock, *, refresh_seconds: float = REFRESH_SECONDS
    ) -> None:
        """Read the rates once and keep them fresh.

        Raises:
            Unavailable: If the ledger does not answer now.
        """
        self._card: Refreshed[RateCard] = Refreshed("rates", lambda _: ledger.rate_card(), clock)
        self._card.start(refresh_seconds)

    def charge(
        self,
        model: ModelName,
        tier: ServiceTier,
        tokens: TokenCounts,
        at_unix_seconds: float,
        outcome: Outcome = Outcome.COMPLETED,
    ) -> Money:
        """Return the exact charge by the rates in force at that time; does no I/O.

        Raises:
            RateMissing: If no rate is known; the default card has one for every model.
        """
        return self._card.value.charge(model, tier, tokens, at_unix_seconds, outcome)

    @property
    def age_seconds(self) -> float:
        """Time since the rates were last read."""
        return self._card.age_seconds

    def refresh(self) -> bool:
        """Read the rates now and return whether it worked."""
        return self._card.refresh()

    def close(self) -> None:
        """Stop refreshing."""
        self._card.close()
