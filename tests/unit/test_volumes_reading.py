"""What is sent of a source, and that it is dropped from the cache again."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from qbtools.errors import Failed
from qbtools.formats.deltastream import Record
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import BLOCK, Writer
from qbtools.volumes.files.source import FileSource, open_plain
from qbtools.volumes.reading import Sending, records

SIZE = 3 * BLOCK + 700
EXTENTS = [(512, 512), (BLOCK - 512, BLOCK + 1024), (3 * BLOCK, 700)]


def source_of(tmp_path: Path) -> tuple[FileSource, bytes]:
    data = os.urandom(SIZE)
    (tmp_path / "v").write_bytes(data)
    return open_plain(str(tmp_path / "v")), data


def some(size: int) -> ExtentMap:
    extents = ExtentMap(size)
    for offset, length in EXTENTS:
        extents.append(offset, length)
    return extents


def test_the_bytes_of_the_extents(tmp_path: Path) -> None:
    source, data = source_of(tmp_path)
    out = io.BytesIO()
    with source:
        sending = Sending(source, some(SIZE), Writer(out))
        sending.data()
    expected = b"".join(data[offset : offset + length] for offset, length in EXTENTS)
    assert out.getvalue() == expected
    assert sending.done == len(expected)


def test_raw_has_zeros_outside_of_extents(tmp_path: Path) -> None:
    source, data = source_of(tmp_path)
    out = io.BytesIO()
    with source:
        sending = Sending(source, some(SIZE), Writer(out))
        sending.raw()
    expected = bytearray(SIZE)
    for offset, length in EXTENTS:
        expected[offset : offset + length] = data[offset : offset + length]
    assert out.getvalue() == bytes(expected)
    assert sending.done == SIZE


def test_a_hole_at_the_end_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"")
    os.truncate(tmp_path / "v", 2 * BLOCK + 3)
    out = io.BytesIO()
    with open_plain(str(tmp_path / "v")) as source:
        Sending(source, source.extents(), Writer(out)).raw()
    assert out.getvalue() == bytes(2 * BLOCK + 3)


@pytest.mark.parametrize("raw", [False, True])
def test_a_source_that_became_shorter(tmp_path: Path, raw: bool) -> None:
    source, _data = source_of(tmp_path)
    os.truncate(tmp_path / "v", 3 * BLOCK + 699)
    with source, pytest.raises(Failed, match="became shorter while it was read"):
        sending = Sending(source, some(SIZE), Writer(io.BytesIO()))
        sending.raw() if raw else sending.data()


def test_what_changed_behind_the_last_data_is_zeros() -> None:
    """Also the second place of it."""
    changed = ExtentMap(SIZE)
    for offset in (0, 2 * BLOCK, 3 * BLOCK):
        changed.append(offset, 512)
    extents = ExtentMap(SIZE)
    extents.append(0, 512)
    assert [*records(extents, changed)] == [
        Record(False, 0, 512), Record(True, 2 * BLOCK, 512), Record(True, 3 * BLOCK, 512)
    ]  # fmt: skip
