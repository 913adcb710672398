"""What an increment holds, and what merging makes of several; the rules that random chains do not show."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import increments
import pytest
from increments import archive, extracted, merged, saved, stream, volume
from vectors.tarbytes import END, head, pax, regular

from qbtools.errors import Damaged, Refused, Truncated
from qbtools.formats import blockindex, delta, deltamerge, deltastream, volumestream
from qbtools.formats.deltastream import MAX_DATA, Base, Head, RecordWriter
from qbtools.formats.volumestream import ExtentMap
from qbtools.streams import Reader, Writer

BASE = "20261124T055255-0123456789abcdef"
LINE = f"base {BASE} {increments.digest(BASE)}\n".encode()
A, B = b"A" * 512, b"B" * 512


def records(increment: bytes) -> bytes:
    """All behind the header."""
    return increment.partition(b"\n\n")[2]


def changes(before: bytes, after: bytes, extents: ExtentMap | None = None) -> bytes:
    index = saved(stream(before), BASE, None)[1]
    return saved(stream(after, extents), "x", index)[0]


def test_bytes_of_an_increment() -> None:
    before = b"A" * 8192 + b"B" * 4096 + bytes(4096)
    after = b"A" * 4096 + b"C" * 4096 + bytes(4096) + b"D" * 512 + bytes(3584)
    expected = b"qb-volume 2\nsize 16384\n" + LINE + b"extents 2\n0 8192\n12288 512\n\n"
    expected += b"data 4096 4096\n" + b"C" * 4096 + b"zero 8192 4096\ndata 12288 512\n" + b"D" * 512
    assert changes(before, after) == expected + b"zero 12800 3584\nend 4608\n"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (b"A" * 8192, b"A" * 8192, b"end 0\n"),
        (b"", b"", b"end 0\n"),
        (bytes(8192), bytes(8192), b"end 0\n"),
        (b"A" * 8192, b"", b"end 0\n"),
        (b"A" * 8192, bytes(8192), b"zero 0 8192\nend 0\n"),
        (b"", bytes(8192), b"end 0\n"),
        (b"A" * 8192, b"A" * 4096, b"end 0\n"),
        (b"A" * 4096, b"A" * 4096 + bytes(4096), b"end 0\n"),
        (b"A" * 4096, b"A" * 4096 + B, b"data 4096 512\n" + B + b"end 512\n"),
        (b"A" * 515, b"A" * 514 + b"B", b"data 0 515\n" + b"A" * 514 + b"Bend 515\n"),
        (b"A" * 515, bytes(515), b"zero 0 515\nend 0\n"),
        # What a block lost when the volume shrank was not zeros: this block counts as changed.
        (b"A" * 4096, b"A" * 512, b"data 0 512\n" + A + b"end 512\n"),
    ],
)
def test_what_an_increment_holds(before: bytes, after: bytes, expected: bytes) -> None:
    assert records(changes(before, after)) == expected


def test_zeros_that_the_map_calls_data() -> None:
    extents = ExtentMap(12288)
    extents.append(0, 12288)
    assert records(changes(b"A" * 8192 + bytes(4096), bytes(4096) + b"A" * 4096 + bytes(4096), extents)) == (
        b"zero 0 4096\nend 0\n"
    )


def test_many_extents_in_one_block() -> None:
    after = (A + bytes(512)) * 4
    expected = b"".join(b"data %d 512\n" % at + A + b"zero %d 512\n" % (at + 512) for at in range(0, 4096, 1024))
    assert records(changes(b"B" * 4096, after)) == expected + b"end 2048\n"


def test_what_a_block_had_before_it_does_not_count() -> None:
    """Zeros of a block are no data in one map and data in another: the index, and so the increment, is the same."""
    span = (A * 8) * (delta.SPAN // 4096)  # the next span is read into the same memory
    before = span + A + bytes(512) + A + bytes(2560)
    whole = ExtentMap(len(before))
    whole.append(0, len(before))
    index = saved(stream(before), BASE, None)[1]
    assert index == saved(stream(before, whole), BASE, None)[1]
    assert records(saved(stream(span + A * 3 + bytes(2560)), "x", index)[0]).endswith(
        A * 3 + b"zero 1050112 2560\nend 1536\n"
    )


def candidates(text: bytes, *extents: tuple[int, int], size: int = 16384) -> bytes:
    """Of a volume whose base is BASE."""
    return increment(size, BASE, text, *extents).replace(b"0" * 64, increments.digest(BASE).encode())


def test_only_candidates_are_compared() -> None:
    """The rest of the index is that of the base."""
    before = b"A" * 4096 + b"B" * 4096 + b"C" * 4096 + b"D" * 4096
    after = b"A" * 4096 + b"X" * 4096 + b"C" * 4096 + bytes(4096)
    index = saved(stream(before), BASE, None)[1]
    text = b"data 0 8192\n" + after[:8192] + b"zero 12288 4096\nend 8192\n"
    found = increments.reduced(candidates(text, (0, 12288)), "x", index)
    assert found == saved(stream(after), "x", index)
    assert records(found[0]) == b"data 4096 4096\n" + b"X" * 4096 + b"zero 12288 4096\nend 4096\n"


@pytest.mark.parametrize(
    ("text", "size", "error"),
    [
        (b"data 4096 512\n" + A + b"end 512\n", 16384, Damaged),
        (b"zero 4608 3584\nend 0\n", 16384, Damaged),
        (b"end 0\n", 12800, Damaged),  # the last block was cut, so it is another one
        (b"zero 0 4096\n", 16384, Truncated),
        (b"data 0 4096\n" + A, 16384, Truncated),
    ],
)
def test_candidates_are_whole_blocks(text: bytes, size: int, error: type[Exception]) -> None:
    index = saved(stream(b"A" * 16384), BASE, None)[1]
    with pytest.raises(error):
        increments.reduced(candidates(text, (0, 12288), size=size), "x", index)


def test_digests_of_blocks() -> None:
    """With the key, without which a guest could make two blocks that count as the same; the last block is padded."""
    _, index = saved(stream(A * 8 + bytes(4096) + B * 2), "id-1", None)
    digests = [hashlib.sha256(increments.KEY + block).digest()[:16] for block in (A * 8, B * 2 + bytes(3072))]
    assert index[blockindex.HEAD : -32] == digests[0] + bytes(16) + digests[1]


def test_long_data_is_cut_and_touching_records_are_joined() -> None:
    file = io.BytesIO()
    writer = RecordWriter(Writer(file))
    for at in range(0, MAX_DATA + 8192, 4096):
        writer.add_data(at, memoryview(b"A" * 4096))
    writer.add_zeros(MAX_DATA + 8192, 1 << 40)
    writer.add_zeros(MAX_DATA + 8192 + (1 << 40), 512)
    writer.add_data(1 << 50, memoryview(B))
    writer.end()
    lines = file.getvalue().replace(b"A", b"").replace(b"B", b"")
    assert lines == (
        b"data 0 16777216\ndata 16777216 8192\nzero 16785408 1099511628288\ndata 1125899906842624 512\nend 16785920\n"
    )


def test_one_long_piece() -> None:
    file = io.BytesIO()
    writer = RecordWriter(Writer(file))
    writer.add_data(0, memoryview(bytes(2 * MAX_DATA + 512)))
    writer.end()
    lines = file.getvalue().replace(b"\0", b"")
    assert lines == b"data 0 16777216\ndata 16777216 16777216\ndata 33554432 512\nend 33554944\n"


def increment(size: int, base: str, text: bytes, *extents: tuple[int, int]) -> bytes:
    made = ExtentMap(size)
    for extent in extents:
        made.append(*extent)
    file = io.BytesIO()
    deltastream.write_header(Writer(file), Head(made, Base(base, "0" * 64)))
    return file.getvalue() + text


def test_what_a_volume_lost_does_not_come_back() -> None:
    small = increment(1024, "one", b"end 0\n", (0, 1024))
    large = increment(4096, "two", b"data 2048 512\n" + B + b"end 512\n", (0, 4096))
    whole = stream(b"A" * 4096)
    expected = b"A" * 1024 + bytes(1024) + B + bytes(1536)
    assert volume(merged([whole, small, large])) == expected
    both = merged([small, large])
    assert records(both) == b"zero 1024 1024\ndata 2048 512\n" + B + b"zero 2560 1536\nend 512\n"
    assert b"base one " in both
    assert volume(merged([whole, both])) == expected


def test_the_maps_of_many_streams_are_not_kept() -> None:
    """A map can have 16 MiB, and a chain 31 archives."""
    count = 4_000
    extents = [(at * 1024, 512) for at in range(count)]
    streams = [increment(count * 1024, f"id-{number}", b"end 0\n", *extents) for number in range(7)]

    def peak(number: int) -> int:
        readers = [Reader(io.BytesIO(one), "a test", 4096) for one in streams[:number]]
        tracemalloc.start()
        deltamerge.Merge(map(deltamerge.stream, readers))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(7) < peak(3) + count * 16


def test_a_volume_that_ended_within_a_sector() -> None:
    """What is left of the sector in front of that end is in the base, or in a record, and zeros follow."""
    small = increment(515, "one", b"end 0\n", (0, 515))
    large = increment(2048, "two", b"end 0\n", (0, 2048))
    both = merged([small, large])
    assert records(both) == b"zero 515 1533\nend 0\n"
    whole = stream(b"A" * 2048)
    assert volume(merged([whole, both])) == volume(merged([whole, small, large])) == b"A" * 515 + bytes(1533)
    small = increment(515, "one", b"data 512 3\nBBBend 3\n", (0, 515))
    both = merged([small, large])
    assert records(both) == b"data 512 512\nBBB" + bytes(509) + b"zero 1024 1024\nend 512\n"
    assert volume(merged([whole, both])) == b"A" * 512 + b"BBB" + bytes(1533)
    larger = increment(2050, "three", b"end 0\n", (0, 512), (1024, 1026))
    assert records(merged([small, large, larger])) == b"zero 512 1538\nend 0\n"


def test_merging_one_stream_is_a_copy() -> None:
    whole = stream(b"A" * 4096 + bytes(4096) + b"B" * 100)
    assert merged([whole]) == whole
    one = changes(b"A" * 8192, b"B" * 4096)
    assert merged([one]) == one


NEXT = increment(512, "one", b"data 0 512\n" + B + b"end 512\n", (0, 512))


@pytest.mark.parametrize(
    ("streams", "error", "message"),
    [
        ([stream(A), stream(B)], Damaged, "stream 1 is a whole volume of 512 bytes, not an increment"),
        ([NEXT, stream(B)], Damaged, "stream 1 is a whole volume of 512 bytes, not an increment"),
        ([stream(A), NEXT, NEXT], Damaged, "stream 2 has the same base as a stream before it: one"),
        ([NEXT, NEXT], Damaged, "stream 1 has the same base as a stream before it: one"),
        ([stream(A), b""], Truncated, "stream 1 is empty"),
        ([b"", NEXT], Truncated, "stream 0 is empty"),
        ([stream(A), b"hello\n"], Damaged, "stream 1 is not a volume stream"),
        ([stream(A)[:-1], NEXT], Truncated, "stream 0 ends without its end line"),
        ([stream(A)[:-20], NEXT], Truncated, "stream 0 ends too early"),
        ([stream(A) + b"x", NEXT], Damaged, "bytes follow the end line"),
        ([stream(A), NEXT + b"x"], Damaged, "bytes follow the end line"),
        ([stream(A), NEXT[:-8]], Truncated, "stream 1 ends without its end line"),
    ],
)
def test_streams_that_do_not_fit(streams: list[bytes], error: type[Damaged], message: str) -> None:
    with pytest.raises(error, match=message):
        merged(streams)


NONE, ONE, OTHER = b"none\n", b"one " + b"0" * 64 + b"\n", b"one " + b"1" * 64 + b"\n"


@pytest.mark.parametrize(
    ("streams", "bases", "message"),
    [
        ([stream(A), NEXT], NONE + ONE, None),
        ([stream(A)], ONE, None),
        ([stream(A), NEXT, stream(B)], NONE + ONE + NONE, None),
        ([NEXT, stream(A), NEXT], ONE + NONE + ONE, None),
        ([stream(A), NEXT], NONE + OTHER, "stream 2 is an increment of another volume or backup: one, 000"),
        ([stream(A), NEXT], NONE + NONE, "stream 2 is an increment of another volume or backup: one, 000"),
        ([NEXT, stream(A), NEXT], ONE + ONE + OTHER, "stream 3 is an increment of another volume or backup: one, 000"),
        ([NEXT, stream(A), NEXT], OTHER + NONE + ONE, "stream 1 is an increment of another volume or backup: one, 0"),
    ],
)
def test_the_bases_of_streams(streams: list[bytes], bases: bytes, message: str | None) -> None:
    readers = [Reader(io.BytesIO(one), f"stream {number}") for number, one in enumerate(streams, 1)]
    work = deltamerge.Merge(map(deltamerge.stream, readers), drop=True)
    wanted = deltamerge.read_bases(Reader(io.BytesIO(bases + b"end\n")), len(streams))
    work.check_whole()
    if message is None:
        work.check_bases(wanted)
    else:
        with pytest.raises(Damaged, match=message):
            work.check_bases(wanted)


def test_a_result_that_is_an_increment() -> None:
    work = deltamerge.Merge([deltamerge.stream(Reader(io.BytesIO(NEXT), "w"))])
    with pytest.raises(Damaged, match="^w is an increment of another volume or backup: one, 000"):
        work.check_whole()


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (b"", Truncated, "a test ends without its line end"),
        (NONE + ONE, Truncated, "a test ends without its line end"),
        (NONE + b"end", Truncated, "a test ends without its line end"),
        (NONE + b"end\n", Damaged, "a test has 1 lines for 2 streams"),
        (NONE + ONE + NONE + b"end\n", Damaged, "a test has more than 2 lines for 2 streams"),
        (NONE + b"one\nend\n", Damaged, "a test is malformed in line 2"),
    ],
)
def test_bases_that_are_none(text: bytes, error: type[Damaged], message: str) -> None:
    with pytest.raises(error, match=message):
        deltamerge.read_bases(Reader(io.BytesIO(text), "a test"), 2)


def test_all_of_each_stream_is_read_though_none_of_it_counts() -> None:
    """Behind the end of the last one, below its records: a fault there is a fault."""
    for bad in (stream(b"A" * 8192)[:-3], stream(b"A" * 8192) + b"x", stream(b"A" * 8192).replace(b"end 8", b"end 9")):
        with pytest.raises(Damaged):
            merged([bad, NEXT])
    middle = increment(8192, "two", b"data 4096 512\n" + A + b"end 511\n", (0, 8192))
    with pytest.raises(Damaged):
        merged([stream(b"A" * 8192), middle, NEXT])


def test_a_reader_of_whole_volumes_refuses_an_increment() -> None:
    with pytest.raises(Refused, match="standard input is an increment, not a whole volume") as caught:
        volumestream.read_header(Reader(io.BytesIO(NEXT)))
    assert caught.value.hint == "qb-merge makes one of it and its base"


NAME = b"vm1/private.img.d/"
SIZE = regular(b"qb-volume 2\nsize 4096\n" + LINE + b"extents 1\n512 1024\n", NAME + b"size")
ZERO = regular(b"512\n", NAME + b"00000000000000000000.zero")
DATA = regular(A, NAME + b"00000000000000000512")
LAST = regular(b"end 512\n", NAME + b"end")


def test_bytes_of_an_archive() -> None:
    whole = b"qb-volume 2\nsize 4096\n" + LINE + b"extents 1\n512 1024\n\nzero 0 512\ndata 512 512\n" + A + b"end 512\n"
    assert archive(whole) == SIZE + ZERO + DATA + LAST + END
    assert extracted(SIZE + ZERO + DATA + LAST + END) == whole


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (SIZE + ZERO + DATA + END, r"private.img.d/end is missing: the increment is incomplete"),
        (SIZE + END, r"private.img.d/end is missing"),
        (SIZE + DATA + ZERO + LAST + END, "000.zero is out of place: records overlap, or are not sorted"),
        (SIZE + ZERO + DATA + DATA + LAST + END, "512 is out of place: records overlap"),
        (SIZE + ZERO + LAST + END, "private.img.d/end does not fit the records before it"),
        (SIZE + ZERO + LAST + DATA + END, "private.img.d/end does not fit the records before it"),
        (SIZE + DATA + LAST + DATA + END, "00512 follows the end of the increment"),
        (SIZE + DATA + LAST + regular(A, b"vm1/other") + END, "vm1/other follows the end of the increment"),
        (SIZE + regular(A, b"vm1/other") + DATA + LAST + END, "vm1/other is no member of the increment"),
        (SIZE + SIZE + DATA + LAST + END, "private.img.d/size is no member of the increment"),
        (SIZE + regular(A, NAME + b"512") + LAST + END, "/512 is no member of the increment"),
        (SIZE + regular(A, NAME + b"+0000000000000000512") + LAST + END, "is no member of the increment"),
        (SIZE + regular(A, b"vm2/private.img.d/00000000000000000512") + LAST + END, "vm2/.* is no member"),
        (SIZE + regular(A, b"./" + NAME + b"00000000000000000512") + LAST + END, "is no member of the increment"),
        (SIZE + regular(A, NAME + b"00000000000000000000") + LAST + END, "a data record is not inside the map"),
        (SIZE + regular(A + b"x", NAME + b"00000000000000000512") + LAST + END, "is not aligned at 512 bytes"),
        (SIZE + regular(b"", NAME + b"00000000000000000512") + LAST + END, "a record is empty"),
        (SIZE + regular(A, NAME + b"99999999999999999999") + LAST + END, "passes the end of the volume"),
        (SIZE + regular(b"", NAME + b"00000000000000000000.zero") + LAST + END, "000.zero is malformed"),
        (SIZE + regular(b"512", NAME + b"00000000000000000000.zero") + LAST + END, "does not hold a number"),
        (SIZE + regular(b"0512\n", NAME + b"00000000000000000000.zero") + LAST + END, "does not hold a number"),
        (SIZE + regular(b"0\n", NAME + b"00000000000000000000.zero") + LAST + END, "a record is empty"),
        (SIZE + head(NAME + b"00000000000000000512", kind=b"2") + LAST + END, "is a symbolic link, not a regular file"),
        (SIZE + head(NAME + b"end", kind=b"5") + END, "private.img.d/end is malformed"),
        (regular(b"qb-volume 2\nsize 4096\n" + LINE + b"extents 0\n\n", NAME + b"size") + LAST + END, "not the header"),
        (
            regular(b"qb-volume 2\nsize 4096\n" + LINE, NAME + b"size") + LAST + END,
            "a line of more than 64 bytes",
        ),
        (pax(("GNU.sparse.major", 1), ("GNU.sparse.minor", 0)) + SIZE + LAST + END, "the pax record"),
    ],
)
def test_archives_that_are_not_right(data: bytes, message: str) -> None:
    with pytest.raises(Damaged, match=message):
        extracted(data)
