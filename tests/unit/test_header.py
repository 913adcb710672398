"""backup-header: writing it. Reading is tested with the vectors in tests/vectors/header."""

from __future__ import annotations

import pytest

from qbtools.errors import Damaged, Refused
from qbtools.formats import header
from qbtools.formats.header import BackupHeader, Base

ID = "20261124T060000-0123456789abcdef"


def test_what_is_written() -> None:
    assert header.serialise(header.new_header(ID, "zstd", 104857600)) == (
        b"version=4\nencrypted=True\ncompressed=True\ncompression-filter=zstd\nhmac-algorithm=scrypt\n"
        b"backup-id=20261124T060000-0123456789abcdef\nchunk-size=104857600\nmanifest=True\n"
    )


def test_without_compression_the_filter_is_written_all_the_same() -> None:
    data = header.serialise(header.new_header(ID, "none", 5))
    assert b"\ncompressed=False\ncompression-filter=gzip\n" in data
    assert data.endswith(b"\nchunk-size=5\nmanifest=True\n")


def test_without_manifest_the_key_is_not_written() -> None:
    data = header.serialise(header.new_header(ID, "gzip", 5, manifest=False))
    assert b"manifest" not in data


@pytest.mark.parametrize("compression", header.COMPRESSIONS)
@pytest.mark.parametrize("manifest", [True, False])
def test_what_is_written_is_read(compression: str, manifest: bool) -> None:
    written = header.new_header(ID, compression, 4096, manifest)
    assert header.parse(header.serialise(written)) == written
    assert written.method == compression
    assert written.program == (None if compression == "none" else compression)


def test_without_chunk_size() -> None:
    written = header.new_header(ID, "gzip", 1)._replace(chunk_size=None)
    assert header.parse(header.serialise(written)) == written


def test_program_of_an_archive_that_is_not_compressed() -> None:
    parsed = BackupHeader(4, True, False, "xz", "scrypt", None, ID, None, False)
    assert parsed.program is None
    assert parsed.method == "none"


def test_backup_ids() -> None:
    made = header.new_backup_id(1709214659.9, bytes(range(8)))
    assert made == "20240229T135059-0001020304050607"
    assert header.backup_id_problem(made) is None
    for text in ("", "-a", "a b", "a!b", "a/b", "a\n", "é", "a_b", "١"):
        assert header.backup_id_problem(text)
        with pytest.raises(Refused):
            header.new_header(text, "gzip", 1)


def test_an_id_may_be_long_but_not_too_long() -> None:
    rest = len(header.serialise(header.new_header("x", "gzip", 1))) - 1
    longest = "x" * (header.MAX_SIZE - rest)
    data = header.serialise(header.new_header(longest, "gzip", 1))
    assert len(data) == header.MAX_SIZE
    assert header.parse(data).backup_id == longest
    with pytest.raises(Refused):
        header.serialise(header.new_header(longest + "x", "gzip", 1))


def test_the_sealed_header_fits_what_qubes_reads() -> None:
    assert header.MAX_SIZE + 128 == header.MAX_MEMBER


def test_every_line_counts() -> None:
    lines = header.serialise(header.new_header(ID, "gzip", 1)).splitlines(keepends=True)
    for at in range(6):
        with pytest.raises(Damaged):
            header.parse(b"".join(lines[:at] + lines[at + 1 :]))


@pytest.mark.parametrize(
    ("backup_id", "made"),
    [
        ("20261124T055255-0123456789abcdef", "2026-11-24 05:52:55 UTC"),
        ("20210504T112233-123456", "2021-05-04 11:22:33"),  # Qubes OS
        ("qubes", None),
        ("", None),
    ],
)
def test_when_a_backup_was_made(backup_id: str, made: str | None) -> None:
    assert header.made(backup_id) == made


BASE = Base("20261123T060000-fedcba9876543210", "0f" * 32)


def test_an_archive_of_increments() -> None:
    written = header.new_header(ID, "gzip", 5, key=True, signed=True, base=BASE)
    data = header.serialise(written)
    assert data.startswith(b"version=104\n")
    assert data.endswith(b"signed=ssh\nbase=20261123T060000-fedcba9876543210\nbase-manifest=" + b"0f" * 32 + b"\n")
    assert header.parse(data) == written
    assert (header.parse(data).version, header.parse(data).base) == (104, BASE)


def test_no_archive_is_its_own_base() -> None:
    with pytest.raises(Refused, match="the ID of the base"):
        header.new_header(ID, "gzip", 5, base=Base(ID, "0f" * 32))
