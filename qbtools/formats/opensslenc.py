"""What `openssl enc -aes-256-cbc` wrote in archives of version 3, decrypted piece by piece.

    offset  length
    0       8       "Salted__"
    8       8       salt
    16      X       AES-256-CBC of the data, padded with 1 to 16 bytes that each say how many

Key (32 bytes) and first block (16) are EVP_BytesToKey with MD5 and one round: D1 = MD5(passphrase salt), each further
D = MD5(the one before, passphrase, salt), one behind the other. Nothing here authenticates: the caller did.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from qbtools.errors import Damaged

SLACK = 15
"""Bytes behind a piece that its buffer must have: `update_into` insists on room for a block less one."""

HEADROOM = 32
"""Bytes in front of a piece that its buffer must have: what was held back of the one before goes there."""

_MAGIC = b"Salted__"
_HEAD = 16
_BLOCK = 16
_STEP = 1 << 18  # decrypted while it is in the second-level cache


class Decryptor:
    """One encrypted stream. update() for each piece of it, in order, whatever their sizes; then finish()."""

    def __init__(self, passphrase: bytes) -> None:
        self._passphrase = passphrase
        self._context: CipherContext | None = None
        self._held = b""  # up to 31 bytes: whatever fills no block, and the last one, which may be the padding

    def update(self, buffer: memoryview, end: int) -> memoryview:
        """Decrypts in place the piece that stands in buffer from HEADROOM to end; returns where the plaintext is.

        buffer has at least end + SLACK bytes. Damaged if the stream does not begin as openssl begins one.
        """
        start = HEADROOM - len(self._held)
        buffer[start:HEADROOM] = self._held
        if self._context is None:
            if end - start < _HEAD:
                self._held = bytes(buffer[start:end])
                return buffer[start:start]
            self._context = self._begin(bytes(buffer[start : start + _HEAD]))
            start += _HEAD
        size = end - start
        stop = end - (size % _BLOCK + _BLOCK if size >= _BLOCK else size)
        self._held = bytes(buffer[stop:end])
        for at in range(start, stop, _STEP):
            step = min(at + _STEP, stop)
            self._context.update_into(buffer[at:step], buffer[at : step + SLACK])
        return buffer[start:stop]

    def finish(self) -> bytes:
        """The last bytes of the plaintext. Damaged if the stream does not end with a whole, padded block."""
        if self._context is None or len(self._held) != _BLOCK:
            raise Damaged("its encryption ends in the middle of a block")
        block = self._context.update(self._held)
        count = block[-1]
        if not 1 <= count <= _BLOCK or block[-count:] != bytes([count]) * count:
            raise Damaged("its encryption does not end with a padded block")
        return block[:-count]

    def _begin(self, head: bytes) -> CipherContext:
        if not head.startswith(_MAGIC):
            raise Damaged("it does not begin as openssl begins what it encrypts")
        secret = self._passphrase + head[len(_MAGIC) :]
        parts = [b""]
        for _ in range(3):
            parts.append(hashlib.md5(parts[-1] + secret, usedforsecurity=False).digest())
        return Cipher(AES(parts[1] + parts[2]), CBC(parts[3])).decryptor()
