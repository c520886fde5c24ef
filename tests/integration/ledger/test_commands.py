"""The commands: report, keys, prices."""

import csv
import io
import json
import re
from decimal import Decimal

import pytest
from click.testing import CliRunner

from trierarch.adapters.ledger import Ledger, key_sha256
from trierarch.cli.keys import keys
from trierarch.cli.ledger_options import parse_instant
from trierarch.cli.prices import prices
from trierarch.cli.report import report
from trierarch.core.clock import ManualClock
from trierarch.core.errors import InvalidInput
from trierarch.core.quantities import TokenCounts
from trierarch.core.replicas import ReplicaState
from trierarch.cost.focus import COLUMNS, billing_periods

NOW = 1_750_000_000.0
"""2025-06-15T15:06:40Z: commands use the machine's clock, and reports end now."""

PRICES = """
[[price]]
accelerator = "H200"
capacity_type = "Reserved"
region = "eu"
usd_per_accelerator_hour = "1.23"
effective_from = 2026-01-01

[[rate]]
model = "mine"
usd_per_million_input_tokens = "1"
usd_per_million_cached_tokens = "0.1"
usd_per_million_output_tokens = "2"
effective_from = 2026-01-01
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


@pytest.fixture
def run(folder):
    def run(command, *arguments):
        return CliRunner().invoke(
            command, [str(argument) for argument in arguments] + ["--data-dir", str(folder)]
        )

    return run


@pytest.fixture
def filled(folder, usage, unit):
    """Two tenants on one replica: 100 seconds at 3.60 per hour, 40 of them busy."""
    clock = ManualClock(NOW)
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", clock)
    ledger.begin_capacity(unit(), state=ReplicaState.READY)
    ledger.end_capacity("r1", at_unix_seconds=NOW + 100)
    million = TokenCounts(1_000_000)
    ledger.record_usage(
        [
            usage("q1", tenant="a", tokens=million, charge="0.5", start=NOW, seconds=20),
            usage("q2", tenant="b", tokens=million, charge="0.25", start=NOW + 20, seconds=20),
        ]
    )
    ledger.close()


def one_line(result):
    """Return the message that a user would see."""
    assert isinstance(result.exception, InvalidInput)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_report_shows_spend_tokens_unit_cost_idle_and_drift(run, filled):
    result = run(report, "--by", "tenant")
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert lines[1][:4] == ["tenant", "requests", "input", "cached"]
    assert ["a", "1", "1000000", "0", "0", "0.500000", "0.020000"] in [line[:7] for line in lines]
    (platform,) = [line for line in lines if line[0] == "(platform)"]
    assert platform[8] == "0.060000"
    (total,) = [line for line in lines if line[0] == "total"]
    assert total[1:7] == ["2", "2000000", "0", "0", "0.750000", "0.100000"]
    assert total[-2:] == ["0.650000", "0.0500"]
    assert result.output.splitlines()[-1] == (
        "capacity cost 0.100000000000, allocated 0.100000000000, unallocated drift 0"
    )


@pytest.mark.parametrize(
    ("by", "names"), [("model", [{"model": "m"}]), ("variant", [{"model": "m", "variant": "v"}])]
)
def test_report_by_model_and_variant(run, filled, by, names):
    rows = json.loads(run(report, "--by", by, "--json").output)["rows"]
    assert [{name: row[name] for name in names[0]} for row in rows] == names


def test_json_has_every_digit_and_null_for_a_missing_unit_cost(run, filled):
    result = json.loads(run(report, "--by", "tenant", "--format", "json").output)
    assert result["unallocated_drift_usd"] == "0"
    assert result["capacity_cost_usd"] == "0.100000000000"
    platform, first, _ = result["rows"]
    assert (platform["tenant"], platform["usd_per_million_tokens"]) == ("", None)
    assert (first["charged_usd"], first["actual_usd"]) == ("0.5", "0.020000000000")
    assert Decimal(first["usd_per_million_tokens"]) == Decimal("0.02")
    total = sum(Decimal(row["actual_usd"]) for row in result["rows"])
    assert total == Decimal(result["capacity_cost_usd"]) == Decimal(result["total"]["actual_usd"])


def test_csv_has_the_same_numbers(run, filled):
    rows = list(csv.DictReader(io.StringIO(run(report, "--format", "csv").output)))
    assert [row["tenant"] for row in rows] == ["", "a", "b"]
    assert sum(Decimal(row["charged_usd"]) for row in rows) == Decimal("0.75")


def test_focus_has_its_columns_and_adds_up(run, filled):
    rows = list(csv.DictReader(io.StringIO(run(report, "--format", "focus").output)))
    assert tuple(rows[0]) == COLUMNS
    used = [row for row in rows if row["SubAccountId"] == "a"]
    assert [(row["BilledCost"], row["ConsumedQuantity"]) for row in used] == [("0.5", "1000000")]
    assert used[0]["BillingPeriodStart"] == "2025-06-01T00:00:00Z"
    assert used[0]["BillingPeriodEnd"] == "2025-07-01T00:00:00Z"
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal("0.75")
    assert sum(Decimal(row["x_ActualCost"]) for row in rows) == Decimal("0.1")


def test_billing_periods_are_calendar_months():
    november, january = 1_793_491_200.0, 1_798_761_600.0
    periods = list(billing_periods(november + 5, january + 7))
    assert periods == [
        (november + 5, november + 30 * 86_400),
        (november + 30 * 86_400, january),
        (january, january + 7),
    ]


def test_report_of_a_span(run, filled):
    until = run(report, "--until", "2025-06-15T15:07:00Z", "--json")
    total = json.loads(until.output)["total"]
    assert (total["requests"], total["actual_usd"]) == (0, "0.020000000000")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--since", "yesterday"], "'yesterday' is no time"),
        (["--since", "1d", "--until", "2d"], "--since before --until"),
    ],
)
def test_span_that_makes_no_sense_is_one_clear_line(run, filled, arguments, says):
    assert says in one_line(run(report, *arguments))


def test_command_without_a_ledger_says_what_to_do(run):
    for command in (report, keys.commands["list"], keys.commands["revoke"]):
        arguments = ["--tenant", "a"] if command is not report else []
        assert "start `trierarch up` first" in one_line(run(command, *arguments))


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2025-06-15", 1_749_945_600.0),
        ("2025-06-15T15:06:40", NOW),
        ("2025-06-15T17:06:40+02:00", NOW),
        ("90m", NOW - 5400),
        ("2d", NOW - 172_800),
    ],
)
def test_times_are_understood(text, instant):
    assert parse_instant(text, NOW) == instant


@pytest.mark.parametrize("text", ["", "d", "5y", "99999999999d", "25:00", "-3d"])
def test_times_that_are_none_are_refused(text):
    with pytest.raises(InvalidInput, match="is no time"):
        parse_instant(text, NOW)


# Keys


def test_key_is_shown_once_and_works(run, folder):
    created = run(keys, "create", "--tenant", "acme", "--name", "laptop", "--model", "pocket")
    assert created.exit_code == 0
    text = created.stdout.strip()
    assert re.fullmatch(r"trk_\S+", text)
    assert "not shown again" in created.stderr
    ledger = Ledger.open(f"sqlite:///{folder / 'ledger.db'}", ManualClock())
    assert ledger.live_keys()[key_sha256(text)].tenant == "acme"
    ledger.close()
    listed = run(keys, "list", "--tenant", "acme").output
    assert "laptop" in listed
    assert "pocket" in listed
    assert text not in listed


def key_ids(run):
    listed = json.loads(run(keys, "list", "--json").output)
    return {row["name"]: (row["key_id"], row["revoked_unix_seconds"] is None) for row in listed}


def create(run, tenant, name):
    return json.loads(run(keys, "create", "--tenant", tenant, "--name", name, "--json").output)


@pytest.mark.parametrize("named_by", ["key_id", "name", "key"])
def test_key_is_revoked_by_id_by_name_and_by_itself(run, named_by):
    created = create(run, "acme", "one")
    create(run, "acme", "two")
    result = run(keys, "revoke", "--tenant", "acme", created[named_by])
    assert result.output == f"Revoked {created['key_id']} of tenant acme.\n"
    assert (key_ids(run)["one"][1], key_ids(run)["two"][1]) == (False, True)


def test_only_key_of_a_tenant_needs_no_name(run):
    create(run, "acme", "one")
    create(run, "other", "two")
    run(keys, "revoke", "--tenant", "acme")
    assert (key_ids(run)["one"][1], key_ids(run)["two"][1]) == (False, True)


def test_one_of_several_keys_is_never_guessed(run):
    create(run, "acme", "one")
    create(run, "acme", "two")
    assert "several keys of tenant 'acme' match" in one_line(
        run(keys, "revoke", "--tenant", "acme")
    )
    assert all(live for _, live in key_ids(run).values())
    run(keys, "revoke", "--tenant", "acme", "--all")
    assert not any(live for _, live in key_ids(run).values())


def test_revoking_what_is_not_there_says_so_and_shows_no_secret(run):
    created = create(run, "acme", "one")
    missing = "trk_0123456789ab_topsecret"
    message = one_line(run(keys, "revoke", missing))
    assert message == "there is no key 'trk_0123456789ab'"
    run(keys, "revoke", created["key_id"])
    assert "is revoked already" in one_line(run(keys, "revoke", created["key_id"]))
    assert "say which key" in one_line(run(keys, "revoke"))
    assert "needs --tenant" in one_line(run(keys, "revoke", "--all", "one"))


# Prices


def test_prices_are_shown_with_their_sources_before_there_is_a_ledger(run, folder):
    result = run(prices, "show")
    assert result.exit_code == 0
    assert "median of 37 vendors" in result.output
    assert "pocket" in result.output
    assert not folder.exists()


def test_prices_are_shown_as_of_a_day(run):
    shown = json.loads(run(prices, "show", "--json", "--at", "2025-12-01").output)
    reserved = [p for p in shown["prices"] if p["capacity_type"] == "Reserved"]
    assert {p["accelerator"]: p["usd_per_accelerator_hour"] for p in reserved}["H100"] == "1.70"


def test_imported_prices_are_shown_and_used(run, tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text(PRICES)
    assert run(prices, "import", file).output == "Imported 1 prices and 1 rates.\n"
    shown = json.loads(run(prices, "show", "--json").output)
    (imported,) = [price for price in shown["prices"] if price["region"] == "eu"]
    assert imported["usd_per_accelerator_hour"] == "1.23"
    assert "mine" in [rate["model"] for rate in shown["rates"]]
    assert "H100" in [price["accelerator"] for price in shown["prices"]], "defaults stay"


def test_file_with_problems_is_not_imported(run, tmp_path, folder):
    file = tmp_path / "bad.toml"
    file.write_text(PRICES.replace("Reserved", "Rented").replace('"2"', '"-2"'))
    message = one_line(run(prices, "import", file))
    assert message.startswith(f"{file}:4: price 1, capacity_type: must be 'OnDemand'")
    assert message.endswith("(and 1 more: prices check)")
    assert not folder.exists()


def test_check_prints_each_problem_in_a_line_with_its_place(tmp_path):
    file = tmp_path / "bad.toml"
    file.write_text(PRICES.replace("Reserved", "Rented").replace('"2"', '"-2"'))
    result = CliRunner().invoke(prices, ["check", str(file)])
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"{file}:4: price 1, capacity_type: must be 'OnDemand', 'Spot' or 'Reserved', not 'Rented'",
        f"{file}:13: rate 1, usd_per_million_output_tokens: must be from 0 to 1000000, got -2",
    ]


def test_check_of_a_good_file_says_so(tmp_path):
    file = tmp_path / "good.toml"
    file.write_text(PRICES)
    result = CliRunner().invoke(prices, ["check", str(file)])
    assert (result.exit_code, result.output) == (0, f"{file}: 1 prices and 1 rates, no problem\n")


@pytest.mark.parametrize("command", [report, keys, prices], ids=lambda command: command.name)
def test_every_command_explains_itself(command):
    commands = [command, *getattr(command, "commands", {}).values()]
    for one in commands:
        result = CliRunner().invoke(one, ["--help"])
        assert result.exit_code == 0
        assert one.help
        assert all(p.help for p in one.params if p.param_type_name == "option")
