"""The summary as a page: the same figures as the JSON, in the order a reader asks for them."""

from typing import Any

_HISTOGRAMS = (
    ("ttft_seconds", "time to first token"),
    ("tpot_seconds", "time per output token"),
    ("gap_seconds", "gap between events"),
    ("latency_seconds", "latency"),
    ("connect_seconds", "connect"),
    ("start_lag_seconds", "start lag (planned to actual)"),
    ("input_tokens", "input tokens"),
    ("output_tokens", "output tokens"),
)
_OUTCOMES = (
    ("planned", "planned"),
    ("complete", "complete"),
    ("lost_stream", "lost streams"),
    ("failed_before_first_byte", "failed before the first byte"),
    ("client_error", "client errors (4xx)"),
    ("rate_limited", "rate limited (429)"),
    ("server_error", "server errors (5xx)"),
    ("cancelled", "cancelled by the generator"),
    ("dropped", "dropped (cap reached)"),
)


def render_markdown(summary: dict[str, Any]) -> str:
    """Return the page for a summary made by ``build_summary``."""
    run, plan = summary["run"], summary["plan"]
    verdict = "passed" if summary["verdict"]["passed"] else "missed"
    law = plan["arrivals"]
    lines = [
        f"# Load test `{summary['scenario']}`: {verdict}",
        "",
        *(f"> Warning: {warning}" for warning in summary["warnings"]),
        *([""] if summary["warnings"] else []),
        "| check | limit | observed | result |",
        "|---|---|---|---|",
        *(_check_line(check) for check in summary["verdict"]["checks"]),
        "",
        "## How it was run",
        "",
        f"- Open loop, {law['law']} arrivals, seed {summary['seed']}, "
        f"{plan['seconds']:g} s, {plan['requests']} requests planned, "
        f"at most {plan['maximum_ongoing_requests']} ongoing, {run['workers']} worker(s)",
        f"- Endpoint {run['base_url']}, model `{run['model']}`, engine: {run['engine']}",
        f"- Started {run['started_at']}, run {run['run_id']}, commit {run['commit']}",
        *(f"- {name}: {value}" for name, value in run["environment"].items()),
        *(f"- Note: {note}" for note in run["notes"]),
        "",
        "## Requests",
        "",
        "| outcome | measured | all |",
        "|---|---|---|",
        *(
            f"| {label} | {_count(summary['measured'], name)} | {_count(summary['totals'], name)} |"
            for name, label in _OUTCOMES
        ),
        "",
        _goodput_line(summary),
        "",
        "## Latencies of complete, measured requests (seconds)",
        "",
        *_histogram_table(summary["measured"]),
        "",
        "## By stage",
        "",
        "| stage | rate/s | planned | complete | failed | TTFT p50 | TTFT p95 | TPOT p95 |",
        "|---|---|---|---|---|---|---|---|",
        *_stage_lines(summary),
        "",
        "## Ledger",
        "",
        *_ledger_lines(summary["ledger"]),
    ]
    if summary["failures"]:
        lines += ["", "## First failures", ""]
        lines += [
            f"- {failure['planned_seconds']:.1f} s {failure['kind']} {failure['outcome']}: "
            f"{failure['detail']} (request id {failure['request_id'] or 'none'})"
            for failure in summary["failures"][:10]
        ]
    lines += ["", "## Definitions", ""]
    lines += [f"- {name}: {text}" for name, text in summary["definitions"].items()]
    return "\n".join(lines) + "\n"


def render_verdict(summary: dict[str, Any]) -> str:
    """Return the few lines for a terminal: warnings, checks, verdict."""
    lines = [f"warning: {warning}" for warning in summary["warnings"]]
    for check in summary["verdict"]["checks"]:
        note = f" ({check['note']})" if check["note"] else ""
        lines.append(
            f"{check['judgement']:>13}  {check['name']} {check['limit']}, "
            f"observed {_number(check['observed'])}{note}"
        )
    verdict = "PASSED" if summary["verdict"]["passed"] else "MISSED"
    lines.append(f"{verdict}: scenario {summary['scenario']}")
    return "\n".join(lines)


def _check_line(check: dict[str, Any]) -> str:
    note = f" ({check['note']})" if check["note"] else ""
    observed = _number(check["observed"])
    return f"| {check['name']} | {check['limit']} | {observed} | {check['judgement']}{note} |"


def _count(row: dict[str, Any], name: str) -> int:
    return int(row["counts"].get(name, 0))


def _goodput_line(summary: dict[str, Any]) -> str:
    slo, measured = summary["slo"], summary["measured"]
    ratio = measured["goodput_ratio"]
    share = "no sample" if ratio is None else f"{ratio:.1%}"
    return (
        f"Goodput (TTFT <= {slo['ttft_seconds']:g} s and TPOT <= {slo['tpot_seconds']:g} s): "
        f"{share} of planned, {measured['good_requests_per_second']:.3g} requests/s, "
        f"{measured['good_output_tokens_per_second']:.4g} output tokens/s; "
        f"all output {measured['output_tokens_per_second']:.4g} tokens/s."
    )


def _histogram_table(row: dict[str, Any]) -> list[str]:
    lines = [
        "| | count | mean | p50 | p90 | p95 | p99 | max |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, label in _HISTOGRAMS:
        figures = " | ".join(_number(value) for value in row[name].values())
        lines.append(f"| {label} | {figures} |")
    return lines


def _stage_lines(summary: dict[str, Any]) -> list[str]:
    rates = {stage["name"]: stage for stage in summary["plan"]["stages"]}
    return [
        f"| {name}{'' if rates[name]['measured'] else ' (not measured)'} "
        f"| {rates[name]['rate_per_second']:.3g} | {_count(row, 'planned')} "
        f"| {_count(row, 'complete')} | {row['failed']} | {_number(row['ttft_seconds']['p50'])} "
        f"| {_number(row['ttft_seconds']['p95'])} | {_number(row['tpot_seconds']['p95'])} |"
        for name, row in summary["stages"].items()
    ]


def _ledger_lines(ledger: dict[str, Any]) -> list[str]:
    if not ledger["available"]:
        return [f"Not available: {ledger['note']}."]
    if ledger["ledger"] is None:
        return [f"Could not be read: {ledger['note']}."]
    lines = ["| tokens | client | ledger |", "|---|---|---|"]
    lines += [
        f"| {name.removesuffix('_tokens')} | {count} | {ledger['ledger'][name]} |"
        for name, count in ledger["client"].items()
    ]
    spend = ledger["spend"]
    lines += ["", f"Spend of the run: {spend['amount']} {spend['currency']}."]
    if unit := ledger["per_million_output_tokens"]:
        lines.append(f"Per million output tokens: {unit['amount']} {unit['currency']}.")
    if ledger["note"]:
        lines.append(f"Note: {ledger['note']}.")
    return lines


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4g}"
