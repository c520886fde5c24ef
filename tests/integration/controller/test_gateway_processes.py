"""A sum over gateways is told only while every part of it is known."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from trierarch.adapters.addresses import resolve_addresses
from trierarch.controller.gateways import Gateways

FIRST, SECOND = "127.0.0.1", "127.0.0.2"


def document(arrivals: int) -> dict[str, Any]:
    return {"at": 100.0, "models": {"m": {"arrivals_total": arrivals}}}


class Processes:
    """Gateways at several addresses of one port, which answer what they are told to."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self._servers: list[ThreadingHTTPServer] = []
        self.port = 0
        for address in (FIRST, SECOND):
            server = ThreadingHTTPServer((address, self.port), self._handler(address))
            self.port = server.server_address[1]
            threading.Thread(target=server.serve_forever, daemon=True).start()
            self._servers.append(server)

    def _handler(self, address: str) -> type[BaseHTTPRequestHandler]:
        answers = self.answers

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(address)
                assert self.path == "/api/v1/signals"
                assert self.headers["host"].startswith("gateway.test:")
                self.send_response(503 if answer is None else 200)
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def log_message(self, *_arguments: object) -> None:
                pass

        return Handler

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()


@pytest.fixture
def processes() -> Iterator[Processes]:
    found = Processes()
    yield found
    found.close()


@pytest.mark.allow_hosts([FIRST, SECOND])
def test_the_sum_is_told_only_while_every_part_of_it_is_known(processes: Processes) -> None:
    addresses = [FIRST, SECOND]

    def resolve(host: str, port: int) -> list[str]:
        assert (host, port) == ("gateway.test", processes.port)
        return list(addresses)

    async def play() -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            gateways = Gateways(client, f"http://gateway.test:{processes.port}", resolve)

            async def arrivals() -> tuple[float, int] | None:
                found = await gateways.ask()
                if found is None:
                    return None
                return found["models"]["m"]["arrivals_total"], found["epoch"]

            # The second is still starting: it has taken no request.
            processes.answers[FIRST] = document(10)
            assert await arrivals() == (10, 1)
            processes.answers[SECOND] = document(5)
            assert await arrivals() == (15, 2)
            processes.answers[FIRST] = document(12)
            assert await arrivals() == (17, 2)
            # It has taken requests and says nothing: the sum is unknown, not smaller.
            del processes.answers[SECOND]
            assert await arrivals() is None
            # A new process at the old address begins to count at zero.
            processes.answers[SECOND] = document(1)
            assert await arrivals() == (13, 3)
            addresses.remove(SECOND)
            assert await arrivals() == (12, 4)

    asyncio.run(play())


def test_an_address_is_its_own_only_address() -> None:
    assert resolve_addresses("127.0.0.1", 9090) == ["127.0.0.1"]
    assert len(resolve_addresses("localhost", 9090)) == 1


def test_a_name_that_nobody_knows_tells_nothing() -> None:
    async def ask() -> object:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await Gateways(client, "http://no-such-name.invalid:9090").ask()

    assert asyncio.run(ask()) is None
