"""Key derivation: scrypt (RFC 7914), behind one function with two providers.

`cryptography` (OpenSSL) is faster and derives the keys of the chunks. The package `scrypt` (Tarsnap's own code) is the
second opinion: it derives the key of the header, so that a fault in one of them cannot make an archive that only we
can read. If one is missing, the other is used for everything.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from importlib import import_module

from qbtools.errors import Failed

KEY_SIZE = 64

Provider = Callable[[bytes, bytes, int, int, int], bytes]


def by_cryptography(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """64 bytes from OpenSSL's scrypt. ImportError if it is missing."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=KEY_SIZE, n=n, r=r, p=p).derive(passphrase)


def by_scrypt(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """64 bytes from the scrypt package. ImportError if it is missing."""
    import scrypt

    return bytes(scrypt.hash(passphrase, salt, n, r, p, KEY_SIZE))


def derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int, second_opinion: bool = False) -> bytes:
    """Derives 64 bytes from a passphrase and a salt. Uses 128·N·r bytes of memory, and releases the GIL.

    n is a power of 2, r·p < 2^30: the caller has checked both, and the bound on memory. Failed if no provider works.
    """
    providers: list[Provider] = [by_cryptography, by_scrypt]
    if second_opinion:
        providers.reverse()
    problem: Exception | None = None
    for provider in providers:
        try:
            return provider(passphrase, salt, n, r, p)
        except MemoryError:
            raise
        except Exception as error:  # it is missing, or built without scrypt: the other one is tried
            problem = error
    raise Failed(f"no key derivation works: {problem}") from problem


def load() -> None:
    """Loads the packages that derive keys. As for derive(), one that is missing or broken is no error."""
    for name in ("cryptography.hazmat.primitives.kdf.scrypt", "scrypt"):
        with suppress(Exception):
            import_module(name)
