"""Key derivation: the vectors of RFC 7914 with both providers, and what happens if one is missing."""

from __future__ import annotations

import builtins
import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from qbtools.errors import Failed
from qbtools.formats import kdf

# RFC 7914, section 12. The one of N=2^20 takes seconds; tests/peers/test_scrypt.py has large ones.
RFC = {
    "empty": (
        (b"", b"", 16, 1, 1),
        "77d6576238657b203b19ca42c18a0497f16b4844e3074ae8dfdffa3fede21442"
        "fcd0069ded0948f8326a753a0fc81f17e8d3e0fb2e0d3628cf35e20c38d18906",
    ),
    "p-16": (
        (b"password", b"NaCl", 1024, 8, 16),
        "fdbabe1c9d3472007856e7190d01e9fe7c6ad7cbc8237830e77376634b373162"
        "2eaf30d92e22a3886ff109279d9830dac727afb94a83ee6d8360cbdfa2cc0640",
    ),
    "n-16384": (
        (b"pleaseletmein", b"SodiumChloride", 16384, 8, 1),
        "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
        "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887",
    ),
}
PROVIDERS = [kdf.by_cryptography, kdf.by_scrypt]
COST = (16, 1, 1)


@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("name", RFC)
def test_rfc_7914(name: str, provider: kdf.Provider) -> None:
    arguments, wanted = RFC[name]
    assert provider(*arguments).hex() == wanted


@pytest.mark.parametrize("secret", [b"x" * 64, b"x" * 65, b"x" * 1100, "grün €".encode(), b"a b\tc!", b"\xff\xfe"])
def test_the_providers_agree(secret: bytes) -> None:
    salt = bytes(range(32))
    for cost in ((1024, 8, 1), (1024, 1, 3), (2048, 3, 2)):
        keys = {provider(secret, salt, *cost) for provider in PROVIDERS}
        n, r, p = cost
        assert keys == {hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, dklen=64)}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The providers that were called, in order."""
    order: list[str] = []

    def spy(name: str) -> Callable[..., bytes]:
        original = getattr(kdf, name)

        def ask(*arguments: Any) -> bytes:
            order.append(name)
            return bytes(original(*arguments))

        return ask

    for name in ("by_cryptography", "by_scrypt"):
        monkeypatch.setattr(kdf, name, spy(name))
    return order


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    original = builtins.__import__

    def importing(name: str, *arguments: Any, **more: Any) -> Any:
        if name in modules:
            raise ImportError(f"no module {name}")
        return original(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", importing)


SCRYPT, OPENSSL = "scrypt", "cryptography.hazmat.primitives.kdf.scrypt"


def test_each_has_its_part(asked: list[str]) -> None:
    kdf.derive(b"a", b"b", *COST)
    assert asked == ["by_cryptography"]
    kdf.derive(b"a", b"b", *COST, second_opinion=True)
    assert asked[1:] == ["by_scrypt"]


@pytest.mark.parametrize("module", [SCRYPT, OPENSSL])
def test_either_alone_is_enough(monkeypatch: pytest.MonkeyPatch, asked: list[str], module: str) -> None:
    arguments, wanted = RFC["empty"]
    without(monkeypatch, module)
    assert kdf.derive(*arguments).hex() == kdf.derive(*arguments, second_opinion=True).hex() == wanted
    assert "by_scrypt" in asked
    assert "by_cryptography" in asked


def test_none_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, SCRYPT, OPENSSL)
    with pytest.raises(Failed, match="no key derivation works: no module"):
        kdf.derive(b"a", b"b", *COST)


def test_one_that_does_not_work_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_arguments: object) -> bytes:
        raise RuntimeError("built without scrypt")

    arguments, wanted = RFC["empty"]
    monkeypatch.setattr(kdf, "by_cryptography", broken)
    assert kdf.derive(*arguments).hex() == wanted
    monkeypatch.setattr(kdf, "by_scrypt", broken)
    with pytest.raises(Failed, match="built without scrypt"):
        kdf.derive(*arguments)


def test_no_memory_is_no_reason_to_ask_the_other(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> None:
    def hungry(*_arguments: object) -> bytes:
        raise MemoryError

    monkeypatch.setattr(kdf, "by_cryptography", hungry)
    with pytest.raises(MemoryError):
        kdf.derive(b"a", b"b", *COST)
    assert asked == []
