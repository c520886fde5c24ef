"""The usage spool: finished requests are safe on disk before the ledger has them.

``record`` only appends to a list. One thread writes what has gathered and syncs it, so
a record is durable a few milliseconds later; another one reads durable lines back and
settles them in the ledger. The ledger may be locked, lost or slow: records wait on disk.
After a crash the next process settles what is left, and because the ledger knows each
request id, settling a record twice changes nothing.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
from collections import deque
from pathlib import Path
from typing import Protocol

from trierarch.adapters.spool_files import (
    Segment,
    SpoolFolder,
    count_lines,
    encode,
    read_chunk,
    write_all,
)
from trierarch.core.clock import Clock
from trierarch.core.errors import TrierarchError, Unavailable
from trierarch.core.usage import UsageRecord

logger = logging.getLogger(__name__)

GROUP_SECONDS = 0.01
"""How long records gather before one sync serves them all."""

BATCH_LINES = 500
"""Records per settlement; a few tens of milliseconds of the ledger's one writer."""

SETTLE_SECONDS = 0.2
"""Pause between settlements that do not fill a batch: each is a synced transaction."""

SEGMENT_BYTES = 4 * 1024 * 1024
"""Some ten thousand records: what a restart settles again at most, per segment left."""

FIRST_RETRY_SECONDS = 0.1
"""After the first failure; doubles up to ``LAST_RETRY_SECONDS``."""

LAST_RETRY_SECONDS = 5.0
"""A ledger that comes back is noticed within this time."""


