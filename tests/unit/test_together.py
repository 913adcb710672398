"""Several volumes from one archive: when each of them gets its name."""

from __future__ import annotations

import io

import pytest
from vectors.tarbytes import END, head, regular

from qbtools.errors import Damaged, Failed
from qbtools.streams import Reader
from qbtools.volumes.kind import Target
from qbtools.volumes.together import Together


class Sheet(Target):
    """A target in memory that records each call in a common log."""

    def __init__(self, name: str, log: list[str], fails: str = "") -> None:
        super().__init__(name, -1)
        self._log = log
        self._fails = fails
        self.bytes = bytearray()

    def _note(self, call: str) -> None:
        if call == self._fails:
            raise Failed(f"{call} fails")
        self._log.append(f"{call} {self.name}")

    def start(self, size: int | None) -> None:
        self.bytes = bytearray(size or 0)
        self._note("start")

    def write(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self.bytes[offset : offset + len(data)] = data

    def zero(self, offset: int, length: int) -> None:
        self.bytes[offset : offset + length] = bytes(length)

    def flush(self, size: int) -> None:
        self._note("flush")

    def commit(self) -> None:
        self._note("commit")


ARCHIVE = (
    head(b"d/", kind=b"5") + regular(b"2" * 700, b"d/b.img") + regular(b"x", b"d/x") + regular(b"1" * 512, b"d/a.img")
)


def passed(text: str) -> None:
    """Says nothing."""


def together(data: bytes, *sheets: Sheet) -> Together:
    return Together(Reader(io.BytesIO(data)), {f"d/{sheet.name}.img": sheet for sheet in sheets}, passed)


def test_all_are_flushed_before_the_first_has_its_place() -> None:
    log: list[str] = []
    a, b = Sheet("a", log), Sheet("b", log)
    work = together(ARCHIVE + END, a, b)
    assert work.fill() == {"d/b.img": 700, "d/a.img": 512}
    assert (bytes(a.bytes), bytes(b.bytes)) == (b"1" * 512, b"2" * 700)
    assert work.done == 1212
    assert log == ["start b", "flush b", "start a", "flush a"], "in the archive's order"
    work.commit(passed)
    assert log[4:] == ["commit a", "commit b"]


@pytest.mark.parametrize("size", [*range(0, len(ARCHIVE + END), 100), len(ARCHIVE), len(ARCHIVE + END) - 1])
def test_no_volume_gets_its_name_if_the_archive_is_cut(size: int) -> None:
    log: list[str] = []
    work = together((ARCHIVE + END)[:size], Sheet("a", log), Sheet("b", log))
    with pytest.raises(Damaged, match="standard input (ends too early|is empty)"):
        work.fill()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (ARCHIVE.replace(b"d/a.img", b"d/c.img"), "a tar header has a wrong checksum"),
        (regular(b"", b"d/a.img") + END, "the archive has no member d/b.img"),
        (END, "the archive has no member d/a.img"),
        (ARCHIVE + regular(b"", b"d/a.img") + END, "d/a.img occurs twice"),
        (head(b"d/a.img", kind=b"2") + ARCHIVE + END, "d/a.img is a symbolic link, not a regular file"),
        (ARCHIVE + END + b"x", "something follows the end of the archive"),
    ],
)
def test_what_an_archive_must_not_be(data: bytes, message: str) -> None:
    log: list[str] = []
    with pytest.raises(Damaged, match=message):
        together(data, Sheet("a", log), Sheet("b", log)).fill()


def test_if_a_name_cannot_be_given_the_error_lists_those_that_have_one() -> None:
    log: list[str] = []
    warnings: list[str] = []
    work = together(ARCHIVE + END, Sheet("a", log), Sheet("b", log, fails="commit"))
    work.fill()
    with pytest.raises(Failed, match="commit fails"):
        work.commit(warnings.append)
    assert warnings == ["a is complete and has its name"]
    work = together(ARCHIVE + END, Sheet("a", log, fails="commit"), Sheet("b", log))
    work.fill()
    warnings.clear()
    with pytest.raises(Failed, match="commit fails"):
        work.commit(warnings.append)
    assert warnings == [] and log[-1] != "commit b"
