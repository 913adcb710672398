"""Sealing: the content of a chunk, when each key is derived, and what is written after a failure."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Callable, Sequence

import pytest

from qbtools.errors import Failed, Refused
from qbtools.formats import chunks, container, header, manifest, outertar, sealer
from qbtools.formats.container import OVERHEAD, Key, Parameters
from qbtools.formats.manifest import FileRecord
from qbtools.formats.sealer import Lost, Sealer, Settings, Source
from qbtools.streams import Reader, Writer

ID = "20261124T060000-0123456789abcdef"
SECRET = b"sealer"
FAST = Parameters(10)


def source(name: str, data: bytes, end: Callable[[], None] = lambda: None) -> Source:
    return Source(name, lambda: Reader(io.BytesIO(data), name), end)


def settings(chunk_size: int) -> Settings:
    return Settings(ID, chunk_size, FAST, 1_790_000_000)


class Derivations:
    """Stands in for the derivation of keys: cheap, and counted by the passphrase of the chunk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.secrets: list[bytes] = []
        self.lock = threading.Lock()
        monkeypatch.setattr(sealer, "new_key", self._new_key)

    def _new_key(self, secret: bytes, parameters: Parameters) -> Key:
        with self.lock:
            self.secrets.append(secret)
        return Key(secret, parameters, os.urandom(32))

    def names(self) -> list[str]:
        """NAME.NNN of every derived key, sorted."""
        return sorted(secret.split(b"!")[1].decode() for secret in self.secrets)


@pytest.fixture
def derivations(monkeypatch: pytest.MonkeyPatch) -> Derivations:
    return Derivations(monkeypatch)


def seal(sources: Sequence[Source], chunk_size: int = 1000, jobs: int = 1) -> tuple[list[FileRecord], bytes]:
    out = io.BytesIO()
    sealed = Sealer(Writer(out), SECRET, settings(chunk_size), jobs)
    return list(sealed.write_files(sources)), out.getvalue()


def members(archive: bytes) -> list[tuple[str, bytes]]:
    reader = outertar.MemberReader(Reader(io.BytesIO(archive)), lambda _name: 1 << 30)
    found = []
    while (member := reader.next()) is not None:
        found.append((member.untrusted_name, reader.read_all()))
    return found


def opened(archive: bytes) -> dict[str, bytes]:
    """Every chunk of an archive, opened with the passphrase that binds it to its place."""
    found = {}
    for member, sealed in members(archive):
        name, number = chunks.parse_member(member)
        assert member not in found
        found[member] = container.open_bytes(chunks.chunk_passphrase(SECRET, ID, name, number), sealed)
    return found


# --- what a chunk is ---


@pytest.mark.parametrize("jobs", [1, 2, 3])
@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (0, [0]),
        (1, [1]),
        (999, [999]),
        (1000, [1000, 0]),
        (1001, [1000, 1]),
        (3000, [1000, 1000, 1000, 0]),
        (3500, [1000, 1000, 1000, 500]),
    ],
)
def test_a_full_chunk_is_followed_by_another_a_shorter_one_ends_the_file(
    size: int, sizes: list[int], jobs: int
) -> None:
    data = os.urandom(size)
    [record], archive = seal([source("vm1/a", data)], jobs=jobs)
    found = opened(archive)
    assert list(found) == [f"vm1/a.{number:03d}.enc" for number in range(len(sizes))]
    assert [len(chunk) for chunk in found.values()] == sizes
    assert b"".join(found.values()) == data
    assert (record.name, record.chunks, record.size) == ("vm1/a", len(sizes), size)


@pytest.mark.parametrize("size", [0, 1, 2, 5])
def test_chunks_of_one_byte(size: int) -> None:
    data = os.urandom(size)
    found = opened(seal([source("a", data)], chunk_size=1)[1])
    assert [len(chunk) for chunk in found.values()] == [1] * size + [0]
    assert b"".join(found.values()) == data


def test_short_reads_fill_a_chunk_all_the_same() -> None:
    class Dribbling(io.BytesIO):
        def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
            return super().readinto(memoryview(buffer)[:7])

    found = opened(seal([Source("a", lambda: Reader(Dribbling(bytes(2500))), lambda: None)])[1])
    assert [len(chunk) for chunk in found.values()] == [1000, 1000, 500]


