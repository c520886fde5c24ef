"""Lines of the usage spool: what was written comes back, what is damaged does not."""

import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trierarch.adapters.spool_files import Segment, decode, encode, read_chunk
from trierarch.core.errors import InvalidInput
from trierarch.core.identifiers import (
    KeyId,
    ModelName,
    ReplicaId,
    RequestId,
    TenantId,
    VariantName,
)
from trierarch.core.quantities import Money, TokenCounts
from trierarch.core.usage import Outcome, ServiceTier, UsageRecord

RECORD = UsageRecord(
    request_id=RequestId("q1"),
    tenant=TenantId("a"),
    key_id=KeyId("trk_x"),
    model=ModelName("m"),
    variant=VariantName("v"),
    tier=ServiceTier.FLEX,
    tokens=TokenCounts(100, 10, 20, 5),
    outcome=Outcome.ABORTED,
    charge=Money.of("0.000002635375"),
    replica_id=ReplicaId("r1"),
    started_unix_seconds=1_800_000_000.123456,
    finished_unix_seconds=1_800_000_001.5,
    trace_id="0" * 32,
)

NAMES = st.text(st.characters(codec="utf-8"))


@given(NAMES, st.decimals(0, 10**6, places=12), st.floats(0, 4e9))
def test_record_comes_back_as_it_was(name, charge, instant):
    record = dataclasses.replace(
        RECORD, model=ModelName(name), charge=Money(charge), started_unix_seconds=instant
    )
    assert decode(encode(record).removesuffix(b"\n")) == record


@given(st.data())
def test_line_with_any_changed_byte_is_no_record(data):
    line = bytearray(encode(RECORD).removesuffix(b"\n"))
    index = data.draw(st.integers(0, len(line) - 2))
    line[index] ^= data.draw(st.integers(1, 255))
    assert decode(bytes(line)) is None


@given(st.integers(0, len(encode(RECORD)) - 2))
def test_torn_line_is_no_record(length):
    assert decode(encode(RECORD)[:length]) is None


def test_line_is_json_for_other_tools():
    assert json.loads(encode(RECORD))["usage"]["charge"] == "0.000002635375"


def test_record_that_is_no_text_is_refused():
    with pytest.raises(InvalidInput, match="cannot be stored"):
        encode(dataclasses.replace(RECORD, model=ModelName("\ud800")))


def segment(tmp_path, content):
    path = tmp_path / "000000000001.jsonl"
    path.write_bytes(content)
    return Segment(path, durable_bytes=len(content))


def test_chunk_leaves_a_torn_end_out_and_says_so(tmp_path):
    chunk = read_chunk(segment(tmp_path, encode(RECORD) + encode(RECORD)[:-20]), 100)
    assert chunk.records == (RECORD,)
    assert (chunk.lines, chunk.damaged_lines, chunk.torn) == (2, 1, True)


def test_chunk_that_lost_only_its_newline_is_torn(tmp_path):
    chunk = read_chunk(segment(tmp_path, encode(RECORD)[:-1]), 100)
    assert (chunk.records, chunk.torn) == ((), True)


def test_chunk_goes_past_a_damaged_line(tmp_path):
    chunk = read_chunk(segment(tmp_path, b"rubbish\n" + encode(RECORD)), 100)
    assert chunk.records == (RECORD,)
    assert (chunk.damaged_lines, chunk.torn) == (1, False)


def test_chunks_follow_each_other(tmp_path):
    whole = segment(tmp_path, encode(RECORD) * 5)
    first = read_chunk(whole, 3)
    whole.settled_bytes = first.end_bytes
    assert (first.lines, read_chunk(whole, 3).lines) == (3, 2)


def test_chunk_never_reads_beyond_what_is_durable(tmp_path):
    part = segment(tmp_path, encode(RECORD) * 2)
    part.durable_bytes //= 2
    assert read_chunk(part, 100).records == (RECORD,)
