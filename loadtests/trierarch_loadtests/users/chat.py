"""A user who asks for a story: short prompt, long streamed answer."""

from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.users.request import PreparedRequest, generation, prefix_of
from trierarch_loadtests.workloads.prompts import STORY_INSTRUCTION, instruct
from trierarch_loadtests.workloads.seeds import stream


def chat_request(
    planned: PlannedRequest, *, model: str, seed: int, instruction: str = STORY_INSTRUCTION
) -> PreparedRequest:
    """Return a chat completion; a shared prefix becomes the system message."""
    generator = stream(seed, "prompt", planned.index)
    prompt = instruct(instruction, generator, planned.input_tokens)
    messages = [{"role": "user", "content": prompt}]
    if prefix := prefix_of(planned, seed):
        messages.insert(0, {"role": "system", "content": prefix})
    return generation(planned, "/chat/completions", {"model": model, "messages": messages})
