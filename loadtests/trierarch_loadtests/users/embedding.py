"""A search index that embeds passages; sent only to a server that has embeddings."""

import json

from trierarch_loadtests.plan import PlannedRequest
from trierarch_loadtests.users.request import PreparedRequest, prefix_of
from trierarch_loadtests.workloads.prompts import prose
from trierarch_loadtests.workloads.seeds import stream

EMBEDDINGS_PATH = "/embeddings"


def embedding_request(planned: PlannedRequest, *, model: str, seed: int) -> PreparedRequest:
    """Return one passage to embed."""
    text = prose(stream(seed, "prompt", planned.index), planned.input_tokens)
    if prefix := prefix_of(planned, seed):
        text = f"{prefix} {text}"
    body = {"model": model, "input": text, **planned.entry.extra_body}
    return PreparedRequest(EMBEDDINGS_PATH, json.dumps(body).encode(), stream=False)
