"""What holds for any outer archive, header, manifest and order of chunks."""

from __future__ import annotations

import io

from hypothesis import given, settings
from hypothesis import strategies as st

from qbtools.errors import Damaged, QbError, Refused
from qbtools.formats import chunks, header, manifest, outertar
from qbtools.formats.header import BackupHeader
from qbtools.formats.manifest import FileRecord
from qbtools.formats.outertar import MemberReader, MemberWriter
from qbtools.streams import Reader, Writer

LETTERS = "abcXYZ019_.@+-"
COMPONENTS = st.text(LETTERS, min_size=1, max_size=20).filter(lambda c: c not in (".", "..") and c[0] != "-")
NAMES = st.lists(COMPONENTS, min_size=1, max_size=4).map("/".join).filter(lambda n: chunks.name_problem(n) is None)
IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9-]{0,40}", fullmatch=True)
HEADERS = st.builds(
    header.new_header,
    IDS,
    st.sampled_from(header.COMPRESSIONS),
    st.integers(1, 10**17),
    st.booleans(),
)
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=2000)), max_size=5)


def mutated(data: bytes, at: int, value: int, kind: str) -> bytes:
    """data with a byte changed, put in or taken out, or cut."""
    at %= len(data) + 1
    if kind == "change" and at < len(data):
        return data[:at] + bytes([value]) + data[at + 1 :]
    if kind == "insert":
        return data[:at] + bytes([value]) + data[at:]
    if kind == "delete":
        return data[:at] + data[at + 1 :]
    return data[:at]


MUTATIONS = st.tuples(
    st.integers(0, 1 << 16), st.integers(0, 255), st.sampled_from(["change", "insert", "delete", "cut"])
)


