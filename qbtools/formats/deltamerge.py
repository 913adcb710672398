"""Merges several volume streams: a volume or an increment, and the increments that follow it.

They may also come as they are in inner archives.

The map is that of the last stream. The data of a place comes from the last stream that has a record for it. Of each
stream only the part below the smallest size of all later streams counts: data that a volume lost when it shrank does
not return when it grows. All streams are sorted, so this takes one pass and keeps one record of each.
"""

from __future__ import annotations

from qbtools.errors import Damaged, Truncated
from qbtools.formats import deltastream, deltatar, volumestream
from qbtools.formats.deltastream import Base, Head, Order, RecordReader, RecordWriter
from qbtools.formats.tarreader import TarReader
from qbtools.formats.volumestream import ALIGN, MAX_SIZE, ExtentMap
from qbtools.lean import TYPE_CHECKING, NamedTuple
from qbtools.streams import BLOCK, Reader, Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


WHOLE = "none"
"""In the list of bases: the stream must be a whole volume."""

_BASE_LINE = 256


class _Layer:
    """One of the streams. Between start and stop lies its record; where there is none left, start is MAX_SIZE."""

    def __init__(self, reader: Reader, size: int, records: Iterator[tuple[bool, int, int]]) -> None:
        """size: of the volume. records: whether each is zeros, its offset and its length; read up to the end of reader
        as they are asked for."""
        self.reader = reader
        self.size = size
        self.cut = size
        """Up to here it counts."""
        self.zero = False
        self.start = self.stop = 0
        self._records = records
        self._at = 0  # in the record, up to here its data was taken

    def begin(self) -> None:
        """Reads up to the first record."""
        self._next()

    def pass_over(self, place: int) -> None:
        """Reads up to the first record that ends behind place."""
        while self.stop <= place and self.start < MAX_SIZE:
            self._next()

    def copy(self, begin: int, end: int, writer: Writer) -> None:
        """Writes the data between two places of the record."""
        self._go(begin)
        self.reader.copy_to(writer, end - begin)
        self._at = end

    def take(self, begin: int, end: int, put: Callable[[memoryview], None], buffer: memoryview) -> None:
        """Gives the data between two places of the record to put."""
        self._go(begin)
        while begin < end:
            part = buffer[: end - begin]
            if self.reader.read_into(part) < len(part):
                raise Truncated(f"{self.reader.name} ends too early")
            put(part)
            begin += len(part)
        self._at = end

    def _go(self, place: int) -> None:
        if place > self._at:
            self.reader.skip(place - self._at)

    def finish(self) -> None:
        """Reads all that is left, to the end line and EOF."""
        self.pass_over(MAX_SIZE)

    def _next(self) -> None:
        if not self.zero and self.stop > self._at:
            self.reader.skip(self.stop - self._at)
        self.zero, self.start, length = next(self._records, (True, MAX_SIZE, 0))
        self.stop = self.start + length
        self._at = self.start


def base_named(text: str, separator: str) -> Base | None:
    """The base with this ID and SHA256, or None for WHOLE. ValueError for anything else."""
    backup_id, found, digest = text.partition(separator)
    if not found and text != WHOLE:
        raise ValueError(f"neither {WHOLE} nor ID{separator}SHA256: {text}")
    return Base(backup_id, digest) if found else None


def read_bases(reader: Reader, count: int) -> list[Base | None]:
    """Reads what the streams of a merge must name as their bases: for each a line `ID SHA256`, or `none` if it must be
    whole, and then a line `end`. Truncated if the end is missing, Damaged for anything else."""
    found: list[Base | None] = []
    while (line := reader.read_line(_BASE_LINE)) != b"end\n":
        if not line.endswith(b"\n"):
            raise Truncated(f"{reader.name} ends without its line end")
        try:
            wanted = base_named(line[:-1].decode("ascii"), " ")
        except ValueError:
            raise Damaged(f"{reader.name} is malformed in line {len(found) + 1}") from None
        if len(found) == count:
            raise Damaged(f"{reader.name} has more than {count} lines for {count} streams")
        found.append(wanted)
    if len(found) < count:
        raise Damaged(f"{reader.name} has {len(found)} lines for {count} streams")
    return found


class Opened(NamedTuple):
    """A stream whose header was read. label: what messages call it. base: None for a whole volume. records: as for
    _Layer, given the map that data must lie in (None: that is not checked)."""

    label: str
    reader: Reader
    extents: ExtentMap
    base: Base | None
    records: Callable[[ExtentMap | None], Iterator[tuple[bool, int, int]]]


def stream(reader: Reader) -> Opened:
    """A volume stream. Damaged or Truncated if it is malformed."""
    if not deltastream.is_increment(reader):
        extents = volumestream.read_header(reader, volumestream.NO_PLAIN)
        return Opened(
            reader.name,
            reader,
            extents,
            None,
            lambda _map: _extents(extents, lambda: volumestream.read_end(reader, extents)),
        )
    head = deltastream.read_header(reader)
    size = head.extents.size
    return Opened(
        reader.name, reader, head.extents, head.base, lambda extents: _changes(RecordReader(reader, size, extents))
    )


def member(reader: Reader, name: str) -> Opened:
    """The same for the member of an inner archive."""
    archive = TarReader(reader)
    found = archive.find(name, deltatar.SIZE)
    if found.untrusted_name == name:
        extents = archive.read_map()
        return Opened(name, reader, extents, None, lambda _map: _extents(extents, archive.finish))
    if not deltatar.is_increment(reader, found):
        raise Damaged(f"{found.untrusted_name} is not the header of an increment")
    increment = deltatar.IncrementTar(archive, reader, found)
    head = increment.take_head()
    size = head.extents.size
    return Opened(name, reader, head.extents, head.base, lambda extents: increment.records(Order(size, extents)))


