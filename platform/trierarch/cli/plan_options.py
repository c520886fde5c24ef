"""What ``plan`` is told: the model's configuration, numbers, and prices in force."""

from __future__ import annotations

import importlib.resources
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trierarch.adapters.price_files import load_default_prices
from trierarch.cli.ledger_options import open_ledger
from trierarch.core.errors import InvalidInput
from trierarch.cost.prices import CapacityType, PriceEntry, PriceKey, PriceMissing
from trierarch.hardware.accelerators import ACCELERATORS, Accelerator, find_accelerator
from trierarch.hardware.config_json import read_architecture
from trierarch.settings.paths import default_data_dir, ledger_path

if TYPE_CHECKING:
    from trierarch.cost.prices import PriceBook
    from trierarch.hardware.architecture import ModelArchitecture

CONFIG_FILE = "config.json"
"""Its name in a folder of a Hugging Face model."""

DEFAULT_CONTEXT_TOKENS = 32_768
"""Longest sequence that must fit, for models that allow more."""

DEFAULT_INPUT_TOKENS = 4096
DEFAULT_OUTPUT_TOKENS = 1024


def bundled_names() -> list[str]:
    """Return the names of the configurations that ship with the package."""
    folder = importlib.resources.files("trierarch.hardware").joinpath("models")
    return sorted(
        entry.name.removesuffix(".json")
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    )


def load_bundled(name: str) -> ModelArchitecture:
    """Return the architecture of a configuration that ships with the package."""
    folder = importlib.resources.files("trierarch.hardware").joinpath("models")
    return read_architecture(json.loads(folder.joinpath(f"{name}.json").read_text("utf-8")))


def load_model(model: str) -> ModelArchitecture:
    """Return the architecture of a folder, a ``config.json`` or a bundled name.

    Raises:
        InvalidInput: If there is nothing, it is not JSON, or its architecture is not known.
    """
    path = Path(model)
    if not path.exists() and model.lower() in bundled_names():
        return load_bundled(model.lower())
    if path.is_dir():
        path = path / CONFIG_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InvalidInput(
            f"{path}: no such file; --model takes a folder with a config.json, a config.json,"
            f" or one of {', '.join(bundled_names())}"
        ) from None
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    try:
        config: Any = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InvalidInput(f"{path} is not JSON: {error}") from None
    if not isinstance(config, Mapping):
        raise InvalidInput(f"{path} is not a model's configuration: it holds no JSON object")
    try:
        return read_architecture(config)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def choose_accelerators(names: tuple[str, ...]) -> list[Accelerator]:
    """Return the named accelerators once each, or all of them if none is named."""
    if not names:
        return list(ACCELERATORS.values())
    return list({find_accelerator(name).name: find_accelerator(name) for name in names}.values())


def check_positive(option: str, value: float | None) -> None:
    """Refuse what cannot be a count or a time.

    Raises:
        InvalidInput: If it is not above zero and finite.
    """
    if value is not None and not (math.isfinite(value) and value > 0):
        raise InvalidInput(f"{option} must be above zero, got {value:g}")


def choose_lengths(
    context: int | None,
    input_tokens: int | None,
    output_tokens: int | None,
    limit_tokens: int,
) -> tuple[int, int, int]:
    """Return context, input and output tokens; defaults shrink to what the model allows.

    Raises:
        InvalidInput: If the model or the context is too short for what was asked.
    """
    if context is not None and context > limit_tokens:
        raise InvalidInput(f"--context {context}: the model is made for {limit_tokens} tokens")
    wanted = (input_tokens or DEFAULT_INPUT_TOKENS) + (output_tokens or DEFAULT_OUTPUT_TOKENS)
    longest = context or min(max(DEFAULT_CONTEXT_TOKENS, wanted), limit_tokens)
    room = longest - (input_tokens or 0)
    answer = output_tokens or max(1, min(DEFAULT_OUTPUT_TOKENS, longest // 4, room))
    prompt = input_tokens or max(1, min(DEFAULT_INPUT_TOKENS, longest - answer))
    if prompt + answer > longest:
        raise InvalidInput(
            f"{prompt} input and {answer} output tokens are more than a context of {longest}"
            " tokens; lower them or raise --context"
        )
    return longest, prompt, answer


def load_price_book(data_dir: Path | None, ledger_address: str | None) -> PriceBook:
    """Return the prices of the ledger, or those of the package where there is none."""
    if ledger_address is None and not ledger_path(data_dir or default_data_dir()).exists():
        return load_default_prices().price_book()
    with open_ledger(data_dir, ledger_address, create=False) as ledger:
        return ledger.price_book()


def find_prices(
    book: PriceBook,
    accelerators: list[Accelerator],
    capacity_type: CapacityType,
    region: str,
    at_unix_seconds: float,
) -> tuple[dict[str, float], dict[str, str]]:
    """Return dollars per accelerator-hour, and a remark for each accelerator that needs one.

    A price that has ended still counts, and the remark says so; a missing one is no zero.
    """
    prices: dict[str, float] = {}
    remarks: dict[str, str] = {}
    for accelerator in accelerators:
        found = book.find(PriceKey(accelerator.name, capacity_type, region), at_unix_seconds)
        if isinstance(found, PriceMissing):
            remarks[accelerator.name] = f"No {capacity_type} price is known"
            continue
        if isinstance(found, PriceEntry):
            prices[accelerator.name] = float(found.usd_per_accelerator_hour)
            continue
        prices[accelerator.name] = float(found.entry.usd_per_accelerator_hour)
        remarks[accelerator.name] = "The price has ended, the last known one is used"
    return prices, remarks
