"""A small OpenAI-compatible server whose every send time is known, and which fails on request.

It speaks HTTP/1.1 on a real socket from a thread of its own, streams one word per
event at a fixed pace, keeps a usage account, and takes the way to behave from the
list it was given, one entry per request (the last one repeats).
"""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

PADDING = "x" * 120
"""Makes an event about 230 bytes long, like a real chat chunk: several fit into 1,024."""


@dataclass
class Served:
    """What the server did for one request; instants of the monotonic clock."""

    behaviour: str
    received_seconds: float
    request: dict[str, Any]
    content_sent_seconds: list[float] = field(default_factory=list)


@dataclass
class PacedServer:
    """How to behave, and what was served."""

    behaviours: list[str] = field(default_factory=lambda: ["stream"])
    first_token_seconds: float = 0.05
    token_seconds: float = 0.02
    api_key: str = "sk-test"
    has_account: bool = True
    has_embeddings: bool = False
    account_error_tokens: int = 0
    """How many output tokens the account forgets: a metering defect."""
    port: int = 0
    served: list[Served] = field(default_factory=list)
    tokens: dict[str, int] = field(
        default_factory=lambda: {"input": 0, "cached": 0, "output": 0, "requests": 0}
    )

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, path, _ = head.split("\r\n", 1)[0].split(" ")
        headers = dict(
            line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line
        )
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("authorization") != f"bearer {self.api_key}":
            await self._json(writer, 401, {"error": {"message": "no", "code": "invalid_api_key"}})
        elif (method, path) == ("GET", "/v1/models"):
            await self._json(writer, 200, {"object": "list", "data": [{"id": "pocket"}]})
        elif (method, path) == ("GET", "/v1/usage") and self.has_account:
            await self._json(writer, 200, self._account())
        elif (method, path) == ("POST", "/v1/embeddings") and self.has_embeddings:
            usage = {"prompt_tokens": 5, "total_tokens": 5}
            self._meter(5, 0, 0)
            await self._json(writer, 200, {"data": [{"embedding": [0.5]}], "usage": usage})
        elif method == "POST" and path in ("/v1/chat/completions", "/v1/completions"):
            await self._generate(writer, json.loads(body), chat="chat" in path)
        else:
            await self._json(writer, 404, {"error": {"message": "no such path", "code": "404"}})

    async def _generate(
        self, writer: asyncio.StreamWriter, request: dict[str, Any], *, chat: bool
    ) -> None:
        behaviour = self.behaviours[min(len(self.served), len(self.behaviours) - 1)]
        served = Served(behaviour, time.perf_counter(), request)
        self.served.append(served)
        if behaviour == "drop":
            return
        if behaviour == "silent":
            await asyncio.sleep(3.0)
            return
        if behaviour == "429":
            error = {"message": "slow down", "code": "rate_limit_exceeded"}
            await self._json(writer, 429, {"error": error})
            return
        if behaviour == "400":
            error = {"message": "too long", "code": "context_length_exceeded"}
            await self._json(writer, 400, {"error": error})
            return
        if behaviour == "500":
            await self._json(writer, 500, {"error": {"message": "oh", "type": "server_error"}})
            return
        output = int(request["max_tokens"])
        usage = {
            "prompt_tokens": 20,
            "completion_tokens": output,
            "prompt_tokens_details": {"cached_tokens": 4},
        }
        if not request.get("stream"):
            await asyncio.sleep(self.token_seconds * output)
            self._meter(20, 4, output)
            await self._json(writer, 200, {"choices": [{"text": "word"}], "usage": usage})
            return
        await self._stream(writer, served, usage, chat=chat, output=output)

    async def _stream(
        self,
        writer: asyncio.StreamWriter,
        served: Served,
        usage: dict[str, Any],
        *,
        chat: bool,
        output: int,
    ) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
            b"x-request-id: req-1\r\nx-trierarch-model-variant: cpu\r\n"
            b"transfer-encoding: chunked\r\n\r\n"
        )
        if chat:
            await self._event(
                writer, {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
            )
        await asyncio.sleep(self.first_token_seconds)
        for index in range(output):
            if index:
                await asyncio.sleep(self.token_seconds)
            if served.behaviour == "break" and index == output // 2:
                return
            if served.behaviour == "error_event" and index == output // 2:
                await self._event(
                    writer, {"error": {"message": "engine died", "code": "upstream_error"}}
                )
                writer.write(b"0\r\n\r\n")
                await writer.drain()
                return
            piece = {"delta": {"content": "word "}} if chat else {"text": "word "}
            served.content_sent_seconds.append(time.perf_counter())
            await self._event(writer, {"id": PADDING, "choices": [{"index": 0, **piece}]})
        if served.behaviour == "no_done":
            writer.write(b"0\r\n\r\n")
            await writer.drain()
            return
        self._meter(20, 4, output)
        await self._event(writer, {"choices": [], "usage": usage, "system_fingerprint": "paced-1"})
        await self._chunk(writer, b"data: [DONE]\n\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    async def _event(self, writer: asyncio.StreamWriter, body: dict[str, Any]) -> None:
        await self._chunk(writer, b"data: " + json.dumps(body).encode() + b"\n\n")

    async def _chunk(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        await writer.drain()

    async def _json(self, writer: asyncio.StreamWriter, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        writer.write(
            b"HTTP/1.1 %d Status\r\ncontent-length: %d\r\n\r\n%b" % (status, len(data), data)
        )
        await writer.drain()

    def _meter(self, input_tokens: int, cached: int, output: int) -> None:
        self.tokens["input"] += input_tokens
        self.tokens["cached"] += cached
        self.tokens["output"] += output - self.account_error_tokens
        self.tokens["requests"] += 1

    def _account(self) -> dict[str, Any]:
        counted = {name: self.tokens[name] for name in ("input", "cached", "output")}
        return {
            "object": "usage",
            "tenant": "default",
            "requests": self.tokens["requests"],
            "tokens": counted,
            "spend": {"amount": f"{counted['output'] * 0.000002:.6f}", "currency": "USD"},
            "budgets": [],
        }


@contextlib.contextmanager
def running(server: PacedServer) -> Iterator[PacedServer]:
    """Serve from a thread until the block ends."""
    ready = threading.Event()
    loop: asyncio.AbstractEventLoop | None = None
    stop: asyncio.Event | None = None

    async def serve() -> None:
        nonlocal loop, stop
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
        server.port = listener.sockets[0].getsockname()[1]
        ready.set()
        await stop.wait()
        listener.close()
        handlers = asyncio.all_tasks() - {asyncio.current_task()}
        for handler in handlers:
            handler.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        await asyncio.sleep(0)  # lets closed transports go

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def serve() -> Iterator[Callable[..., PacedServer]]:
    """Return a function that starts a server; all end with the test."""
    with contextlib.ExitStack() as stack:
        yield lambda **how: stack.enter_context(running(PacedServer(**how)))
