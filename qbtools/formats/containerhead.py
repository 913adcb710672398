"""The first 96 bytes of a container (container.py), as far as they can be read without a key."""

from __future__ import annotations

import hashlib
import struct

from qbtools.errors import Damaged
from qbtools.lean import NamedTuple

HEADER_SIZE = 96
MAC_SIZE = 32
OVERHEAD = HEADER_SIZE + MAC_SIZE

SLACK = 15
"""Spare bytes that a buffer needs behind the data: `update_into` requires a block minus one."""

_FIXED = struct.Struct(">6sBBII32s")
_MAGIC = b"scrypt"


class Parameters(NamedTuple):
    """The cost of key derivation. 10 <= log_n <= 40, r·p < 2^30."""

    log_n: int = 17
    r: int = 8
    p: int = 1

    @property
    def memory(self) -> int:
        """Bytes of memory for one derivation."""
        return 128 * self.r * ((1 << self.log_n) + self.p + 2)

    @property
    def work(self) -> int:
        """N·r·p: the time of a derivation is proportional to it."""
        return (1 << self.log_n) * self.r * self.p


def parse_fixed(data: bytes, what: str = "the container") -> tuple[Parameters, bytes]:
    """Parameters and salt from a container's first 96 bytes, as far as they can be checked without a key.

    what: its name in messages. Damaged if it is not a container, or its plain checksum or parameters are wrong. The
    result is still untrusted: the caller limits work and memory before a key is derived.
    """
    if len(data) < HEADER_SIZE:
        raise Damaged(f"{what} is too short for an scrypt container")
    magic, version, log_n, r, p, salt = _FIXED.unpack_from(data)
    if magic != _MAGIC:
        raise Damaged(f"{what} is not an scrypt container")
    if version != 0:
        raise Damaged(f"{what} is an scrypt container of unknown version {version}")
    if hashlib.sha256(data[:48]).digest()[:16] != data[48:64]:
        raise Damaged(f"{what} has a damaged header: its plain checksum is wrong")
    if not 10 <= log_n <= 40 or r == 0 or p == 0 or r * p >= 1 << 30:
        raise Damaged(f"{what} has key derivation parameters out of bounds")
    return Parameters(log_n, r, p), salt


def build_fixed(parameters: Parameters, salt: bytes) -> bytes:
    """The first 64 bytes, which parse_fixed reads."""
    fixed = _FIXED.pack(_MAGIC, 0, parameters.log_n, parameters.r, parameters.p, salt)
    return fixed + hashlib.sha256(fixed).digest()[:16]