@pytest.mark.parametrize("size", [0, 20, 1001, 100_000, chunks.MAX_METADATA])
def test_the_metadata_is_one_chunk_whatever_the_chunk_size_is(size: int) -> None:
    data = os.urandom(size)
    records, archive = seal([source("qubes.xml", data), source("vm1/a", b"")], chunk_size=10)
    assert opened(archive) == {"qubes.xml.000.enc": data, "vm1/a.000.enc": b""}
    assert [record.chunks for record in records] == [1, 1]


def test_metadata_that_qubes_would_not_read_is_refused() -> None:
    with pytest.raises(Refused, match=f"^qubes.xml has more than {chunks.MAX_METADATA} bytes$"):
        seal([source("qubes.xml", bytes(chunks.MAX_METADATA + 1))])


def test_every_container_has_a_salt_of_its_own() -> None:
    archive = seal([source("a", bytes(5000)), source("b", bytes(5000))])[1]
    salts = {sealed[16:48] for _, sealed in members(archive)}
    assert len(salts) == 12


def test_records_bind_the_content() -> None:
    records, archive = seal([source("vm1/a", bytes(2500)), source("vm1/b", b"x")])
    macs: dict[str, bytes] = {}
    for member, sealed in members(archive):
        name = chunks.parse_member(member)[0]
        macs[name] = macs.get(name, b"") + sealed[-32:]
    digests = {name: hashlib.sha256(joined).hexdigest() for name, joined in macs.items()}
    assert records == [
        FileRecord("vm1/a", 3, 2500, digests["vm1/a"]),
        FileRecord("vm1/b", 1, 1, digests["vm1/b"]),
    ]


def test_a_record_is_returned_when_its_last_chunk_is_written() -> None:
    out = io.BytesIO()
    records = Sealer(Writer(out), SECRET, settings(1000), 1).write_files(
        [source("a", bytes(1500)), source("b", bytes(1500))]
    )
    next(records)
    assert {member for member, _ in members(out.getvalue())} >= {"a.000.enc", "a.001.enc"}


def test_files_are_read_while_the_keys_are_made() -> None:
    out = io.BytesIO()
    read = threading.Event()

    def keys() -> list[tuple[str, bytes]]:
        assert read.wait(10)
        assert not out.getvalue()
        return [("qb-key.age", b"wrapped")]

    backup = header.new_header(ID, "gzip", 1000, True, key=True)
    files = [source("a", bytes(2500), read.set)]  # no more chunks than there are buffers
    list(Sealer(Writer(out), SECRET, settings(1000), 2).write_archive(files, backup, keys))
    found = [member for member, _ in members(out.getvalue())]
    assert found[:4] == ["backup-header", "backup-header.hmac", "qb-key.age", "a.000.enc"]
    assert found[-1] == "qb-manifest.000.enc"


def test_nothing_is_written_if_the_keys_cannot_be_made() -> None:
    def keys() -> list[tuple[str, bytes]]:
        raise Failed("no age")

    out = io.BytesIO()
    backup = header.new_header(ID, "gzip", 1000, True, key=True)
    with pytest.raises(Failed, match="^no age$"):
        Sealer(Writer(out), SECRET, settings(1000), 2).write_archive([source("a", bytes(2500))], backup, keys)
    assert not out.getvalue()


def test_a_signature_follows_the_keys() -> None:
    out = io.BytesIO()
    backup = header.new_header(ID, "gzip", 1000, True, key=True, signed=True)
    begun = sealer.first_members(SECRET, backup, settings(1000), lambda plain, sealed: b"signature")
    sealed = Sealer(Writer(out), SECRET, settings(1000), 1)
    list(sealed.write_archive([source("a", b"x")], backup, lambda: [("qb-key.age", b"wrapped")], begun))
    found = [member for member, _ in members(out.getvalue())]
    assert found[:4] == ["backup-header", "backup-header.hmac", "qb-key.age", "qb-signature"]


