"""Asks every process of the gateway for its signals and makes one document of them.

Each process knows the requests that it took itself. A name with several addresses
(a headless Service) stands for several processes, and the demand is their sum. If
one that has answered before does not, nobody knows the sum, and nothing is told;
one that has never answered is still starting and has no requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import httpx

from trierarch.adapters.addresses import resolve_addresses

_logger = logging.getLogger(__name__)

PATH = "/api/v1/signals"
TIMEOUT_SECONDS = 2.0
_SUMMARIES = ("queue_wait_seconds", "ttft_seconds", "tpot_seconds")
_EARLIEST = ("flex_deadline_unix_seconds", "flex_patience_seconds")
_DERIVED = ("queue_wait_seconds_p95", "expected_output_tokens")
"""What is no sum: one process's view, which nobody needs of all together."""


Resolve = Callable[[str, int], list[str]]


class Gateways:
    """The processes behind one admin address.

    Args:
        client: HTTP.
        url: Base address of the admin port; its host may stand for several addresses.
        resolve: Returns the addresses of a host and a port, in a thread of its own; raises
            OSError if it has none.
    """

    def __init__(
        self, client: httpx.AsyncClient, url: str, resolve: Resolve = resolve_addresses
    ) -> None:
        self._client = client
        self._resolve = resolve
        self._url = httpx.URL(url)
        self._arrivals: dict[str, float] = {}
        self._epoch = 0

    async def ask(self) -> dict[str, Any] | None:
        """Return the signals of all processes together; None if they are not all known.

        The member ``epoch`` changes when counters of before can no longer be compared: a process
        has come, gone or begun anew.
        """
        try:
            addresses = await asyncio.to_thread(self._resolve, self._url.host, self._url.port or 80)
        except OSError as error:
            _logger.warning("the gateway's address cannot be found: %s", error)
            return None
        answers = await asyncio.gather(*(self._ask_one(address) for address in addresses))
        documents: dict[str, dict[str, Any]] = {}
        for address, answer in zip(addresses, answers, strict=True):
            if not isinstance(answer, Exception):
                documents[address] = answer
            elif address in self._arrivals or len(addresses) == 1:
                _logger.warning("signals of the gateway at %s: %r", address, answer)
                return None
        arrivals = {address: _all_arrivals(document) for address, document in documents.items()}
        if arrivals.keys() != self._arrivals.keys() or any(
            count < self._arrivals[address] for address, count in arrivals.items()
        ):
            self._epoch += 1
        self._arrivals = arrivals
        if not documents:
            return None
        return merge_signals(list(documents.values())) | {"epoch": self._epoch}

    async def _ask_one(self, address: str) -> dict[str, Any] | Exception:
        url = self._url.copy_with(host=address, path=self._url.path.rstrip("/") + PATH)
        headers = {"host": self._url.netloc.decode()}
        try:
            answer = await self._client.get(url, headers=headers, timeout=TIMEOUT_SECONDS)
            answer.raise_for_status()
            document = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            return error
        if not (isinstance(document, dict) and isinstance(document.get("models"), dict)):
            return ValueError("the answer has no models")
        return document


def _all_arrivals(document: Mapping[str, Any]) -> float:
    return sum(float(entry.get("arrivals_total", 0)) for entry in document["models"].values())


def merge_signals(documents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one signals document of several processes.

    Counts and counters are added up, means and quantiles weighted by their samples (right for
    means, and close for quantiles, because the same clients and replicas are behind all), deadlines
    are the earliest, and the time is that of the oldest document.

    Args:
        documents: Of ``GET /api/v1/signals``; one at least.
    """
    if len(documents) == 1:
        return dict(documents[0])
    names = dict.fromkeys(name for document in documents for name in document["models"])
    models = {
        name: _merge_model([d["models"][name] for d in documents if name in d["models"]])
        for name in names
    }
    return {"at": min(float(document["at"]) for document in documents), "models": models}


def _merge_model(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    members = dict.fromkeys(member for entry in entries for member in entry)
    merged: dict[str, Any] = {}
    for member in members:
        values = [entry[member] for entry in entries if entry.get(member) is not None]
        if member in _SUMMARIES:
            merged[member] = _merge_summaries(values)
        elif member in _EARLIEST:
            merged[member] = min(values, default=None)
        elif member not in _DERIVED:
            merged[member] = _add(values)
    return merged


def _merge_summaries(summaries: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    known = [summary for summary in summaries if summary.get("count")]
    count = sum(summary["count"] for summary in known)
    merged: dict[str, Any] = {"count": count}
    for member in dict.fromkeys(member for summary in known for member in summary):
        values = [summary[member] for summary in known]
        if member != "count" and all(value is not None for value in values):
            weighted = sum(value * s["count"] for value, s in zip(values, known, strict=True))
            merged[member] = weighted / count
    return merged


def _add(values: Sequence[Any]) -> Any:
    """Return the sum of numbers, or of each member of mappings; None of nothing."""
    if not values:
        return None
    if isinstance(values[0], Mapping):
        members = dict.fromkeys(member for value in values for member in value)
        return {
            member: _add([v[member] for v in values if v.get(member) is not None])
            for member in members
        }
    return sum(values)
