"""Read pip's configuration and say the same to uv.

An organisation points pip at its own index once, for every project. uv reads
none of those settings, so without this module the set-up would ignore the only
registry such a machine can reach.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping, Sequence

_SECTIONS = ("global", "install", ":env:")
"""Where ``pip install`` looks, the later the stronger."""

DEFAULT_TIMEOUT_SECONDS = 120
"""uv gives up a silent download after 30 seconds; the largest wheels wait longer behind a proxy."""


@dataclasses.dataclass(frozen=True)
class UvSettings:
    """What has to be said to uv.

    Attributes:
        environment: Variables to set beside the inherited ones.
        options: Options of ``uv pip``, for what has no variable.
    """

    environment: Mapping[str, str]
    options: Sequence[str] = ()


def parse(listing: str) -> dict[str, str]:
    """Return pip's effective settings from the output of ``pip config list``.

    Args:
        listing: Lines such as ``global.index-url='https://...'``; others are ignored.
    """
    found: dict[str, dict[str, str]] = {section: {} for section in _SECTIONS}
    for line in listing.splitlines():
        name, separator, quoted = line.partition("=")
        section, dot, key = name.strip().rpartition(".")
        if not (separator and dot and section in found):
            continue
        try:
            value = ast.literal_eval(quoted.strip())
        except (SyntaxError, ValueError):
            continue
        if isinstance(value, str) and value:  # pip takes an empty one for none
            found[section][key.lower().replace("_", "-")] = value
    effective: dict[str, str] = {}
    for section in _SECTIONS:
        effective.update(found[section])
    return effective


def translate(
    pip: Mapping[str, str],
    environment: Mapping[str, str],
    *,
    is_folder: Callable[[str], bool],
    has_system_certificates: bool,
) -> UvSettings:
    """Return the uv settings that mean what pip's mean.

    What the user has said to uv directly is left alone.

    Args:
        pip: Effective settings, as ``parse`` returns them.
        environment: The inherited variables.
        is_folder: Tells whether a path is a folder. pip skips a ``find-links`` folder that is
            missing, uv would fail; certificates may be in a file or in a folder.
        has_system_certificates: The machine has a store of certificates; pip trusts it, uv
            only if it is told to.
    """
    wanted: dict[str, str] = {}
    if index := pip.get("index-url", "").strip():
        wanted["UV_DEFAULT_INDEX"] = index
    if extra := pip.get("extra-index-url", "").split():
        wanted["UV_INDEX"] = " ".join(extra)
        # pip takes the best version over all indexes; every locked file is pinned by its hash.
        wanted["UV_INDEX_STRATEGY"] = "unsafe-best-match"
    links = [
        link
        for link in pip.get("find-links", "").split()
        if "://" in link or link.startswith("file:") or is_folder(link)
    ]
    if links:
        wanted["UV_FIND_LINKS"] = ",".join(links)
    if hosts := pip.get("trusted-host", "").split():
        wanted["UV_INSECURE_HOST"] = " ".join(hosts)
    if certificates := _certificates(pip, environment):
        wanted["SSL_CERT_DIR" if is_folder(certificates) else "SSL_CERT_FILE"] = certificates
    elif has_system_certificates:
        wanted["UV_SYSTEM_CERTS"] = "1"
    if certificate := pip.get("client-cert", "").strip():
        wanted["SSL_CLIENT_CERT"] = certificate
    if proxy := pip.get("proxy", "").strip():
        wanted["ALL_PROXY"] = proxy if "://" in proxy else f"http://{proxy}"
    wanted["UV_HTTP_TIMEOUT"] = _timeout(pip.get("timeout") or pip.get("default-timeout"))
    options = ("--no-index",) if pip.get("no-index", "").lower() in _TRUE else ()
    overridden = {
        "UV_DEFAULT_INDEX": ("UV_DEFAULT_INDEX", "UV_INDEX_URL"),
        "UV_INDEX": ("UV_INDEX", "UV_EXTRA_INDEX_URL"),
        "SSL_CERT_FILE": _UV_CERTIFICATES,
        "SSL_CERT_DIR": _UV_CERTIFICATES,
        "UV_SYSTEM_CERTS": (*_UV_CERTIFICATES, "UV_SYSTEM_CERTS", "UV_NATIVE_TLS"),
        "ALL_PROXY": ("ALL_PROXY", "HTTPS_PROXY", "all_proxy", "https_proxy"),
    }
    return UvSettings(
        environment={
            name: value
            for name, value in wanted.items()
            if not any(environment.get(said) for said in overridden.get(name, (name,)))
        },
        options=options,
    )


_UV_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where uv looks for certificates."""

_REQUESTS_CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Where pip looks for certificates that its configuration does not name."""


def _certificates(pip: Mapping[str, str], environment: Mapping[str, str]) -> str:
    """Return the file or folder with the certificates that pip trusts; empty for its own."""
    named = (pip.get("cert", ""), *(environment.get(name, "") for name in _REQUESTS_CERTIFICATES))
    return next((path.strip() for path in named if path.strip()), "")


_TRUE = ("1", "true", "yes", "on", "y", "t")


def _timeout(seconds: str | None) -> str:
    """Return uv's timeout: pip's if it is the longer one, since pip counts per try."""
    try:
        asked = int(float(seconds or 0))
    except ValueError:
        asked = 0
    return str(max(asked, DEFAULT_TIMEOUT_SECONDS))
