"""Write the files that tell a client where a cluster is and who asks."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from tests.cluster.certificates import KeyPair


def write_kubeconfig(
    path: Path,
    *,
    server: str,
    authority: bytes,
    client: KeyPair | None = None,
    token: str | None = None,
    namespace: str = "default",
) -> Path:
    """Write a kubeconfig that needs no other file, readable by its owner only.

    Args:
        path: The file to write.
        server: Address of the API server.
        authority: PEM of the authority that signs the server's certificate.
        client: Who asks, by certificate.
        token: Who asks, by token.
        namespace: Where commands without a namespace work.
    """
    user: dict[str, str] = {}
    if client is not None:
        user["client-certificate-data"] = _encode(client.certificate.read_bytes())
        user["client-key-data"] = _encode(client.key.read_bytes())
    if token is not None:
        user["token"] = token
    cluster = {"server": server, "certificate-authority-data": _encode(authority)}
    context = {"cluster": "test", "user": "test", "namespace": namespace}
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": context}],
        "current-context": "test",
    }
    path.touch(mode=0o600)
    # JSON is YAML that needs no library.
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path


def _encode(content: bytes) -> str:
    return base64.b64encode(content).decode()
