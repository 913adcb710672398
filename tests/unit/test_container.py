"""The scrypt container: its layout, what is refused, and the order of the checks."""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator

import pytest
from vectors import archivebytes as made

from qbtools.errors import Damaged
from qbtools.formats import container, kdf
from qbtools.formats.container import (
    HEADER_SIZE,
    OVERHEAD,
    SLACK,
    Key,
    NotAuthentic,
    Parameters,
    WrongKey,
    new_key,
    open_bytes,
    parse_fixed,
    seal_bytes,
)

SECRET = b"correct horse"
CHEAP = Parameters(log_n=10)
STEP = 1 << 18
DATA = made.content("data", 100)
SEALED = made.container(SECRET, DATA)


@pytest.fixture
def derived(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int, int]]]:
    """N, r, p of each derivation."""
    asked: list[tuple[int, int, int]] = []
    original = kdf.derive

    def spy(passphrase: bytes, salt: bytes, n: int, r: int, p: int, second_opinion: bool = False) -> bytes:
        asked.append((n, r, p))
        return original(passphrase, salt, n, r, p, second_opinion)

    monkeypatch.setattr(kdf, "derive", spy)
    yield asked


# What is written.


def test_the_layout() -> None:
    sealed = seal_bytes(SECRET, Parameters(11, 4, 2), DATA)
    assert len(sealed) == len(DATA) + OVERHEAD
    assert sealed[:16] == b"scrypt\0\x0b" + struct.pack(">II", 4, 2)
    assert sealed[48:64] == hashlib.sha256(sealed[:48]).digest()[:16]
    keys = hashlib.scrypt(SECRET, salt=sealed[16:48], n=2048, r=4, p=2, dklen=64)
    assert sealed[64:96] == hmac.digest(keys[32:], sealed[:64], "sha256")
    assert sealed[-32:] == hmac.digest(keys[32:], sealed[:-32], "sha256")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, STEP - 1, STEP, STEP + 1, 2 * STEP, 2 * STEP + 17])
def test_sizes(size: int) -> None:
    data = made.content("size", size)
    assert open_bytes(SECRET, made.container(SECRET, data)) == data
    salt = made.container(SECRET, data)[16:48]
    key = Key(SECRET, CHEAP, salt)
    buffer = memoryview(bytearray(data) + b"#" * SLACK)
    mac = key.seal(buffer, size)
    assert key.header + buffer[:size] + mac == made.container(SECRET, data)
    assert buffer[size:] == b"#" * SLACK
    key.decrypt(buffer, size)
    assert buffer == data + b"#" * SLACK


def test_a_buffer_larger_than_its_data() -> None:
    key = Key(SECRET, CHEAP, bytes(32))
    buffer = memoryview(bytearray(DATA) + b"#" * 1000)
    mac = key.seal(buffer, len(DATA))
    assert buffer[len(DATA) :] == b"#" * 1000
    key.authenticate(key.header, buffer[: len(DATA)], mac)
    key.decrypt(buffer, len(DATA))
    assert buffer == DATA + b"#" * 1000


def test_no_salt_comes_twice() -> None:
    salts = {seal_bytes(SECRET, CHEAP, b"")[16:48] for _ in range(4)}
    salts |= {new_key(SECRET, CHEAP).header[16:48] for _ in range(4)}
    assert len(salts) == 8
    assert all(len(salt) == 32 for salt in salts)


def test_the_defaults() -> None:
    assert Parameters() == Parameters(17, 8, 1)
    assert seal_bytes(SECRET, Parameters(), b"")[:16] == b"scrypt\0\x11" + struct.pack(">II", 8, 1)


def test_the_second_opinion_is_the_same(derived: list[tuple[int, int, int]]) -> None:
    sealed = seal_bytes(SECRET, CHEAP, DATA, second_opinion=True)
    assert open_bytes(SECRET, sealed) == open_bytes(SECRET, sealed, second_opinion=True) == DATA
    assert derived == [(1024, 8, 1)] * 3