def _extents(extents: ExtentMap, end: Callable[[], None]) -> Iterator[tuple[bool, int, int]]:
    """The records of a volume: each extent is one. end: reads what follows them."""
    for offset, length in extents:
        yield False, offset, length
    end()


def _changes(records: RecordReader) -> Iterator[tuple[bool, int, int]]:
    """The records of an increment."""
    while (record := records.next()) is not None:
        yield record


class Merge:
    """One merge. extents: the map of the result."""

    def __init__(self, streams: Iterable[Opened], drop: bool = False) -> None:
        """streams: each is opened when it is asked for. Damaged if they cannot follow each other.

        drop: a whole volume may follow other streams, which then do not count and are not read further.
        """
        self._base: Base | None = None
        self.extents = ExtentMap(0)
        self._named: list[tuple[str, Base | None]] = []  # the label of each stream, and the base that it names
        self.dropped = 0
        """So many streams do not count."""
        found: list[Opened] = []
        seen: set[str] = set()
        for number, one in enumerate(streams):
            size = one.extents.size
            if one.base is None:
                if number and not drop:
                    raise Damaged(f"{one.label} is a whole volume of {size} bytes, not an increment")
                found.clear()
                seen.clear()
                self.dropped = number
            elif one.base.backup_id in seen:
                raise Damaged(f"{one.label} has the same base as a stream before it: {one.base.backup_id}")
            else:
                seen.add(one.base.backup_id)
            self._base = self._base if found else one.base
            self._named.append((one.label, one.base))
            self.extents = one.extents
            found.append(one._replace(extents=ExtentMap(size)))
        # Only the last map is kept: the data was compared with it when the stream was written.
        maps = [None] * (len(found) - 1) + [self.extents]
        self._layers = [
            _Layer(one.reader, one.extents.size, one.records(extents)) for one, extents in zip(found, maps, strict=True)
        ]
        self._set_cuts()
        self._buffer = memoryview(bytearray(BLOCK))

    def check_whole(self) -> None:
        """Damaged if the result is no whole volume."""
        if self._base is not None:
            raise deltatar.foreign(self._named[self.dropped][0], self._base)

    def check_bases(self, wanted: Sequence[Base | None]) -> None:
        """Compares what each stream names as its base with what it must name, also for streams that do not count.

        Damaged for an increment of something else.
        """
        for (label, base), must in zip(self._named, wanted, strict=True):
            if base is not None and base != must:
                raise deltatar.foreign(label, base)

    def _set_cuts(self) -> None:
        cut = MAX_SIZE
        for layer in reversed(self._layers):
            layer.cut = min(cut, layer.size)
            cut = layer.cut
        self._cut = cut

    def run(self, writer: Writer, check: Callable[[], None] = lambda: None) -> None:
        """Writes the result. The end line is written when all streams were read to theirs, and check has returned."""
        if self._base is None:
            volumestream.write_header(writer, self.extents)
        else:
            deltastream.write_header(writer, Head(self.extents, self._base))
        for layer in self._layers:
            layer.begin()
        records = RecordWriter(writer)
        if self._base is None:
            self._write_volume(writer)
        else:
            self._write_increment(records)
        for layer in self._layers:
            layer.finish()
        check()
        if self._base is None:
            volumestream.write_end(writer, self.extents)
        else:
            records.end()

    def _write_volume(self, writer: Writer) -> None:
        for offset, length in self.extents:
            for begin, end, layer in self._pieces(offset, offset + length):
                if layer is None or layer.zero:
                    writer.write_zeros(end - begin)
                else:
                    layer.copy(begin, end, writer)

    def _write_increment(self, records: RecordWriter) -> None:
        at = 0
        for offset, length in self.extents:
            self._write_records(records, at, offset, False)
            at = offset + length
            self._write_records(records, offset, at, True)
        self._write_records(records, at, self.extents.size, False)

    def _write_records(self, records: RecordWriter, begin: int, end: int, data: bool) -> None:
        """Writes what is known of a part of the volume. data: the map has data there."""
        done = begin
        for start, stop, layer in self._pieces(begin, end):
            start = max(start, done)
            if start >= stop:
                continue
            if layer is not None and not layer.zero and data:
                done = self._copy(records, start, stop, layer, end)
            elif layer is not None:
                records.add_zeros(start, stop - start)
            elif stop > self._cut:  # what the base has there was lost when the volume shrank
                start = max(start, self._cut)
                records.add_zeros(start, stop - start)

    def _copy(self, records: RecordWriter, start: int, stop: int, layer: _Layer, end: int) -> int:
        """Adds data of a layer, and zeros up to a place where data may end; returns that place.

        Where the data ends elsewhere, the volume ended once, so what follows was lost.
        """
        at = start

        def put(part: memoryview) -> None:
            nonlocal at
            records.add_data(at, part)
            at += len(part)

        layer.take(start, stop, put, self._buffer)
        put(memoryview(bytes(min(-stop % ALIGN, end - stop))))
        return at

    def _pieces(self, begin: int, end: int) -> Iterator[tuple[int, int, _Layer | None]]:
        """A part of the volume in pieces, each with the layer that it comes from, None if no layer has a record."""
        while begin < end:
            stop, found = end, None
            for layer in reversed(self._layers):
                if layer.stop <= begin:
                    layer.pass_over(begin)
                if layer.start <= begin < layer.cut:
                    stop, found = min(stop, layer.stop, layer.cut), layer
                    break
                if begin < layer.start < layer.cut:
                    stop = min(stop, layer.start)
            yield begin, stop, found
            begin = stop
