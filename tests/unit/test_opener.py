"""Opening: the order of the output, what is never opened, the limits, and the place of each error."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qbtools.errors import Damaged, Refused, Truncated, WrongPassphrase
from qbtools.formats import chunks, container, firstchunk, header, kdf, manifest, openarchive, outertar
from qbtools.formats.container import Key, Parameters
from qbtools.formats.limits import Limits
from qbtools.formats.openarchive import Archive, Event
from qbtools.formats.opener import Opening
from qbtools.formats.sealer import Sealer, Settings, Source
from qbtools.streams import Reader, Writer

ID = "20261124T060000-0123456789abcdef"
SECRET = b"opener"
FAST = Parameters(10)
FILES = {"qubes.xml": b"<qubes/>", "vm1/root.img": os.urandom(2500), "vm1/private.img": b"", "vm2/a": os.urandom(2000)}
LIMITS = Limits(256 << 20)
LONG = 60.0


def source(name: str, data: bytes) -> Source:
    return Source(name, lambda: Reader(io.BytesIO(data)), lambda: None)


def sealed(files: dict[str, bytes] = FILES, chunk_size: int = 1000, backup: header.BackupHeader | None = None) -> bytes:
    """A complete archive."""
    out = io.BytesIO()
    sealer = Sealer(Writer(out), SECRET, Settings(ID, chunk_size, FAST, 0), 1)
    sources = [source(name, data) for name, data in files.items()]
    list(sealer.write_archive(sources, backup or header.new_header(ID, "gzip", chunk_size, True)))
    return out.getvalue()


def pieces(archive: bytes) -> list[tuple[str, bytes]]:
    reader = outertar.MemberReader(Reader(io.BytesIO(archive)), lambda _name: 1 << 30)
    found = []
    while (member := reader.next()) is not None:
        found.append((member.untrusted_name, reader.read_all()))
    return found


def joined(members: list[tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    writer = outertar.MemberWriter(Writer(out), 0)
    for name, data in members:
        writer.add(name, data)
    writer.end_of_archive()
    return out.getvalue()


def opened(
    archive: bytes | io.BytesIO,
    secret: bytes = SECRET,
    limits: Limits = LIMITS,
    jobs: int = 2,
    warn: Callable[[str], None] = pytest.fail,
    first_wanted: bool = False,
) -> Archive:
    file = archive if isinstance(archive, io.BytesIO) else io.BytesIO(archive)
    return Opening(Reader(file, "the archive"), limits).archive(secret, lambda _each: jobs, warn, first_wanted)


def contents(events: Iterator[Event]) -> dict[str, bytes]:
    """The data of each file that was read completely."""
    found: dict[str, bytes] = {}
    data = b""
    for event in events:
        if event.ends:
            found[event.name] = data
            data = b""
        else:
            data += bytes(event.data or b"")
    assert not data
    return found


def every(_name: str) -> bool:
    return True


# --- what comes out ---


@pytest.mark.parametrize("jobs", [1, 2, 5])
def test_everything_comes_out_in_order(jobs: int) -> None:
    archive = opened(sealed(), jobs=jobs)
    found = contents(archive.events(every))
    assert found == FILES
    assert list(found) == list(FILES)
    assert [record.chunks for record in archive.records] == [1, 3, 1, 3]
    assert [record.size for record in archive.records] == [len(data) for data in FILES.values()]
    assert archive.header.backup_id == ID


def test_chunks_are_numbered_and_their_start_and_end_are_events() -> None:
    events = [(event.name, event.number, event.size) for event in opened(sealed({"a": bytes(2000)})).events(every)]
    assert events == [("a", -3, 0), ("a", 0, 1000), ("a", 1, 1000), ("a", 2, 0), ("a", -1, 0)]


def test_a_file_that_no_header_bounds_ends_when_the_next_one_begins() -> None:
    # Qubes' own archives name no chunk size.
    backup = header.parse(
        header.serialise(header.new_header(ID, "gzip", 1000, True)).replace(b"chunk-size=1000\n", b"")
    )
    archive = opened(sealed({"a": bytes(1500), "b": b""}, backup=backup))
    assert archive.header.chunk_size is None
    assert contents(archive.events(every)) == {"a": bytes(1500), "b": b""}


def test_what_is_not_wanted_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    derived = []

    def key(secret: bytes, parameters: Parameters, salt: bytes) -> Key:
        derived.append(secret.split(b"!")[1].decode())
        return Key(secret, parameters, salt)

    archive = opened(sealed())
    monkeypatch.setattr(openarchive, "Key", key)
    found = contents(archive.events(lambda name: name == "vm2/a"))
    assert found == {**dict.fromkeys(FILES, b""), "vm2/a": FILES["vm2/a"]}
    assert sorted(derived) == ["qb-manifest.000", "vm2/a.000", "vm2/a.001", "vm2/a.002"]


def test_unwanted_files_are_compared_with_the_manifest_too() -> None:
    members = pieces(sealed())
    at = [name for name, _ in members].index("vm1/root.img.002.enc")
    name, data = members[at]
    members[at] = (name, data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(Damaged, match="^vm1/root.img is not the file that the manifest lists$"):
        contents(opened(joined(members)).events(lambda _name: False))


def test_wanted_is_called_for_every_chunk() -> None:
    # So that the rest of a file can be given up.
    asked = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return len(asked) == 1

    found = contents(opened(sealed({"a": bytes(range(250)) * 10})).events(wanted))
    assert found == {"a": (bytes(range(250)) * 4)}
    assert asked == ["a", "a", "a"]


def test_data_holds_until_the_next_event_only() -> None:
    # With one buffer more than jobs the memory is reused, so a chunk must be copied to be kept.
    data = os.urandom(1000) + os.urandom(1000) + os.urandom(1000)
    views = []
    for event in opened(sealed({"a": data}), jobs=1).events(every):
        if event.data:
            assert bytes(event.data) == data[event.number * 1000 :][:1000]
            views.append(event.data)
    assert bytes(views[0]) == bytes(views[2]) != data[:1000]


# --- errors, at their place ---


def test_a_wrong_passphrase() -> None:
    with pytest.raises(WrongPassphrase, match="^the passphrase is wrong$") as caught:
        opened(sealed(), secret=b"Opener")
    assert all(word in (caught.value.hint or "") for word in ("blanks", "keyboard layout", "encoding"))


@pytest.mark.parametrize("jobs", [1, 3])
@pytest.mark.parametrize("at", [0, 50, 96, 500, -1])
def test_the_output_before_a_damaged_chunk_is_a_correct_prefix(at: int, jobs: int) -> None:
    members = pieces(sealed())
    place = [name for name, _ in members].index("vm1/root.img.001.enc")
    damaged = bytearray(members[place][1])
    damaged[at] ^= 1
    members[place] = (members[place][0], bytes(damaged))
    came = []
    with pytest.raises(Damaged, match="^vm1/root.img.001.enc "):
        for event in opened(joined(members), jobs=jobs).events(every):
            came.append((event.name, event.number, bytes(event.data or b"")))
    assert came == [
        ("qubes.xml", -3, b""),
        ("qubes.xml", 0, FILES["qubes.xml"]),
        ("qubes.xml", -1, b""),
        ("vm1/root.img", -3, b""),
        ("vm1/root.img", 0, FILES["vm1/root.img"][:1000]),
    ]


def test_an_archive_that_ends_in_a_chunk() -> None:
    archive = sealed()
    came = []
    with pytest.raises(Truncated, match="^the archive ends in the middle of vm1/root.img.001.enc$"):
        for event in opened(archive[: archive.index(b"vm1/root.img.001.enc") + 1000]).events(every):
            came.append((event.name, event.number))
    assert came[-1] == ("vm1/root.img", 0)


def test_without_its_manifest() -> None:
    members = pieces(sealed())
    came = []
    with pytest.raises(Damaged, match="^the manifest is missing: the archive is incomplete$"):
        for event in opened(joined(members[:-1])).events(every):
            came.append((event.name, event.number))
    assert came[-1] == ("vm2/a", -1)


def test_an_archive_that_promises_no_manifest_gets_a_warning() -> None:
    warnings: list[str] = []
    members = pieces(sealed(backup=header.new_header(ID, "gzip", 1000, manifest=False)))
    contents(opened(joined(members[:-1]), warn=warnings.append).events(every))
    assert warnings == [
        "the archive has no manifest: files that are missing at its end cannot be detected",
    ]


def test_a_manifest_of_another_backup() -> None:
    members = pieces(sealed())
    text = container.open_bytes(chunks.chunk_passphrase(SECRET, ID, chunks.MANIFEST, 0), members[-1][1])
    assert manifest.parse(text)[0] == ID
    other = text.replace(ID.encode(), b"20261124T060000-0123456789abcdee")
    container_of_other = container.seal_bytes(chunks.chunk_passphrase(SECRET, ID, chunks.MANIFEST, 0), FAST, other)
    members[-1] = (members[-1][0], container_of_other)
    with pytest.raises(Damaged, match="^the manifest belongs to another backup$"):
        contents(opened(joined(members)).events(every))


# --- what it may cost ---


def test_a_container_that_never_fits_the_budget_is_refused() -> None:
    with pytest.raises(Refused, match="MiB of memory are needed for one chunk, the limit is 1 MiB") as caught:
        opened(sealed(), limits=Limits(1 << 20))
    assert caught.value.hint is not None and "--max-memory" in caught.value.hint


def test_a_chunk_that_never_fits_the_budget_is_refused() -> None:
    archive = opened(sealed({"a": bytes(3 << 20)}, chunk_size=4 << 20), limits=Limits(4 << 20))
    with pytest.raises(Refused, match="^4 MiB of memory are needed for one chunk, the limit is 4 MiB$"):
        list(archive.events(every))


@pytest.mark.parametrize("spare", [1000, 5000])
def test_work_that_does_not_fit_waits(monkeypatch: pytest.MonkeyPatch, spare: int) -> None:
    # Four jobs, but memory for one of these derivations at a time, and for one chunk or a few.
    lock = threading.Lock()
    running = most = 0

    def key(secret: bytes, parameters: Parameters, salt: bytes) -> Key:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return Key(secret, parameters, salt)
        finally:
            with lock:
                running -= 1

    data = os.urandom(30_000)
    archive = opened(sealed({"a": data}), limits=Limits(FAST.memory + spare), jobs=4)
    monkeypatch.setattr(openarchive, "Key", key)
    assert contents(archive.events(every)) == {"a": data}
    assert most == 1


@pytest.mark.parametrize(("limit", "fits"), [(1 << 13, True), ((1 << 13) - 1, False)])
def test_work_is_bounded_before_a_key_is_derived(limit: int, fits: bool) -> None:
    limits = Limits(256 << 20, work=limit)  # N=2^10, r=8, p=1
    if fits:
        contents(opened(sealed(), limits=limits).events(every))
        return
    with pytest.raises(Refused, match="^a key derivation of N=2\\^10, r=8, p=1 is beyond the limit$"):
        opened(sealed(), limits=limits)


def test_the_number_of_jobs_depends_on_the_memory_of_one() -> None:
    asked = []

    def jobs(each: int) -> int:
        asked.append(each)
        return 1

    Opening(Reader(io.BytesIO(sealed())), LIMITS).archive(SECRET, jobs, pytest.fail)
    assert asked == [FAST.memory + 1000]


def test_how_far_it_is_can_be_asked() -> None:
    data = sealed()
    archive = opened(data)
    contents(archive.events(every))
    assert archive.position == archive.read == len(data)
    assert archive.current == "vm2/a"


def test_what_is_only_read_ahead_is_not_counted() -> None:
    archive = opened(sealed({"a": bytes(900), "b": bytes(900)}), jobs=1)
    seen = [(event.name, archive.position) for event in archive.events(every) if event.data is not None]
    assert seen[0] == ("a", 0) and seen[1][0] == "b" and 900 < seen[1][1] < archive.read


# --- keys that are derived at the same time ---


class Together:
    """Stands in for Key: each derivation waits until as many as `parties` are under way, at most LONG seconds."""

    def __init__(self, parties: int) -> None:
        self.barrier = threading.Barrier(parties)
        self.derived: list[str] = []

    def __call__(self, secret: bytes, parameters: Parameters, salt: bytes, second_opinion: bool = False) -> Key:
        self.derived.append(secret.split(b"!")[-2].decode())  # what stands in front of the passphrase
        self.barrier.wait(LONG)
        return Key(secret, parameters, salt, second_opinion)


@pytest.mark.parametrize("jobs", [2, 4])
def test_as_many_keys_are_derived_at_a_time_as_there_are_jobs(monkeypatch: pytest.MonkeyPatch, jobs: int) -> None:
    data = os.urandom(1000 * (2 * jobs - 1) - 1)  # as many chunks, and the manifest
    archive = opened(sealed({"a": data}), jobs=jobs)
    monkeypatch.setattr(openarchive, "Key", Together(jobs))
    assert contents(archive.events(every)) == {"a": data}


def test_the_key_of_the_first_chunk_is_derived_beside_that_of_the_header(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sealed()
    together = Together(2)
    monkeypatch.setattr(container, "Key", together)
    monkeypatch.setattr(firstchunk, "Key", together)
    archive = opened(data, first_wanted=True)
    assert sorted(together.derived) == ["backup-header", "qubes.xml.000"], "at the same time"
    again = Together(1)
    monkeypatch.setattr(openarchive, "Key", again)
    assert contents(archive.events(every)) == FILES
    assert "qubes.xml.000" not in again.derived, "one derivation is enough"


def test_a_program_that_gives_up_ends_though_its_input_stalls(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(sealed())
    program = f"""
