"""Every address of the controller's name is told, and one that is gone holds up no other."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from trierarch.core.clock import SystemClock
from trierarch.serving.announcing import AnnouncementTarget, Announcer
from trierarch.testing.waiting import wait_until

NAME = "controller.test"

pytestmark = pytest.mark.allow_hosts(["127.0.0.1", "127.0.0.2", "127.0.0.3"])


@contextlib.contextmanager
def controller(address: str, port: int = 0) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Yield the port of a controller on this address and what it is told."""
    heard: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            heard.append({**json.loads(body), "to": self.headers["host"]})
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer((address, port), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1], heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_every_address_of_the_name_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    with controller("127.0.0.1") as (port, first), controller("127.0.0.3", port) as (_, second):
        look_up = socket.getaddrinfo

        def resolve(host: str, *arguments: Any, **options: Any) -> list[Any]:
            if host != NAME:
                return list(look_up(host, *arguments, **options))
            # Nothing listens on the second one.
            addresses = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in addresses]

        monkeypatch.setattr("trierarch.adapters.addresses.socket.getaddrinfo", resolve)
        target = AnnouncementTarget(url=f"http://{NAME}:{port}/a", token_file=str(token))
        announcer = Announcer(target, lambda: {"state": "ready"}, SystemClock())
        announcer.start()
        try:
            wait_until(lambda: bool(first and second), timeout_seconds=30)
        finally:
            announcer.close()
    assert first[0] == second[0] == {"state": "ready", "to": f"{NAME}:{port}"}
