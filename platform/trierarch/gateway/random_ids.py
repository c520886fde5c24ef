"""Random bytes for ids, drawn from the operating system a page at a time."""

from __future__ import annotations

from collections.abc import Callable

DRAW_BYTES = 8192
"""One system call for some two hundred requests."""


class BufferedRandom:
    """Hands out bytes of a random source, each once. For one thread.

    Args:
        draw: Source, such as ``os.urandom``.
    """

    __slots__ = ("_buffer", "_draw", "_position")

    def __init__(self, draw: Callable[[int], bytes]) -> None:
        self._draw = draw
        self._buffer = b""
        self._position = 0

    def __call__(self, size: int) -> bytes:
        """Return ``size`` random bytes."""
        end = self._position + size
        if end > len(self._buffer):
            self._buffer = self._draw(max(DRAW_BYTES, size))
            self._position, end = 0, size
        taken = self._buffer[self._position : end]
        self._position = end
        return taken
