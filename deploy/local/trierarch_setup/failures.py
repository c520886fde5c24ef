"""Failures that end the set-up, each as one sentence that says what to do."""

from __future__ import annotations

import re
from pathlib import Path


class SetupFailure(Exception):
    """The set-up cannot go on; the message is for the person who has to act."""


_NO_CERTIFICATES = (
    "the certificate file {path} is missing or holds no certificates: correct what names it, which "
    "is pip's `cert` setting, SSL_CERT_FILE, SSL_CERT_DIR, REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
)

_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"No space left on device|os error 28\b|Disk quota exceeded",
        "the disk is full: free some space and run the command again",
    ),
    (
        r"Hash mismatch|hashes? do(es)? not match|DO NOT MATCH THE HASHES",
        "a downloaded package differs from the one that requirements/ pins, so it was not "
        "installed: the package index is changed or damaged on the way",
    ),
    (
        r"(?s)`SSL_CERT_(?:FILE|DIR)`[^\n]*?: (?P<path>[^\n]+)\. No default certificates"
        r".*invalid peer certificate",
        _NO_CERTIFICATES,
    ),
    (r"TLS CA certificate bundle, invalid path: (?P<path>[^\n]+)", _NO_CERTIFICATES),
    (r"NO_CERTIFICATE_OR_CRL_FOUND", _NO_CERTIFICATES),
    (
        r"invalid peer certificate|CERTIFICATE_VERIFY_FAILED|self.signed certificate",
        "the package index's certificate is not trusted here: name your organisation's "
        "certificate file in pip's `cert` setting or in SSL_CERT_FILE",
    ),
    (
        r"status client error \(40[137]|40[137] (Unauthorized|Forbidden|Proxy Auth)",
        "the package index refused the request: check its address and credentials in pip's "
        "configuration (`python3 -m pip config list`)",
    ),
    (
        r"error sending request|dns error|Could not connect|Connection refused|timed out|"
        r"Temporary failure in name resolution|Network is unreachable|NewConnectionError|"
        r"Network connectivity is disabled|Failed to (fetch|download)|"
        r"[Cc]onnection (error|reset|aborted)",
        "the package index cannot be reached: check the network, or the index and proxy in "
        "pip's configuration (`python3 -m pip config list`), and run the command again",
    ),
    (
        r"No matching distribution found|No solution found",
        "the package index does not have a package that requirements/ pins: check the index in "
        "pip's configuration (`python3 -m pip config list`)",
    ),
    (
        r"Permission denied|Read-only file system|Operation not permitted",
        "a file cannot be written: check who owns this folder and the package cache",
    ),
)


def explain(step: str, output: str, exit_status: int, log_file: Path) -> str:
    """Return one sentence on why a step failed.

    Args:
        step: What was being done, in words.
        output: All that the step printed.
        exit_status: Of the failed command; negative for a signal.
        log_file: Where the user finds the rest.
    """
    for pattern, sentence in _CAUSES:
        if found := re.search(pattern, output):
            reason = sentence.format(path=found.groupdict().get("path") or "in use")
            return f"{step} failed: {reason}. Full log: {log_file}"
    ended = f"signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"
    return f"{step} failed ({ended}). The end of the log tells why: {log_file}"