import fcntl, os, sys, termios, time
from qbtools.formats import limits, opener
from qbtools.streams import Reader
ours, theirs = os.pipe()
os.write(theirs, open("archive", "rb").read()[:{sealed().index(b"vm1/root.img.001") + 800}])
reader = Reader(open(ours, "rb", buffering=0), "the archive")
opened = opener.Opening(reader, limits.Limits(256 << 20)).archive(b"opener", lambda _: 2, print, True)
next(opened.events(lambda _: True))
while fcntl.ioctl(ours, termios.FIONREAD, bytes(4)) != bytes(4):
    time.sleep(0.01)
sys.exit("it gives up")
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(openarchive.__file__).parents[2])},
        capture_output=True,
        check=False,
        timeout=LONG,
    )
    assert (done.returncode, done.stderr) == (1, b"it gives up\n")


@pytest.mark.parametrize("wanted", [True, False])
def test_a_first_chunk_that_was_begun_may_be_unwanted(wanted: bool) -> None:
    archive = opened(sealed(), first_wanted=True)
    found = contents(archive.events(lambda name: wanted or name != "qubes.xml"))
    assert found == {**FILES, "qubes.xml": FILES["qubes.xml"] if wanted else b""}


def test_a_first_chunk_that_was_begun_is_authenticated_like_any(monkeypatch: pytest.MonkeyPatch) -> None:
    members = pieces(sealed())
    name, data = members[2]
    for at in (10, 70, 96, -1):
        members[2] = (name, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 or len(data) :])
        archive = opened(joined(members), first_wanted=True)
        with pytest.raises(Damaged, match="^qubes.xml.000.enc"):
            contents(archive.events(every))


