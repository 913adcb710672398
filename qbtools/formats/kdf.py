"""Key derivation: scrypt (RFC 7914), behind one function with two providers.

`cryptography` (OpenSSL) is the faster one and serves the chunks. The package `scrypt` (Tarsnap's own code) is the
second opinion: it serves the header, so that a fault in one of them cannot make a whole archive that only we can
read. Where one is missing the other does all.
"""

from __future__ import annotations

from collections.abc import Callable

from qbtools.errors import Failed

KEY_SIZE = 64

Provider = Callable[[bytes, bytes, int, int, int], bytes]


def by_cryptography(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """64 bytes from OpenSSL's scrypt. ImportError where it is not there."""
    from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

    return Scrypt(salt=salt, length=KEY_SIZE, n=n, r=r, p=p).derive(passphrase)


def by_scrypt(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    """64 bytes from the scrypt package. ImportError where it is not there."""
    import scrypt

    return bytes(scrypt.hash(passphrase, salt, n, r, p, KEY_SIZE))


def derive(passphrase: bytes, salt: bytes, n: int, r: int, p: int, second_opinion: bool = False) -> bytes:
    """The 64 bytes that a passphrase and a salt give; takes 128·N·r bytes of memory and lets go of the GIL.

    n a power of 2, r·p < 2^30: the caller has checked both, and the bound on memory. Failed if no provider works.
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
        except Exception as error:  # not there, or built without scrypt: the other one is asked
            problem = error
    raise Failed(f"no key derivation works: {problem}") from problem
