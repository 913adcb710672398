"""Work on several chunks at a time, in order: threads, buffers, and one budget of memory.

Key derivation, hashing, encryption and reads all release the lock of the interpreter, so threads are enough. Future
and Pool are like those of concurrent.futures, which takes as long to load as the interpreter: it loads logging.
"""

from __future__ import annotations

import contextlib
import mmap
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from qbtools.errors import Refused
from qbtools.formats.containerhead import SLACK

T = TypeVar("T")
U = TypeVar("U")


class Future(Generic[T]):
    """A result that may not be known yet."""

    _value: T

    def __init__(self) -> None:
        self._error: BaseException | None = None
        self._known = threading.Event()
        self._lock = threading.Lock()
        self._waiting: list[Callable[[], object]] = []

    def run(self, job: Callable[[], T]) -> None:
        """Runs job, whose result or error becomes that of the future. Called once."""
        try:
            self._value = job()
        except BaseException as error:  # the reader of the result gets it
            self._error = error
        with self._lock:
            self._known.set()
        for call in self._waiting:
            call()

    def result(self) -> T:
        """Waits for the result, or raises the error."""
        self._known.wait()
        if self._error is not None:
            raise self._error
        return self._value

    def when_known(self, call: Callable[[], object]) -> None:
        """Calls call when there is a result or an error: now, or in the thread that has it."""
        with self._lock:
            if not self._known.is_set():
                self._waiting.append(call)
                return
        call()


class Pool:
    """count threads, which run jobs first in, first out. They do not prevent the end of the program."""

    def __init__(self, count: int) -> None:
        self._queue: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        for _ in range(count):
            threading.Thread(target=self._work, args=(self._queue,), daemon=True).start()
            weakref.finalize(self, self._queue.put, None)  # each thread ends when the pool is no longer used

    def submit(self, job: Callable[..., T], *arguments: object) -> Future[T]:
        """The future result of job with these arguments."""
        future: Future[T] = Future()
        self._queue.put(lambda: future.run(lambda: job(*arguments)))
        return future

    @staticmethod
    def _work(jobs: queue.SimpleQueue[Callable[[], object] | None]) -> None:
        while (job := jobs.get()) is not None:
            job()
            del job  # what it refers to may refer to the pool, which then would never be deleted


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
    """A future whose result is known, for items that need no work."""
    future: Future[T] = Future()
    future.run(lambda: value)
    return future


def then(pool: Pool, first: Future[T], job: Callable[[T], U]) -> Future[U]:
    """Runs job in the pool with the result of first, when that is known. An error of first is the error of the result.

    No worker waits for first: a waiting worker could not do other work.
    """
    future: Future[U] = Future()
    first.when_known(lambda: pool.submit(future.run, lambda: job(first.result())))
    return future


def beside(job: Callable[[], T]) -> Future[T]:
    """Runs job in a separate thread, which does not prevent the end of the program."""
    future: Future[T] = Future()
    threading.Thread(target=future.run, args=(job,), daemon=True).start()
    return future
