"""A source with an unreadable byte: the error names that byte, and no other byte is lost or duplicated."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import BLOCK, Writer
from qbtools.volumes.files.source import open_plain
from qbtools.volumes.reading import LAG, Sending

SIZE = LAG + 5 * BLOCK
BAD = 3 * BLOCK + 4096


@pytest.fixture
def bad(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a call of module os fail if it would reach BAD, like a device with a bad block."""

    def fail(*names: str, times: int = 1 << 30) -> None:
        for name in names:
            real = getattr(os, name)
            left = [times]

            def call(source: int, *rest: object, real: Callable[..., int] = real, left: list[int] = left) -> int:
                at = os.lseek(source, 0, os.SEEK_CUR)
                if left[0] and at == BAD:
                    left[0] -= 1
                    raise OSError(errno.EIO, "x")
                if real is splice and at < BAD < at + int(str(rest[1])):
                    return int(real(source, rest[0], BAD - at))
                if real is readv and at < BAD:
                    (buffer,) = rest[0]  # type: ignore[misc]
                    return int(real(source, [buffer[: BAD - at]]))
                return int(real(source, *rest))

            monkeypatch.setattr(os, name, call)

    splice, readv = os.splice, os.readv
    return fail


def send(path: Path, size: int = SIZE) -> tuple[bytes, Failed | None]:
    """The output of a pipe to which the file is sent, and the error."""
    got = bytearray()
    end, begin = os.pipe()

    def collect() -> None:
        with os.fdopen(end, "rb", buffering=0) as stream:
            while data := stream.read(BLOCK):
                got.extend(data)

    reader = threading.Thread(target=collect)
    reader.start()
    failed = None
    with open_plain(str(path)) as source, os.fdopen(begin, "wb", buffering=0) as out:
        whole = ExtentMap(size)
        whole.add(0, size)
        try:
            Sending(source, whole, Writer(out)).data()
        except Failed as error:
            failed = error
    reader.join()
    return bytes(got), failed


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    path = tmp_path / "v"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_the_byte_is_named_when_splicing(volume: Path, bad: Callable[..., None]) -> None:
    bad("splice", "readv")
    got, failed = send(volume)
    assert failed is not None
    assert failed.message == f"cannot read {volume} at byte {BAD}: Input/output error"
    assert got == volume.read_bytes()[:BAD]


def test_the_byte_is_named_when_copying(volume: Path, bad: Callable[..., None]) -> None:
    size = 4 * BLOCK  # less than what is copied at the end
    os.truncate(volume, size)
    bad("splice", "readv")
    got, failed = send(volume, size)
    assert failed is not None
    assert failed.message == f"cannot read {volume} at byte {BAD}: Input/output error"
    assert got == volume.read_bytes()[:BAD]


def test_an_error_that_goes_away(volume: Path, bad: Callable[..., None]) -> None:
    bad("splice", times=1)
    got, failed = send(volume)
    assert failed is None
    assert got == volume.read_bytes()


def test_no_room_for_the_output_is_no_read_error(volume: Path, tmp_path: Path) -> None:
    """A write that fails halfway is not repeated: the bytes before it would be missing."""

    class Full:
        written = 0

        def write(self, data: bytes | bytearray | memoryview, /) -> int:
            if self.written:
                self.written = 0
                raise OSError(errno.ENOSPC, "x")
            self.written = 100
            return 100

    with open_plain(str(volume)) as source:
        whole = ExtentMap(SIZE)
        whole.add(0, SIZE)
        with pytest.raises(Failed, match="^cannot write to standard output: No space left on device$"):
            Sending(source, whole, Writer(Full())).data()


def test_the_source_may_know_better(volume: Path, bad: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    from qbtools.volumes.files.source import FileSource

    def check(_self: FileSource) -> None:
        raise Failed("snapshot overflowed")

    monkeypatch.setattr(FileSource, "check", check)
    bad("splice", "readv")
    _got, failed = send(volume)
    assert failed is not None and failed.message == "snapshot overflowed"
