"""Reports of stages to the program that started them, through a pipe that cannot be confused with another."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from qbtools import reports
from qbtools.reports import FD, MAX_LINE, TOKEN, Failure, Reports, failure_of


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Its read end and its write end."""
    ends = os.pipe()
    os.set_blocking(ends[0], False)
    yield ends
    for fd in ends:
        os.close(fd)


def test_the_pipe_is_known_by_what_it_is(pipe: tuple[int, int], tmp_path: Path) -> None:
    environ = reports.environment(pipe[1])
    assert reports.inherited(environ) == pipe[1]
    assert reports.inherited({**environ, FD: str(pipe[0])}) == -1, "its reading end: nothing can be said there"
    other = os.pipe()
    assert reports.inherited({**environ, FD: str(other[1])}) == -1, "another pipe"
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    assert reports.inherited({**environ, FD: str(file)}) == -1, "a file that has the number now"
    for fd in (*other, file):
        os.close(fd)
    assert reports.inherited({**environ, FD: str(file)}) == -1, "nothing has the number"
    assert reports.inherited({FD: environ[FD]}) == -1
    assert reports.inherited({TOKEN: environ[TOKEN]}) == -1
    assert reports.inherited({}) == -1


@pytest.mark.parametrize("number", ["", "-1", "x", "1.0", " 3", "+3", "٣", "99999999999999999999"])
def test_a_number_that_is_none(number: str, pipe: tuple[int, int]) -> None:
    assert reports.inherited({**reports.environment(pipe[1]), FD: number}) == -1


def test_a_file_is_no_pipe(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file, pytest.raises(ValueError, match="not a pipe"):
        reports.environment(file.fileno())


@pytest.mark.parametrize(
    "text", ["m" * 5000, "ü" * 5000, "\U0001f512" * 5000, "\udcff" * 5000, "\\" * 5000, '"' * 5000]
)
def test_a_line_fits_and_is_never_split(text: str, pipe: tuple[int, int]) -> None:
    """Otherwise the kernel could mix it with other lines, or the reader would not understand it."""
    reports.tell(pipe[1], program="qb-volread", status=5, message=text, hint=text, deferred=False)
    line = os.read(pipe[0], 1 << 16)
    assert len(line) <= MAX_LINE
    assert line.endswith(b"\n")
    failure = failure_of(json.loads(line))
    assert failure is not None
    assert (failure.program, failure.status) == ("qb-volread", 5)
    assert len(failure.message) > 100
    assert text.startswith(failure.message)


def test_a_reader_that_has_left() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    reports.tell(theirs, program="x", status=1)
    reports.tell_progress(theirs, 1, "x")
    os.close(theirs)


def test_progress_never_waits(pipe: tuple[int, int]) -> None:
    for count in range(10_000):
        reports.tell_progress(pipe[1], count, "a label\nof two lines " + "ü" * 300)
    lines = os.read(pipe[0], 1 << 16).split(b"\n")
    assert 3 < len(lines) < 20
    assert lines[0].decode() == "progress 0 a label of two lines " + "ü" * (200 - len("a label of two lines "))


class Heard:
    """Reports with both ends in the test."""

    def __init__(self) -> None:
        self.reports = Reports()

    def say(self, data: bytes) -> bool:
        os.write(self.reports.fd, data)
        return self.reports.collect()


@pytest.fixture
def heard() -> Iterator[Heard]:
    made = Heard()
    yield made
    made.reports.close()


LINE = b'{"program": "qb-volwrite", "status": 5, "message": "m", "hint": "h", "deferred": true}\n'


def test_reports_that_are_read(heard: Heard) -> None:
    assert heard.say(b"progress 17 vm1/root.img\n" + LINE + b"stages 1 141 4\n")
    found = heard.reports
    assert (found.done, found.label, found.stages) == (17, "vm1/root.img", (1, 141, 4))
    assert found.failures == [Failure("qb-volwrite", 5, "m", "h", True)]
    found.close_writer()
    assert not found.collect()


def test_it_comes_byte_by_byte(heard: Heard) -> None:
    for byte in LINE + b"stages 0 0\n":
        assert heard.say(bytes([byte]))
    assert heard.reports.stages == (0, 0)
    assert len(heard.reports.failures) == 1


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"nonsense", b"[1]", b"{", b"\xff", b"stages", b"stages x", b"stages 1", b"stages 1 -1"),
        *(b"progress", b"progress x y", b"progress -1 y", b'{"program": "x"}', b'{"program": "x", "status": 0}'),
        *(b'{"program": "x", "status": 256}', b'{"program": "x", "status": true}', b'{"program": 1, "status": 1}'),
        *(b"m" * 10_000, b"[" * 4000, b"stages 1 " + b"9" * 5000, b"progress " + b"9" * 5000),
    ],
)
def test_nonsense_is_passed_over(line: bytes, heard: Heard) -> None:
    heard.say(line + b"\n")
    found = heard.reports
    assert (found.stages, found.failures, found.done, found.label) == ((), [], 0, "")
    heard.say(LINE)
    assert len(found.failures) == 1
