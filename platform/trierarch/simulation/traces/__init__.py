"""Request traces and spot-capacity traces, read from their published formats.

``read_trace`` detects the format from the file's content. Every reader ends in
the same columns (``Trace``) and refuses a file it cannot trust with one line
that names the place: a trace that is silently repaired proves nothing.
"""

from trierarch.simulation.traces.reading import read_trace
from trierarch.simulation.traces.spot import SpotTrace, read_spot_trace
from trierarch.simulation.traces.trace import Tier, Trace

__all__ = ["SpotTrace", "Tier", "Trace", "read_spot_trace", "read_trace"]
