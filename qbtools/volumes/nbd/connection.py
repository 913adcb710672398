"""One connection to an NBD server, through libnbd.

Only its asynchronous calls are used, with a poll of our own: a signal must end us even if the server never answers. The
server is not trusted: what it says is checked here or in libnbd.
"""

from __future__ import annotations

import os
import select

from qbtools.errors import Failed, QbError, Refused, UsageError
from qbtools.latesignals import signals_later
from qbtools.lean import TYPE_CHECKING, number, suppress
from qbtools.volumes.nbd import binding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    _Why = Callable[[bool], QbError | None]

LARGEST = 32 << 20
"""The bytes of the largest request that every server must accept."""

REQUEST = 1 << 18
"""The bytes of our requests for data: more are slower, because they do not fit in the caches of a CPU."""

DEPTH = 16
"""The requests for data that wait for an answer at the same time."""

_STATUS = (1 << 32) - (1 << 16)  # bytes of a request for the map: its length has 32 bits
_RANGES = 1 << 17  # of the map in one answer: a server may send millions, and what is left is asked for again
_ALLOCATION, _BITMAP = "base:allocation", "qemu:dirty-bitmap:"
_ZERO = 2  # the flag of a range that reads as zeros
_SCHEMES = ("nbd", "nbds", "nbd+unix", "nbds+unix", "nbd+vsock", "nbds+vsock")


