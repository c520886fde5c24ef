"""The usage spool on disk: checked lines in append-only segments.

A segment is written by one process and never appended to by another one. Each line is
``{"checksum":"CRC32","usage":{...}}``: a line that was torn by a crash is recognised
and left out, every line before it counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import os
import uuid
import zlib
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson

from trierarch.core.errors import InvalidInput, Unavailable
from trierarch.core.identifiers import (
    HolderId,
    KeyId,
    ModelName,
    ReplicaId,
    RequestId,
    TenantId,
    VariantName,
)
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier, UsageRecord

SEGMENT_SUFFIX = ".jsonl"
"""Segments are JSON lines; any tool can read them."""

_HEAD = b'{"checksum":"'
_MIDDLE = b'","usage":'
_CHECKSUM_LENGTH = 8
_BODY_AT = len(_HEAD) + _CHECKSUM_LENGTH + len(_MIDDLE)


def encode(record: UsageRecord) -> bytes:
    """Return a record as one line with its checksum.

    Raises:
        InvalidInput: If a name is no text that can be stored.
    """
    try:
        body = _body(record)
    except orjson.JSONEncodeError as error:
        raise InvalidInput(f"usage of '{record.request_id!a}' cannot be stored: {error}") from error
    return _framed(body) + b"\n"


def _framed(body: bytes) -> bytes:
    return b"%s%08x%s%s}" % (_HEAD, zlib.crc32(body), _MIDDLE, body)


def _body(record: UsageRecord) -> bytes:
    return orjson.dumps(
        {
            "request_id": record.request_id,
            "tenant": record.tenant,
            "key_id": record.key_id,
            "model": record.model,
            "variant": record.variant,
            "tier": record.tier.value,
            "input_tokens": record.tokens.input_tokens,
            "cached_tokens": record.tokens.cached_tokens,
            "output_tokens": record.tokens.output_tokens,
            "reasoning_tokens": record.tokens.reasoning_tokens,
            "outcome": record.outcome.value,
            "charge": f"{record.charge.amount:f}",
            "currency": record.charge.currency,
            "replica_id": record.replica_id,
            "started_unix_seconds": record.started_unix_seconds,
            "finished_unix_seconds": record.finished_unix_seconds,
            "trace_id": record.trace_id,
            "holder": record.holder,
        }
    )


def decode(line: bytes) -> UsageRecord | None:
    """Return the record of a line without its newline, or None if the line is damaged."""
    body = line[_BODY_AT:-1]
    if line != _framed(body):
        return None
    try:
        fields: dict[str, Any] = orjson.loads(body)
        return UsageRecord(
            request_id=RequestId(fields["request_id"]),
            tenant=TenantId(fields["tenant"]),
            key_id=KeyId(fields["key_id"]),
            model=ModelName(fields["model"]),
            variant=VariantName(fields["variant"]),
            tier=ServiceTier(fields["tier"]),
            tokens=TokenCounts(
                fields["input_tokens"],
                fields["cached_tokens"],
                fields["output_tokens"],
                fields["reasoning_tokens"],
            ),
            outcome=Outcome(fields["outcome"]),
            charge=Money(Decimal(fields["charge"]), fields["currency"]),
            replica_id=ReplicaId(fields["replica_id"]),
            started_unix_seconds=fields["started_unix_seconds"],
            finished_unix_seconds=fields["finished_unix_seconds"],
            trace_id=fields["trace_id"],
            # Lines of before there were leases have none.
            holder=HolderId(fields.get("holder", "")),
        )
    except (ValueError, KeyError, TypeError, ArithmeticError):
        return None


@dataclasses.dataclass(slots=True)
class Segment:
    """One file of the spool.

    Attributes:
        durable_bytes: How much of it is known to be on disk.
        settled_bytes: How much of it the ledger has.
        writable: Whether this process still appends to it.
        damaged_lines: Lines that could not be read.
    """

    path: Path
    durable_bytes: int = 0
    settled_bytes: int = 0
    writable: bool = False
    damaged_lines: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Chunk:
    """Some lines of a segment.

    Attributes:
        end_bytes: Where the next chunk begins.
        lines: How many, damaged ones included.
        torn: Whether the segment ends in the middle of the last one.
    """

    records: tuple[UsageRecord, ...]
    end_bytes: int
    lines: int
    torn: bool

    @property
    def damaged_lines(self) -> int:
        """Lines that are no records."""
        return self.lines - len(self.records)


def read_chunk(segment: Segment, max_lines: int) -> Chunk:
    """Return the next lines after ``settled_bytes``.

    Raises:
        OSError: If the file cannot be read.
    """
    records: list[UsageRecord] = []
    position = segment.settled_bytes
    lines = 0
    torn = False
    with segment.path.open("rb") as file:
        file.seek(position)
        while lines < max_lines and position < segment.durable_bytes:
            line = file.readline(segment.durable_bytes - position)
            if not line:
                break
            position += len(line)
            lines += 1
            torn = not line.endswith(b"\n")
            record = None if torn else decode(line[:-1])
            if record is not None:
                records.append(record)
    return Chunk(tuple(records), position, lines, torn)


def count_lines(segment: Segment) -> int:
    """Return how many lines a segment has, a torn one included.

    Raises:
        OSError: If the file cannot be read.
    """
    with segment.path.open("rb") as file:
        return sum(1 for _ in file)


class SpoolFolder:
    """The folder of one spool, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Create the folder if needed and take it.

        Raises:
            Unavailable: If another process has it, or it cannot be written.
        """
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock_file = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise Unavailable(f"the usage spool {path} cannot be used: {error.strerror}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_file)
            if error.errno not in {errno.EACCES, errno.EAGAIN}:
                raise Unavailable(
                    f"the usage spool {path} cannot be locked: {error.strerror}"
                ) from error
            raise Unavailable(
                f"the usage spool {path} belongs to a running process; give each its own folder"
            ) from None
        self._sequence = max(self._numbers(), default=0)

    def _numbers(self) -> Iterator[int]:
        for path in self.path.glob(f"*{SEGMENT_SUFFIX}"):
            if path.stem.isdigit():
                yield int(path.stem)

    def identity(self) -> str:
        """Return the folder's own name, made when it is first asked for and kept ever after.

        Raises:
            OSError: If it cannot be read or written.
        """
        path = self.path / "identity"
        with contextlib.suppress(FileNotFoundError):
            if known := path.read_text().strip():
                return known
        name = uuid.uuid4().hex
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(file, f"{name}\n".encode())
            os.fsync(file)
        finally:
            os.close(file)
        self.sync()
        return name

    def old_segments(self) -> list[Segment]:
        """Return what earlier processes left, oldest first."""
        paths = [self._segment_path(number) for number in sorted(self._numbers())]
        return [Segment(path, durable_bytes=path.stat().st_size) for path in paths]

    def _segment_path(self, number: int) -> Path:
        return self.path / f"{number:012d}{SEGMENT_SUFFIX}"

    def create_segment(self) -> tuple[Segment, int]:
        """Create an empty segment and return it with its open file.

        Raises:
            OSError: If that fails.
        """
        self._sequence += 1
        path = self._segment_path(self._sequence)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        file = os.open(path, flags, 0o600)
        try:
            self.sync()
        except OSError:
            os.close(file)
            raise
        return Segment(path, writable=True), file

    def sync(self) -> None:
        """Make the names in the folder durable.

        Raises:
            OSError: If that fails.
        """
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def append_rejected(self, lines: Sequence[bytes]) -> None:
        """Keep lines that the ledger refused, for a person to look at.

        Raises:
            OSError: If that fails.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        file = os.open(self.path / "rejected.txt", flags, 0o600)
        try:
            write_all(file, b"".join(lines))
            os.fsync(file)
        finally:
            os.close(file)

    def discard(self, segment: Segment) -> None:
        """Remove a segment that the ledger has; a damaged one is set aside instead.

        Raises:
            OSError: If that fails.
        """
        if segment.damaged_lines:
            segment.path.rename(segment.path.with_suffix(".damaged"))
        else:
            segment.path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let another process have the folder."""
        os.close(self._lock_file)


def write_all(file: int, content: bytes) -> None:
    """Write everything, however many calls it takes.

    Raises:
        OSError: If a part cannot be written; the file may hold some of it.
    """
    view = memoryview(content)
    while view:
        view = view[os.write(file, view) :]
