"""Runs tasks on one scenario, in this process or in several.

A process gets the scenario once, when it begins, and not with every task: a day
of requests is large.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any, TypeVar

from trierarch.simulation.scenarios import Scenario

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")

_adopted: list[Scenario] = []


def run_all(
    function: Callable[[Scenario, TaskT], ResultT],
    scenario: Scenario,
    tasks: Sequence[TaskT],
    jobs: int,
) -> Iterator[tuple[TaskT, ResultT]]:
    """Yield each task with its result, as they come.

    Args:
        function: A function of a module, so that another process can find it.
        scenario: Given to every call.
        tasks: Hashable or not; they and the results go between processes.
        jobs: Processes to use; 1 stays in this one.
    """
    jobs = min(jobs, len(tasks))
    if jobs <= 1:
        for task in tasks:
            yield task, function(scenario, task)
        return
    with ProcessPoolExecutor(
        jobs, mp_context=get_context("spawn"), initializer=_adopt, initargs=(scenario,)
    ) as pool:
        futures: dict[Future[ResultT], TaskT] = {
            pool.submit(_run_adopted, function, task): task for task in tasks
        }
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            # An interrupted command must not wait for everything that is still queued.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _adopt(scenario: Scenario) -> None:
    _adopted.append(scenario)


def _run_adopted(function: Callable[[Scenario, Any], ResultT], task: Any) -> ResultT:
    return function(_adopted[-1], task)
