"""A key for the default tenant, in a file that any OpenAI client can use."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import TenantId
from trierarch.embedded.checks import LOCALHOST
from trierarch.embedded.folder import write_private

if TYPE_CHECKING:
    from trierarch.adapters.ledger import Ledger

TENANT = TenantId("default")
"""Pays for what is asked with the file's key."""


def parse_client_env(text: str) -> dict[str, str]:
    """Return the variables of a ``NAME=VALUE`` file."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def write_client_env(path: Path, ledger: Ledger, port: int, run_id: str) -> str:
    """Write the file, keep its key while that works, and return the key.

    Args:
        path: The file.
        ledger: Knows which keys work.
        port: Data port of the gateway.
        run_id: Tells the names of keys apart.
    """
    from trierarch.adapters.ledger import key_sha256

    try:
        key = parse_client_env(path.read_text(encoding="utf-8")).get("OPENAI_API_KEY", "")
    except FileNotFoundError:
        key = ""
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error.strerror}") from error
    if not key or key_sha256(key) not in ledger.live_keys():
        key, _ = ledger.create_key(TENANT, f"client.env {run_id}", actor="trierarch up")
    write_private(path, f"OPENAI_BASE_URL=http://{LOCALHOST}:{port}/v1\nOPENAI_API_KEY={key}\n")
    return key
