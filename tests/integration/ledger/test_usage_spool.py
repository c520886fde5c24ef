"""The usage spool with a real disk, a real ledger, and processes that die."""

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from trierarch.adapters.ledger import Ledger
from trierarch.adapters.spool_files import encode
from trierarch.adapters.usage_spool import UsageSpool
from trierarch.core.clock import SystemClock
from trierarch.core.errors import InvalidInput, Unavailable
from trierarch.core.quantities import TokenCounts

MAX_DURABLE_SECONDS = 0.05
"""What the spool promises on a disk that syncs in a few milliseconds."""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def database(migrated_sqlite_url):
    ledger = Ledger.open(migrated_sqlite_url, SystemClock(), busy_seconds=0.2)
    yield ledger
    ledger.close()


def segments(folder):
    return sorted(path.name for path in folder.glob("*.jsonl"))


def ids(sqlite_url):
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"))
    try:
        return [row[0] for row in connection.execute("SELECT request_id FROM usage")]
    finally:
        connection.close()


def test_records_reach_the_ledger(folder, database, usage):
    spool = UsageSpool(folder, database, SystemClock())
    for number in range(1234):
        spool.record(usage(f"q{number}"))
    assert spool.flush(30)
    assert database.tenant_usage("a").requests == 1234
    status = spool.status()
    assert (status.recorded, status.durable, status.settled, status.new) == (1234,) * 4
    assert (status.pending, status.oldest_pending_seconds) == (0, 0.0)
    assert status.is_alive
    assert spool.close()
    assert segments(folder) == [], "nothing is left to replay"


def test_recording_does_no_io_and_a_record_is_durable_soon(folder, database, usage):
    spool = UsageSpool(folder, database, SystemClock())
    record_seconds, durable_seconds = [], []
    for number in range(60):
        started = time.perf_counter()
        spool.record(usage(f"q{number}"))
        record_seconds.append(time.perf_counter() - started)
        assert spool.wait_durable(5)
        durable_seconds.append(time.perf_counter() - started)
    spool.close()
    assert sorted(record_seconds)[30] < 0.001
    assert sorted(durable_seconds)[30] < MAX_DURABLE_SECONDS


def test_what_is_durable_is_really_in_the_file(folder, database, usage):
    with_lock = sqlite3.connect(database.name, isolation_level=None)
    with_lock.execute("BEGIN IMMEDIATE")
    spool = UsageSpool(folder, database, SystemClock())
    spool.record(usage("q1"))
    assert spool.wait_durable(5)
    (name,) = segments(folder)
    assert (folder / name).read_bytes() == encode(usage("q1"))
    assert (folder / name).stat().st_mode & 0o077 == 0
    with_lock.execute("ROLLBACK")
    with_lock.close()
    assert spool.close()


