"""ServeGen summaries: requests drawn again by the published sampling law.

The files hold, per client and 10-minute window, a rate and the law of the gaps
between requests, and per client and 6-hour window the quantiles of the lengths.
Per client and window, ceil(rate x 600) gaps are drawn and scaled to fill the
window, so the law's scale does not matter and its shape sets the burstiness.
Lengths are drawn through the quantiles; input and output are independent
because only their marginals are published.
"""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

import numpy as np

from trierarch.core.errors import InvalidInput
from trierarch.simulation.traces.columns import parse_numbers
from trierarch.simulation.traces.files import csv_chunks, open_text, stem
from trierarch.simulation.traces.trace import Floats, Integers, Trace, build_trace

CLIENT_COLUMNS = ("client", "t_s", "rate_rps", "cv", "pattern", "arg1", "arg2")
WINDOW_SECONDS = 600.0
QUANTILE_COLUMNS = ("q01", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q99", "q100")
QUANTILE_RATIOS = np.array([0.0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99])
"""Where the quantiles stand; below the lowest published one its value is used."""
TAIL_RATIO = 0.01
"""Share of requests above the highest inner quantile."""


def is_clients_header(header: list[str]) -> bool:
    """Tell a ``X-clients`` file by its columns."""
    return set(CLIENT_COLUMNS) <= set(header)


@dataclasses.dataclass(frozen=True, slots=True)
class Lengths:
    """Inverse distribution of one length: linear inside, and a tail that keeps the mean."""

    inner: Floats
    maximum: float
    tail_exponent: float

    def draw(self, uniform: Floats) -> Integers:
        """Return whole lengths of at least one token."""
        values = np.interp(uniform, QUANTILE_RATIOS, self.inner)
        tail = uniform > 1.0 - TAIL_RATIO
        depth = (uniform[tail] - (1.0 - TAIL_RATIO)) / TAIL_RATIO
        last = self.inner[-1]
        values[tail] = last + (self.maximum - last) * depth**self.tail_exponent
        return np.asarray(np.maximum(np.rint(values), 1).astype(np.int64))


def build_lengths(mean: float, quantiles: Floats) -> Lengths:
    """Return the inverse distribution through ``quantiles`` (q01..q99, q100) with this mean.

    A straight line from q99 to the maximum would overstate long requests several times over;
    the tail is bent as far as the published mean asks for.
    """
    inner = np.concatenate((quantiles[:1], quantiles[:-1]))
    body = float(np.sum(np.diff(QUANTILE_RATIOS) * (inner[1:] + inner[:-1]) / 2))
    last, maximum = float(inner[-1]), float(quantiles[-1])
    tail_mean_above = (mean - body) / TAIL_RATIO - last
    if maximum <= last:
        return Lengths(inner, last, 1.0)
    if tail_mean_above <= 0.0:
        return Lengths(inner, maximum, 100.0)
    return Lengths(
        inner, maximum, float(np.clip((maximum - last) / tail_mean_above - 1, 0.0, 100.0))
    )


def read(path: Path, *, seed: int) -> Trace:
    """Return a drawn trace for a ``X-clients`` file.

    Raises:
        InvalidInput: If it or the ``X-lengths`` file beside it cannot be used.
    """
    clients = _read_clients(path)
    lengths = _read_lengths(_lengths_path(path))
    generator = np.random.default_rng([seed, 0x5E4E])
    times: list[Floats] = []
    inputs: list[Integers] = []
    outputs: list[Integers] = []
    for client, start_seconds, rate, pattern, shape in clients:
        count = int(np.ceil(rate * WINDOW_SECONDS))
        drawn = (
            generator.gamma(shape, size=count)
            if pattern == "Gamma"
            else (generator.weibull(shape, size=count))
        )
        times.append(start_seconds + _fill_window(drawn, generator.random()))
        for field, column in (("input_tokens", inputs), ("output_tokens", outputs)):
            law = _law_at(lengths, client, field, start_seconds)
            column.append(law.draw(generator.random(count)))
    all_times = np.concatenate(times) if times else np.zeros(0)
    if not len(all_times):
        raise InvalidInput(f"{path}: no client has a positive rate")
    order = np.argsort(all_times, kind="stable")
    return build_trace(
        stem(path).removesuffix("-clients"),
        "servegen",
        all_times[order],
        np.concatenate(inputs)[order],
        np.concatenate(outputs)[order],
        notes=(f"{len(order)} requests drawn from {len(clients)} client windows, seed {seed}",),
    )


def _fill_window(gaps: Floats, phase: float) -> Floats:
    """Return times inside the window; the phase keeps clients from meeting at its end."""
    total = gaps.sum()
    if total <= 0.0:
        gaps = np.ones(len(gaps))
        total = float(len(gaps))
    scaled = gaps * (WINDOW_SECONDS / total)
    return np.asarray(np.cumsum(scaled) - phase * scaled[0]).clip(0.0, WINDOW_SECONDS)


def _lengths_path(path: Path) -> Path:
    beside = path.with_name(path.name.replace("-clients", "-lengths"))
    for candidate in (
        beside,
        beside.with_suffix("") if beside.suffix == ".gz" else beside.with_name(beside.name + ".gz"),
    ):
        if candidate != path and candidate.exists():
            return candidate
    raise InvalidInput(f"{path}: needs {beside.name} beside it for the lengths of its requests")


def _read_clients(path: Path) -> list[tuple[str, float, float, str, float]]:
    rows: list[tuple[str, float, float, str, float]] = []
    for first_line, texts in _columns(path, ("client", "t_s", "rate_rps", "pattern", "arg1")):
        numbers = [
            parse_numbers(path, field, texts[index], first_line)
            for index, field in ((1, "t_s"), (2, "rate_rps"), (4, "arg1"))
        ]
        for index, (client, pattern) in enumerate(zip(texts[0], texts[3], strict=True)):
            start, rate, shape = (float(column[index]) for column in numbers)
            line = f"{path} line {first_line + index}"
            if pattern not in ("Gamma", "Weibull"):
                raise InvalidInput(f"{line}: pattern is {pattern!r}, not Gamma or Weibull")
            if rate < 0 or start < 0:
                raise InvalidInput(f"{line}: rates and times cannot be negative")
            if shape <= 0:
                raise InvalidInput(
                    f"{line}: the shape of a gap law must be positive, got {shape:g}"
                )
            if rate > 0:
                rows.append((client, start, rate, pattern, shape))
    return rows


LengthTable = dict[tuple[str, str], list[tuple[float, Lengths]]]


def _read_lengths(path: Path) -> LengthTable:
    table: LengthTable = {}
    wanted = ("client", "t_s", "field", "mean", *QUANTILE_COLUMNS)
    for first_line, texts in _columns(path, wanted):
        starts = parse_numbers(path, "t_s", texts[1], first_line)
        values = np.stack(
            [
                parse_numbers(path, name, texts[3 + index], first_line)
                for index, name in enumerate(wanted[3:])
            ],
            axis=1,
        )
        if (values < 0).any():
            index = int(np.flatnonzero((values < 0).any(axis=1))[0])
            raise InvalidInput(f"{path} line {first_line + index}: lengths cannot be negative")
        if (np.diff(values[:, 1:], axis=1) < 0).any():
            index = int(np.flatnonzero((np.diff(values[:, 1:], axis=1) < 0).any(axis=1))[0])
            raise InvalidInput(f"{path} line {first_line + index}: quantiles must not fall")
        for index, (client, field) in enumerate(zip(texts[0], texts[2], strict=True)):
            law = build_lengths(float(values[index, 0]), values[index, 1:])
            table.setdefault((client, field), []).append((float(starts[index]), law))
    for field in ("input_tokens", "output_tokens"):
        if not any(key[1] == field for key in table):
            raise InvalidInput(f"{path}: no rows for {field}")
    return table


def _law_at(table: LengthTable, client: str, field: str, start_seconds: float) -> Lengths:
    """Return the client's law in force; its nearest window, or any client's, where none is."""
    windows = table.get((client, field))
    if windows is None:
        windows = next(laws for key, laws in sorted(table.items()) if key[1] == field)
    before = [window for window in windows if window[0] <= start_seconds]
    return max(before, key=lambda window: window[0])[1] if before else windows[0][1]


def _columns(path: Path, wanted: tuple[str, ...]) -> list[tuple[int, list[tuple[str, ...]]]]:
    with open_text(path) as lines:
        header = [field.strip() for field in next(csv.reader([lines.readline()]), [])]
        missing = [name for name in wanted if name not in header]
        if missing:
            raise InvalidInput(f"{path}: no column {', '.join(missing)}")
        return list(csv_chunks(path, lines, [header.index(name) for name in wanted], len(header)))
