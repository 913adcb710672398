"""An archive that is checked while it is copied: complete, unchanged, within its limit, and not through Python."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import pytest
from vectors import archivebytes as made

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.formats import structure
from qbtools.formats.passing import READ_AHEAD, Passing
from qbtools.streams import Reader, Writer

FILES = made.file("qubes.xml", b"x" * 20) + made.file("vm1/root.img", bytes(600)) + made.file("vm2/a.img", b"")
WHOLE = made.archive(made.header_pair(made.header()) + FILES + [made.manifest(FILES)], bytes(10240))


def passed(data: bytes, limit: int | None = None) -> tuple[bytes, type[Exception] | None]:
    """The output of the check of data, and how it ends."""
    out = io.BytesIO()
    source = Passing(Reader(io.BytesIO(data), "the archive", READ_AHEAD), Writer(out), limit)
    try:
        structure.check(source, 1 << 20, lambda _text: None)
    except (Damaged, Refused) as error:
        return out.getvalue(), type(error)
    assert source.position == len(data)
    return out.getvalue(), None


def test_a_whole_archive() -> None:
    assert passed(WHOLE) == (WHOLE, None)


def test_of_an_archive_that_is_cut_all_that_came() -> None:
    for size in range(0, len(WHOLE) - 10240, 61):
        out, error = passed(WHOLE[:size])
        assert out == WHOLE[:size] and error in (Damaged, Truncated)


def test_of_a_damaged_archive_a_beginning() -> None:
    for at in range(0, len(WHOLE), 97):
        data = bytearray(WHOLE)
        data[at] ^= 0x41
        out, error = passed(bytes(data))
        assert out == data if error is None else data.startswith(out)


def test_what_follows_the_end() -> None:
    out, error = passed(WHOLE + b"more")
    assert error is Damaged and WHOLE.startswith(out[: len(WHOLE)])


def test_never_more_than_is_allowed() -> None:
    for size in (*range(0, len(WHOLE) - 10240, 37), len(WHOLE) - 10240, len(WHOLE) - 1):
        out, error = passed(WHOLE, size)
        assert error is Refused and len(out) <= size
        assert WHOLE.startswith(out)


def test_exactly_what_is_allowed() -> None:
    assert passed(WHOLE, len(WHOLE)) == (WHOLE, None)


@pytest.mark.parametrize("pipe", [False, True])
def test_bodies_are_not_copied_into_memory(pipe: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = 1 << 19
    files = made.file("vm1/root.img", bytes(3 * size + 5), size=size)
    data = made.archive(made.header_pair(made.header(chunk_size=size)) + files + [made.manifest(files)])
    (tmp_path / "in").write_bytes(data)
    seen = []
    readinto = Reader._readinto

    def counted(self: Reader, buffer: bytearray | memoryview) -> int:
        seen.append(readinto(self, buffer))
        return seen[-1]

    monkeypatch.setattr(Reader, "_readinto", counted)
    moved = []
    with io.FileIO(tmp_path / "in") as source, io.FileIO(tmp_path / "out", "w") as target:
        sender = subprocess.Popen(["cat"], stdin=source, stdout=subprocess.PIPE, bufsize=0) if pipe else None
        reader = Reader(sender.stdout if sender and sender.stdout else source, "the archive", READ_AHEAD)
        writer = Writer(target)
        structure.check(Passing(reader, writer, None, lambda: moved.append(writer.position)), 1, lambda _text: None)
        if sender:
            sender.communicate()
    assert (tmp_path / "out").read_bytes() == data
    assert sum(seen) < 12_000
    assert moved == sorted(moved) and len(moved) >= 4
