"""Trierarch: an inference platform for mixture-of-experts language models.

The layers, from effect to word, are described in ``docs/architecture.md``.
"""

__version__ = "0.1.0"
