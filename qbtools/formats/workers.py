"""Work on several chunks at a time, in order: threads, buffers, and one budget of memory.

Key derivation, hashing, encryption and reads all release the lock of the interpreter, so threads are enough.
"""

from __future__ import annotations

import contextlib
import mmap
import queue
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from qbtools.errors import Refused
from qbtools.formats.container import SLACK

T = TypeVar("T")
U = TypeVar("U")


class Budget:
    """Bytes that all jobs together may use. A request that does not fit now waits. One that never fits is refused."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._left = total
        self._change = threading.Condition()

    def take(self, size: int) -> None:
        """Waits until size bytes are free, and takes them. Refused if size is above the total."""
        if size > self.total:
            raise Refused(
                f"{size >> 20} MiB of memory are needed for one chunk, the limit is {self.total >> 20} MiB",
                "raise --max-memory if you trust where the archive comes from",
            )
        with self._change:
            self._change.wait_for(lambda: self._left >= size)
            self._left -= size

    def give(self, size: int) -> None:
        """Gives size bytes back."""
        with self._change:
            self._left += size
            self._change.notify_all()


class Buffers:
    """At most count buffers. They are reused and in huge pages: a new buffer of 100 MiB costs 25,000 page faults."""

    def __init__(self, count: int) -> None:
        self._free: list[mmap.mmap] = []
        self._slots = threading.Semaphore(count)
        self._lock = threading.Lock()

    def take(self, size: int) -> mmap.mmap:
        """A buffer for size bytes and the slack of the cipher. Waits while all buffers are in use."""
        self._slots.acquire()
        with self._lock:
            for at, buffer in enumerate(self._free):
                if len(buffer) >= size + SLACK:
                    return self._free.pop(at)
            if self._free:
                self._free.pop()  # too small: the new one replaces it
        fresh = mmap.mmap(-1, size + SLACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without huge pages
            fresh.madvise(mmap.MADV_HUGEPAGE)
        return fresh

    def give(self, buffer: mmap.mmap) -> None:
        """Gives a buffer back, from any thread."""
        with self._lock:
            self._free.append(buffer)
        self._slots.release()


_MOST_WAITING = 1024  # results that were not read yet; more than there are jobs


class _End:
    """The end of the queue, after the last item."""


class Lane(Generic[T]):
    """Runs a generator of futures in a separate thread, and yields their results in order.

    An exception of the generator or of a future is raised at its place in the order. The generator limits the number
    of buffers. Here only the number of items is limited: an archive may have millions of unwanted chunks, which need
    no buffer.
    """

    def __init__(self, source: Iterator[Future[T]]) -> None:
        self._source = source
        self._queue: queue.SimpleQueue[Future[T] | BaseException | _End] = queue.SimpleQueue()
        self._room = threading.Semaphore(_MOST_WAITING)
        threading.Thread(target=self._produce, daemon=True).start()

    def _produce(self) -> None:
        try:
            for future in self._source:
                self._room.acquire()
                self._queue.put(future)
            self._queue.put(_End())
        except BaseException as error:  # the consumer in the main thread raises it
            self._queue.put(error)

    def __iter__(self) -> Iterator[T]:
        while not isinstance(item := self._queue.get(), _End):
            if isinstance(item, BaseException):
                raise item
            self._room.release()
            yield item.result()


def done(value: T) -> Future[T]:
    """A future that is already done, for items that need no work."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def then(pool: ThreadPoolExecutor, first: Future[T], job: Callable[[T], U]) -> Future[U]:
    """Runs job in the pool with the result of first, when first is done. An error of first is the error of the result.

    No worker waits for first: a waiting worker could not do other work, and would prevent the end of the program.
    """
    future: Future[U] = Future()

    def run() -> None:
        try:
            future.set_result(job(first.result()))
        except BaseException as error:  # the reader of the result gets it
            future.set_exception(error)

    def start(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the program ends: nobody needs the result
            pool.submit(run)

    first.add_done_callback(start)
    return future


def beside(job: Callable[[], T]) -> Future[T]:
    """Runs job in a separate thread, which does not prevent the end of the program."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(job())
        except BaseException as error:  # the reader of the result gets it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
