"""A stand-in for Ray, the controller or the gateway; run by path.

``standin.py PORT MODE``: serves what the supervisor asks of all three. MODE is
``serve``, ``crash`` (ends at once with code 3), ``unready`` (never ready) or
``stubborn``. It has a child in a session of its own, which in the last mode ignores
SIGTERM, as engines may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHILD = "import os, signal, time; os.setsid(); {more}; time.sleep(600)"
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN)"
USAGE = {
    "prompt_tokens": 7,
    "completion_tokens": 3,
    "cost": {"amount": "0.000012", "currency": "USD"},
}


class Handler(BaseHTTPRequestHandler):
    is_ready = True

    def do_GET(self) -> None:
        model = {"name": "stand-in", "desired": 1, "ready": int(self.is_ready), "message": ""}
        self.answer(json.dumps({"phase": "serving", "models": [model], "failed": None}).encode())

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        chunks = [
            {"choices": [{"delta": {"content": "Par"}}]},
            {"choices": [{"delta": {"content": "is."}}]},
            {"choices": [], "usage": USAGE},
        ]
        lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
        self.answer("".join([*lines, "data: [DONE]\n\n"]).encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main(port: int, mode: str) -> None:
    print(f"stand-in {os.getpid()} {mode}", flush=True)
    if mode == "crash":
        sys.exit(3)
    child = CHILD.format(more=STUBBORN if mode == "stubborn" else "pass")
    subprocess.Popen([sys.executable, "-I", "-S", "-c", child])
    Handler.is_ready = mode != "unready"
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
