"""The few errors that cross a layer border.

Each message is one sentence for the person who has to act on it; the command
line prints it as it is, without a traceback.
"""


class TrierarchError(Exception):
    """Something the user can read and act on; ends a command with exit code 1."""


class InvalidInput(TrierarchError):
    """The request itself is wrong (an option, a file, a manifest); exit code 2."""


class Unavailable(TrierarchError):
    """A part that should answer does not (a busy port, a dead process, a full disk)."""
