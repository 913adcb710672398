"""Reads the namespace and the key that an SSH signature names. Nothing is verified here.

The format is described in OpenSSH's PROTOCOL.sshsig; keys and certificates in RFC 4253 and PROTOCOL.certkeys.
"""

from __future__ import annotations

import base64
import hashlib

from qbtools.errors import Damaged
from qbtools.lean import NamedTuple

_BEGIN = b"-----BEGIN SSH SIGNATURE-----\n"
_END = b"\n-----END SSH SIGNATURE-----"
_MAGIC = b"SSHSIG\0\0\0\1"

_CERTIFICATE = b"-cert-v01@openssh.com"
# The number of fields of a certificate that are the key, after its kind and a nonce. For all other kinds it is one.
_KEY_FIELDS = {b"ssh-rsa": 2, b"ecdsa-sha2": 2, b"sk-ssh-ed25519": 2, b"sk-ecdsa-sha2": 3}


class Named(NamedTuple):
    """The namespace and the key that a signature names. key: in base64, as in a list of keys. fingerprint: in the form
    of `ssh-keygen -l`. certified: the key has a certificate, so that a list may name its authority instead."""

    namespace: str
    key: bytes
    fingerprint: str
    certified: bool


def parse(untrusted_signature: bytes, name: str) -> Named:
    """What an armored signature names. name: its name in messages. Damaged if it is not a signature."""
    body, end, rest = untrusted_signature.removeprefix(_BEGIN).partition(_END)
    if not untrusted_signature.startswith(_BEGIN) or not end or rest.strip():
        raise Damaged(f"{name} is not an SSH signature")
    try:
        blob = base64.b64decode(b"".join(body.split()), validate=True)
        if not blob.startswith(_MAGIC):
            raise ValueError
        key, rest = _field(blob[len(_MAGIC) :])
        namespace, _ = _field(rest)
        kind, fields = _field(key)
        plain = _certified_key(kind, fields) if kind.endswith(_CERTIFICATE) else key
    except ValueError:
        raise Damaged(f"{name} is a malformed SSH signature") from None
    digest = base64.b64encode(hashlib.sha256(plain).digest()).decode("ascii").rstrip("=")
    return Named(
        namespace.decode("utf-8", "backslashreplace"), base64.b64encode(key), f"SHA256:{digest}", plain is not key
    )


def _field(data: bytes) -> tuple[bytes, bytes]:
    """The first field in data and the remaining bytes. Each field begins with its length. ValueError if it is cut."""
    end = 4 + int.from_bytes(data[:4], "big")
    if len(data) < max(end, 4):
        raise ValueError
    return data[4:end], data[end:]


def _certified_key(kind: bytes, fields: bytes) -> bytes:
    """The key in a certificate. ValueError if that is malformed."""
    plain = kind.removesuffix(_CERTIFICATE)
    _nonce, rest = _field(fields)
    size = next((count for start, count in _KEY_FIELDS.items() if plain.startswith(start)), 1)
    left = rest
    for _ in range(size):
        _, left = _field(left)
    # The kind of a hardware key ends with @openssh.com, with or without a certificate.
    name = plain + (b"@openssh.com" if plain.startswith(b"sk-") else b"")
    return len(name).to_bytes(4, "big") + name + rest[: len(rest) - len(left)]
