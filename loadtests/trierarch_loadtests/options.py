"""Command-line options added to locust's own, each also an environment variable.

``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` are what every OpenAI client reads, so
an environment that works for one works here.
"""

import argparse
import dataclasses
from typing import Any

from trierarch_loadtests.errors import UsageError
from trierarch_loadtests.exchange import Endpoint, parse_endpoint
from trierarch_loadtests.scenario import Scenario, load_scenario

DEFAULT_RESULTS = "./loadtest-results"


def add_arguments(parser: Any) -> None:
    """Add the load tests' options to locust's parser."""
    parser.add_argument(
        "--scenario",
        default="smoke",
        env_var="TRIERARCH_LOADTESTS_SCENARIO",
        help="name of a scenario in loadtests/scenarios, or a YAML file (default: smoke)",
    )
    parser.add_argument(
        "--rate",
        type=_positive_number,
        env_var="TRIERARCH_LOADTESTS_RATE",
        help="peak arrivals per second, instead of the scenario's",
    )
    parser.add_argument(
        "--duration-factor",
        type=_positive_number,
        default=1.0,
        env_var="TRIERARCH_LOADTESTS_DURATION_FACTOR",
        help="multiply the duration of every stage (default: 1)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        env_var="TRIERARCH_LOADTESTS_SEED",
        help="instead of the scenario's seed",
    )
    parser.add_argument(
        "--max-ongoing",
        type=_positive_integer,
        env_var="TRIERARCH_LOADTESTS_MAX_ONGOING",
        help="cap on ongoing requests over all workers, instead of the scenario's",
    )
    parser.add_argument(
        "--trace",
        env_var="TRIERARCH_LOADTESTS_TRACE",
        help="trace file for a trace_replay scenario, instead of the scenario's",
    )
    parser.add_argument(
        "--served-model",
        env_var="TRIERARCH_LOADTESTS_MODEL",
        help="model to ask for (default: the first that the endpoint lists)",
    )
    parser.add_argument(
        "--results",
        default=DEFAULT_RESULTS,
        env_var="TRIERARCH_LOADTESTS_RESULTS",
        help=f"directory for result files (default: {DEFAULT_RESULTS})",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--base-url",
        env_var="OPENAI_BASE_URL",
        help="address of the API, like http://127.0.0.1:8080/v1; --host wins over it",
        include_in_web_ui=False,
    )
    parser.add_argument(
        "--api-key",
        env_var="OPENAI_API_KEY",
        help="API key; better given as OPENAI_API_KEY than on the command line",
        include_in_web_ui=False,
        is_secret=True,
    )


@dataclasses.dataclass(frozen=True, slots=True)
class RunOptions:
    """The options of one run, checked."""

    endpoint: Endpoint
    scenario: Scenario
    duration_factor: float
    served_model: str | None
    results: str


def read_options(parsed: argparse.Namespace) -> RunOptions:
    """Return the checked options.

    Raises:
        UsageError: If no endpoint is named or the scenario is not usable.
    """
    address = parsed.host or parsed.base_url
    if not address:
        raise UsageError("no endpoint: set OPENAI_BASE_URL (it is in client.env) or give --host")
    scenario = load_scenario(parsed.scenario)
    factor = _typed(parsed.duration_factor, _positive_number, "--duration-factor")
    return RunOptions(
        endpoint=parse_endpoint(address, parsed.api_key),
        scenario=scenario.override(
            seed=_typed(parsed.seed, int, "--seed"),
            rate_per_second=_typed(parsed.rate, _positive_number, "--rate"),
            maximum_ongoing_requests=_typed(parsed.max_ongoing, _positive_integer, "--max-ongoing"),
            trace=parsed.trace or None,
        ),
        duration_factor=factor or 1.0,
        served_model=parsed.served_model or None,
        results=parsed.results,
    )


def hide_api_key(arguments: list[str]) -> str:
    """Return a command line without the key, for result files."""
    shown = list(arguments)
    for index, argument in enumerate(arguments):
        if argument.startswith("--api-key="):
            shown[index] = "--api-key=..."
        elif index and arguments[index - 1] == "--api-key":
            shown[index] = "..."
    return " ".join(shown)


def _typed(value: Any, convert: Any, name: str) -> Any:
    """Return the value converted; locust's web form sends every option as text."""
    if value is None or value == "":
        return None
    try:
        return convert(str(value))
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise UsageError(f"{name}: {error}") from error


def _positive_number(text: str) -> float:
    try:
        value = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value


def _positive_integer(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above zero")
    return value
