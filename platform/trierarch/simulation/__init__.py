"""Replay request traces through a fleet in virtual time.

Nothing here reads a clock or shares a generator: a run is a function of its
trace, its fleet, its policy and its seed, so two runs can be compared request
by request.
"""
