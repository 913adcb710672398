"""The URI of a libvirt. Only one on this machine can be used, because paths and sockets of others are elsewhere."""

from __future__ import annotations

import re

from qbtools.errors import UsageError

DEFAULT = "qemu:///system"
"""The URI that an empty argument means."""

_URI = re.compile(r"([a-z]+)(?:\+([a-z0-9]+))?://([^/?#]*)(/[^?#]*)?(?:\?[^#]*)?")
_DRIVERS = ("qemu", "test")


def checked(text: str) -> str:
    """The URI to connect to. UsageError if it is not one of a libvirt for qemu on this machine."""
    uri = text or DEFAULT
    match = _URI.fullmatch(uri)
    if match is None or not uri.isprintable():
        raise UsageError(f"{uri} is not a URI of libvirt", f"the usual one is {DEFAULT}")
    driver, transport, server, _path = match.groups()
    if transport not in (None, "unix") or server:
        raise UsageError(
            f"{uri} may be on another machine, whose volumes cannot be read here",
            "run qb-backup there, and send the archive to this machine",
        )
    if driver not in _DRIVERS:
        raise UsageError(f"{uri} has no machines of qemu", f"the usual URI is {DEFAULT}")
    return uri
