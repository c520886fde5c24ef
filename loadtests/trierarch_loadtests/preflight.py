"""Before the first request: is the endpoint there, what does it serve, what is it?

Everything that can be wrong with an address or a key is found here and said in
one line, instead of as a thousand failed requests.
"""

import dataclasses
import json
from collections.abc import Callable

from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.exchange import Endpoint, Exchange, exchange
from trierarch_loadtests.users.embedding import EMBEDDINGS_PATH

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class EndpointClient:
    """Small requests outside the load: models, version, account."""

    endpoint: Endpoint
    now: Callable[[], float]

    def get(self, path: str) -> Exchange:
        """Send a GET to a path of the API."""
        return self._send("GET", self.endpoint.target(path), None)

    def get_outside_api(self, target: str) -> Exchange:
        """Send a GET to a path beside the API."""
        return self._send("GET", target, None)

    def post(self, path: str, body: dict[str, object]) -> Exchange:
        """Send a POST with a JSON body to a path of the API."""
        return self._send("POST", self.endpoint.target(path), json.dumps(body).encode())

    def _send(self, method: str, target: str, payload: bytes | None) -> Exchange:
        return exchange(
            self.endpoint,
            method,
            target,
            payload,
            connect_seconds=CONNECT_SECONDS,
            silence_seconds=SILENCE_SECONDS,
            now=self.now,
        )


def discover_model(client: EndpointClient, wanted: str | None) -> tuple[str, str | None]:
    """Return the model to ask for, and a note if it was a choice among several.

    Raises:
        UsageError: If the endpoint cannot be reached, rejects the key, or has no such model.
    """
    where = client.endpoint.base_url
    done = client.get("/models")
    if done.status is None:
        raise UsageError(f"cannot reach {where}: {done.failure}; is the server up?")
    if done.status in (401, 403):
        raise UsageError(f"{where} rejects the API key (status {done.status}); set OPENAI_API_KEY")
    if done.status != 200 or done.failure is not None:
        raise UsageError(f"{where}/models answers status {done.status}; is this an OpenAI API?")
    try:
        models = [str(entry["id"]) for entry in json.loads(done.body)["data"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where}/models is not a list of models") from error
    if wanted is not None:
        if wanted not in models:
            raise UsageError(f"{where} does not serve {wanted!r}; it has {', '.join(models)}")
        return wanted, None
    if not models:
        raise UsageError(f"{where} serves no model")
    note = f"first of {len(models)} models: {', '.join(models)}" if len(models) > 1 else None
    return models[0], note


def probe_embeddings(client: EndpointClient, model: str) -> str | None:
    """Return why the endpoint cannot embed, or ``None`` if it can."""
    done = client.post(EMBEDDINGS_PATH, {"model": model, "input": "sea"})
    if done.status == 200 and done.failure is None:
        return None
    return f"POST /v1/embeddings: {done.failure or f'status {done.status}'}"


def read_engine_version(client: EndpointClient) -> str | None:
    """Return the version that a bare engine tells at ``/version``, if it does."""
    done = client.get_outside_api("/version")
    if done.status != 200:
        return None
    try:
        return f"{json.loads(done.body)['version']} (GET /version)"
    except (ValueError, KeyError, TypeError):
        return None