def test_what_is_wrong_with_the_header_counts_before_what_follows_it() -> None:
    members = pieces(sealed())
    plain = members[0][1]
    for changed in (plain.replace(ID.encode(), b"20261124T060000-ffffffffffffffff"), plain + b"x", b"version=3\n"):
        for rest in (members[1:], members[1:2]):
            with pytest.raises(Damaged, match="^backup-header differs from its sealed copy: the archive was changed$"):
                opened(joined([(members[0][0], changed), *rest]), first_wanted=True)
    with pytest.raises(WrongPassphrase):
        opened(joined(members[:2])[:-1000], b"wrong", first_wanted=True)


def test_an_archive_that_ends_after_its_header_or_in_its_first_chunk() -> None:
    data = sealed()
    start = data.index(b"qubes.xml.000.enc")
    for end, message in ((start + 200, "in the middle of a tar header"), (start + 512 + 50, "in the middle of qubes")):
        archive = opened(data[:end], first_wanted=True)
        with pytest.raises(Truncated, match=message):
            contents(archive.events(every))
    archive = opened(data[:start], first_wanted=True)
    with pytest.raises(Truncated, match="^the manifest is missing"):
        contents(archive.events(every))


def test_memory_for_one_key_at_a_time_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(firstchunk, "Key", None)  # not called
    archive = opened(sealed(), limits=Limits(FAST.memory + 4000), first_wanted=True)
    assert contents(archive.events(every)) == FILES


