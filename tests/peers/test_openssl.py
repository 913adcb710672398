"""A container by the commands of openssl alone, in both directions: nothing of it is our invention."""

from __future__ import annotations

import hashlib

import pytest
from support import missing, need, run

from qbtools.formats.container import Parameters, open_bytes, seal_bytes

SECRET = b"20261124T060000-01!vm1/root.img.000!correct horse"
DATA = hashlib.shake_256(b"data").digest(10_001)


@pytest.fixture(autouse=True)
def peer() -> None:
    need("openssl")
    if run("openssl", "version").stdout.split()[1] < b"3":
        missing("openssl 3 is needed: it has `openssl kdf`")


def openssl(*argv: str, data: bytes = b"") -> bytes:
    ended = run("openssl", *argv, data=data)
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout


def keys(secret: bytes, salt: bytes, n: int, r: int, p: int) -> tuple[str, str]:
    """AES key and HMAC key, in hexadecimal."""
    options = [f"hexpass:{secret.hex()}", f"hexsalt:{salt.hex()}", f"n:{n}", f"r:{r}", f"p:{p}"]
    words = [word for option in options for word in ("-kdfopt", option)]
    both = openssl("kdf", "-keylen", "64", *words, "-binary", "SCRYPT").hex()
    return both[:64], both[64:]


def crypt(key: str, data: bytes) -> bytes:
    return openssl("enc", "-aes-256-ctr", "-K", key, "-iv", "0" * 32, "-nosalt", data=data)


def mac(key: str, data: bytes) -> bytes:
    return openssl("dgst", "-sha256", "-mac", "HMAC", "-macopt", f"hexkey:{key}", "-binary", data=data)


@pytest.mark.parametrize("size", [0, 1, 10_001])
@pytest.mark.parametrize("parameters", [(10, 8, 1), (12, 3, 2)])
def test_we_open_what_it_made(size: int, parameters: tuple[int, int, int]) -> None:
    log_n, r, p = parameters
    salt = bytes(range(32))
    aes, hmac = keys(SECRET, salt, 1 << log_n, r, p)
    start = b"scrypt\0" + bytes([log_n]) + r.to_bytes(4, "big") + p.to_bytes(4, "big") + salt
    start += openssl("dgst", "-sha256", "-binary", data=start)[:16]
    start += mac(hmac, start)
    sealed = start + crypt(aes, DATA[:size])
    assert open_bytes(SECRET, sealed + mac(hmac, sealed)) == DATA[:size]


@pytest.mark.parametrize("size", [0, 1, 10_001])
@pytest.mark.parametrize("parameters", [Parameters(10), Parameters(12, 3, 2), Parameters()])
def test_it_opens_what_we_made(size: int, parameters: Parameters) -> None:
    sealed = seal_bytes(SECRET, parameters, DATA[:size])
    aes, hmac = keys(SECRET, sealed[16:48], 1 << parameters.log_n, parameters.r, parameters.p)
    assert openssl("dgst", "-sha256", "-binary", data=sealed[:48])[:16] == sealed[48:64]
    assert mac(hmac, sealed[:64]) == sealed[64:96]
    assert mac(hmac, sealed[:-32]) == sealed[-32:]
    assert crypt(aes, sealed[96:-32]) == DATA[:size]
