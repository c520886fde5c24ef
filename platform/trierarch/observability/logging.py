"""Log lines as JSON objects, one per line, with the ids that join them to traces.

Keys of tenants are never logged: code logs the public key id, and as a second
lock the formatter blanks anything that looks like a bearer token.
"""

from __future__ import annotations

import logging
import re
import sys
from typing import Any, TextIO

import orjson

from trierarch.core.clock import utc_datetime

_STANDARD_FIELDS = frozenset(
    vars(logging.LogRecord("", 0, "", 0, "", None, None)).keys()
    | {"message", "asctime", "taskName"}
)
_SECRET = re.compile(r"(?i)\b(bearer\s+|x-api-key:?\s*|sk-|trk_[0-9a-f]+_)[\w.~+/=-]{4,}")


def redact(text: str) -> str:
    """Return the text with anything that looks like a key blanked."""
    return _SECRET.sub(lambda match: match.group(1) + "[redacted]", text)


def format_time(unix_seconds: float) -> str:
    """Return RFC 3339 UTC with milliseconds."""
    return utc_datetime(unix_seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; ``extra`` fields become members."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line without its newline."""
        line: dict[str, Any] = {
            "time": format_time(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redact(record.getMessage()),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD_FIELDS:
                line[name] = redact(value) if isinstance(value, str) else value
        if record.exc_info:
            line["exception"] = redact(self.formatException(record.exc_info))
        return orjson.dumps(line, default=str).decode()


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Send every logger of the process to one JSON stream (standard error by default)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers[:] = []
        logger.propagate = True
    # Their ordinary lines are about themselves, not about the service.
    for name in ("uvicorn", "alembic"):
        logging.getLogger(name).setLevel("WARNING")
