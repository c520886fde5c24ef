"""Which format a file is in, told by its first line, and the reader for it."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

from trierarch.core.errors import InvalidInput
from trierarch.simulation.traces import csv_rows, json_lines, servegen
from trierarch.simulation.traces.files import open_text
from trierarch.simulation.traces.trace import Trace

KNOWN_FORMATS = (
    "Azure (TIMESTAMP,ContextTokens,GeneratedTokens), BurstGPT, Mooncake or Qwen-Bailian JSON "
    "lines, ServeGen X-clients.csv, a load test's requests.csv, or a CSV with "
    "arrival_seconds,input_tokens,output_tokens"
)


def read_trace(path: Path, *, seed: int = 0) -> Trace:
    """Return the trace in ``path``, plain or gzipped.

    Args:
        path: The file; a ServeGen ``X-clients`` file finds its ``X-lengths`` beside it.
        seed: For what a format leaves open: requests of a summary, times of a coarse clock.

    Raises:
        InvalidInput: If the file is missing, damaged, empty, or in no known format.
    """
    with open_text(path) as lines:
        first = _first_line(path, lines.readline())
        if first.startswith("{"):
            return json_lines.read(path, _json_keys(path, first), seed=seed)
        header = [field.strip() for field in next(csv.reader([first]))]
        if servegen.is_clients_header(header):
            return servegen.read(path, seed=seed)
        _refuse_known_others(path, header)
        columns = csv_rows.find_columns(header)
        if columns is None:
            raise InvalidInput(
                f"{path}: columns {', '.join(header)[:120]!r} are not those of a known trace: "
                f"{KNOWN_FORMATS}"
            )
        return csv_rows.read(path, lines, header, columns, seed=seed)


def _first_line(path: Path, line: str) -> str:
    if not line:
        raise InvalidInput(f"{path}: the file is empty")
    if "\x00" in line:
        raise InvalidInput(f"{path}: not a text file")
    if not line.strip():
        raise InvalidInput(f"{path}: the first line is empty; expected {KNOWN_FORMATS}")
    return line.strip()


def _json_keys(path: Path, line: str) -> frozenset[str]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InvalidInput(f"{path} line 1: not JSON ({error})") from error
    return frozenset(row)


def _refuse_known_others(path: Path, header: list[str]) -> None:
    """Explain the files that lie beside traces and are easily mistaken for one."""
    names = set(header)
    if {"User Count", "Requests/s"} <= names or {"Request Count", "Median Response Time"} <= names:
        raise InvalidInput(
            f"{path}: Locust's statistics hold no lengths; give the requests.csv that the load"
            " tests write beside their summary, or columns arrival_seconds, input_tokens and"
            " output_tokens"
        )
    if {"field", "mean", "q50"} <= names:
        clients = path.name.replace("lengths", "clients")
        raise InvalidInput(f"{path}: ServeGen lengths only; give {clients} instead")
    if "t_s" in names:
        raise InvalidInput(f"{path}: rates only, no requests; give a ServeGen X-clients file")
    if {"prompt_time", "token_time"} <= names:
        raise InvalidInput(f"{path}: measured service times, not requests")
    if len(header) == 3 and (header[1] in ("add", "remove") or _is_date(header[0])):
        raise InvalidInput(f"{path}: spot-capacity events, not requests; give it as --spot-trace")


def _is_date(text: str) -> bool:
    try:
        datetime.date.fromisoformat(text)
    except ValueError:
        return False
    return True
