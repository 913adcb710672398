"""The scrypt container: what `scrypt enc` writes and `scrypt dec` reads.

    offset  length
    0       6       "scrypt"
    6       1       version, 0
    7       1       log2 N
    8       4       r, big-endian
    12      4       p, big-endian
    16      32      salt
    48      16      first 16 bytes of SHA-256 over bytes 0-47
    64      32      HMAC-SHA256 over bytes 0-63
    96      X       data XOR AES-256-CTR key stream, counter from 0
    96+X    32      HMAC-SHA256 over bytes 0 ... 96+X-1

64 bytes = scrypt(passphrase, salt, N, r, p): the first 32 are the AES key, the last 32 the HMAC key. The nonce is
always 0, so a salt is never used twice. Source: the file FORMAT of the scrypt program.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from qbtools.errors import Damaged
from qbtools.formats import kdf

HEADER_SIZE = 96
MAC_SIZE = 32
OVERHEAD = HEADER_SIZE + MAC_SIZE
SLACK = 15
"""Bytes behind the data that a buffer must have: `update_into` insists on room for a block less one."""

_STEP = 1 << 18  # encrypted and hashed while it is in the second-level cache
_FIXED = struct.Struct(">6sBBII32s")
_MAGIC = b"scrypt"


class NotAuthentic(Damaged):
    """A keyed check fails: damage, or forgery."""


class WrongKey(NotAuthentic):
    """The header's keyed check fails: where its plain checksum holds, most likely the passphrase is wrong."""


@dataclass(frozen=True)
class Parameters:
    """What key derivation costs. 10 <= log_n <= 40, r·p < 2^30."""

    log_n: int = 17
    r: int = 8
    p: int = 1

    @property
    def memory(self) -> int:
        """Bytes that one derivation takes."""
        return 128 * self.r * ((1 << self.log_n) + self.p + 2)

    @property
    def work(self) -> int:
        """N·r·p: a derivation takes time in proportion to it."""
        return (1 << self.log_n) * self.r * self.p


def parse_fixed(data: bytes, what: str = "the container") -> tuple[Parameters, bytes]:
    """Parameters and salt from a container's first 96 bytes, as far as they can be checked without a key.

    what: names it in messages. Damaged where it is no container, or its plain checksum or parameters are wrong. What
    comes back is still untrusted: the caller bounds work and memory before a key is derived.
    """
    if len(data) < HEADER_SIZE:
        raise Damaged(f"{what} is too short for an scrypt container")
    magic, version, log_n, r, p, salt = _FIXED.unpack_from(data)
    if magic != _MAGIC:
        raise Damaged(f"{what} is no scrypt container")
    if version != 0:
        raise Damaged(f"{what} is an scrypt container of unknown version {version}")
    if hashlib.sha256(data[:48]).digest()[:16] != data[48:64]:
        raise Damaged(f"{what} has a damaged header: its plain checksum is wrong")
    if not 10 <= log_n <= 40 or r == 0 or p == 0 or r * p >= 1 << 30:
        raise Damaged(f"{what} has key derivation parameters out of bounds")
    return Parameters(log_n, r, p), salt


class Key:
    """The keys of one container, and its 96 header bytes."""

    def __init__(self, passphrase: bytes, parameters: Parameters, salt: bytes, second_opinion: bool = False) -> None:
        both = kdf.derive(
            passphrase, salt, 1 << parameters.log_n, parameters.r, parameters.p, second_opinion=second_opinion
        )
        self._aes, self._hmac = both[:32], both[32:]
        fixed = _FIXED.pack(_MAGIC, 0, parameters.log_n, parameters.r, parameters.p, salt)
        fixed += hashlib.sha256(fixed).digest()[:16]
        self.header = fixed + hmac.digest(self._hmac, fixed, "sha256")

    def seal(self, buffer: memoryview, size: int) -> bytes:
        """Encrypts the first size bytes of buffer in place; returns the trailing MAC. Use a key once only.

        buffer has at least size + SLACK bytes.
        """
        encrypt = Cipher(AES(self._aes), CTR(bytes(16))).encryptor().update_into
        mac = hmac.new(self._hmac, self.header, "sha256")
        for at in range(0, size, _STEP):
            end = min(at + _STEP, size)
            encrypt(buffer[at:end], buffer[at : end + SLACK])
            mac.update(buffer[at:end])
        return mac.digest()

    def authenticate(self, header: bytes, body: memoryview, mac: bytes) -> None:
        """Checks header and trailing MAC of a container: WrongKey, NotAuthentic. Nothing is decrypted."""
        if not hmac.compare_digest(header, self.header):
            raise WrongKey("the header does not authenticate")
        check = hmac.new(self._hmac, header, "sha256")
        check.update(body)
        if not hmac.compare_digest(check.digest(), mac):
            raise NotAuthentic("the content does not authenticate")

    def decrypt(self, buffer: memoryview, size: int) -> None:
        """Decrypts the first size bytes of buffer in place, after authenticate(). Bounds as in seal()."""
        decrypt = Cipher(AES(self._aes), CTR(bytes(16))).decryptor().update_into
        for at in range(0, size, _STEP):
            end = min(at + _STEP, size)
            decrypt(buffer[at:end], buffer[at : end + SLACK])


def new_key(passphrase: bytes, parameters: Parameters, second_opinion: bool = False) -> Key:
    """A key of a fresh random salt, for one container."""
    return Key(passphrase, parameters, os.urandom(32), second_opinion)


def seal_bytes(passphrase: bytes, parameters: Parameters, data: bytes, second_opinion: bool = False) -> bytes:
    """A whole container with data in it."""
    key = new_key(passphrase, parameters, second_opinion)
    buffer = memoryview(bytearray(data) + bytes(SLACK))
    mac = key.seal(buffer, len(data))
    return key.header + bytes(buffer[: len(data)]) + mac


def open_bytes(passphrase: bytes, sealed: bytes, second_opinion: bool = False) -> bytes:
    """What is in a whole container. Damaged where it is none, NotAuthentic where a keyed check fails.

    The caller has bounded the parameters (parse_fixed).
    """
    if len(sealed) < OVERHEAD:
        raise Damaged("too short for an scrypt container")
    parameters, salt = parse_fixed(sealed)
    key = Key(passphrase, parameters, salt, second_opinion)
    body = memoryview(bytearray(sealed[HEADER_SIZE:-MAC_SIZE]) + bytes(SLACK))
    size = len(sealed) - OVERHEAD
    key.authenticate(sealed[:HEADER_SIZE], body[:size], sealed[-MAC_SIZE:])
    key.decrypt(body, size)
    return bytes(body[:size])
