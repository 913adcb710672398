"""Decrypts the output of `openssl enc -aes-256-cbc` in archives of version 3, piece by piece.

    offset  length
    0       8       "Salted__"
    8       8       salt
    16      X       AES-256-CBC of the data, padded with 1 to 16 bytes that each contain their number

Key (32 bytes) and IV (16) are EVP_BytesToKey with MD5 and one round: D1 = MD5(passphrase salt), each further
D = MD5(previous D, passphrase, salt), concatenated. Nothing is authenticated here: the caller does it before.
"""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from qbtools.errors import Damaged

SLACK = 15
"""Spare bytes that a buffer needs behind a piece: `update_into` requires a block minus one."""

HEADROOM = 32
"""Spare bytes that a buffer needs in front of a piece, for the bytes that were kept from the piece before."""

_MAGIC = b"Salted__"
_HEAD = 16
_BLOCK = 16
_STEP = 1 << 18  # bytes that are decrypted at a time: they fit in the second-level cache


class Decryptor:
    """One encrypted stream. Call update() for each piece, of any size, in order; then finish()."""

    def __init__(self, passphrase: bytes) -> None:
        self._passphrase = passphrase
        self._context: CipherContext | None = None
        self._held = b""  # up to 31 bytes: an incomplete block, and the block before it, which may be the padding

    def update(self, buffer: memoryview, end: int) -> memoryview:
        """Decrypts in place the piece in buffer from HEADROOM to end; returns the part with the plaintext.

        buffer has at least end + SLACK bytes. Damaged if the beginning of the stream is not that of openssl.
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
        """The last bytes of the plaintext. Damaged if the stream does not end with a complete, padded block."""
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