class Connection:
    """A connection to one export. size: its bytes. unit: offsets and lengths of requests must be multiples of it.

    request: the bytes of the largest request for data that we send. mapped: whether the server tells what is zero.

    bitmapped: whether it has the bitmap.
    """

    def __init__(
        self, name: str, connect: Callable[[Any], None], why: _Why = lambda _lost: None, bitmap: str | None = None
    ) -> None:
        """name: for messages. connect: begins to connect a handle. why: a better error, if there is one.

        It is called with True after a lost connection, and with False after another failure. bitmap: the name of a
        bitmap of qemu, for marked().

        UsageError for an invalid URI. Failed if the server cannot be reached, or does not have the export.
        """
        self._nbd = binding.load()
        self._name = name
        self._why = why
        self._bitmap = "" if bitmap is None else f"{_BITMAP}{bitmap}"
        self._poller: select.poll | None = None
        self._polled = -1, 0
        self._calls_back = False
        self._h = self._nbd.NBD()
        try:
            self._h.add_meta_context(_ALLOCATION)
            if self._bitmap:
                self._h.add_meta_context(self._bitmap)
            if hasattr(self._h, "set_pread_initialize"):
                self._h.set_pread_initialize(False)  # libnbd fails where a server does not send all of the data
            connect(self._h)
            self._alive()
            while self._h.aio_is_connecting() or self._h.aio_is_negotiating():
                self._turn()
            if not self._h.aio_is_ready():
                raise self._lost()
            self.size = int(self._h.get_size())
            self.mapped = bool(self._h.can_meta_context(_ALLOCATION))
            self.bitmapped = bool(self._bitmap and self._h.can_meta_context(self._bitmap))
            self.unit = self._limit("SIZE_MINIMUM", 1)
            self.request = min(self._limit("SIZE_MAXIMUM", LARGEST), REQUEST) // self.unit * self.unit
        except self._nbd.Error as error:
            raise self._why(True) or Failed(f"cannot connect to {name}: {plain(error)}") from error
        if self.unit & (self.unit - 1) or not self.request or self.size % self.unit:
            raise Failed(f"{name}: the NBD server announces sizes that do not fit together")

    def _alive(self) -> None:
        """Lets the kernel notice that the other host is gone, which otherwise it never does."""
        import socket

        with suppress(OSError, self._nbd.Error), socket.socket(fileno=os.dup(self._h.aio_get_fd())) as copy:
            copy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _limit(self, which: str, default: int) -> int:
        """A limit of the server; default if it has none, or if this libnbd is too old to ask."""
        if not hasattr(self._h, "get_block_size"):
            return default
        return int(self._h.get_block_size(getattr(self._nbd, which))) or default

    def can(self, what: str) -> bool:
        """Whether the server has a call: zero, flush; and read_only."""
        return bool(getattr(self._h, "is_read_only" if what == "read_only" else f"can_{what}")())

    def begin_read(self, view: memoryview, offset: int) -> tuple[int, Any]:
        """Asks for the data at an offset, at most one request. Returns the words for finish_read().

        The data may arrive in view at any time before that.
        """
        shared = hasattr(self._nbd.Buffer, "from_buffer")  # not before libnbd 1.12
        buffer = self._nbd.Buffer.from_buffer(view) if shared else self._nbd.Buffer(len(view))
        return self._begin("read", offset, self._h.aio_pread, buffer, offset), buffer

    def finish_read(self, number: int, buffer: Any, view: memoryview, offset: int) -> None:
        """Waits until the data is in view. Failed."""
        self.finish(number, "read", offset)
        if not hasattr(buffer, "to_buffer"):
            view[:] = buffer.to_bytearray()

    def read(self, offset: int, count: int) -> bytearray:
        """Reads at most one request of data."""
        data = bytearray(count)
        self.finish_read(*self.begin_read(memoryview(data), offset), memoryview(data), offset)
        return data

    def begin_write(self, data: bytearray, offset: int) -> int:
        """Begins to write data, which must not change until finish()."""
        return self._begin("write to", offset, self._h.aio_pwrite, self._nbd.Buffer.from_bytearray(data), offset)

    def zero(self, offset: int, count: int) -> None:
        """Makes a range read as zeros, as a hole if possible. OSError of the server."""
        self._plain_call(self._h.aio_zero, count, offset)

    def flush(self) -> None:
        """Everything that was written is on stable storage. Failed."""
        if self.can("flush"):
            self.finish(self._begin("write to", None, self._h.aio_flush), "write to", None)

    def _plain_call(self, call: Any, *words: Any) -> None:
        try:
            number = call(*words)
            while not self._h.aio_command_completed(number):
                self._turn()
        except self._nbd.Error as error:
            if self._dead():
                raise self._lost() from error
            raise OSError(error.errnum, plain(error)) from error

    def _begin(self, action: str, offset: int | None, call: Any, *words: Any) -> int:
        try:
            return int(call(*words))
        except self._nbd.Error as error:
            raise self._failure(error, action, offset) from error

    def finish(self, number: int, action: str, offset: int | None) -> None:
        """Waits until a request is done. Failed, with the action and the offset."""
        try:
            while not self._h.aio_command_completed(number):
                self._turn()
        except self._nbd.Error as error:
            raise self._failure(error, action, offset) from error

    def _failure(self, error: Any, action: str, offset: int | None) -> QbError:
        if self._dead():
            return self._lost()
        at = "" if offset is None else f" at byte {offset}"
        text = os.strerror(error.errnum) if error.errnum else plain(error)
        return self._why(False) or Failed(f"cannot {action} {self._name}{at}: {text}")

    def data(self, at: int, end: int) -> Iterator[tuple[int, int]]:
        """The parts of at … end that do not read as zeros: begin and end of each, ascending. Failed."""
        if not self.mapped:
            yield at, end
            return
        for begin, reached, flags in self._ranges(_ALLOCATION, at, end):
            if not flags & _ZERO:
                yield begin, reached

    def marked(self) -> Iterator[tuple[int, int]]:
        """The parts of the export that are set in the bitmap: begin and end of each, ascending. Failed."""
        for begin, end, flags in self._ranges(self._bitmap, 0, self.size):
            if flags:
                yield begin, end

    def _ranges(self, wanted: str, at: int, end: int) -> Iterator[tuple[int, int, int]]:
        """Begin, end and flags of each part of at … end, all of it, in order. Failed."""
        while at < end:
            low = at // self.unit * self.unit
            count = min(_STATUS, -(-(end - low) // self.unit) * self.unit)
            reached = low
            for length, flags in self._status(wanted, low, count):
                begin, reached = reached, min(reached + length, low + count)
                if max(begin, at) < min(reached, end):
                    yield max(begin, at), min(reached, end), flags
            if reached <= at:
                raise Failed(f"cannot read the map of {self._name}: the NBD server sent an empty one")
            at = reached

    def _status(self, wanted: str, offset: int, count: int) -> list[tuple[int, int]]:
        """Length and flags of the first ranges of a map from offset on. They may end before or after count."""
        found: list[int] = []

        def take(context: str, _offset: int, entries: list[int], _error: Any) -> int:
            if context == wanted:
                found.extend(entries[: 2 * _RANGES - len(found)])
            return 0

        self._calls_back = True
        number = self._begin("read the map of", offset, self._h.aio_block_status, count, offset, take)
        self.finish(number, "read the map of", offset)
        self._calls_back = False
        return list(zip(found[::2], found[1::2], strict=False))

    def _turn(self) -> None:
        """Waits until the connection can go on, and lets it."""
        if self._dead():
            raise self._lost()
        self._go_on(self._h.aio_get_fd(), self._h.aio_get_direction())

    def _go_on(self, fd: int, direction: int) -> None:
        events = (select.POLLIN if direction & 1 else 0) | (select.POLLOUT if direction & 2 else 0)
        if self._poller is None or self._polled != (fd, events):
            self._poller, self._polled = select.poll(), (fd, events)
            self._poller.register(fd, events)
        ((_, ready),) = self._poller.poll()  # handles signals
        if direction & 1 and ready & ~select.POLLOUT:
            self._notify(self._h.aio_notify_read)
        elif direction & 2:
            self._notify(self._h.aio_notify_write)

    def _notify(self, call: Callable[[], None]) -> None:
        """Lets libnbd go on. It drops what our callback raises, so no signal may end us there."""
        if not self._calls_back:
            call()
            return
        with signals_later():
            call()

    def _dead(self) -> bool:
        return bool(self._h.aio_is_dead() or self._h.aio_is_closed())

    def _lost(self) -> QbError:
        return self._why(True) or Failed(f"{self._name}: the NBD server ended the connection")

    def close(self) -> None:
        """Says goodbye if the server listens, and ends the connection in any case."""
        with suppress(self._nbd.Error):
            self._h.aio_disconnect()
        self._h = None


def to_uri(uri: str) -> Callable[[Any], None]:
    """Connects to a URI. UsageError if it is none of NBD's."""
    if uri.partition("://")[0] not in _SCHEMES:
        raise UsageError(
            f"nbd:{uri} is not a URI of NBD", "write nbd:nbd://HOST/EXPORT or nbd:nbd+unix:///EXPORT?socket=PATH"
        )

    def connect(handle: Any) -> None:
        _refuse_unchecked(uri, handle.get_version())
        handle.set_uri_allow_local_file(True)  # it is the user who names the file with the keys
        try:
            handle.aio_connect_uri(uri)
        except binding.load().Error as error:
            import errno

            if error.errnum == errno.EINVAL:
                raise UsageError(f"nbd:{uri}: {plain(error)}") from error
            raise

    return connect


def _refuse_unchecked(uri: str, version: str) -> None:
    """Refused if this libnbd would not check who the server is (CVE-2024-7383)."""
    scheme, _, rest = uri.partition("://")
    words = rest.partition("?")[2].replace(";", "&").split("&")
    if not scheme.startswith("nbds") or any(word.startswith("tls-psk-file=") for word in words):
        return  # a shared key proves both ends
    if scheme == "nbds" and any(word.startswith("tls-certificates=") for word in words):
        return
    numbers = tuple(number(part.encode()) or 0 for part in version.split(".")[:3])
    if numbers < (1, 18, 5) or (1, 19) <= numbers < (1, 20, 2):
        raise Refused(
            f"nbd:{uri}: libnbd {version} does not check the certificate of this server",
            "nbds://HOST/...?tls-certificates=DIRECTORY names a directory with ca-cert.pem, with which it does",
        )


def plain(error: Any) -> str:
    """The message of libnbd without the name of its function, on one line."""
    text = str(error.string).strip()
    name, colon, rest = text.partition(": ")
    return rest if colon and name.startswith("nbd_") else text