@pytest.mark.parametrize("first", [True, False])
def test_each_key_is_derived_in_its_turn(monkeypatch: pytest.MonkeyPatch, first: bool) -> None:
    """There is one turn. Who waits for another thread's key does not have it."""
    lock = threading.Lock()
    derived = 0
    derive = kdf.derive

    @contextmanager
    def turn() -> Iterator[None]:
        assert lock.acquire(timeout=60)
        try:
            yield
        finally:
            lock.release()

    def counted(*words: Any, **options: Any) -> bytes:
        nonlocal derived
        assert lock.locked()
        derived += 1
        return derive(*words, **options)

    data = sealed()
    monkeypatch.setattr(kdf, "derive", counted)
    archive = opened(data, limits=LIMITS._replace(turn=turn), jobs=3, first_wanted=first)
    assert contents(archive.events(every)) == FILES
    assert derived == data.count(b".enc\0") + 1


# --- the header alone ---


def test_the_header_is_read_and_no_more() -> None:
    archive = sealed()
    head = archive[: archive.index(b"qubes.xml.000.enc")]
    found = Opening(Reader(io.BytesIO(head)), LIMITS).header(SECRET)
    assert found == header.new_header(ID, "gzip", 1000, True)


def test_a_header_that_is_not_what_was_sealed() -> None:
    members = pieces(sealed())
    members[0] = (members[0][0], members[0][1].replace(b"1000", b"1001"))
    with pytest.raises(Damaged, match="^backup-header differs from its sealed copy: the archive was changed$"):
        opened(joined(members))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ("backup-header", "qubes.xml.000.enc", "not a backup: backup-header.hmac is not where it must be"),
        ("backup-header.hmac", "backup-header", "not a backup: backup-header is not where it must be"),
    ],
)
def test_what_does_not_begin_as_a_backup(first: str, second: str, message: str) -> None:
    members = dict(pieces(sealed()))
    with pytest.raises(Damaged, match=f"^{message}$"):
        opened(joined([(first, members[first]), (second, members[second])]))
    with pytest.raises(Damaged, match="^the archive is empty: did the program before fail"):
        opened(b"")
