"""Checks of an archive without its passphrase."""

from __future__ import annotations

import io

import pytest
from vectors import archivebytes as made

from qbtools.errors import Damaged
from qbtools.formats import structure
from qbtools.formats.chunks import NO_MANIFEST
from qbtools.streams import Reader

FILES = made.file("qubes.xml", b"x" * 20) + made.file("vm1/root.img", bytes(600)) + made.file("vm2/a.img", b"")
PIECES = made.header_pair(made.header()) + FILES + [made.manifest(FILES)]
PLAIN = made.header(chunk_size=None, manifest=False)


def check(data: bytes, max_chunk: int = 1 << 20) -> list[str]:
    """The warnings."""
    said: list[str] = []
    structure.check(Reader(io.BytesIO(data)), max_chunk, said.append)
    return said


def notices(data: bytes) -> bool:
    """Whether anything is wrong."""
    try:
        return bool(structure.check(Reader(io.BytesIO(data)), 1 << 20, pytest.fail))
    except Damaged:
        return True


def test_a_file_without_its_last_chunk() -> None:
    """It may have failed when it was saved, which only the sealed manifest shows."""
    pieces = [piece for piece in PIECES if piece[0] != "vm1/root.img.002.enc"]
    assert len(pieces) == len(PIECES) - 1
    assert structure.check(Reader(io.BytesIO(made.archive(pieces))), 1 << 20, pytest.fail) == [
        "vm1/root.img is incomplete: it failed when it was saved, or chunks are missing"
    ]
    assert structure.check(Reader(io.BytesIO(made.archive(PIECES))), 1 << 20, pytest.fail) == []


def test_a_whole_archive() -> None:
    assert check(made.archive(PIECES)) == []
    assert check(made.archive(PIECES, b"")) == []


def test_no_manifest_is_promised() -> None:
    pieces = [*made.header_pair(PLAIN), *FILES]
    assert check(made.archive(pieces)) == [NO_MANIFEST]
    assert check(made.archive(pieces[:-1])) == [NO_MANIFEST]
    with pytest.raises(Damaged, match="qubes.xml is missing"):
        check(made.archive(pieces[:2]))
    assert check(made.archive([*pieces, made.manifest(FILES)])) == []


def test_the_bound_if_no_chunk_size_is_known() -> None:
    pieces = [*made.header_pair(PLAIN), *FILES]
    assert check(made.archive(pieces), max_chunk=256) == [NO_MANIFEST]
    with pytest.raises(Damaged, match="vm1/root.img.000.enc is too long: 384 bytes"):
        check(made.archive(pieces), max_chunk=255)


def test_cut_anywhere() -> None:
    """Cut at any byte; also if zeros follow, up to the checksum of the manifest: after that only the key can tell."""
    whole = made.archive(PIECES, b"")
    boundaries = {len(made.archive(PIECES[:at], b"")) for at in range(len(PIECES))}
    for size in {*range(0, len(whole), 37), *boundaries, *(size - 1 for size in boundaries if size), len(whole) - 1}:
        with pytest.raises(Damaged):
            check(whole[:size])
        if size < max(boundaries) + 512 + 64:
            with pytest.raises(Damaged):
                check(whole[:size] + bytes(1024 - size % 512))


def test_every_member_taken_out_doubled_or_moved() -> None:
    """Except for a file of one chunk, whose loss only the sealed manifest shows."""
    for at, (name, _body) in enumerate(PIECES):
        alone = name in ("qubes.xml.000.enc", "vm2/a.img.000.enc")
        if not alone:
            assert notices(made.archive(PIECES[:at] + PIECES[at + 1 :]))
        assert notices(made.archive(PIECES[: at + 1] + PIECES[at:]))
        for to in range(len(PIECES)):
            if to not in (at, at - 1, at + 1) and not alone:
                rest = PIECES[:at] + PIECES[at + 1 :]
                assert notices(made.archive(rest[:to] + [PIECES[at]] + rest[to:]))


def test_plain_checksums() -> None:
    """The first 64 bytes of each container; fields that need the key are not checked."""
    for at in range(1, len(PIECES)):
        name, body = PIECES[at]
        for place in (0, 5, 6, 7, 20, 47, 48, 63):
            changed = bytearray(body)
            changed[place] ^= 4
            with pytest.raises(Damaged, match=name):
                check(made.archive([*PIECES[:at], (name, bytes(changed)), *PIECES[at + 1 :]]))
        for place in (64, 95, 96, len(body) - 1):
            changed = bytearray(body)
            changed[place] ^= 4
            check(made.archive([*PIECES[:at], (name, bytes(changed)), *PIECES[at + 1 :]]))


@pytest.mark.parametrize(("at", "change"), [(at, change) for at in (0, 1) for change in (-1, 1)])
def test_the_sizes_of_the_header_members_fit_each_other(at: int, change: int) -> None:
    name, body = PIECES[at]
    body = body[:-1] if change < 0 else body + (b"\n" if at else b"a=b")
    with pytest.raises(Damaged, match="backup-header.hmac does not have the size of what it seals"):
        check(made.archive([*PIECES[:at], (name, body), *PIECES[at + 1 :]]))


def test_version_3() -> None:
    text = made.header()[:-60].replace(b"version=4", b"version=3").replace(b"=scrypt", b"=sha512")
    text = text[: text.index(b"backup-id")] + b"crypto-algorithm=aes-256-cbc\n"
    with pytest.raises(Damaged, match="an archive of version 3: only version 4 has a structure to check"):
        check(made.archive([("backup-header", text), ("backup-header.hmac", b"(stdin)= 0"), *FILES]))


def test_no_derivation_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much it would cost to open."""
    monkeypatch.setattr("qbtools.formats.kdf.derive", None)
    hostile = [(name, made.hostile(40, 8, 1, size=len(body) - 128)) for name, body in FILES]
    assert check(made.archive([*PIECES[:2], *hostile, PIECES[-1]])) == []
