"""The scrypt container: the format that `scrypt enc` writes and `scrypt dec` reads.

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
always 0, so a salt must never be used twice. Source: the file FORMAT of the scrypt program.
"""

from __future__ import annotations

import hmac
import os

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from qbtools.errors import Damaged
from qbtools.formats import kdf
from qbtools.formats.containerhead import HEADER_SIZE, MAC_SIZE, OVERHEAD, SLACK, Parameters, build_fixed, parse_fixed

_STEP = 1 << 18  # bytes that are encrypted and hashed at a time: they fit in the second-level cache


class NotAuthentic(Damaged):
    """A keyed check fails: the data is damaged or forged."""


class WrongKey(NotAuthentic):
    """The keyed check of the header fails. If its plain checksum is right, the passphrase is probably wrong."""


class Key:
    """The keys of one container, and its 96 header bytes."""

    def __init__(self, passphrase: bytes, parameters: Parameters, salt: bytes, second_opinion: bool = False) -> None:
        both = kdf.derive(
            passphrase, salt, 1 << parameters.log_n, parameters.r, parameters.p, second_opinion=second_opinion
        )
        self._aes, self._hmac = both[:32], both[32:]
        fixed = build_fixed(parameters, salt)
        self.header = fixed + hmac.digest(self._hmac, fixed, "sha256")

    def seal(self, buffer: memoryview, size: int) -> bytes:
        """Encrypts the first size bytes of buffer in place; returns the trailing MAC. Use a key only once.

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
    """A key with a new random salt, for one container."""
    return Key(passphrase, parameters, os.urandom(32), second_opinion)


def seal_bytes(passphrase: bytes, parameters: Parameters, data: bytes, second_opinion: bool = False) -> bytes:
    """A complete container with data in it."""
    key = new_key(passphrase, parameters, second_opinion)
    buffer = memoryview(bytearray(data) + bytes(SLACK))
    mac = key.seal(buffer, len(data))
    return key.header + bytes(buffer[: len(data)]) + mac


def open_bytes(passphrase: bytes, sealed: bytes, second_opinion: bool = False) -> bytes:
    """The data of a complete container. Damaged if it is not a container, NotAuthentic if a keyed check fails.

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
