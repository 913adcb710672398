"""The connection to an NBD server, with a libnbd that does what a test says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from qbtools import latesignals
from qbtools.errors import Failed, Refused
from qbtools.formats.volumestream import ExtentMap
from qbtools.volumes.nbd import binding, connection
from qbtools.volumes.nbd.connection import Connection
from qbtools.volumes.nbd.source import NbdSource
from qbtools.volumes.nbd.target import NbdTarget

SIZE = 1 << 20
Answer = Callable[[int, int], list[int]]


class Handle:
    """A connection that answers at once."""

    limits: tuple[int, int] = (1, 1 << 25)
    version = ""
    answer: Answer = staticmethod(lambda _offset, count: [count, 0])

    def __init__(self) -> None:
        self.readable, self.writable = os.pipe()
        os.write(self.writable, b"x")
        self.waited: list[bool] = []
        self.asked: tuple[int, int, Any] | None = None

    def __getattr__(self, name: str) -> Callable[..., Any]:
        known: dict[str, object] = {
            "get_size": SIZE,
            "can_meta_context": True,
            "aio_is_ready": True,
            "aio_get_direction": 1,
        }
        known["get_version"] = self.version
        return lambda *_words: known.get(name)

    def aio_get_fd(self) -> int:
        return self.readable

    def get_block_size(self, which: int) -> int:
        return self.limits[which]

    def aio_block_status(self, count: int, offset: int, take: Any) -> int:
        self.asked = count, offset, take
        return 1

    def aio_command_completed(self, _number: int) -> bool:
        return self.asked is None

    def aio_notify_read(self) -> None:
        assert self.asked is not None
        count, offset, take = self.asked
        self.waited.append(latesignals.waits(signal.SIGURG))
        take("base:allocation", offset, self.answer(offset, count), None)
        self.asked = None


class Binding:
    NBD = Handle
    SIZE_MINIMUM, SIZE_MAXIMUM = 0, 1

    class Error(Exception):
        """What libnbd raises."""


@pytest.fixture(autouse=True)
def libnbd(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(binding, "load", lambda: Binding)
    yield


def test_no_signal_is_handled_while_libnbd_calls_back() -> None:
    """libnbd would drop the exception, and a second signal would be disregarded."""
    link = Connection("x", lambda _handle: None)
    assert list(link.data(0, SIZE)) == [(0, SIZE)]
    assert link._h.waited == [True]
    assert not latesignals.waits(signal.SIGURG)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (lambda _offset, count: [count, 3], []),
        (lambda _offset, count: [count, 1], [(100, 900)]),  # a hole that may read as anything
        (lambda _offset, _count: [50, 3, 100, 0, 1 << 40, 2], [(150, 250)]),
        (lambda _offset, _count: [200, 2, 1 << 40, 0], [(300, 900)]),
        (lambda _offset, _count: [300, 0], [(100, 400), (400, 700), (700, 900)]),
    ],
)
def test_the_map_is_clipped_to_what_was_asked(
    answer: Answer, expected: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handle, "answer", staticmethod(answer))
    assert list(Connection("x", lambda _handle: None).data(100, 900)) == expected


def test_a_map_of_many_ranges_is_asked_for_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server may send millions of ranges of one byte."""
    asked: list[int] = []

    def answer(offset: int, count: int) -> list[int]:
        asked.append(offset)
        return [1, 0, 1, 2] * 10

    monkeypatch.setattr(Handle, "answer", staticmethod(answer))
    monkeypatch.setattr(connection, "_RANGES", 4)
    assert list(Connection("x", lambda _handle: None).data(100, 106)) == [(100, 101), (102, 103), (104, 105)]
    assert asked == [100, 104]


@pytest.mark.parametrize("answer", [[], [0, 0], [0, 2, 0, 0]])
def test_a_map_that_does_not_go_on_is_an_error(answer: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handle, "answer", staticmethod(lambda _offset, _count: answer))
    with pytest.raises(Failed, match="^cannot read the map of x: the NBD server sent an empty one$"):
        list(Connection("x", lambda _handle: None).data(0, SIZE))


@pytest.mark.parametrize("limits", [(3, 1 << 25), (1 << 21, 1 << 25), (4096, 512)])
def test_sizes_that_do_not_fit_together(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Handle, "limits", limits)
    with pytest.raises(Failed, match="^x: the NBD server announces sizes that do not fit together$"):
        Connection("x", lambda _handle: None)


def test_requests_are_not_larger_than_the_server_accepts(monkeypatch: pytest.MonkeyPatch) -> None:
    for limits, expected in (((512, 1000), 512), ((1, 0), connection.REQUEST), ((0, 1 << 30), connection.REQUEST)):
        monkeypatch.setattr(Handle, "limits", limits)
        assert Connection("x", lambda _handle: None).request == expected


@pytest.mark.parametrize(
    ("uri", "fixed"),
    [
        ("nbds://host/", False),
        ("nbds://host/?tls-certificates=/x", True),
        ("nbds+unix:///?socket=/s&tls-certificates=/x", False),
        ("nbds+unix:///?socket=/s;tls-psk-file=/x", True),
        ("nbd://host/", True),
    ],
)
def test_who_a_server_is_must_be_checked(uri: str, fixed: bool) -> None:
    """Older versions of libnbd do not check a certificate in some cases."""
    for version, good in {"1.14.2": fixed, "1.20.1": fixed, "1.18.5": True, "1.20.2": True, "1.22.0": True}.items():
        handle = Handle()
        handle.version = version
        if good:
            connection.to_uri(uri)(handle)
        else:
            with pytest.raises(Refused, match=f"libnbd {version} does not check the certificate of this server"):
                connection.to_uri(uri)(handle)


class Link(Connection):
    """Counts the requests that wait for an answer."""

    def __init__(self) -> None:
        self.size, self.unit, self.request = SIZE, 1, 1 << 10
        self.waiting = self.most = 0

    def begin_read(self, view: memoryview, offset: int) -> tuple[int, Any]:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        return offset, None

    def finish_read(self, number: int, buffer: Any, view: memoryview, offset: int) -> None:
        self.waiting -= 1

    def begin_write(self, data: bytearray, offset: int) -> int:
        return self.begin_read(memoryview(data), offset)[0]

    def finish(self, number: int, action: str, offset: int | None) -> None:
        self.waiting -= 1

    def can(self, what: str) -> bool:
        return False

    def close(self) -> None:
        assert self.waiting == 0


def test_several_requests_are_in_flight() -> None:
    link = Link()
    extents = ExtentMap(SIZE)
    extents.add(0, SIZE)
    with NbdSource("x", link) as source:
        assert sum(map(len, source.blocks(extents))) == SIZE
    assert link.most == connection.DEPTH > 8
    link.most = 0
    with NbdTarget("x", link) as target:
        target.write(bytes(SIZE), 0)
        target.flush(SIZE)
    assert link.most == connection.DEPTH
