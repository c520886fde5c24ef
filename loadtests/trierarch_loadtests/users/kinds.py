"""The kinds of users by the name that a scenario gives them."""

from collections.abc import Mapping
from typing import Protocol

from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.scenario import RequestKind
from trierarch_loadtests.users.chat import chat_request
from trierarch_loadtests.users.completion import completion_request
from trierarch_loadtests.users.embedding import embedding_request
from trierarch_loadtests.users.long_context import long_context_request
from trierarch_loadtests.users.request import PreparedRequest


class BuildRequest(Protocol):
    """Makes the request of one kind of user."""

    def __call__(self, planned: PlannedRequest, *, model: str, seed: int) -> PreparedRequest:
        """Return the request; the same arguments give the same bytes."""
        ...


KINDS: Mapping[RequestKind, BuildRequest] = {
    "chat": chat_request,
    "completion": completion_request,
    "long_context": long_context_request,
    "embedding": embedding_request,
}
