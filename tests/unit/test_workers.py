"""Work on several chunks at a time: the budget, the buffers, and the lane that keeps the order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from qbtools.errors import Damaged, Refused
from qbtools.formats.container import SLACK
from qbtools.formats.workers import Budget, Buffers, Future, Lane, Pool, done, then

LONG = 60.0
"""Seconds after which a test that waits is lost; how long it really takes does not matter."""


class Waiter:
    """Calls a function in a thread and knows whether it has returned."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.result: object = None
        self._over = threading.Event()
        threading.Thread(target=self._run, args=(call,), daemon=True).start()

    def _run(self, call: Callable[[], object]) -> None:
        self.result = call()
        self._over.set()

    def waits(self) -> bool:
        return not self._over.wait(0.05)

    def comes_back(self) -> bool:
        return self._over.wait(LONG)


def failed(message: str) -> Future[int]:
    def job() -> int:
        raise Damaged(message)

    future: Future[int] = Future()
    future.run(job)
    return future


# --- futures and their threads ---


def test_a_result_is_waited_for() -> None:
    future: Future[int] = Future()
    waiter = Waiter(future.result)
    assert waiter.waits()
    future.run(lambda: 7)
    assert waiter.comes_back()
    assert waiter.result == 7


def test_what_waits_for_a_result_is_called_once() -> None:
    future: Future[int] = Future()
    called: list[str] = []
    future.when_known(lambda: called.append("before"))
    assert not called
    future.run(lambda: 7)
    future.when_known(lambda: called.append("after"))
    assert called == ["before", "after"]


def test_jobs_that_follow_others_get_their_results_and_errors() -> None:
    pool = Pool(2)
    assert then(pool, pool.submit(int, "7"), lambda number: number + 1).result() == 8
    with pytest.raises(Damaged, match="^no number$"):
        then(pool, failed("no number"), lambda number: number + 1).result()


def test_a_pool_ends_its_threads_when_nothing_refers_to_it() -> None:
    others = set(threading.enumerate())
    pool = Pool(8)
    assert pool.submit(int, "7").result() == 7
    ours = set(threading.enumerate()) - others
    assert len(ours) == 8
    del pool
    for thread in ours:
        thread.join(LONG)
        assert not thread.is_alive()


# --- the budget ---


def test_what_never_fits_is_refused() -> None:
    budget = Budget(100 << 20)
    with pytest.raises(Refused) as caught:
        budget.take((100 << 20) + 1)
    assert caught.value.message == "100 MiB of memory are needed for one chunk, the limit is 100 MiB"
    assert caught.value.hint == "raise --max-memory if you trust where the archive comes from"
    budget.take(100 << 20)  # all of it fits, and the refused one took nothing


def test_what_does_not_fit_now_waits_until_it_does() -> None:
    budget = Budget(100)
    budget.take(60)
    waiter = Waiter(lambda: budget.take(50))
    assert waiter.waits()
    budget.give(5)
    assert waiter.waits()
    budget.give(5)
    assert waiter.comes_back()


def test_nothing_is_handed_out_twice() -> None:
    budget = Budget(100)
    budget.take(100)
    came = threading.Semaphore(0)
    for _ in range(2):
        Waiter(lambda: (budget.take(60), came.release()))
    assert not came.acquire(timeout=0.05)
    budget.give(100)
    assert came.acquire(timeout=LONG)
    assert not came.acquire(timeout=0.05)
    budget.give(60)
    assert came.acquire(timeout=LONG)


# --- the buffers ---


def test_a_buffer_has_room_for_the_slack_of_the_cipher() -> None:
    assert len(Buffers(1).take(1000)) == 1000 + SLACK


def test_buffers_are_used_again() -> None:
    buffers = Buffers(2)
    first = buffers.take(1000)
    buffers.give(first)
    assert buffers.take(500) is first
    assert buffers.take(500) is not first


def test_a_buffer_that_is_too_small_makes_way() -> None:
    buffers = Buffers(1)
    small = buffers.take(10)
    buffers.give(small)
    large = buffers.take(1000)
    assert len(large) == 1000 + SLACK
    buffers.give(large)
    assert buffers.take(1000) is large
    assert not buffers._free


def test_there_are_no_more_buffers_than_were_allowed() -> None:
    buffers = Buffers(2)
    first = buffers.take(10)
    buffers.take(10)
    waiter = Waiter(lambda: buffers.take(10))
    assert waiter.waits()
    buffers.give(first)
    assert waiter.comes_back()
    assert waiter.result is first


# --- the lane ---


def test_results_come_in_the_order_of_the_generator() -> None:
    futures: list[Future[int]] = [Future() for _ in range(3)]
    lane = iter(Lane(iter(futures)))
    futures[2].run(lambda: 2)
    futures[1].run(lambda: 1)
    first = Waiter(lambda: next(lane))
    assert first.waits()
    futures[0].run(lambda: 0)
    assert first.comes_back()
    assert (first.result, list(lane)) == (0, [1, 2])


def test_an_exception_of_a_future_is_raised_at_its_place() -> None:
    lane = iter(Lane(iter([done(0), failed("chunk 1"), done(2)])))
    assert next(lane) == 0
    with pytest.raises(Damaged, match="^chunk 1$"):
        next(lane)


def test_an_exception_of_the_generator_is_raised_after_its_items() -> None:
    def source() -> Iterator[Future[int]]:
        yield done(0)
        yield done(1)
        raise Damaged("the archive ends")

    lane = iter(Lane(source()))
    assert [next(lane), next(lane)] == [0, 1]
    with pytest.raises(Damaged, match="^the archive ends$"):
        next(lane)


def test_even_what_no_one_expects_reaches_the_consumer() -> None:
    def source() -> Iterator[Future[int]]:
        raise KeyboardInterrupt
        yield

    with pytest.raises(KeyboardInterrupt):
        list(Lane(source()))


def test_unread_items_do_not_fill_the_memory() -> None:
    made = 0

    def source() -> Iterator[Future[int]]:
        nonlocal made
        while made < 10_000:
            made += 1
            yield done(made)

    lane = iter(Lane(source()))
    assert next(lane) == 1
    before = -1
    while before != made:  # the thread runs until it has to wait
        before = made
        time.sleep(0.2)
    assert made < 1100
    assert list(lane) == list(range(2, 10_001))


def test_an_empty_lane() -> None:
    nothing: list[Future[int]] = []
    assert list(Lane(iter(nothing))) == []


def test_one_worker_is_enough_for_jobs_that_wait_for_earlier_ones() -> None:
    # As sealing and opening use it: a job waits for the key whose job was given to the same pool before.
    pool = Pool(1)

    def source() -> Iterator[Future[int]]:
        for number in range(100):
            key = pool.submit(lambda number: number * 2, number)
            yield pool.submit(lambda key: int(key.result()) + 1, key)

    waiter = Waiter(lambda: list(Lane(source())))
    assert waiter.comes_back()
    assert waiter.result == [number * 2 + 1 for number in range(100)]