class UsageLedger(Protocol):
    """What the spool needs of the ledger."""

    def record_usage(self, records: list[UsageRecord]) -> int:
        """Add records and return how many were new; adding one twice changes nothing."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class SpoolStatus:
    """Counters of a spool since it was opened.

    Attributes:
        recorded: Records accepted.
        durable: Of these, how many are on disk.
        replayed: Lines that an earlier process left.
        settled: Lines, replayed ones included, that the ledger has or had already.
        new: Of the settled, how many the ledger did not know.
        rejected: Records that the ledger refused; they are in ``rejected.txt``.
        damaged_lines: Lines that could not be read; a torn last line after a crash is one.
        write_failures: Times the disk refused.
        settle_failures: Times the ledger did not answer.
        last_failure: The latest of either, for people; empty if the last try worked.
        oldest_pending_seconds: Age of the oldest record of this process that is not
            settled; 0 if there is none.
        is_alive: Whether both threads run.
    """

    recorded: int
    durable: int
    replayed: int
    settled: int
    new: int
    rejected: int
    damaged_lines: int
    write_failures: int
    settle_failures: int
    last_failure: str
    oldest_pending_seconds: float
    is_alive: bool

    @property
    def pending(self) -> int:
        """Lines accepted or found that are not dealt with."""
        return self.recorded + self.replayed - self.settled - self.rejected - self.damaged_lines


_Line = tuple[float, bytes]
"""When a record was accepted, and its line."""


class UsageSpool:
    """A ``UsageSink`` that loses nothing once it is durable and counts nothing twice.

    Attributes:
        identity: Name of the folder, the same for every process that takes it.
    """

    def __init__(
        self,
        directory: Path,
        ledger: UsageLedger,
        clock: Clock,
        *,
        group_seconds: float = GROUP_SECONDS,
        settle_seconds: float = SETTLE_SECONDS,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        """Take the folder and start; what an earlier process left is settled first.

        Args:
            directory: One folder per process; on a local disk.
            ledger: Where records go.
            clock: Tells the age of what is pending.
            group_seconds: How long records gather before they are synced.
            settle_seconds: Pause between settlements that do not fill a batch.
            segment_bytes: Size at which a new segment begins.

        Raises:
            Unavailable: If the folder belongs to a running process or cannot be used.
        """
        self._folder = SpoolFolder(directory)
        self._ledger = ledger
        self._clock = clock
        self._group_seconds = group_seconds
        self._settle_seconds = settle_seconds
        self._segment_bytes = segment_bytes

        # Everything below is guarded by one lock, under which no I/O happens. The writer
        # has its own condition, so that a record wakes one thread and only if it sleeps.
        lock = threading.Lock()
        self._arrived = threading.Condition(lock)
        self._changed = threading.Condition(lock)
        self._waiting: list[_Line] = []
        self._flushing = 0
        self._pending_since: deque[float] = deque()
        self._segments: deque[Segment] = deque()
        self._closing = False
        self._abandoned = False
        self._writer_done = False
        self._recorded = self._durable = self._replayed = 0
        self._settled = self._new = self._rejected = self._damaged = 0
        self._write_failures = self._settle_failures = 0
        self._write_failure = self._settle_failure = ""

        try:
            self.identity = self._folder.identity()
            self._segments.extend(self._folder.old_segments())
            self._replayed = sum(count_lines(segment) for segment in self._segments)
        except OSError as error:
            self._folder.release()
            raise Unavailable(
                f"the usage spool {directory} cannot be read: {error.strerror}"
            ) from error
        if self._replayed:
            logger.info("usage spool %s: settling %d earlier records", directory, self._replayed)
        self._writer = threading.Thread(target=self._write, name="usage spool writer", daemon=True)
        self._settler = threading.Thread(
            target=self._settle, name="usage spool settler", daemon=True
        )
        self._writer.start()
        self._settler.start()

    # For callers

    def record(self, usage: UsageRecord) -> None:
        """Accept a record; does no I/O.

        Raises:
            InvalidInput: If a name in it is no text that can be stored.
            Unavailable: If the spool is closed.
        """
        line = encode(usage)
        with self._arrived:
            if self._closing:
                raise Unavailable("the usage spool is closed and takes no more records")
            self._waiting.append((self._clock.monotonic_seconds(), line))
            self._recorded += 1
            if len(self._waiting) == 1:
                self._arrived.notify_all()

    def status(self) -> SpoolStatus:
        """Return the counters."""
        with self._changed:
            oldest = self._pending_since[0] if self._pending_since else None
            if oldest is None and self._waiting:
                oldest = self._waiting[0][0]
            age = 0.0 if oldest is None else self._clock.monotonic_seconds() - oldest
            return SpoolStatus(
                recorded=self._recorded,
                durable=self._durable,
                replayed=self._replayed,
                settled=self._settled,
                new=self._new,
                rejected=self._rejected,
                damaged_lines=self._damaged,
                write_failures=self._write_failures,
                settle_failures=self._settle_failures,
                last_failure=self._write_failure or self._settle_failure,
                oldest_pending_seconds=age,
                is_alive=self._writer.is_alive() and self._settler.is_alive(),
            )

    @property
    def settled_records(self) -> int:
        """How many of the records accepted here the ledger has; in the order they came."""
        with self._changed:
            # What an earlier process left is settled first.
            return max(0, self._done() - self._replayed)

    @property
    def has_replayed(self) -> bool:
        """Whether what earlier processes left is dealt with."""
        with self._changed:
            return self._done() >= self._replayed

    def wait_durable(self, timeout_seconds: float) -> bool:
        """Wait until everything recorded so far is on disk and return whether it is."""
        with self._changed:
            goal = self._recorded
            return self._changed.wait_for(lambda: self._durable >= goal, timeout_seconds)

    def flush(self, timeout_seconds: float) -> bool:
        """Wait until everything recorded so far is in the ledger and return whether it is."""
        with self._changed:
            goal = self._recorded + self._replayed
            self._flushing += 1
            self._changed.notify_all()
            try:
                return self._changed.wait_for(lambda: self._done() >= goal, timeout_seconds)
            finally:
                self._flushing -= 1

    def close(self, timeout_seconds: float = 10.0) -> bool:
        """Accept no more, make everything durable, and settle what can be settled in time.

        What cannot stays on disk for the next process. Closing twice is harmless.

        Returns:
            Whether the ledger has everything.
        """
        with self._changed:
            already_closed = self._closing
            self._closing = True
            self._changed.notify_all()
            self._arrived.notify_all()
        if already_closed:
            self._settler.join()
            return self._done_all()
        self._settler.join(timeout_seconds)
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()
        self._writer.join()
        self._settler.join()
        self._folder.release()
        return self._done_all()

    def _done(self) -> int:
        return self._settled + self._rejected + self._damaged

    def _done_all(self) -> bool:
        with self._changed:
            return self._done() == self._recorded + self._replayed

    # The writer

    def _write(self) -> None:
        segment: Segment | None = None
        file = -1
        retry_seconds = FIRST_RETRY_SECONDS
        try:
            while (group := self._next_group()) is not None:
                content = b"".join(line for _, line in group)
                while True:
                    try:
                        if segment is None:
                            segment, file = self._folder.create_segment()
                            self._add_segment(segment)
                        write_all(file, content)
                        os.fsync(file)
                    except OSError as error:
                        # After a failed sync nobody knows what is on disk: the same records
                        # go to a new segment, and this one counts up to the last good sync.
                        self._write_failed(error)
                        if segment is not None:
                            self._end_segment(segment, file)
                            segment = None
                        if self._pause(retry_seconds):
                            self._given_up(len(group), error)
                            return
                        retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)
                    else:
                        break
                retry_seconds = FIRST_RETRY_SECONDS
                self._written(segment, len(content), [since for since, _ in group])
                if segment.durable_bytes >= self._segment_bytes:
                    self._end_segment(segment, file)
                    segment = None
        finally:
            if segment is not None:
                self._end_segment(segment, file)
            with self._changed:
                self._writer_done = True
                self._changed.notify_all()

    def _next_group(self) -> list[_Line] | None:
        """Wait for records, let more gather, take them; None when all is written."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._waiting or self._closing)
            # Closing ends the wait, so that a shutdown is not slowed down.
            self._arrived.wait_for(lambda: self._closing, self._group_seconds)
            group, self._waiting = self._waiting, []
            return group or None

    def _add_segment(self, segment: Segment) -> None:
        with self._changed:
            self._segments.append(segment)

    def _written(self, segment: Segment, length_bytes: int, since: list[float]) -> None:
        with self._changed:
            segment.durable_bytes += length_bytes
            self._durable += len(since)
            self._pending_since.extend(since)
            self._write_failure = ""
            self._changed.notify_all()

    def _end_segment(self, segment: Segment, file: int) -> None:
        os.close(file)
        with self._changed:
            segment.writable = False
            self._changed.notify_all()

    def _write_failed(self, error: OSError) -> None:
        logger.error("usage spool %s: cannot write: %s", self._folder.path, error.strerror)
        with self._changed:
            self._write_failures += 1
            self._write_failure = f"the usage spool cannot be written: {error.strerror}"

    def _given_up(self, records: int, error: OSError) -> None:
        with self._changed:
            records += len(self._waiting)
        logger.critical(
            "usage spool %s: closed while the disk refused, %d records are lost: %s",
            self._folder.path,
            records,
            error.strerror,
        )

    def _pause(self, seconds: float) -> bool:
        """Wait before another try and return whether to give up instead."""
        with self._changed:
            return self._changed.wait_for(lambda: self._abandoned, seconds)

    # The settler

    def _settle(self) -> None:
        retry_seconds = FIRST_RETRY_SECONDS
        while (segment := self._next_segment()) is not None:
            try:
                lines = self._settle_some(segment)
            except (TrierarchError, OSError) as error:
                self._settle_failed(str(error))
                if self._pause(retry_seconds):
                    return
                retry_seconds = min(2 * retry_seconds, LAST_RETRY_SECONDS)
            else:
                retry_seconds = FIRST_RETRY_SECONDS
                if 0 < lines < BATCH_LINES:
                    self._let_gather()

    def _let_gather(self) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._flushing or self._closing or self._abandoned, self._settle_seconds
            )

    def _next_segment(self) -> Segment | None:
        """Wait for a segment with something to do; None when all is done or given up."""

        def ready() -> bool:
            first = self._segments[0] if self._segments else None
            has_work = first is not None and (
                first.settled_bytes < first.durable_bytes or not first.writable
            )
            return has_work or self._writer_done or self._abandoned

        with self._changed:
            self._changed.wait_for(ready)
            if self._abandoned or not self._segments:
                return None
            return self._segments[0]

    def _settle_some(self, segment: Segment) -> int:
        """Settle a batch, or remove the segment if everything in it is settled.

        Returns:
            How many lines were dealt with.

        Raises:
            Unavailable: If the ledger does not answer; the batch is tried again.
            OSError: If the disk does not answer; likewise.
        """
        with self._changed:
            snapshot = dataclasses.replace(segment)
        if snapshot.settled_bytes >= snapshot.durable_bytes:
            if not snapshot.writable:
                self._folder.discard(snapshot)
                with self._changed:
                    self._segments.popleft()
            return 0
        chunk = read_chunk(snapshot, BATCH_LINES)
        new, rejected = self._record(list(chunk.records))
        if chunk.damaged_lines:
            logger.error(
                "usage spool %s: %d lines of %s cannot be read%s",
                self._folder.path,
                chunk.damaged_lines,
                snapshot.path.name,
                ", the last one was torn by a crash" if chunk.torn else "",
            )
        with self._changed:
            segment.settled_bytes = chunk.end_bytes
            # A torn last line is what a crash leaves; anything else is kept for a person.
            segment.damaged_lines += chunk.damaged_lines - chunk.torn
            self._settled += len(chunk.records) - rejected
            self._new += new
            self._rejected += rejected
            self._damaged += chunk.damaged_lines
            self._settle_failure = ""
            self._forget_ages()
            self._changed.notify_all()
        return chunk.lines

    def _forget_ages(self) -> None:
        own = self._done() - self._replayed
        pending = self._durable - max(0, own)
        while len(self._pending_since) > pending:
            self._pending_since.popleft()

    def _record(self, records: list[UsageRecord]) -> tuple[int, int]:
        """Give records to the ledger and return how many were new and how many refused.

        Raises:
            Unavailable: If the ledger does not answer.
            OSError: If refused records cannot be set aside.
        """
        if not records:
            return 0, 0
        try:
            return self._ledger.record_usage(records), 0
        except Unavailable:
            raise
        except TrierarchError as error:
            if len(records) == 1:
                reason = f"# {error}\n".encode()
                self._folder.append_rejected([reason, encode(records[0])])
                logger.error("usage spool: the ledger refused a record: %s", error)
                return 0, 1
        # One bad record must not keep the others back.
        middle = len(records) // 2
        first_new, first_rejected = self._record(records[:middle])
        second_new, second_rejected = self._record(records[middle:])
        return first_new + second_new, first_rejected + second_rejected

    def _settle_failed(self, reason: str) -> None:
        with self._changed:
            self._settle_failures += 1
            first = not self._settle_failure
            self._settle_failure = reason
        if first:
            logger.warning("usage spool: records wait on disk: %s", reason)
