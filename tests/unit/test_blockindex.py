"""The index of blocks: its bytes, and that nothing else is taken for one."""

from __future__ import annotations

import hashlib
import io

import pytest

from qbtools.errors import Damaged
from qbtools.formats import blockindex
from qbtools.formats.blockindex import DIGEST, HEAD, PER_WINDOW, WINDOW, Head, IndexReader, IndexWriter
from qbtools.formats.deltastream import Base
from qbtools.streams import Reader, Writer

KEY = bytes(range(32))
NAME = "vm1/private.img"


def head(blocks: int, block: int = 4096, backup_id: str = "id-1", line: str = "ab" * 32, name: str = NAME) -> Head:
    return Head(KEY, blocks * block, block, Base(backup_id, line), name)


def written(of: Head, digests: bytes) -> bytes:
    file = io.BytesIO()
    index = IndexWriter(Writer(file), of)
    for at in range(0, len(digests), 1000 * DIGEST):
        index.add(digests[at : at + 1000 * DIGEST])
    index.end()
    return file.getvalue()


def read(data: bytes) -> bytes:
    index = IndexReader(Reader(io.BytesIO(data), "INDEX"))
    parts = []
    left = index.head.blocks
    while left:
        count = min(left, 999)
        parts.append(bytes(index.take(count)))
        left -= count
    index.check()
    return b"".join(parts)


def some(blocks: int) -> bytes:
    return b"".join(number.to_bytes(DIGEST, "big") for number in range(1, blocks + 1))


def test_bytes_of_an_index() -> None:
    data = written(head(2), b"A" * 16 + bytes(16))
    begin = b"qb-block-index\0\1" + KEY + (8192).to_bytes(8, "big") + (4096).to_bytes(8, "big")
    names = b"id-1".ljust(128, b"\0") + NAME.encode().ljust(160, b"\0")
    first = (begin + b"\xab" * 32 + names).ljust(480, b"\0")
    digests = b"A" * 16 + bytes(16)
    behind = hashlib.sha256(begin + names + bytes(8) + digests).digest()
    assert data == first + hashlib.sha256(first).digest() + digests + behind


@pytest.mark.parametrize("blocks", [0, 1, PER_WINDOW - 1, PER_WINDOW, PER_WINDOW + 1, 2 * PER_WINDOW])
def test_what_is_written_is_read(blocks: int) -> None:
    of, digests = head(blocks), some(blocks)
    data = written(of, digests)
    assert len(data) == blockindex.file_size(of) == HEAD + len(digests) + -(-blocks // PER_WINDOW) * 32
    assert read(data) == digests
    assert IndexReader(Reader(io.BytesIO(data))).head == of


def test_zeros_in_bulk_are_the_same_as_one_by_one() -> None:
    file = io.BytesIO()
    index = IndexWriter(Writer(file), head(PER_WINDOW * 2 + 7))
    index.add(some(5))
    index.add_zeros(PER_WINDOW * 2 + 2)
    index.end()
    assert file.getvalue() == written(head(PER_WINDOW * 2 + 7), some(5) + bytes((PER_WINDOW * 2 + 2) * DIGEST))


def test_blocks_that_the_volume_did_not_have_are_zeros() -> None:
    index = IndexReader(Reader(io.BytesIO(written(head(3), some(3)))))
    assert bytes(index.take(2)) == some(2)
    assert not index.at_end
    assert bytes(index.take(3)) == some(3)[32:] + bytes(32)
    assert bytes(index.take(2)) == bytes(32)
    assert index.at_end


def test_an_index_of_other_blocks_is_not_ended() -> None:
    index = IndexWriter(Writer(io.BytesIO()), head(3))
    index.add(some(2))
    with pytest.raises(ValueError, match="1 digests are missing"):
        index.end()


@pytest.mark.parametrize("bit", [1, 128])
def test_each_bit_counts(bit: int) -> None:
    whole = written(head(PER_WINDOW + 2), some(PER_WINDOW + 2))
    for at in (*range(0, HEAD, 7), HEAD - 1, HEAD, HEAD + WINDOW, HEAD + WINDOW + 31, -33, -1):
        data = bytearray(whole)
        data[at] ^= bit
        with pytest.raises(Damaged, match="INDEX"):
            read(bytes(data))


@pytest.mark.parametrize("size", [0, 1, 100, HEAD - 1, HEAD, HEAD + 1, HEAD + WINDOW, HEAD + WINDOW + 32, -1, -32, -33])
def test_every_cut_is_noticed(size: int) -> None:
    data = written(head(PER_WINDOW + 2), some(PER_WINDOW + 2))
    with pytest.raises(Damaged, match="INDEX"):
        read(data[:size])


def test_nothing_may_follow() -> None:
    with pytest.raises(Damaged, match="something follows the end of the index INDEX"):
        read(written(head(2), some(2)) + b"\0")


def test_a_part_of_an_older_index_does_not_fit() -> None:
    """Same key, same volume, another backup; and two parts of one index, exchanged."""
    new, old = (written(head(PER_WINDOW * 2, backup_id=name), some(PER_WINDOW * 2)) for name in ("new", "old"))
    end = HEAD + WINDOW + 32
    for mixed in (new[:HEAD] + old[HEAD:], new[:end] + old[end:], new[:HEAD] + new[end:] + new[HEAD:end]):
        assert len(mixed) == len(new)
        with pytest.raises(Damaged, match="the index INDEX is damaged"):
            read(mixed)


def changed(**fields: object) -> bytes:
    return blockindex.serialise(head(0)._replace(**fields))


@pytest.mark.parametrize(
    "data",
    [
        changed(block=2048),
        changed(block=4097),
        changed(block=1 << 21),
        changed(size=1 << 63),
        changed(name="../x"),
        changed(name=""),
        changed(name="d" * 138 + "/" + "b" * 20),
        changed(base=Base("", "")),
        changed(base=Base("-x", "")),
        changed(base=Base("a b", "")),
        changed(name="vm1/x\0y"),
    ],
)
def test_a_beginning_that_nobody_writes(data: bytes) -> None:
    with pytest.raises(Damaged, match="the index INDEX is malformed"):
        blockindex.parse(data, "INDEX")


def test_an_index_that_is_not_confirmed() -> None:
    assert blockindex.parse(blockindex.serialise(head(0, line="")), "INDEX").base == Base("id-1", "")
