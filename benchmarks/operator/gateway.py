"""A gateway at which a few requests of every model wait, as the operator asks it for signals."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ARRIVALS_PER_SECOND = 2.0


def signals(models: Sequence[str], at_unix_seconds: float) -> dict[str, Any]:
    """Return the document of the admin port's ``/api/v1/signals`` at a time."""
    arrivals = round(at_unix_seconds % 1e6 * ARRIVALS_PER_SECOND)
    entry: dict[str, Any] = {
        "arrivals_total": arrivals,
        "completed_total": arrivals,
        "ended_total": {},
        "tokens_total": {"input": 100 * arrivals, "output": 50 * arrivals},
        "waiting": {"priority": 0, "default": 2, "flex": 0},
        "waiting_tokens": {"priority": 0, "default": 200, "flex": 0},
        "in_flight": 3,
        "queue_wait_seconds": None,
        "ttft_seconds": None,
        "tpot_seconds": None,
    }
    return {"at": at_unix_seconds, "models": dict.fromkeys(models, entry)}


@contextlib.contextmanager
def running_gateway(models: Sequence[str]) -> Iterator[str]:
    """Answer until the block ends; yield the base address."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps(signals(models, time.time())).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
