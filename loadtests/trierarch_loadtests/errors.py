"""The error that ends a run before it starts, in one line for the person at the keyboard."""


class UsageError(Exception):
    """Bad options, a bad scenario or an endpoint that cannot be used; exit code 2."""