def test_a_complete_archive() -> None:
    out = io.BytesIO()
    backup = header.new_header(ID, "gzip", 1000, True)
    records = list(Sealer(Writer(out), SECRET, settings(1000), 2).write_archive([source("a", bytes(1500))], backup))
    assert out.getvalue().endswith(bytes(1024))
    found = members(out.getvalue())
    assert [member for member, _ in found] == [
        "backup-header",
        "backup-header.hmac",
        "a.000.enc",
        "a.001.enc",
        "qb-manifest.000.enc",
    ]
    assert container.open_bytes(b"backup-header!" + SECRET, found[1][1]) == found[0][1] == header.serialise(backup)
    listed = container.open_bytes(f"{ID}!qb-manifest.000!".encode() + SECRET, found[4][1])
    assert manifest.parse(listed) == (ID, records)


# --- which keys are derived ---


@pytest.mark.parametrize("jobs", [1, 2, 4])
def test_many_small_files_cost_one_derivation_each(derivations: Derivations, jobs: int) -> None:
    names = [f"vm1/v{number:03d}" for number in range(100)]
    seal([source(name, bytes(number * 5)) for number, name in enumerate(names)], jobs=jobs)
    assert derivations.names() == [f"{name}.000" for name in names]


@pytest.mark.parametrize(("size", "keys"), [(500, 1), (501, 2), (999, 2), (1000, 2), (1500, 2), (1501, 3), (3000, 4)])
def test_a_further_key_is_derived_once_a_chunk_is_mostly_full(derivations: Derivations, size: int, keys: int) -> None:
    seal([source("a", bytes(size))])
    assert derivations.names() == [f"a.{number:03d}" for number in range(keys)]


def test_a_key_that_was_derived_in_vain_is_forgotten() -> None:
    out = io.BytesIO()
    sealed = Sealer(Writer(out), SECRET, settings(1000), 1)
    list(sealed.write_files([source("a", bytes(900)), source("b", bytes(900))]))
    assert sealed._keys == {}


def test_keys_of_later_files_are_derived_while_one_is_read(derivations: Derivations) -> None:
    came = threading.Event()

    class Slow(io.BytesIO):
        def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
            assert came.wait(60), derivations.secrets
            return super().readinto(buffer)

    names = ["a", "b", "c", "d", "e"]

    def watch() -> None:
        while not {"a.000", "b.000", "c.000"} <= set(derivations.names()):
            threading.Event().wait(0.01)
        came.set()

    threading.Thread(target=watch, daemon=True).start()
    sources = [Source(name, lambda: Reader(Slow(b"x")), lambda: None) for name in names]
    seal(sources, jobs=1)
    assert came.is_set()
    assert derivations.names() == [f"{name}.000" for name in names]


def test_the_manifest_costs_one_derivation(derivations: Derivations) -> None:
    out = io.BytesIO()
    backup = header.new_header(ID, "gzip", 1000, True)
    list(Sealer(Writer(out), SECRET, settings(1000), 1).write_archive([source("a", b"x")], backup))
    assert derivations.names() == ["a.000", "qb-manifest.000"]


# --- failures ---


def fail() -> None:
    raise Failed("a: the command ended with status 1")


@pytest.mark.parametrize(("size", "kept"), [(0, 0), (999, 0), (1000, 1), (2500, 2)])
def test_the_last_chunk_of_a_file_that_failed_is_not_written(size: int, kept: int) -> None:
    out = io.BytesIO()
    backup = header.new_header(ID, "gzip", 1000, True)
    sources = [source("vm1/a", b"a"), source("vm1/b", bytes(size), fail), source("vm1/c", b"c")]
    records = []
    with pytest.raises(Failed, match="^a: the command ended with status 1$"):
        for record in Sealer(Writer(out), SECRET, settings(1000), 2).write_archive(sources, backup):
            records.append(record)
    assert [record.name for record in records] == ["vm1/a"]
    names = [member for member, _ in members(out.getvalue())]
    assert names[2:] == ["vm1/a.000.enc"] + [f"vm1/b.{number:03d}.enc" for number in range(kept)]


def lose() -> None:
    raise Lost("the disk is gone")


