"""Finds the changes of a volume since its index was made: reads a volume stream, writes volume stream 2 and an index.

It takes one pass, in which it computes the digest of each block. The memory does not grow with the volume. What it
reads may be volume stream 2, of a reader that knows which blocks may have changed: then only these are compared.
"""

from __future__ import annotations

from qbtools.errors import Damaged, Truncated
from qbtools.formats import blockindex
from qbtools.formats.blockindex import DIGEST, PER_WINDOW, IndexReader, IndexWriter
from qbtools.formats.deltastream import RecordReader, RecordWriter
from qbtools.formats.volumestream import ExtentMap
from qbtools.lean import TYPE_CHECKING
from qbtools.streams import Reader

if TYPE_CHECKING:
    from collections.abc import Callable

SPAN = 1 << 20
"""Bytes that are looked at together, at most: one block or more."""

_ZEROS = bytes(SPAN)
_SAME = bytes(DIGEST)
_ALL_SAME = bytes(PER_WINDOW * DIGEST)


class Delta:
    """Reads the data of a volume, once."""

    def __init__(
        self,
        reader: Reader,
        extents: ExtentMap,
        block: int,
        key: bytes,
        base: IndexReader | None,
        index: IndexWriter | None,
    ) -> None:
        """reader: at the data of extents. block, key: of both indexes. base: the old index. index: the new one."""
        self._reader = reader
        self._extents = extents
        self._block = block
        self._hash = blockindex.digest_of(key)
        self._base = base
        self._index = index
        self._buffer = bytearray(SPAN)
        self._at = 0  # up to here all is done: where a block begins
        self._pieces: list[tuple[int, int]] = []  # of the span that begins there, what is data
        self._digests: bytes | memoryview = b""
        self._look: Callable[[], None] = lambda: None  # what is done with a span

    def copy(self, put: Callable[[memoryview], None]) -> None:
        """Gives all data to put, as it is. Truncated if the input ends too early."""
        self._look = lambda: self._put_pieces(put)
        self._whole(None)

    def changes(self, records: RecordWriter) -> None:
        """Gives what differs from the base to records, without its end. Truncated as copy()."""
        self._look = lambda: self._compare(records)
        self._whole(records)

    def reduce(self, candidates: RecordReader, records: RecordWriter) -> None:
        """The same if the input is volume stream 2, of the same base: the data is in candidates.

        Reads the stream to its end. Damaged if a block is only partly in the records.
        """
        self._look = lambda: self._compare(records)
        end = 0  # of the records so far
        while (record := candidates.next()) is not None:
            if record.offset > end:
                self._finish(end, records)
                self._same(record.offset)
            if not record.zero:
                self._take(record.offset, record.length, records)
            end = record.offset + record.length
        self._finish(end, records)
        self._same(self._extents.size)

    def _whole(self, records: RecordWriter | None) -> None:
        for offset, length in self._extents:
            self._take(offset, length, records)
        self._finish(self._extents.size, records)

    def _take(self, offset: int, length: int, records: RecordWriter | None) -> None:
        """Reads data. What is between it and the data before it is zeros."""
        view, pieces, end = memoryview(self._buffer), self._pieces, offset + length
        while offset < end:
            block = offset - offset % self._block
            if not pieces or block - self._at > self._whole_blocks() or offset - self._at >= SPAN:
                self._close()
                self._hole(block, records)
            stop = min(end, self._at + SPAN)
            piece = (offset - self._at, stop - self._at)
            part = view[piece[0] : piece[1]]
            if self._reader.read_into(part) < len(part):
                raise Truncated(f"{self._reader.name} ends too early")
            pieces.append(piece)
            offset = stop

    def _finish(self, until: int, records: RecordWriter | None) -> None:
        """Looks at everything up to `until`, where a block or the volume ends."""
        if until % self._block and until < self._extents.size:
            raise self._partly(until)
        self._close()
        self._hole(until, records)

    def _same(self, until: int) -> None:
        """Goes on to `until`, where the next record begins or the volume ends; all between is as in the base."""
        block, size = self._block, self._extents.size
        if self._at == until or self._base is None:
            return
        if until % block and (until < size or size < self._base.head.size):  # a block that was cut is another one
            raise self._partly(until)
        count, self._at = -(-(until - self._at) // block), until
        while count:
            part = min(count, PER_WINDOW)
            before = self._base.take(part)
            if self._index is not None:
                self._index.add(before)
            count -= part

    def _partly(self, offset: int) -> Damaged:
        return Damaged(f"{self._reader.name} has only a part of the block of {self._block} bytes at {offset}")

    def _whole_blocks(self) -> int:
        """Bytes of the span up to the end of the last block that was read, or begun."""
        end = self._pieces[-1][1]
        return end + -end % self._block

    def _close(self) -> None:
        """Looks at the span whose pieces were read."""
        if not self._pieces:
            return
        full = self._whole_blocks()
        count = min(full, self._extents.size - self._at)
        at = 0
        for begin, end in (*self._pieces, (full, full)):
            if at < begin:
                self._buffer[at:begin] = memoryview(_ZEROS)[: begin - at]
            at = end
        self._digests = self._digests_of(count)
        self._look()
        if self._index is not None:
            self._index.add(self._digests)
        self._pieces.clear()
        self._at += count

    def _digests_of(self, count: int) -> bytes:
        view, block = memoryview(self._buffer), self._block
        found = []
        for at in range(0, count, block):
            if self._buffer.startswith(memoryview(_ZEROS)[:block], at):
                found.append(_SAME)
            else:
                one = self._hash.copy()
                one.update(view[at : at + block])
                found.append(one.digest()[:DIGEST])
        return b"".join(found)

    def _put_pieces(self, put: Callable[[memoryview], None]) -> None:
        view = memoryview(self._buffer)
        for begin, end in self._pieces:
            put(view[begin:end])

    def _compare(self, records: RecordWriter) -> None:
        """Writes the blocks of a span that differ from the base."""
        digests, block = self._digests, self._block
        count = len(digests) // DIGEST
        before = bytes(self._base.take(count)) if self._base else bytes(len(digests))
        if before == digests:
            return
        size = self._extents.size
        for number in range(count):
            digest = digests[number * DIGEST : number * DIGEST + DIGEST]
            if digest == before[number * DIGEST : number * DIGEST + DIGEST]:
                continue
            begin = number * block
            end = min(begin + block, size - self._at)
            if digest == _SAME:
                records.add_zeros(self._at + begin, end - begin)
            else:
                self._put_block(records, begin, end)

    def _put_block(self, records: RecordWriter, begin: int, end: int) -> None:
        """Writes a block: the data in the map, and zeros elsewhere, because the base may have data there."""
        view, at = memoryview(self._buffer), begin
        for start, stop in self._pieces:
            if stop <= begin or start >= end:
                continue
            start, stop = max(start, begin), min(stop, end)
            if at < start:
                records.add_zeros(self._at + at, start - at)
            records.add_data(self._at + start, view[start:stop])
            at = stop
        if at < end:
            records.add_zeros(self._at + at, end - at)

    def _hole(self, until: int, records: RecordWriter | None) -> None:
        """Goes on to `until`, where the next span begins or the volume ends; nothing between is data."""
        block = self._block
        count = -(-(until - self._at) // block)
        if self._index is not None:
            self._index.add_zeros(count)
        at, self._at = self._at, until
        while count and self._base is not None and records is not None and not self._base.at_end:
            part = min(count, PER_WINDOW)
            before = bytes(self._base.take(part))
            if before != _ALL_SAME[: len(before)]:
                for number in range(part):
                    if before[number * DIGEST : number * DIGEST + DIGEST] != _SAME:
                        begin = at + number * block
                        records.add_zeros(begin, min(block, until - begin))
            at += part * block
            count -= part
