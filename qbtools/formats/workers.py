"""Work on several chunks at a time, in order: threads, buffers, and one budget of memory.

Key derivation, hashing, encryption and reads all let go of the interpreter's lock, so threads are enough.
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
    """Bytes that all jobs together may take. What does not fit now waits; what never fits is refused."""

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
    """At most count buffers, reused, in huge pages where there are any: a fresh one of 100 MiB costs 25,000 faults."""

    def __init__(self, count: int) -> None:
        self._free: list[mmap.mmap] = []
        self._slots = threading.Semaphore(count)
        self._lock = threading.Lock()

    def take(self, size: int) -> mmap.mmap:
        """A buffer with room for size bytes and the cipher's slack; waits while all are in use."""
        self._slots.acquire()
        with self._lock:
            for at, buffer in enumerate(self._free):
                if len(buffer) >= size + SLACK:
                    return self._free.pop(at)
            if self._free:
                self._free.pop()  # too small: the new one takes its place
        fresh = mmap.mmap(-1, size + SLACK, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with contextlib.suppress(OSError):  # a kernel without them
            fresh.madvise(mmap.MADV_HUGEPAGE)
        return fresh

    def give(self, buffer: mmap.mmap) -> None:
        """Gives a buffer back, from any thread."""
        with self._lock:
            self._free.append(buffer)
        self._slots.release()


_MOST_WAITING = 1024  # results that nobody has taken; more than there are jobs


class _End:
    """Stands behind the last item."""


class Lane(Generic[T]):
    """Runs a generator of futures in a thread of its own and hands their results on, in its order.

    An exception of the generator or of a future comes out at its place. The number of buffers in use is the
    generator's business. Here only the number of items has a bound: an archive may have millions of chunks that
    nobody wants, and that need no buffer.
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
        except BaseException as error:  # it belongs to the consumer, who stands in the main thread
            self._queue.put(error)

    def __iter__(self) -> Iterator[T]:
        while not isinstance(item := self._queue.get(), _End):
            if isinstance(item, BaseException):
                raise item
            self._room.release()
            yield item.result()


def done(value: T) -> Future[T]:
    """A future that is over already, for items that need no work."""
    future: Future[T] = Future()
    future.set_result(value)
    return future


def then(pool: ThreadPoolExecutor, first: Future[T], job: Callable[[T], U]) -> Future[U]:
    """Runs job in the pool with what first gives, once that is there; whatever first raises comes out too.

    No worker waits for it: one that did would have no time for other work, and would keep the program from ending.
    """
    future: Future[U] = Future()

    def run() -> None:
        try:
            future.set_result(job(first.result()))
        except BaseException as error:  # it belongs to whoever asks for the result
            future.set_exception(error)

    def start(_: Future[T]) -> None:
        with contextlib.suppress(RuntimeError):  # the program ends: nobody asks any more
            pool.submit(run)

    first.add_done_callback(start)
    return future


def beside(job: Callable[[], T]) -> Future[T]:
    """Runs job in a thread of its own, which does not keep the program from ending."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(job())
        except BaseException as error:  # it belongs to whoever asks for the result
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
