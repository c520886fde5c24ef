"""Every object is looked at, never twice at once, and a broken one waits longer each time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import pytest

from trierarch.core.errors import Unavailable
from trierarch_operators.object_cache import Key
from trierarch_operators.work_queue import WorkQueue


async def run(queue: WorkQueue, until: Callable[[], bool], workers: int = 3) -> None:
    tasks = [asyncio.ensure_future(queue.work()) for _ in range(workers)]
    try:
        async with asyncio.timeout(10):
            while not until():  # noqa: ASYNC110  # what is waited for is the queue itself
                await asyncio.sleep(0)
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task


def record(seen: list[Key]) -> Callable[[Key], Awaitable[float | None]]:
    async def reconcile(key: Key) -> None:
        seen.append(key)
        await asyncio.sleep(0)

    return reconcile


@pytest.mark.asyncio
async def test_an_object_that_is_added_often_is_looked_at_once() -> None:
    seen: list[Key] = []
    queue = WorkQueue(record(seen))
    keys = [Key("n", str(number)) for number in range(5)]
    for key in keys * 3:
        queue.add(key)
    await run(queue, lambda: len(seen) >= 5)
    assert sorted(map(str, seen)) == sorted(map(str, keys))
    assert queue.waiting == 0


@pytest.mark.asyncio
async def test_what_changes_while_it_is_looked_at_is_looked_at_again_and_never_twice_at_once() -> (
    None
):
    running, most, looks = 0, 0, 0
    key = Key("n", "a")

    async def reconcile(_: Key) -> float | None:
        nonlocal running, most, looks
        running += 1
        most, looks = max(most, running), looks + 1
        if looks == 1:
            queue.add(key)
            queue.add(key)
        await asyncio.sleep(0.001)
        running -= 1
        return None

    queue = WorkQueue(reconcile)
    queue.add(key)
    await run(queue, lambda: looks >= 2 and not running and not queue.waiting)
    assert (most, looks) == (1, 2)


@pytest.mark.asyncio
async def test_a_failing_object_is_tried_again_and_stops_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = {"refused": Unavailable("the API server is away"), "broken": KeyError("spec")}
    tries: list[str] = []

    async def reconcile(key: Key) -> float | None:
        tries.append(key.name)
        if tries.count(key.name) < 3 and key.name in failures:
            raise failures[key.name]
        return None

    queue = WorkQueue(reconcile, first_pause_seconds=0.001)
    for name in ("refused", "broken", "good"):
        queue.add(Key("n", name))
    await run(queue, lambda: len(tries) >= 7 and not queue.waiting, workers=1)
    assert {name: tries.count(name) for name in tries} == {"refused": 3, "broken": 3, "good": 1}
    assert "the API server is away" in caplog.text
    assert "an error in the operator itself" in caplog.text


@pytest.mark.asyncio
async def test_the_earliest_wish_counts_and_what_is_gone_is_forgotten() -> None:
    seen: list[Key] = []
    queue = WorkQueue(record(seen))
    queue.add(Key("n", "soon"), 3600)
    queue.add(Key("n", "soon"))
    queue.add(Key("n", "gone"))
    queue.forget(Key("n", "gone"))
    queue.add(Key("n", "last"))
    await run(queue, lambda: len(seen) >= 2)
    assert [key.name for key in seen] == ["soon", "last"]
