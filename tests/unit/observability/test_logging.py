"""Log lines as JSON, without secrets, and written off the event loop."""

from __future__ import annotations

import io
import json
import logging
import threading

import pytest

from trierarch.gateway.access_log import AccessEntry, write_access_lines
from trierarch.observability.logging import JsonFormatter, redact
from trierarch.observability.offload import BatchWriter


def formatted(message: str, *args: object, **extra: object) -> dict[str, object]:
    record = logging.LogRecord("l", logging.WARNING, "f", 1, message, args, None)
    record.__dict__.update(extra)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    return json.loads(line)


def test_a_line_is_one_object_with_its_extra_members() -> None:
    line = formatted("a %s\nb", "x", request_id="r", count=3)
    assert line["message"] == "a x\nb"
    assert line["level"] == "warning"
    assert (line["request_id"], line["count"]) == ("r", 3)
    assert str(line["time"]).endswith("Z")


def test_an_exception_is_a_member() -> None:
    try:
        raise ValueError("Bearer abcdefgh")
    except ValueError as error:
        info = (type(error), error, error.__traceback__)
    record = logging.LogRecord("l", logging.ERROR, "f", 1, "failed", (), info)
    line = json.loads(JsonFormatter().format(record))
    assert "ValueError" in line["exception"]
    assert "abcdefgh" not in line["exception"]


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer secret-value-1",
        "authorization: bearer   secret-value-1",
        "x-api-key: secret-value-1",
        "key sk-secret-value-1",
        "key trk_0a1b2c3d4e5f_secret-value-1",
    ],
)
def test_keys_are_blanked(text: str) -> None:
    assert "secret-value-1" not in redact(text)
    assert "secret-value-1" not in json.dumps(formatted(text, header=text))


def test_key_ids_and_ordinary_words_are_not_blanked() -> None:
    text = "key trk_0a1b2c3d4e5f is used by task-list"
    assert redact(text) == text


def entry(**fields: object) -> AccessEntry:
    values: dict[str, object] = {
        "unix_seconds": 0.0,
        "request_id": "req_1",
        "trace_id": "t",
        "method": "POST",
        "path": "/v1/x",
        "status": 200,
        "code": "",
        "peer": "127.0.0.1",
        "duration_seconds": 0.1234567,
        **fields,
    }
    return AccessEntry(**values)  # type: ignore[arg-type]


def test_access_lines_leave_empty_members_out_and_keep_zero_waits() -> None:
    stream = io.BytesIO()
    write_access_lines([entry(), entry(queue_wait_seconds=0.0)], stream)
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first == {
        "time": "1970-01-01T00:00:00.000Z",
        "level": "info",
        "logger": "trierarch.gateway.access",
        "message": "request",
        "request_id": "req_1",
        "trace_id": "t",
        "method": "POST",
        "path": "/v1/x",
        "status": 200,
        "peer": "127.0.0.1",
        "duration_seconds": 0.123457,
    }
    assert second["queue_wait_seconds"] == 0.0


def test_a_batch_writer_writes_everything_in_order_and_ends() -> None:
    written: list[int] = []
    writer: BatchWriter[int] = BatchWriter("test", written.extend)
    writer.start()
    for number in range(1000):
        writer.put(number)
    writer.close()
    assert written == list(range(1000))
    assert not any(thread.name == "test" for thread in threading.enumerate())


def test_a_batch_writer_drops_and_counts_what_does_not_fit() -> None:
    dropped: list[int] = []
    writer: BatchWriter[int] = BatchWriter(
        "test", lambda _batch: None, capacity_entries=2, on_drop=dropped.append
    )
    for number in range(5):
        writer.put(number)
    assert dropped == [1, 1, 1]


def test_a_batch_writer_survives_its_reader(caplog: pytest.LogCaptureFixture) -> None:
    dropped: list[int] = []

    def refuse(_batch: object) -> None:
        raise OSError("full")

    writer: BatchWriter[int] = BatchWriter("test", refuse, on_drop=dropped.append)
    writer.start()
    writer.put(1)
    writer.put(2)
    writer.close()
    assert sum(dropped) == 2
    assert "full" in caplog.text
