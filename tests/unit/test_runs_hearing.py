"""The stream of reports is parsed, in pieces of any size."""

from __future__ import annotations

import json

import pytest

from qbtools.errors import Failed
from qbtools.reports import Failure
from qbtools.runs.hearing import MAX_DATA, MAX_EVENT, Happened, Hearing, Said, Stages

DATA = b'a\nstages 0 0\n{"event": "x"}\n\x00\xff'
STREAM = (
    b'{"event": "opened", "name": "", "version": 4, "backup_id": "2026-1", "manifest": false}\n'
    b'{"event": "begin", "name": "vm1/root.img"}\n'
    b'{"event": "first", "name": "vm1/root.img", "version": 3}\n'
    b'{"event": "done", "name": "qubes.xml", "size": %d}\n%s\n'
    b'{"event": "done", "name": "empty", "size": 0}\n\n'
    b'{"program": "qb-store", "status": 5, "message": "", "hint": null, "deferred": false}\n'
    b'{"event": "sealed", "name": "\\udcff", "chunks": 1, "bytes": 7}\n'
    b"stages 5 0 141\n" % (len(DATA), DATA)
)
SAID: list[Said] = [
    Happened("opened", "", backup_id="2026-1", manifest=False),
    Happened("begin", "vm1/root.img"),
    Happened("first", "vm1/root.img", version=3),
    Happened("done", "qubes.xml", DATA),
    Happened("done", "empty"),
    Failure("qb-store", 5),
    Happened("sealed", "\udcff"),
    Stages((5, 0, 141)),
]


def test_all_at_once() -> None:
    assert list(Hearing().take(STREAM)) == SAID


def test_cut_at_every_byte() -> None:
    for at in range(len(STREAM)):
        hearing = Hearing()
        assert [*hearing.take(STREAM[:at]), *hearing.take(STREAM[at:])] == SAID, at


def test_byte_by_byte() -> None:
    hearing = Hearing()
    assert [said for byte in STREAM for said in hearing.take(bytes([byte]))] == SAID


def test_nothing_is_said_too_early() -> None:
    hearing = Hearing()
    assert list(hearing.take(b'{"event": "done", "name": "x", "size": 2}\nab')) == []
    assert list(hearing.take(b"\n")) == [Happened("done", "x", b"ab")]
    assert list(hearing.take(b"stages 0")) == []


def test_the_longest_line() -> None:
    line = json.dumps({"event": "begin", "name": "", "more": ""}).encode()
    line = line[:-2] + b"x" * (MAX_EVENT - len(line)) + line[-2:]
    assert len(line) == MAX_EVENT
    assert list(Hearing().take(line + b"\n")) == [Happened("begin", "")]


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_that_is_longer(end: bytes) -> None:
    with pytest.raises(Failed, match="malformed report"):
        list(Hearing().take(b'"' + b"x" * MAX_EVENT + end))


@pytest.mark.parametrize(
    "line",
    [
        *(b"", b"x", b"[]", b"1", b"{", b"\xff", b"[" * 60_000, b"stages", b"stages ", b"stages x", b"stages -1"),
        *(b"stages 1000", b"stages " + b"9" * 5000),
        *(b"stages 1.0", b"{}", b'{"event": "begin"}', b'{"name": "x"}'),
        *(b'{"event": 1, "name": "x"}', b'{"event": "begin", "name": null}', b'{"program": "x", "status": 0}'),
        *(b'{"event": "done", "name": "x", "size": -1}', b'{"event": "done", "name": "x", "size": true}'),
        *(b'{"event": "done", "name": "x", "size": "1"}', b'{"event": "done", "name": "x", "size": 1.0}'),
        b'{"event": "done", "name": "x", "size": %d}' % (MAX_DATA + 1),
    ],
)
def test_nonsense(line: bytes) -> None:
    """After this nothing is trusted: another program writes there."""
    with pytest.raises(Failed, match="malformed report"):
        list(Hearing().take(line + b"\n"))


def test_progress_of_a_stage_is_no_report() -> None:
    """Also if it comes in pieces, and before or after others."""
    hearing = Hearing()
    data = b'progress 7 d1\nstages 0\nprogress 8 d1\nprogress 9 d1\n{"event": "begin", "name": "a"}\nprogress 1'
    found = [said for at in range(len(data)) for said in hearing.take(data[at : at + 1])]
    assert found == [Stages((0,)), Happened("begin", "a")]
