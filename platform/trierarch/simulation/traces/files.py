"""Text lines of a plain or gzipped file, with errors that name the file and the line."""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from trierarch.core.errors import InvalidInput

GZIP_MAGIC = b"\x1f\x8b"
CHUNK_ROWS = 100_000
"""Rows held as Python objects at a time; columns are packed after each chunk."""


@contextmanager
def open_text(path: Path) -> Iterator[io.TextIOBase]:
    """Open ``path`` as UTF-8 text; gzip is told by its first bytes, not by its name.

    Raises:
        InvalidInput: If it cannot be read, is cut off, or is not text.
    """
    try:
        with path.open("rb") as probe:
            is_gzip = probe.read(2) == GZIP_MAGIC
        if is_gzip:
            with gzip.open(path, "rt", encoding="utf-8-sig", newline="") as packed:
                yield packed
        else:
            with path.open(encoding="utf-8-sig", newline="") as plain:
                yield plain
    except EOFError as error:
        raise InvalidInput(f"{path}: the gzip data ends too early; copy the file again") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise InvalidInput(f"{path}: the gzip data is damaged ({error})") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: not a text file (byte {error.start} is not UTF-8)") from error
    except csv.Error as error:
        raise InvalidInput(f"{path}: not a readable CSV file ({error})") from error
    except FileNotFoundError as error:
        raise InvalidInput(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise InvalidInput(f"{path}: a folder, not a trace file") from error
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read ({error.strerror or error})") from error


def stem(path: Path) -> str:
    """Return the file's name without the endings of its format."""
    name = path.name
    for ending in (".gz", ".csv", ".jsonl", ".json", ".txt"):
        name = name.removesuffix(ending)
    return name


def csv_chunks(
    path: Path, lines: io.TextIOBase, columns: list[int], width: int
) -> Iterator[tuple[int, list[tuple[str, ...]]]]:
    """Yield (line number of the first row, one tuple of texts per wanted column).

    Raises:
        InvalidInput: If a row has fewer fields than the header.
    """
    reader = csv.reader(lines)
    first_line = 2
    while rows := list(islice(reader, CHUNK_ROWS)):
        if any(len(row) < width for row in rows):
            index = next(i for i, row in enumerate(rows) if len(row) < width)
            trailing_blank_lines = not any(any(row) for row in rows[index:])
            if not trailing_blank_lines:
                raise InvalidInput(
                    f"{path} line {first_line + index}: "
                    f"{len(rows[index])} fields where the header has {width}"
                )
            rows = rows[:index]
        if rows:
            by_column = list(zip(*rows, strict=False))
            yield first_line, [by_column[column] for column in columns]
        first_line += len(rows)