def lost_at_once() -> Reader:
    raise Lost("no snapshot")


@pytest.mark.parametrize(("size", "kept"), [(0, 0), (999, 0), (1000, 1), (2500, 2)])
@pytest.mark.parametrize("jobs", [1, 4])
def test_the_others_are_sealed_if_one_is_lost(size: int, kept: int, jobs: int) -> None:
    """The manifest names it, and no chunk looks like its last one."""
    out = io.BytesIO()
    sealed = Sealer(Writer(out), SECRET, settings(1000), jobs)
    sources = [
        *(source("vm1/a", b"a" * 1500), source("vm1/b", b"b" * size, lose), Source("vm1/c", lost_at_once, fail)),
        source("vm2/d", b"d"),
    ]
    records = list(sealed.write_archive(sources, header.new_header(ID, "gzip", 1000, True)))
    assert [(record.name, record.failed) for record in records] == [
        *(("vm1/a", False), ("vm1/b", True), ("vm1/c", True), ("vm2/d", False)),
    ]
    found = opened(b"".join(out.getvalue().partition(b"vm1/a.000.enc")[1:]))
    listed = manifest.parse(found.pop("qb-manifest.000.enc"))
    assert listed == (ID, records)
    assert list(found) == [
        *("vm1/a.000.enc", "vm1/a.001.enc", *(f"vm1/b.{number:03d}.enc" for number in range(kept)), "vm2/d.000.enc"),
    ]
    assert all(len(found[f"vm1/b.{number:03d}.enc"]) == 1000 for number in range(kept))
    assert not sealed._keys


def test_an_archive_of_nothing_but_metadata_is_not_completed() -> None:
    out = io.BytesIO()
    sealed = Sealer(Writer(out), SECRET, settings(1000), 2)
    sources = [source(chunks.METADATA, b"<qubes/>"), source("vm1/a", b"", lose), Source("vm1/b", lost_at_once, fail)]
    with pytest.raises(Failed, match="all files have failed"):
        list(sealed.write_archive(sources, header.new_header(ID, "gzip", 1000, True)))
    assert b"qb-manifest" not in out.getvalue()


def test_a_file_is_not_begun_before_the_one_before_it_has_ended() -> None:
    calls = []

    def named(name: str) -> Source:
        def begin() -> Reader:
            calls.append(f"open {name}")
            return Reader(io.BytesIO(b"x"))

        return Source(name, begin, lambda: calls.append(f"end {name}"))

    seal([named("a"), named("b")])
    assert calls == ["open a", "end a", "open b", "end b"]


def test_a_read_error_is_raised() -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
            raise OSError(5, "Input/output error")

    with pytest.raises(Failed, match="^cannot read the disk: Input/output error$"):
        seal([Source("a", lambda: Reader(Broken(), "the disk"), lambda: None)])


def test_a_reader_that_has_ended_is_a_broken_pipe() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with io.FileIO(writing, "w") as file, pytest.raises(BrokenPipeError):
        list(Sealer(Writer(file), SECRET, settings(1000), 1).write_files([source("a", bytes(1000))]))


def test_how_far_it_is_can_be_asked() -> None:
    sealed = Sealer(Writer(io.BytesIO()), SECRET, settings(1000), 1)
    list(sealed.write_files([source("a", bytes(1500)), source("b", b"x")]))
    assert (sealed.done, sealed.current, sealed.read) == (1501, "b", 1501)


def test_what_is_only_read_ahead_is_not_done() -> None:
    out = io.BytesIO()
    sealed = Sealer(Writer(out), SECRET, settings(1000), 2, lambda name, read: (f"label of {name}", 10 * read))
    seen = [(sealed.done, sealed.current)]
    for _record in sealed.write_files([source(name, bytes(900)) for name in "abc"]):
        seen.append((sealed.done, sealed.current))
    assert seen == [(0, ""), (9000, "label of a"), (18000, "label of b"), (27000, "label of c")]


def test_sizes_of_members() -> None:
    assert [len(sealed) for _, sealed in members(seal([source("a", bytes(1500))])[1])] == [
        1000 + OVERHEAD,
        500 + OVERHEAD,
    ]