def test_locked_ledger_makes_records_wait_not_vanish(folder, database, usage):
    other = sqlite3.connect(database.name, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    spool = UsageSpool(folder, database, SystemClock())
    spool.record(usage("q1"))
    assert spool.wait_durable(5), "durable all the same"
    assert not spool.flush(0.6)
    status = spool.status()
    assert status.settle_failures >= 1
    assert "is locked by another process" in status.last_failure
    assert status.pending == 1
    assert status.oldest_pending_seconds > 0.5
    other.execute("ROLLBACK")
    other.close()
    assert spool.flush(20)
    assert spool.status().last_failure == ""
    assert database.tenant_usage("a").requests == 1
    spool.close()


class ReadOnlyForAWhile:
    """A ledger whose file goes read-only and comes back."""

    def __init__(self, ledger):
        self.ledger = ledger
        self.is_read_only = True

        self.message = ""

    def record_usage(self, records):
        with self.ledger._database._engine.connect() as connection:
            connection.exec_driver_sql(f"PRAGMA query_only = {int(self.is_read_only)}")
        try:
            return self.ledger.record_usage(records)
        except Unavailable as error:
            self.message = str(error)
            raise


def test_read_only_ledger_makes_records_wait_not_vanish(folder, database, usage):
    ledger = ReadOnlyForAWhile(database)
    spool = UsageSpool(folder, ledger, SystemClock())
    spool.record(usage("q1"))
    assert not spool.flush(0.4)
    assert "is read-only; make it writable" in ledger.message
    ledger.is_read_only = False
    assert spool.flush(20)
    assert database.tenant_usage("a").requests == 1
    spool.close()


def test_what_could_not_be_settled_waits_for_the_next_process(folder, database, usage):
    other = sqlite3.connect(database.name, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    spool = UsageSpool(folder, database, SystemClock())
    spool.record(usage("q1"))
    assert not spool.close(0.3), "says that the ledger does not have everything"
    other.execute("ROLLBACK")
    other.close()
    following = UsageSpool(folder, database, SystemClock())
    assert following.status().replayed == 1
    assert following.flush(20)
    assert database.tenant_usage("a").requests == 1
    assert following.close()
    assert segments(folder) == []


def test_replaying_what_the_ledger_has_already_counts_nothing_twice(folder, database, usage):
    database.record_usage([usage("q1")])
    folder.mkdir()
    (folder / "000000000001.jsonl").write_bytes(encode(usage("q1")) + encode(usage("q2")))
    spool = UsageSpool(folder, database, SystemClock())
    assert spool.flush(20)
    status = spool.status()
    assert (status.replayed, status.settled, status.new) == (2, 2, 1)
    assert database.tenant_usage("a").requests == 2
    spool.close()


def test_torn_last_line_is_left_out_and_reported(folder, database, usage, caplog):
    folder.mkdir()
    (folder / "000000000001.jsonl").write_bytes(encode(usage("q1")) + encode(usage("q2"))[:-30])
    spool = UsageSpool(folder, database, SystemClock())
    assert spool.flush(20)
    assert spool.status().damaged_lines == 1
    assert spool.close()
    assert database.tenant_usage("a").requests == 1
    assert "the last one was torn by a crash" in caplog.text
    assert list(folder.glob("*.damaged")) == []


def test_file_with_damage_in_the_middle_is_kept_for_a_person(folder, database, usage):
    folder.mkdir()
    content = encode(usage("q1")) + b"rubbish\n" + encode(usage("q2"))
    (folder / "000000000001.jsonl").write_bytes(content)
    spool = UsageSpool(folder, database, SystemClock())
    assert spool.flush(20)
    assert spool.close()
    assert database.tenant_usage("a").requests == 2
    (kept,) = folder.glob("*.damaged")
    assert kept.read_bytes() == content


def test_record_the_ledger_refuses_does_not_keep_the_others_back(folder, database, usage):
    spool = UsageSpool(folder, database, SystemClock())
    for number in range(10):
        spool.record(usage(f"q{number}"))
    spool.record(usage("bad", tokens=TokenCounts(2**63)))
    spool.record(usage("last"))
    assert spool.flush(20)
    status = spool.status()
    assert (status.rejected, status.settled) == (1, 11)
    assert spool.close()
    assert sorted(ids(f"sqlite:///{database.name}")) == sorted(
        [*(f"q{number}" for number in range(10)), "last"]
    )
    reason, line = (folder / "rejected.txt").read_text().splitlines()
    assert "refused an entry" in reason
    assert json.loads(line)["usage"]["request_id"] == "bad"


def test_record_that_cannot_be_written_down_is_refused_at_once(folder, database, usage):
    spool = UsageSpool(folder, database, SystemClock())
    with pytest.raises(InvalidInput, match="cannot be stored"):
        spool.record(usage("q1", model="\ud800"))
    assert spool.close()


def test_segments_are_changed_when_full_and_removed_when_settled(folder, database, usage):
    spool = UsageSpool(folder, database, SystemClock(), segment_bytes=2000, group_seconds=0.001)
    for number in range(40):
        spool.record(usage(f"q{number}"))
        assert spool.wait_durable(5)
    assert spool.flush(20)
    assert spool.close()
    assert database.tenant_usage("a").requests == 40
    assert segments(folder) == []


def test_two_processes_cannot_share_a_folder(folder, database):
    spool = UsageSpool(folder, database, SystemClock())
    with pytest.raises(Unavailable, match="belongs to a running process"):
        UsageSpool(folder, database, SystemClock())
    spool.close()
    UsageSpool(folder, database, SystemClock()).close()


def test_folder_that_cannot_be_used_says_so(tmp_path, database):
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be used"):
        UsageSpool(tmp_path / "file", database, SystemClock())


def test_closed_spool_takes_nothing_and_closing_twice_is_harmless(folder, database, usage):
    spool = UsageSpool(folder, database, SystemClock())
    spool.record(usage("q1"))
    assert spool.close()
    assert spool.close()
    with pytest.raises(Unavailable, match="is closed"):
        spool.record(usage("q2"))
    assert database.tenant_usage("a").requests == 1


def test_records_from_many_threads_all_count(folder, database, usage):
    spool = UsageSpool(folder, database, SystemClock())

    def record(thread):
        for number in range(200):
            spool.record(usage(f"{thread}-{number}"))

    threads = [threading.Thread(target=record, args=(n,)) for n in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert spool.close(30)
    assert database.tenant_usage("a").requests == 1000


# A disk that refuses: RLIMIT_FSIZE makes the kernel itself refuse to grow a file.

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from trierarch.adapters.ledger import Ledger
from trierarch.adapters.spool_files import decode
from trierarch.adapters.usage_spool import UsageSpool
from trierarch.core.clock import SystemClock

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

class Nowhere:
    def record_usage(self, records):
        return 0

folder, template = Path(sys.argv[1]), decode(Path(sys.argv[2]).read_bytes())
spool = UsageSpool(folder, Nowhere(), SystemClock())
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
spool.record(template)
assert not spool.wait_durable(0.5)
failures = spool.status().write_failures
assert failures >= 1, failures
assert "cannot be written" in spool.status().last_failure
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
assert spool.wait_durable(20)
assert spool.status().last_failure == ""
assert spool.flush(20)
print("settled", spool.status().settled)
assert spool.close()
"""


def test_full_disk_makes_records_wait_in_memory(folder, tmp_path, usage):
    template = tmp_path / "template"
    template.write_bytes(encode(usage("q1")).removesuffix(b"\n"))
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, folder, template],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stdout == "settled 1\n", result.stderr


# Processes that die

GATEWAY = """
import dataclasses, itertools, os, signal, sys
from pathlib import Path
from trierarch.adapters import spool_files, usage_spool
from trierarch.adapters.ledger import Ledger
from trierarch.core.clock import SystemClock

folder, url, template, name, die_in_write = sys.argv[1:]
if die_in_write == "yes":
    def write_half(file, content):
        if len(content) > 1500:
            os.write(file, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        spool_files.write_all(file, content)
    usage_spool.write_all = write_half
record = spool_files.decode(Path(template).read_bytes())
spool = usage_spool.UsageSpool(
    Path(folder), Ledger.open(url, SystemClock()), SystemClock(), segment_bytes=20_000
)
for number in itertools.count():
    request_id = f"{name}-{number}"
    print("recorded", request_id, flush=True)
    spool.record(dataclasses.replace(record, request_id=request_id))
    if number % 7 == 0:
        assert spool.wait_durable(10)
        print("durable", request_id, flush=True)
"""


def run_gateway_until_killed(folder, url, template, name, output, *, seconds=None):
    """Run a process that records as fast as it can; kill it after a while or let it die."""
    die_in_write = "yes" if seconds is None else "no"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", GATEWAY, folder, url, template, name, die_in_write],
            stdout=file,
        )
    try:
        if seconds is not None:
            deadline = time.monotonic() + 60
            while f"recorded {name}-0".encode() not in output.read_bytes():
                assert time.monotonic() < deadline
                assert process.poll() is None
                time.sleep(0.01)
            time.sleep(seconds)
            process.kill()
        assert process.wait(60) == -signal.SIGKILL
    finally:
        process.kill()
        process.wait()


def read_outputs(outputs):
    """Return which requests the processes had begun to record and which were durable."""
    recorded, durable = set(), set()
    for output in outputs:
        # A kill may tear the last line (the kernel copies page by page): what follows the last
        # line break was never said, and the process did nothing after it.
        lines = output.read_text().rpartition("\n")[0].splitlines()
        recorded |= {line.removeprefix("recorded ") for line in lines if line.startswith("r")}
        said_durable = [line for line in lines if line.startswith("durable ")]
        if said_durable:
            # Everything this process recorded until here is durable.
            name, _, number = said_durable[-1].removeprefix("durable ").rpartition("-")
            durable |= {f"{name}-{n}" for n in range(int(number) + 1)}
    return recorded, durable


def test_killed_gateways_lose_nothing_durable_and_double_nothing(
    folder, sqlite_url, tmp_path, usage
):
    pauses_seconds = [0.05, 0.4, None, 0.8, 0.13, None]
    template = tmp_path / "template"
    template.write_bytes(encode(usage("q1")).removesuffix(b"\n"))
    outputs = [tmp_path / f"output-{number}" for number in range(len(pauses_seconds))]
    # Without a pause the process dies by itself, with half of a group written.
    for number, (seconds, output) in enumerate(zip(pauses_seconds, outputs, strict=True)):
        run_gateway_until_killed(
            folder, sqlite_url, template, f"g{number}", output, seconds=seconds
        )
    ledger = Ledger.open(sqlite_url, SystemClock())
    spool = UsageSpool(folder, ledger, SystemClock())
    assert spool.flush(60)
    assert spool.status().damaged_lines >= 1, "the last process died in the middle of a line"
    assert spool.close()

    recorded, durable = read_outputs(outputs)
    in_ledger = ids(sqlite_url)
    assert len(durable) > 30, "the test did something"
    assert len(in_ledger) == len(set(in_ledger))
    assert durable <= set(in_ledger) <= recorded
    total = ledger.tenant_usage("a")
    assert total.requests == len(in_ledger)
    assert str(total.spend) == f"{len(in_ledger) / 1000:.3f}"
    ledger.close()


def test_failed_sync_is_not_trusted(folder, database, usage, monkeypatch):
    """After a failed fsync the kernel may drop the pages: only a new file can be trusted."""
    real_fsync = os.fsync
    failing = [True]

    def fsync(file):
        if failing and Path(f"/proc/self/fd/{file}").resolve().suffix == ".jsonl":
            failing.pop()
            raise OSError(errno.EIO, "Input/output error")
        real_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    spool = UsageSpool(folder, database, SystemClock())
    spool.record(usage("q1"))
    assert spool.wait_durable(10)
    assert spool.status().write_failures == 1
    assert spool.flush(20)
    assert spool.close()
    assert database.tenant_usage("a").requests == 1
