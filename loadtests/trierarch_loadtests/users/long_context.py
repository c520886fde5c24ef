"""A user who pastes a document and wants it summarised: long prompt, short answer."""

from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.users.chat import chat_request
from trierarch_loadtests.users.request import PreparedRequest
from trierarch_loadtests.workloads.prompts import SUMMARY_INSTRUCTION


def long_context_request(planned: PlannedRequest, *, model: str, seed: int) -> PreparedRequest:
    """Return a chat completion over a long document."""
    return chat_request(planned, model=model, seed=seed, instruction=SUMMARY_INSTRUCTION)