def write_archive(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    writer = MemberWriter(Writer(file), 1764000000)
    for name, data in members:
        writer.add(name, data)
    writer.end_of_archive()
    return file.getvalue()


def read_archive(data: bytes) -> list[tuple[str, bytes]]:
    members = MemberReader(Reader(io.BytesIO(data)), lambda _name: 4096)
    found = []
    while member := members.next():
        found.append((member.untrusted_name, members.read_all()))
    return found


@given(NAMES, st.integers(0, chunks.MAX_NUMBER))
def test_member_names(name: str, number: int) -> None:
    assert chunks.parse_member(chunks.member_name(name, number)) == (name, number)


@given(st.text(max_size=40))
def test_any_text_as_a_member_name(text: str) -> None:
    try:
        name, number = chunks.parse_member(text)
    except Damaged:
        return
    assert chunks.member_name(name, number) == text
    assert name == chunks.MANIFEST or chunks.name_problem(name) is None


@given(st.binary(min_size=1, max_size=20), st.binary(min_size=1, max_size=20), NAMES, NAMES, IDS, st.integers(0, 2000))
def test_no_two_places_share_a_passphrase(
    secret: bytes, other: bytes, name: str, other_name: str, backup_id: str, number: int
) -> None:
    places = {("ID", name, number), (backup_id, name, number), ("ID", other_name, number), ("ID", name, number + 1)}
    assert len({chunks.chunk_passphrase(secret, *place) for place in places}) == len(places)
    assert chunks.chunk_passphrase(secret, "ID", name, number) != chunks.header_passphrase(secret)


@given(HEADERS)
def test_headers(written: BackupHeader) -> None:
    assert header.parse(header.serialise(written)) == written


@settings(max_examples=300)
@given(HEADERS, st.lists(MUTATIONS, min_size=1, max_size=3))
def test_mutated_headers(written: BackupHeader, mutations: list[tuple[int, int, str]]) -> None:
    data = header.serialise(written)
    for mutation in mutations:
        data = mutated(data, *mutation)
    try:
        parsed = header.parse(data)
    except Damaged:
        return
    # What is accepted is well-formed: it can be written, and means the same again.
    if parsed.version == 4 and parsed.compression != "lzma" and parsed.crypto_algorithm is None:
        assert header.parse(header.serialise(parsed)) == parsed


@given(st.binary(max_size=300))
def test_any_bytes_as_a_header(data: bytes) -> None:
    try:
        header.parse(data)
    except Damaged:
        return
    raise AssertionError("accepted")


RECORDS = st.lists(
    st.builds(
        FileRecord,
        NAMES,
        st.integers(1, chunks.MAX_NUMBER + 1),
        st.integers(0, (1 << 63) - 1),
        st.binary(min_size=32, max_size=32).map(bytes.hex),
    ),
    max_size=4,
)


@given(IDS, RECORDS)
def test_manifests(backup_id: str, records: list[FileRecord]) -> None:
    try:
        data = manifest.serialise(backup_id, records)
    except Damaged:
        order = chunks.FileOrder()
        assert any([order.problem(record.name) for record in records])
        return
    assert manifest.parse(data) == (backup_id, records)
    for record in records:
        assert manifest.from_line(manifest.to_line(backup_id, record).encode()) == (backup_id, record)


@settings(max_examples=300)
@given(IDS, RECORDS, MUTATIONS)
def test_mutated_manifests(backup_id: str, records: list[FileRecord], mutation: tuple[int, int, str]) -> None:
    try:
        data = mutated(manifest.serialise(backup_id, records), *mutation)
        found_id, found = manifest.parse(data)
    except Damaged:
        return
    assert manifest.serialise(found_id, found) == data


@given(MEMBERS)
def test_archives(members: list[tuple[str, bytes]]) -> None:
    data = write_archive(members)
    assert read_archive(data) == members
    assert len(data) % 512 == 0


@settings(max_examples=300)
@given(MEMBERS, MUTATIONS)
def test_mutated_archives(members: list[tuple[str, bytes]], mutation: tuple[int, int, str]) -> None:
    try:
        found = read_archive(mutated(write_archive(members), *mutation))
    except Damaged:
        return
    # Bodies are no business of tar's: only their number, names and sizes are held here.
    same = [(name, len(data)) for name, data in found]
    assert same == [(name, len(data)) for name, data in members][: len(same)]


@given(st.binary(max_size=2000))
def test_any_bytes_as_an_archive(data: bytes) -> None:
    try:
        found = read_archive(data)
    except Damaged:
        return
    assert found == []
    assert not data.strip(b"\0")


@given(st.data())
def test_order_accepts_what_is_cut_by_the_rule_and_nothing_else(data: st.DataObject) -> None:
    """Files of any size cut in chunks are accepted; with one chunk taken out, doubled or moved they are not."""
    size = data.draw(st.integers(1, 5), "chunk size")
    lengths = data.draw(st.lists(st.integers(0, 17), min_size=1, max_size=4), "bytes of each file")
    given_chunks = [(chunks.METADATA, 0, 7)]
    for at, length in enumerate(lengths):
        pieces = length // size + 1
        given_chunks += [(f"vm{at}/a", n, min(size, length - n * size)) for n in range(pieces)]
    given_chunks.append((chunks.MANIFEST, 0, 99))
    assert accepted(size, given_chunks)
    at = data.draw(st.integers(0, len(given_chunks) - 1), "chunk")
    assert not accepted(size, given_chunks[: at + 1] + given_chunks[at:])
    to = data.draw(st.integers(0, len(given_chunks) - 1), "moved to")
    moved = given_chunks[:at] + given_chunks[at + 1 :]
    # A file of one chunk that is dropped or moved as a whole is the manifest's business, if it is not the metadata.
    name = given_chunks[at][0]
    alone = [one for one in given_chunks if one[0] == name] == [given_chunks[at]]
    if not alone:
        assert not accepted(size, moved)
        assert to == at or not accepted(size, [*moved[:to], given_chunks[at], *moved[to:]])
    assert not accepted(size, given_chunks[:-1])


def accepted(chunk_size: int, given_chunks: list[tuple[str, int, int]]) -> bool:
    """Whether all is whole: no error, and no file that only a manifest could excuse as failed when it was saved."""
    order = chunks.Order(chunk_size, True, lambda _text: None)
    try:
        for one in given_chunks:
            order.chunk(*one)
        order.finish()
    except Damaged:
        return False
    return not order.broken


@given(st.lists(NAMES, max_size=8))
def test_file_order_against_the_plain_rule(names: list[str]) -> None:
    order = chunks.FileOrder()
    good: list[str] = []
    for name in names:
        tops = [one.partition("/")[0] if "/" in one else "" for one in good]
        top = name.partition("/")[0] if "/" in name else ""
        # Fine where it is new, and its directory is either new or the last one that there was.
        fine = name not in good and (not top or top not in tops or tops[-1] == top)
        fine = fine and (name != chunks.METADATA or not good)
        assert (order.problem(name) is None) == fine
        if not fine:
            return
        good.append(name)


@given(st.text(max_size=300), st.integers(0, 1 << 40))
def test_any_header_fits_or_is_refused(name: str, size: int) -> None:
    if not name.isascii() or "\0" in name:
        return
    try:
        block = outertar.header(name, size, 0)
    except Refused:
        return
    assert len(block) == 512


@given(st.binary(min_size=512, max_size=512))
def test_any_block_as_a_header(block: bytes) -> None:
    members = MemberReader(Reader(io.BytesIO(block)), lambda _name: 1 << 20)
    try:
        members.next()
    except QbError as error:
        assert error.status == 4
