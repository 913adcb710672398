"""The free space of a thin pool: the status line is parsed, and a write keeps the reserve free."""

from __future__ import annotations

import pytest

from qbtools.errors import Failed
from qbtools.formats.volumestream import ExtentMap
from qbtools.volumes.lvm import pool as module
from qbtools.volumes.lvm.pool import Pool, State, Watch, chunks

KiB, MiB = 1 << 10, 1 << 20


def test_a_status_line() -> None:
    text = "19 119/1024 1500/1600 - rw discard_passdown queue_if_no_space - 256"
    state = State.parse(text.split())
    assert state == (1500, 1600, 119, 1024)
    assert state.left(0) == 100
    assert state.left(5) == 20
    assert state.left(10) == -60
    assert state.describe() == "93.8 % of its data and 11.6 % of its metadata are used"


def test_a_part_of_a_chunk_of_reserve_is_a_whole_one() -> None:
    assert State(0, 10, 0, 1000).left(5) == 9
    assert State(0, 10, 0, 1000).left(0.1) == 9
    assert State(0, 10, 0, 1000).left(0) == 10
    assert State(10, 10, 0, 1000).left(0) == 0


def test_metadata_may_be_what_is_short() -> None:
    # A block of 4,096 bytes of metadata is counted as good for 128 chunks.
    assert State(0, 1000000, 900, 1000).left(5) == 50 * 128
    assert State(0, 1000000, 950, 1000).left(5) == 0
    assert State(0, 1000000, 960, 1000).left(5) < 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Fail", "bad state: Fail"),
        ("Error", "bad state: Error"),
        ("", "bad state: unknown"),
        ("1 1/10 10/10 - out_of_data_space discard_passdown queue_if_no_space - 256", "full"),
        ("1 1/10 1/10 - ro discard_passdown queue_if_no_space - 256", "repaired"),
        ("1 1/10 1/10 - rw discard_passdown queue_if_no_space needs_check 256", "repaired"),
        ("1 1/10 many - rw discard_passdown queue_if_no_space - 256", "parsed"),
    ],
)
def test_a_pool_that_takes_no_writes(text: str, problem: str) -> None:
    with pytest.raises(Failed, match=problem):
        State.parse(text.split())


def extents(size: int, *pieces: tuple[int, int]) -> ExtentMap:
    found = ExtentMap(size, gap=0)
    for offset, length in pieces:
        found.add(offset, length)
    return found


def test_chunks_that_extents_touch() -> None:
    size = 64 * KiB
    assert chunks(extents(MiB), size) == 0
    assert chunks(extents(MiB, (0, 512)), size) == 1
    assert chunks(extents(MiB, (0, 512), (1024, 512)), size) == 1, "the same chunk counts once"
    assert chunks(extents(MiB, (size - 512, 1024)), size) == 2
    assert chunks(extents(MiB, (size - 512, 1024), (2 * size - 512, 512)), size) == 2
    assert chunks(extents(MiB, (0, MiB)), size) == 16


class Fake(Pool):
    """A pool of 1,000 chunks of 64 KiB. Written chunks count when they are flushed."""

    def __init__(self, used: int, total: int = 1000, chunk: int = 64 * KiB) -> None:
        super().__init__("vg", "pool", chunk, zeroing=True)
        self.used, self.total, self.pending, self.flushes = used, total, 0, 0
        self.most = 0

    def state(self) -> State:
        return State(self.used, self.total, 0, 1000)

    def flush(self) -> None:
        self.most = max(self.most, self.pending)
        self.used += self.pending
        self.pending = 0
        self.flushes += 1


def fill(pool: Fake, watch: Watch, count: int) -> None:
    """Writes the first bytes of so many chunks."""
    for number in range(count):
        watch.take(number * pool.chunk, 512)
        pool.pending += 1


def test_a_filling_ends_exactly_at_the_reserve() -> None:
    pool = Fake(used=900)
    watch = Watch(pool, 5.0, pool.flush)
    watch.check(None)
    with pytest.raises(Failed, match=r"pool vg/pool is filled to its reserve of 5 %: 95\.0 % of its data") as raised:
        fill(pool, watch, 1000)
    assert "--pool-reserve" in (raised.value.hint or "")
    pool.flush()
    assert pool.used == 950


def test_what_others_write_meanwhile_counts_at_the_next_look() -> None:
    pool = Fake(used=0, total=10000)
    watch = Watch(pool, 5.0, pool.flush)
    fill(pool, watch, 10)
    pool.used = 9400
    with pytest.raises(Failed, match="filled to its reserve"):
        fill(pool, watch, 5000)


def test_no_more_than_a_step_is_on_its_way() -> None:
    pool = Fake(used=0, total=10000)
    fill(pool, Watch(pool, 5.0, pool.flush), 5000)
    assert pool.most == module.STEP // pool.chunk == 1024
    assert pool.flushes == 5


def test_chunks_larger_than_a_step() -> None:
    pool = Fake(used=0, total=10, chunk=128 * MiB)
    watch = Watch(pool, 20.0, pool.flush)
    with pytest.raises(Failed):
        fill(pool, watch, 10)
    assert pool.used + pool.pending == 8


def test_a_chunk_is_taken_once() -> None:
    pool = Fake(used=0)
    watch = Watch(pool, 0, pool.flush)
    for number in range(10000):
        watch.take(number * 4096, 4096)
    assert pool.flushes == 1, "625 chunks are less than a step"


def test_room_is_asked_for_before() -> None:
    pool = Fake(used=900)
    watch = Watch(pool, 5.0, pool.flush)
    size = 100 << 20
    watch.check(extents(size, (0, 50 * pool.chunk)))
    with pytest.raises(Failed, match="no room for 3342336 bytes in the pool vg/pool above its reserve of 5 %"):
        watch.check(extents(size, (0, 51 * pool.chunk)))
    watch.check(extents(size, (0, size)))  # without a map nobody knows how much of it is zeros
    pool.used = 951
    with pytest.raises(Failed, match="filled to its reserve"):
        watch.check(extents(size, (0, size)))
    with pytest.raises(Failed, match="filled to its reserve"):
        watch.check(None)
