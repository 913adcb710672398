"""A chain of backups restores each state of a volume, however it changed and whatever the backups are."""

from __future__ import annotations

import contextlib
import io
import itertools
from collections.abc import Iterator

import increments
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qbtools.errors import Damaged, QbError
from qbtools.formats import delta, deltastream
from qbtools.formats.volumestream import ALIGN, ExtentMap
from qbtools.streams import Reader

BLOCK = 4096
MOST = 3 * BLOCK + 2 * ALIGN

fills = st.sampled_from([b"\0", b"A", b"B", b"C"])
parts = st.tuples(fills, st.integers(0, MOST // ALIGN), st.integers(0, 9))
edges = st.sampled_from([0, 1, ALIGN, BLOCK, 2 * BLOCK, BLOCK + ALIGN, MOST])
sizes = st.one_of(st.integers(0, MOST), st.integers(0, MOST), edges)


@pytest.fixture(autouse=True, scope="module")
def short() -> Iterator[None]:
    """Looks at two blocks together, so that a volume has several such spans. Memory for 256 takes long to clear."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delta, "SPAN", 2 * BLOCK)
        yield


@st.composite
def states(draw: st.DrawFn) -> list[bytes]:
    """Up to six states, each made from the one before."""
    found: list[bytes] = []
    data = b""
    for _ in range(draw(st.integers(1, 6))):
        how = draw(st.sampled_from(["write", "write", "resize", "regrow", "zero", "move", "same", "new"]))
        if how == "resize" or not found:
            data = data[: draw(sizes)].ljust(draw(sizes), b"\0")
        elif how == "regrow":  # what it loses must not come back
            found.append(data[: draw(sizes)])
            data = found[-1].ljust(len(data), b"\0")
        elif how == "zero":
            data = bytes(len(data))
        elif how == "move":
            data = data[draw(st.integers(0, 9)) * ALIGN :].ljust(len(data), b"\0")
        elif how == "new":
            data = draw(fills) * draw(sizes)
        changed = bytearray(data)
        for fill, at, count in draw(st.lists(parts, max_size=3)) if how == "write" or not found else []:
            changed[at * ALIGN : (at + count) * ALIGN] = fill * (count * ALIGN)
        data = bytes(changed[:MOST])
        found.append(data)
    return found[:6]


def extents_of(draw: st.DrawFn, data: bytes) -> ExtentMap:
    """A map of data, exact, or as coarse as that of a device."""
    made = ExtentMap(len(data), draw(st.sampled_from([0, 1 << 16])))
    device = draw(st.booleans())
    for at in range(0, len(data), ALIGN):
        if device or any(data[at : at + ALIGN]) or draw(st.integers(0, 9)) == 9:
            made.add(at, ALIGN)
    return made


@st.composite
def chains(draw: st.DrawFn) -> list[tuple[bytes, bytes, int | None]]:
    """States, each with its stream and the number of its base."""
    found: list[tuple[bytes, bytes, int | None]] = []
    indexes: list[bytes] = []
    full = 0
    for number, data in enumerate(draw(states())):
        kind = draw(st.sampled_from(["full", "incremental", "incremental", "differential"])) if number else "full"
        base = {"full": None, "incremental": number - 1, "differential": full}[kind]
        whole = increments.stream(data, extents_of(draw, data))
        stream, index = increments.saved(whole, f"backup-{number}", None if base is None else indexes[base])
        full = number if base is None else full
        indexes.append(index)
        found.append((data, stream, base))
    return found


def chain_of(chain: list[tuple[bytes, bytes, int | None]], number: int) -> list[bytes]:
    """The streams that a state needs, the whole one first."""
    streams = [chain[number][1]]
    while (base := chain[number][2]) is not None:
        number = base
        streams.insert(0, chain[number][1])
    return streams


@given(chains(), st.data())
@settings(max_examples=400)
def test_every_state_is_restored(chain: list[tuple[bytes, bytes, int | None]], data: st.DataObject) -> None:
    """Any increments that follow each other may be merged before the rest is."""
    for number, (state, _, _) in enumerate(chain):
        streams = chain_of(chain, number)
        assert increments.volume(increments.merged(streams)) == state
        begin = data.draw(st.integers(min(1, len(streams) - 1), len(streams) - 1))
        end = data.draw(st.integers(begin + 1, len(streams)))
        streams[begin:end] = [increments.merged(streams[begin:end])]
        assert increments.volume(increments.merged(streams)) == state


@given(chains())
def test_an_increment_is_the_same_out_of_its_archive(chain: list[tuple[bytes, bytes, int | None]]) -> None:
    for _, stream, base in chain:
        if base is not None:
            assert increments.extracted(increments.archive(stream)) == stream


@given(chains(), st.data())
@settings(max_examples=200)
def test_inner_archives_are_merged_to_the_same(
    chain: list[tuple[bytes, bytes, int | None]], data: st.DataObject
) -> None:
    """Another base of any of them, and every cut, is noticed."""
    streams = chain_of(chain, len(chain) - 1)
    heads = [deltastream.read_header(Reader(io.BytesIO(stream))).base for stream in streams[1:]]
    bases = [None, *heads]
    archives = [increments.archive(stream) for stream in streams]
    result = increments.merged(streams)
    assert increments.merged_out_of(archives, bases) == result
    at = data.draw(st.integers(0, len(streams) - 1))
    if at:
        with pytest.raises(Damaged, match="is an increment of another volume or backup"):
            increments.merged_out_of(archives, [*bases[:at], heads[at - 1]._replace(digest="0"), *bases[at + 1 :]])
    cut = archives[at][: data.draw(st.integers(0, len(archives[at]) - 1))]
    try:
        found = increments.merged_out_of([*archives[:at], cut, *archives[at + 1 :]], bases)
    except Damaged:
        return
    assert found == result, "an archive may lack zeros of its end"


@given(chains(), st.data())
def test_every_cut_of_an_increment_is_noticed(
    chain: list[tuple[bytes, bytes, int | None]], data: st.DataObject
) -> None:
    streams = chain_of(chain, len(chain) - 1)
    at = data.draw(st.integers(0, len(streams) - 1))
    for written, read in ((streams[at], None), (increments.archive(streams[at]) if at else b"", increments.extracted)):
        if not written:
            continue
        cut = written[: data.draw(st.integers(0, len(written) - 1))]
        try:
            found = read(cut) if read else increments.merged([*streams[:at], cut, *streams[at + 1 :]])
        except Damaged:
            continue
        # An archive may lack zeros of its end, because the padding before them counts.
        assert read and found == streams[at], f"taken for whole: {len(cut)} of {len(written)} bytes"


@given(chains(), st.integers(0, 1 << 30), st.integers(1, 255), st.sampled_from(["change", "insert", "delete"]))
@settings(max_examples=300)
def test_mutations_fail_or_give_a_volume(
    chain: list[tuple[bytes, bytes, int | None]], at: int, by: int, how: str
) -> None:
    """Nothing but an error of ours; and what is read as an increment can be written as one."""
    streams = chain_of(chain, len(chain) - 1)
    for written, read in ((streams[-1], None), (increments.archive(streams[-1]) if streams[1:] else b"", "tar")):
        if not written:
            continue
        place = at % len(written)
        changed = written[:place]
        if how == "change":
            changed += bytes([written[place] ^ by]) + written[place + 1 :]
        else:
            changed += bytes([by]) + written[place:] if how == "insert" else written[place + 1 :]
        with contextlib.suppress(QbError):
            if read:
                assert increments.extracted(increments.archive(increments.extracted(changed)))
            elif len(changed) < 1 << 20:
                increments.merged([*streams[:-1], changed])


@example(b"qb-volume 2\nsize 0\n")
@given(st.binary(max_size=3000))
def test_bytes_of_any_kind(data: bytes) -> None:
    for streams in ([data], [increments.stream(b"A" * 512), data]):
        with contextlib.suppress(QbError):
            increments.merged(streams)
            raise AssertionError("taken for whole")


def blocks_that_differ(old: bytes, new: bytes) -> set[int]:
    """The blocks of new that are not the same in old, and what was cut or grown."""
    found = {at for at in range(0, len(new), BLOCK) if new[at : at + BLOCK] != old[at : at + BLOCK]}
    if len(new) < len(old) and len(new) % BLOCK:
        found.add(len(new) - len(new) % BLOCK)
    return found


@given(states(), st.data())
def test_reading_only_what_may_have_changed_gives_the_same_bytes(found: list[bytes], data: st.DataObject) -> None:
    """Whatever else is taken for changed."""
    index = increments.saved(increments.stream(found[0]), "backup-0", None)[1]
    for number, (old, new) in enumerate(itertools.pairwise(found), 1):
        extents = extents_of(data.draw, new)
        expected = increments.saved(increments.stream(new, extents), f"backup-{number}", index)
        others = data.draw(st.sets(st.integers(0, MOST // BLOCK)))
        wanted = blocks_that_differ(old, new) | {at * BLOCK for at in others}
        changed = ExtentMap(len(new), 0)
        for at in sorted(wanted):
            changed.add(at, BLOCK)
        stream = increments.candidates(new, extents, f"backup-{number - 1}", changed)
        assert increments.reduced(stream, f"backup-{number}", index) == expected
        index = expected[1]
