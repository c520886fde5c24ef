"""A program that continues a text: the older completions interface."""

from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.users.request import PreparedRequest, generation, prefix_of
from trierarch_loadtests.workloads.prompts import prose
from trierarch_loadtests.workloads.seeds import stream


def completion_request(planned: PlannedRequest, *, model: str, seed: int) -> PreparedRequest:
    """Return a text completion."""
    prompt = prose(stream(seed, "prompt", planned.index), planned.input_tokens)
    if prefix := prefix_of(planned, seed):
        prompt = f"{prefix} {prompt}"
    return generation(planned, "/completions", {"model": model, "prompt": prompt})
