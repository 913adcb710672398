"""Whole archives: read(write(files)) = files, and for any mutation an error or the same bytes.

What is released before an error is a true beginning of its file, and the end of a file is never told of one that is
not whole: a command would take it for complete.
"""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vectors import archivebytes as made

from qbtools.errors import QbError
from qbtools.formats import chunks, header, kdf, openarchive, structure, workers
from qbtools.formats.container import Parameters
from qbtools.formats.limits import Limits
from qbtools.formats.manifest import FileRecord
from qbtools.formats.opener import Opening
from qbtools.formats.sealer import Sealer, Settings, Source
from qbtools.streams import Reader, Writer

LIMITS = Limits(memory=1 << 30, work=1 << 20)
JOBS = 16  # more buffers than there are chunks: nobody waits for one when a test leaves early

Files = dict[str, bytes]


@pytest.fixture(autouse=True, scope="module")
def cheap() -> Iterator[None]:
    """Derives the same key once only, and opens few chunks at the same time: starting a thread takes longer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kdf, "derive", functools.lru_cache(maxsize=100_000)(kdf.derive))
        patch.setattr(openarchive, "Pool", lambda count: workers.Pool(2 if count == JOBS else count))
        yield


class Seen:
    """What came out of an archive: data by file, which files were told to be whole, the records, and the error."""

    def __init__(self, data: bytes, wanted: Callable[[str], bool] = lambda _name: True, jobs: int = JOBS) -> None:
        self.files: dict[str, bytearray] = {}
        self.ended: set[str] = set()
        self.records: list[FileRecord] = []
        self.error: QbError | None = None
        try:
            reader = Reader(io.BytesIO(data))
            archive = Opening(reader, LIMITS).archive(made.PASSPHRASE, lambda _each: jobs, lambda _text: None)
            self.records = archive.records
            for event in archive.events(wanted):
                if event.data is not None:
                    self.files.setdefault(event.name, bytearray()).extend(event.data)
                if event.ends:
                    self.ended.add(event.name)
        except QbError as error:
            self.error = error


def sealed(files: Files, chunk_size: int, jobs: int, parameters: Parameters) -> tuple[bytes, list[FileRecord]]:
    out = io.BytesIO()
    settings = Settings(made.ID, chunk_size, parameters, 1764000000)
    sealer = Sealer(Writer(out), made.PASSPHRASE, settings, jobs)
    sources = [
        Source(name, functools.partial(lambda data: Reader(io.BytesIO(data)), data), lambda: None)
        for name, data in files.items()
    ]
    records = list(sealer.write_archive(sources, header.new_header(made.ID, "gzip", chunk_size)))
    return out.getvalue(), records


COMPONENTS = st.from_regex(r"[a-z_.@+][a-z.-]{0,6}", fullmatch=True).filter(lambda c: c not in (".", ".."))
NAMES = st.builds("/".join, st.lists(COMPONENTS, min_size=1, max_size=3))
SIZES = st.one_of(st.integers(1, 40), st.integers(1, 5000))


@settings(max_examples=60, deadline=None)
@given(st.data(), SIZES, st.integers(1, 4), st.booleans())
def test_what_was_written_is_read(draw: st.DataObject, chunk_size: int, jobs: int, metadata: bool) -> None:
    lengths = st.one_of(st.integers(0, 4 * chunk_size), st.sampled_from([n * chunk_size for n in range(4)]))
    names = draw.draw(st.lists(NAMES, max_size=5, unique=True), "names")
    order = chunks.FileOrder()
    files = {chunks.METADATA: made.content("xml", draw.draw(st.integers(0, 999), "metadata"))} if metadata else {}
    for name in sorted(names, key=lambda name: name.split("/")):  # so that directories stand together
        if name not in files and not chunks.name_problem(name) and name != chunks.METADATA:
            assert order.problem(name) is None
            files[name] = made.content(name, draw.draw(lengths, f"size of {name}"))
    data, records = sealed(files, chunk_size, jobs, Parameters(10, 1, 1))
    for most in (jobs, JOBS):
        seen = Seen(data, jobs=most)
        assert seen.error is None
        assert {name: bytes(content) for name, content in seen.files.items()} == files
        assert seen.ended == set(files)
        assert seen.records == records
    for name in files:
        seen = Seen(data, lambda each, name=name: each == name)  # type: ignore[misc]
        assert (seen.error, seen.files, seen.records) == (None, {name: files[name]}, records)
    structure.check(Reader(io.BytesIO(data)), 1, pytest.fail)
    pieces = [(record.name, record.chunks, record.size) for record in records]
    assert pieces == [(name, _count(name, len(content), chunk_size), len(content)) for name, content in files.items()]


def _count(name: str, length: int, chunk_size: int) -> int:
    return 1 if name == chunks.METADATA else length // chunk_size + 1


def test_past_999_chunks() -> None:
    """Numbers grow a digit; nothing is sorted as text."""
    files = {"vm1/a": made.content("many", 1005), "vm1/b": b""}
    data, records = sealed(files, 1, 4, Parameters(10, 1, 1))
    seen = Seen(data, jobs=4)
    assert (seen.error, seen.files, seen.records) == (None, files, records)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        names = archive.getnames()
    assert names[2 + 999 : 2 + 1002] == ["vm1/a.999.enc", "vm1/a.1000.enc", "vm1/a.1001.enc"]


# Damage.

TRUE: Files = {"qubes.xml": made.content("qubes.xml", 20), "vm1/a": made.content("a", 40), "vm2/b": b""}


def whole(backup_id: str, mark: str = "") -> made.Pieces:
    files = [piece for name, data in TRUE.items() for piece in made.file(name, data, backup_id, 32, mark)]
    return [*made.header_pair(made.header(backup_id, 32)), *files, made.manifest(files, backup_id, mark)]


PIECES = whole(made.ID)
WHOLE = made.archive(PIECES)
STRANGE = made.blocks(whole(made.OTHER_ID))
QUBES = [*made.header_pair(made.header(chunk_size=None, manifest=False)), *PIECES[2:-1]]
RECORDS = Seen(WHOLE).records


def check(data: bytes, promised: bool = True) -> None:
    """An error or the same bytes, through every way of reading. promised: the header promises a manifest."""
    seen = Seen(data)
    _check_released(seen, promised)
    if seen.error is None and promised:
        assert {name: bytes(content) for name, content in seen.files.items()} == TRUE
        assert (seen.records, seen.ended) == (RECORDS, set(TRUE))
    one = Seen(data, lambda name: name == "vm1/a")
    _check_released(one, promised)
    if one.error is None and promised:
        assert (one.files, one.records) == ({"vm1/a": TRUE["vm1/a"]}, RECORDS)
    listed = Seen(data, lambda _name: False)
    assert listed.files == {}
    if listed.error is None and promised:
        assert listed.records == RECORDS
    if listed.error is not None or one.error is not None:
        assert seen.error is not None
    try:
        structure.check(Reader(io.BytesIO(data)), 1 << 20, lambda _text: None)
    except QbError as error:
        assert error.status in (4, 5)
        # But for the plain header, which counts nowhere else, what it finds is a fault to all.
        assert seen.error is not None


def _check_released(seen: Seen, promised: bool) -> None:
    if seen.error is not None:
        assert seen.error.status in (3, 4, 5)
    for name, content in seen.files.items():
        assert TRUE[name].startswith(content)
        if name in seen.ended and promised:
            assert bytes(content) == TRUE[name]


def test_the_base() -> None:
    assert Seen(WHOLE).error is None
    assert Seen(made.archive(QUBES)).error is None


def _places() -> list[int]:
    """All bytes of an archive that have a meaning of their own, and some of those that are all alike.

    Of many NULs in a row it is every eighth one: no field that may be empty is shorter. Of the tar headers of the
    further members, and of what a container authenticates behind its parameters, it is every fourth one.
    """
    alike: set[int] = set()
    start = 0
    for number, (block, (name, body)) in enumerate(zip(made.blocks(PIECES), PIECES, strict=True)):
        if number not in (0, 3, len(PIECES) - 1):
            alike.update(range(start, start + 512))
        if name != "backup-header":
            alike.update(range(start + 512 + 16, start + 512 + len(body)))
        start += len(block)
    places = [at for at in range(len(WHOLE)) if any(WHOLE[max(0, at - 8) : at + 9]) or at % 8 == at // 8 % 8]
    return [at for at in places if at not in alike or at % 4 == at // 512 % 4]


@pytest.mark.parametrize("part", range(8))
def test_every_byte(part: int) -> None:
    """A bit of every byte, another one for each byte."""
    for at in _places()[part::8]:
        changed = bytearray(WHOLE)
        changed[at] ^= 1 << (at // 8 + at) % 8
        check(bytes(changed))


def test_cut_everywhere() -> None:
    """Every size of less than the manifest and its padding, three around each block."""
    size = len(made.archive(PIECES, b""))
    for at in {*range(0, size, 61), *(block + step for block in range(0, size, 512) for step in (-1, 0, 1)), size - 1}:
        if 0 <= at < size:
            check(WHOLE[:at])
            assert Seen(WHOLE[:at]).error is not None


def test_every_member_in_every_place() -> None:
    """Dropped, doubled, moved, exchanged with every other one, and with every one of another backup."""
    blocks = made.blocks(PIECES)
    for at in range(len(blocks)):
        rest = blocks[:at] + blocks[at + 1 :]
        assert Seen(b"".join(rest)).error is not None
        check(b"".join(rest))
        for to in range(len(blocks)):
            for changed in (
                rest[:to] + [blocks[at]] + rest[to:],
                blocks[:to] + [blocks[at]] + blocks[to:],
                blocks[:to] + [blocks[at]] + blocks[to + 1 :],
                blocks[:at] + [STRANGE[to]] + blocks[at + 1 :],
                blocks[:at] + [STRANGE[to]] + blocks[at:],
            ):
                check(b"".join(changed))
                assert (Seen(b"".join(changed)).error is None) == (changed == blocks)


def test_every_body_under_every_name() -> None:
    """An attacker names and numbers what he has as he likes."""
    bodies = [body for _name, body in PIECES + whole(made.OTHER_ID) + whole(made.ID, "again")]
    for at in range(len(PIECES)):
        for body in bodies:
            changed = [*PIECES[:at], (PIECES[at][0], body), *PIECES[at + 1 :]]
            if body != PIECES[at][1]:
                seen = Seen(made.archive(changed))
                assert seen.error is not None
                _check_released(seen, promised=True)


KINDS = st.sampled_from(["delete", "zero", "double", "move", "flip", "insert", "cut", "splice"])


def mutated(data: bytes, kind: str, at: int, length: int, to: int, new: bytes) -> bytes:
    part = data[at : at + length]
    if kind == "delete":
        return data[:at] + data[at + length :]
    if kind == "zero":
        return data[:at] + bytes(len(part)) + data[at + length :]
    if kind == "double":
        return data[: at + length] + data[at:]
    if kind == "move":
        rest = data[:at] + data[at + length :]
        return rest[:to] + part + rest[to:]
    if kind == "flip":
        return data[:at] + bytes(byte ^ (new[0] | 1) for byte in part[:3]) + data[at + len(part[:3]) :]
    if kind == "insert":
        return data[:at] + new + data[at:]
    if kind == "splice":
        other = b"".join(STRANGE)
        return data[:at] + other[at : at + length] + data[at + length :]
    return data[:at]


MUTATIONS = st.lists(
    st.tuples(
        KINDS, st.integers(0, len(WHOLE)), st.integers(1, 1200), st.integers(0, len(WHOLE)), st.binary(min_size=1)
    ),
    min_size=1,
    max_size=3,
)
BLOCKS = st.integers(0, len(WHOLE) // 512).map(lambda number: number * 512)
BLOCK_MUTATIONS = st.lists(
    st.tuples(KINDS, BLOCKS, st.sampled_from([512, 1024, 2048]), BLOCKS, st.just(bytes(512))), min_size=1, max_size=3
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(MUTATIONS, BLOCK_MUTATIONS), st.booleans())
def test_any_mutation(mutations: list[tuple[str, int, int, int, bytes]], promised: bool) -> None:
    """An error or the same bytes; in an archive as Qubes makes it, true beginnings at the least."""
    data = WHOLE if promised else made.archive(QUBES)
    for mutation in mutations:
        data = mutated(data, *mutation)
    check(data, promised)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(made.blocks(PIECES) + STRANGE + [bytes(512)]), max_size=10))
def test_any_members(blocks: list[bytes]) -> None:
    """Put together out of members of two backups; mostly with the right beginning, to get further."""
    check(b"".join(blocks))
    check(b"".join(made.blocks(PIECES)[:3] + blocks))
