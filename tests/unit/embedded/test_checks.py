"""What is checked before a run starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from trierarch.core.errors import InvalidInput
from trierarch.embedded.checks import (
    check_disk,
    check_memory,
    need_memory_bytes,
    parse_available_memory_bytes,
)

GIB = 1 << 30


def test_available_memory_is_read_in_bytes() -> None:
    meminfo = "MemTotal:       100 kB\nMemFree: 10 kB\nMemAvailable:   42 kB\n"
    assert parse_available_memory_bytes(meminfo) == 42 * 1024


def test_a_kernel_that_does_not_say_is_unknown_and_not_zero() -> None:
    assert parse_available_memory_bytes("MemTotal: 100 kB\n") is None
    check_memory(GIB, None, 1)


def test_each_real_replica_counts_and_simulated_ones_hold_no_weights() -> None:
    one = need_memory_bytes(GIB, 1, is_simulated=False)
    two = need_memory_bytes(GIB, 2, is_simulated=False)
    assert two - one == GIB * 3 // 2 + 2_500_000_000
    simulated = need_memory_bytes(GIB, 1, is_simulated=True)
    assert simulated == need_memory_bytes(0, 1, is_simulated=True)


def test_too_little_memory_says_need_and_available_and_what_to_do() -> None:
    with pytest.raises(InvalidInput, match=r"4\.0 GiB .* 1\.0 GiB .*--max-replicas"):
        check_memory(4 * GIB, GIB, 1)


def test_a_full_disk_names_the_folder(tmp_path: Path) -> None:
    check_disk({tmp_path: 1})
    with pytest.raises(InvalidInput, match=str(tmp_path)):
        check_disk({tmp_path: 1 << 62})
