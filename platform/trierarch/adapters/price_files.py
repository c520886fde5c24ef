"""Price files: TOML on disk, checked in full, every problem with its line."""

from __future__ import annotations

import importlib.resources
import re
import tomllib
from decimal import Decimal
from pathlib import Path

from trierarch.core.errors import InvalidInput
from trierarch.cost.documents import DocumentProblem, Place, PriceDocument, parse_price_document

DEFAULT_FILE = "default_prices.toml"
"""In the package ``trierarch.cost``, so that a wheel has it too."""


def _line_of(text: str, place: Place) -> int:
    """Return the line a place begins at, counted from 1."""
    lines = text.splitlines()
    start = 0
    if place.number:
        header = re.compile(rf"\s*\[\[\s*{re.escape(place.table)}\s*\]\]")
        headers = [index for index, line in enumerate(lines) if header.match(line)]
        if place.number > len(headers):
            return 1
        start = headers[place.number - 1]
    elif place.table:
        name = re.compile(rf"\s*(\[+\s*)?{re.escape(place.table)}\b")
        start = next((index for index, line in enumerate(lines) if name.match(line)), 0)
    if place.field:
        field = re.compile(rf"\s*{re.escape(place.field)}\s*=")
        for index in range(start + 1, len(lines)):
            if lines[index].lstrip().startswith("["):
                break
            if field.match(lines[index]):
                return index + 1
    return start + 1


def _describe(text: str, name: str, problem: DocumentProblem) -> str:
    place = f"{problem.place}: " if str(problem.place) else ""
    return f"{name}:{_line_of(text, problem.place)}: {place}{problem.message}"


def read_price_text(text: str, name: str) -> tuple[PriceDocument, list[str]]:
    """Return what a text says, and one line for each thing that is wrong with it.

    Args:
        text: TOML.
        name: What to call it in the lines.
    """
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        return PriceDocument(), [f"{name}: not TOML: {error}"]
    parsed, problems = parse_price_document(document)
    return parsed, [_describe(text, name, problem) for problem in problems]


def read_price_file(path: Path) -> tuple[PriceDocument, list[str]]:
    """Return what a file says, and one line for each thing that is wrong with it.

    Raises:
        InvalidInput: If the file cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise InvalidInput(f"{path} is not a text file in UTF-8") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    return read_price_text(text, str(path))


def load_default_prices() -> PriceDocument:
    """Return the prices and rates that ship with the package."""
    text = importlib.resources.files("trierarch.cost").joinpath(DEFAULT_FILE).read_text("utf-8")
    document, problems = read_price_text(text, DEFAULT_FILE)
    if problems:
        raise InvalidInput(f"the package is damaged: {problems[0]}")
    return document
