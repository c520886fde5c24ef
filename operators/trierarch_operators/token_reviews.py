"""Whether an announcement comes from an engine pod: its token is asked about, and remembered.

Pods bring the token of their service account for our audience; the API server tells
whose it is. No secret has to be made, copied or rotated for that.
"""

from __future__ import annotations

import hashlib
import logging

from trierarch.adapters.kubernetes import TOKEN_REVIEWS, KubernetesApi
from trierarch.core.clock import Clock
from trierarch.core.errors import TrierarchError
from trierarch_operators.labels import TOKEN_AUDIENCE

_logger = logging.getLogger(__name__)

REMEMBERED_SECONDS = 60.0
"""A token of a pod that was deleted is believed this long at most."""

_MOST_REMEMBERED = 10_000


class TokenReviewer:
    """Checks bearer tokens.

    Args:
        api: The API server.
        service_account: Name of the account that engine pods run as.
        clock: Time.
    """

    def __init__(self, api: KubernetesApi, service_account: str, clock: Clock) -> None:
        self._api = api
        self._service_account = service_account
        self._clock = clock
        self._known: dict[bytes, tuple[float, bool]] = {}

    async def authenticate(self, header: str) -> bool:
        """Return whether an ``authorization`` header is an engine pod's."""
        scheme, _, token = header.partition(" ")
        if scheme != "Bearer" or not token:
            return False
        digest = hashlib.sha256(token.encode()).digest()
        now_seconds = self._clock.monotonic_seconds()
        known = self._known.get(digest)
        if known is not None and now_seconds - known[0] < REMEMBERED_SECONDS:
            return known[1]
        try:
            is_ours = await self._review(token)
        except TrierarchError as error:
            # The API server is away: who was believed before is believed on.
            _logger.warning("a token could not be reviewed: %s", error)
            return known is not None and known[1]
        if len(self._known) >= _MOST_REMEMBERED:
            self._known.clear()
        self._known[digest] = (now_seconds, is_ours)
        return is_ours

    async def _review(self, token: str) -> bool:
        review = await self._api.create(
            TOKEN_REVIEWS,
            "",
            {
                "apiVersion": TOKEN_REVIEWS.api_version,
                "kind": "TokenReview",
                "spec": {"token": token, "audiences": [TOKEN_AUDIENCE]},
            },
        )
        status = review.get("status", {})
        name = str(status.get("user", {}).get("username", ""))
        account = name.removeprefix("system:serviceaccount:").partition(":")[2]
        return bool(status.get("authenticated")) and account == self._service_account