# What is read.


def test_what_others_wrote_is_read() -> None:
    assert open_bytes(SECRET, SEALED) == DATA
    for parameters in ((10, 8, 1), (10, 1, 1), (11, 3, 2), (14, 2, 5)):
        sealed = made.container(SECRET, DATA, *parameters)
        assert parse_fixed(sealed)[0] == Parameters(*parameters)
        assert open_bytes(SECRET, sealed) == DATA


def test_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each single bit of a container; bits of the salt also with a corrected plain checksum."""
    monkeypatch.setattr(kdf, "derive", lambda *arguments, **_more: made.derive(*_logarithm(*arguments)))
    for at in range(len(SEALED) * 8):
        changed = bytearray(SEALED)
        changed[at // 8] ^= 1 << at % 8
        _refused(bytes(changed), at // 8)
        if at // 8 < 7:
            _refused(made.refixed(SEALED, at // 8, bytes([changed[at // 8]])), 0)
        elif 16 <= at // 8 < 48:
            _refused(made.refixed(SEALED, at // 8, bytes([changed[at // 8]])), 64)


def _logarithm(secret: bytes, salt: bytes, n: int, r: int, p: int) -> tuple[bytes, bytes, int, int, int]:
    return secret, salt, n.bit_length() - 1, r, p


def _refused(sealed: bytes, at: int) -> None:
    with pytest.raises(Damaged) as caught:
        open_bytes(SECRET, sealed)
    expected: type[Damaged] = Damaged
    if at >= 64:
        expected = WrongKey if at < 96 else NotAuthentic
    assert type(caught.value) is expected


@pytest.mark.parametrize("size", [0, 1, 6, 48, 64, 95, 96, 127])
def test_too_short(size: int) -> None:
    with pytest.raises(Damaged, match="too short for an scrypt container"):
        open_bytes(SECRET, SEALED[:size])
    if size < 96:
        with pytest.raises(Damaged, match="it is too short for an scrypt container"):
            parse_fixed(SEALED[:size], "it")


def test_cut_and_longer() -> None:
    for size in range(128, len(SEALED)):
        with pytest.raises(NotAuthentic):
            open_bytes(SECRET, SEALED[:size])
    for tail in (b"\0", b"x", bytes(32), SEALED):
        with pytest.raises(NotAuthentic):
            open_bytes(SECRET, SEALED + tail)


def test_another_passphrase() -> None:
    for secret in (b"correct hors", b"correct horse ", b"Correct horse", b"", b"x" * 100):
        with pytest.raises(WrongKey):
            open_bytes(secret, SEALED)


def test_a_container_of_nothing() -> None:
    assert open_bytes(SECRET, made.container(SECRET, b"")) == b""


# Parameters.

BAD = [(9, 8, 1), (0, 8, 1), (41, 8, 1), (255, 8, 1), (10, 0, 1), (10, 8, 0), (10, 0, 0)]
BAD += [
    (10, 1 << 30, 1),
    (10, 1, 1 << 30),
    (10, 1 << 15, 1 << 15),
    (10, (1 << 32) - 1, (1 << 32) - 1),
    (10, 8, 1 << 27),
]
FINE = [(10, 1, 1), (40, 1, 1), (40, 8, 1), (10, (1 << 30) - 1, 1), (10, 1, (1 << 30) - 1), (10, 8, (1 << 27) - 1)]


@pytest.mark.parametrize("parameters", BAD)
def test_parameters_out_of_bounds(parameters: tuple[int, int, int], derived: list[tuple[int, int, int]]) -> None:
    sealed = made.hostile(*parameters)
    with pytest.raises(Damaged, match="it has key derivation parameters out of bounds"):
        parse_fixed(sealed, "it")
    with pytest.raises(Damaged):
        open_bytes(SECRET, sealed)
    assert derived == []


@pytest.mark.parametrize("parameters", FINE)
def test_parameters_at_their_bounds(parameters: tuple[int, int, int]) -> None:
    found, salt = parse_fixed(made.hostile(*parameters))
    assert (found.log_n, found.r, found.p) == parameters
    assert salt == bytes(32)


def test_what_a_derivation_costs() -> None:
    assert Parameters().work == 1 << 20
    assert Parameters(14, 8, 32768).work == 1 << 32
    assert Parameters(10, 8, 1).memory == 128 * 8 * (1024 + 3)
    # The p blocks count too: 2^27 of them are 16 GiB, however small N is.
    assert Parameters(10, 1, 1 << 27).memory > 1 << 34


def test_nothing_is_derived_before_the_plain_checksum_holds(derived: list[tuple[int, int, int]]) -> None:
    for at in (0, 6, 7, 8, 12, 16, 47, 48, 63):
        changed = bytearray(SEALED)
        changed[at] ^= 1
        with pytest.raises(Damaged):
            open_bytes(SECRET, bytes(changed))
    assert derived == []


def test_the_words_for_a_malformed_one() -> None:
    cases = {
        b"SCRYPT" + SEALED[6:]: "it is not an scrypt container",
        bytes(200): "it is not an scrypt container",
        made.hostile(version=1): "it is an scrypt container of unknown version 1",
        SEALED[:48] + bytes(16) + SEALED[64:]: "it has a damaged header: its plain checksum is wrong",
    }
    for data, message in cases.items():
        with pytest.raises(Damaged) as caught:
            parse_fixed(data, "it")
        assert caught.value.message == message


# The key of a container.


def test_authenticate_changes_nothing() -> None:
    """What does not authenticate is never decrypted."""
    key = Key(SECRET, CHEAP, SEALED[16:48])
    header, body, mac = SEALED[:96], bytearray(SEALED[96:-32]), SEALED[-32:]
    for at, bad in ((0, mac), (5, bytes(32)), (99, mac)):
        wrong = bytearray(body)
        wrong[at] ^= 1
        before = bytes(wrong)
        with pytest.raises(NotAuthentic) as caught:
            key.authenticate(header, memoryview(wrong), bad)
        assert type(caught.value) is NotAuthentic
        assert bytes(wrong) == before
    key.authenticate(header, memoryview(body), mac)
    assert bytes(body) == SEALED[96:-32]


@pytest.mark.parametrize("size", [0, 1, 16, 31])
def test_a_part_of_a_mac_is_none(size: int) -> None:
    key = Key(SECRET, CHEAP, SEALED[16:48])
    with pytest.raises(NotAuthentic):
        key.authenticate(SEALED[:96], memoryview(SEALED[96:-32]), SEALED[-32:][:size])
    with pytest.raises(WrongKey):
        key.authenticate(SEALED[: 64 + size], memoryview(SEALED[96:-32]), SEALED[-32:])


def test_the_mac_covers_the_header() -> None:
    """A body under the header of another container of the same keys is impossible to make; under another salt too."""
    other = made.container(SECRET, DATA, mark="other")
    with pytest.raises(NotAuthentic):
        open_bytes(SECRET, other[:HEADER_SIZE] + SEALED[HEADER_SIZE:])
    with pytest.raises(NotAuthentic):
        open_bytes(SECRET, SEALED[:-32] + other[-32:])
    with pytest.raises(WrongKey):
        open_bytes(SECRET, SEALED[:64] + other[64:96] + SEALED[96:])


def test_one_bad_bit_near_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the first step of the hash."""
    data = made.content("far", STEP + 100)
    sealed = bytearray(made.container(SECRET, data))
    sealed[HEADER_SIZE + STEP + 99] ^= 0x80
    with pytest.raises(NotAuthentic):
        open_bytes(SECRET, bytes(sealed))
    monkeypatch.setattr(container, "_STEP", 16)
    with pytest.raises(NotAuthentic):
        open_bytes(SECRET, bytes(sealed))
