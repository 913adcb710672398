"""GNU tar, Python's tarfile and Qubes' writer against qb-tarwrite and qb-tarextract, both ways."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import ROOT, bash, need, run

NAME = "vm1/private.img"
KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40

Extents = list[tuple[int, int]]

# Sizes and where the data is. All but the last kind of volume is small enough to be compared whole.
VOLUMES: dict[str, tuple[int, Extents]] = {
    "empty": (0, []),
    "dense": (MIB, [(0, MIB)]),
    "dense-odd": (12345, [(0, 12345)]),
    "hole": (MIB, []),
    "hole-odd": (12345, []),
    "hole-first": (MIB, [(768 * KIB, 256 * KIB)]),
    "hole-last": (MIB, [(0, 256 * KIB)]),
    "hole-last-odd": (MIB + 77, [(0, 4 * KIB)]),
    "odd-end": (MIB + 77, [(4 * KIB, 4 * KIB), (MIB, 77)]),
    "four": (MIB, [(at * 128 * KIB, 4 * KIB) for at in range(4)]),
    "five": (MIB, [(at * 128 * KIB, 4 * KIB) for at in range(5)]),
    "alternating": (MIB, [(at * 8 * KIB, 4 * KIB) for at in range(128)]),
    "tib": (TIB, [(0, 4 * KIB), (5 << 30, MIB), (9 << 30, 8 * KIB), (TIB - 4 * KIB, 4 * KIB)]),
    "tib-hole-last": (TIB, [(MIB, MIB), (10 << 30, 4 * KIB)]),
}


@pytest.fixture(autouse=True)
def _tar() -> None:
    need("tar")


def part(offset: int, length: int) -> bytes:
    """What stands in a volume at an extent: no zero byte, and another at every offset."""
    return (bytes(range(1, 252)) * (length // 251 + 2))[offset % 251 :][:length]


def make(path: Path, size: int, extents: Extents) -> None:
    """A sparse file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(size)
        for offset, length in extents:
            file.seek(offset)
            file.write(part(offset, length))


def data_parts(path: Path) -> Iterator[tuple[int, bytes]]:
    """What in a file is not a hole."""
    fd = os.open(path, os.O_RDONLY)
    try:
        end = 0
        while True:
            try:
                start = os.lseek(fd, end, os.SEEK_DATA)
            except OSError:
                return
            end = os.lseek(fd, start, os.SEEK_HOLE)
            yield start, os.pread(fd, end - start, start)
    finally:
        os.close(fd)


def assert_same(path: Path, size: int, extents: Extents) -> None:
    """path holds the volume, and takes hardly more space than it must."""
    assert path.stat().st_size == size
    assert path.stat().st_blocks * 512 <= sum(length for _, length in extents) + 64 * KIB * (len(extents) + 1)
    left = dict(extents)
    for start, found in data_parts(path):
        for offset in [offset for offset in left if start <= offset < start + len(found)]:
            at, length = offset - start, left.pop(offset)
            assert found[at : at + length] == part(offset, length)
            found = found[:at] + bytes(length) + found[at + length :]
        assert not any(found)
    assert not left


def stream(size: int, extents: Extents) -> bytes:
    """The volume stream, with the extents as they are."""
    lines = "".join(f"{offset} {length}\n" for offset, length in extents)
    head = f"qb-volume 1\nsize {size}\nextents {len(extents)}\n{lines}\n"
    data = b"".join(part(*extent) for extent in extents)
    return head.encode() + data + f"end {len(data)}\n".encode()


def ours(size: int, extents: Extents, name: str = NAME) -> bytes:
    made = run("qb-tarwrite", name, data=stream(size, extents))
    assert (made.returncode, made.stderr) == (0, b"")
    return made.stdout


def write_out(archive: bytes, target: Path, *arguments: str) -> None:
    """What qb-tarextract finds, as a sparse file."""
    read = run("qb-tarextract", *arguments, data=archive)
    assert (read.returncode, read.stderr) == (0, b"")
    head, _, rest = read.stdout.partition(b"\n\n")
    lines = head.decode().split("\n")
    assert lines[0] == "qb-volume 1"
    with target.open("wb") as file:
        file.truncate(int(lines[1].removeprefix("size ")))
        for line in lines[3:]:
            offset, length = map(int, line.split())
            file.seek(offset)
            file.write(rest[:length])
            rest = rest[length:]
    assert rest.startswith(b"end ")


@pytest.mark.parametrize("kind", VOLUMES)
def test_gnu_tar_extracts_ours(tmp_path: Path, kind: str) -> None:
    size, extents = VOLUMES[kind]
    archive = ours(size, extents)
    shown = run("tar", "-tvvf", "-", data=archive)
    assert (shown.returncode, shown.stderr) == (0, b"")
    mode, owner, real_size, *_, name = shown.stdout.decode().split()
    assert (mode, owner, real_size, name) == ("-rw-------", "0/0", str(size), NAME)
    for number, arguments in enumerate(([], [NAME])):  # all of it, and by name, as Qubes does
        place = tmp_path / str(number)
        place.mkdir()
        done = run("tar", "-xSf", "-", "-C", place, *arguments, data=archive)
        assert (done.returncode, done.stderr) == (0, b"")
        assert_same(place / NAME, size, extents)


@pytest.mark.parametrize("kind", [kind for kind, (size, _) in VOLUMES.items() if size < TIB])
def test_tarfile_extracts_ours(kind: str) -> None:
    size, extents = VOLUMES[kind]
    wanted = bytearray(size)
    for offset, length in extents:
        wanted[offset : offset + length] = part(offset, length)
    with tarfile.open(fileobj=io.BytesIO(ours(size, extents))) as opened:
        (member,) = opened.getmembers()
        body = opened.extractfile(member)
        assert body is not None
        assert (member.name, body.read()) == (NAME, bytes(wanted))


GNU_FORMATS = {
    "gnu": ["--format=gnu"],
    "gnu-raw": ["--format=gnu", "--hole-detection=raw"],
    "posix": ["--format=posix", "--sparse-version=1.0"],
    "posix-raw": ["--format=posix", "--sparse-version=1.0", "--hole-detection=raw"],
}


@pytest.mark.parametrize("options", GNU_FORMATS.values(), ids=GNU_FORMATS)
@pytest.mark.parametrize("kind", VOLUMES)
def test_ours_extracts_gnu_tar(tmp_path: Path, kind: str, options: list[str]) -> None:
    size, extents = VOLUMES[kind]
    if size >= TIB and "--hole-detection=raw" in options:
        options = options[:-1]  # it would read all of it
    make(tmp_path / NAME, size, extents)
    made = run("tar", "--sparse", *options, "-C", tmp_path, "-cf", "-", NAME)
    assert (made.returncode, made.stderr) == (0, b"")
    for arguments in ([], [NAME]):
        write_out(made.stdout, tmp_path / "found", *arguments)
        assert_same(tmp_path / "found", size, extents)
    assert run("qb-tarextract", "--size", data=made.stdout).stdout == f"{size}\n".encode()
    assert run("qb-tarextract", "--list", data=made.stdout).stdout == f"{size}\t{NAME}\n".encode()


@pytest.mark.parametrize("version", ["0.0", "0.1"])
def test_older_sparse_formats_are_named(tmp_path: Path, version: str) -> None:
    make(tmp_path / NAME, *VOLUMES["five"])
    made = run("tar", "--sparse", "--format=posix", f"--sparse-version={version}", "-C", tmp_path, "-cf", "-", NAME)
    for option in ("--raw", "--size", "--list"):
        read = run("qb-tarextract", option, data=made.stdout)
        assert (read.returncode, read.stdout) == (4, b"")
        assert b"vm1/private.img is in a sparse format that is not read: GNU tar's 0.0 or 0.1" in read.stderr


@pytest.mark.parametrize("style", ["v7", "ustar", "gnu", "oldgnu", "posix"])
def test_plain_members_of_every_format(tmp_path: Path, style: str) -> None:
    make(tmp_path / NAME, *VOLUMES["dense-odd"])
    (tmp_path / "vm1/other").write_bytes(b"x")
    (tmp_path / "vm1/link").symlink_to("other")
    made = run("tar", f"--format={style}", "--sort=name", "-C", tmp_path, "-cf", "-", "vm1")
    assert (made.returncode, made.stderr) == (0, b"")
    write_out(made.stdout, tmp_path / "found", NAME)
    assert_same(tmp_path / "found", *VOLUMES["dense-odd"])
    listed = run("qb-tarextract", "--list", data=made.stdout)
    assert listed.stdout == b"0\tvm1/\n0\tvm1/link\ta symbolic link\n1\tvm1/other\n12345\tvm1/private.img\n"
    refused = run("qb-tarextract", data=made.stdout)
    assert (refused.returncode, refused.stdout) == (4, b"")
    assert refused.stderr == b"qb-tarextract: error: vm1/ is a directory, not a regular file\n"


@pytest.mark.parametrize("style", ["gnu", "posix"])
@pytest.mark.parametrize("kind", ["dense-odd", "five"])
def test_long_names(tmp_path: Path, style: str, kind: str) -> None:
    long_name = "d" * 150 + "/" + "e" * 150 + "/" + "b" * 200
    make(tmp_path / long_name, *VOLUMES[kind])
    made = run("tar", "--sparse", f"--format={style}", "-C", tmp_path, "-cf", "-", long_name)
    assert (made.returncode, made.stderr) == (0, b"")
    write_out(made.stdout, tmp_path / "found", long_name)
    assert_same(tmp_path / "found", *VOLUMES[kind])
    assert run("qb-tarextract", "--list", data=made.stdout).stdout.decode() == f"{VOLUMES[kind][0]}\t{long_name}\n"


@pytest.mark.parametrize("directory", ["d" * 138, "d" * 60 + "/" + "e" * 77])
@pytest.mark.parametrize("kind", ["dense-odd", "five"])
def test_our_longest_names(tmp_path: Path, directory: str, kind: str) -> None:
    name = directory + "/" + "b" * 88
    archive = ours(*VOLUMES[kind], name)
    assert run("tar", "-xSf", "-", "-C", tmp_path, data=archive).returncode == 0
    assert_same(tmp_path / name, *VOLUMES[kind])
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        assert opened.getnames() == [name]
    write_out(archive, tmp_path / "found", name)
    assert_same(tmp_path / "found", *VOLUMES[kind])


@pytest.mark.parametrize("style", ["gnu", "posix", "oldgnu"])
def test_dense_members_past_8_gib(tmp_path: Path, style: str) -> None:
    size = 9 << 30
    make(tmp_path / NAME, size, [])
    # tar ends by SIGPIPE: nobody reads the zeros.
    read = bash(f"{{ tar --format={style} -C {tmp_path} -cf - {NAME} || true; }} | qb-tarextract --size")
    assert (read.returncode, read.stdout) == (0, f"{size}\n".encode())


@pytest.mark.parametrize("extents", [[(0, 9 << 30)], [(1 << 30, 9 << 30)]], ids=["dense", "sparse"])
def test_ours_with_more_than_8_gib_of_data(tmp_path: Path, extents: Extents) -> None:
    """GNU tar and ours seek over the data, which is a hole of the archive."""
    size = extents[-1][0] + extents[-1][1]
    path = tmp_path / "archive"
    script = (
        "import sys; from qbtools.formats import sparsetar, volumestream as v; from qbtools.streams import Writer\n"
    )
    script += f"m = v.ExtentMap({size}); m.append(*{extents[0]}); w = Writer(open({str(path)!r}, 'wb', 0))\n"
    script += f"sparsetar.write_member_header(w, {NAME!r}, m); w.write_zeros(m.data); sparsetar.write_member_end(w, m)"
    assert run("python3", "-c", script, PYTHONPATH=str(ROOT)).stderr == b""
    assert run("tar", "-tvvf", path).stdout.split()[2] == str(size).encode()
    with tarfile.open(path) as opened:
        assert [(member.name, member.isreg()) for member in opened] == [(NAME, True)]
    listed = bash(f"qb-tarextract --list < {path}")
    assert (listed.stdout, listed.stderr) == (f"{size}\t{NAME}\n".encode(), b"")


def as_qubes_writes(size: int, extents: Extents) -> bytes:
    """Headers by Python's tarfile, a process id in the name, data that is not padded, two zero blocks."""
    entries = extents if extents and sum(extents[-1]) == size else [*extents, (size, 0)]
    text = f"{len(entries)}\n" + "".join(f"{offset}\n{length}\n" for offset, length in entries)
    body = text.encode() + bytes(-len(text) % 512) + b"".join(part(*extent) for extent in extents)
    info = tarfile.TarInfo("vm1/GNUSparseFile.4711/private.img")
    info.size = len(body)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.pax_headers |= {"GNU.sparse.name": NAME, "GNU.sparse.realsize": str(size)}
    return info.tobuf(tarfile.PAX_FORMAT) + body + bytes(1024)


@pytest.mark.parametrize("kind", VOLUMES)
def test_ours_extracts_what_qubes_writes(tmp_path: Path, kind: str) -> None:
    size, extents = VOLUMES[kind]
    write_out(as_qubes_writes(size, extents), tmp_path / "found", NAME)
    assert_same(tmp_path / "found", size, extents)


def test_what_tar_does_not_notice(tmp_path: Path) -> None:
    """The manual says that an archive cut where its data ends looks whole to GNU tar. It does not to us."""
    archive = ours(*VOLUMES["five"])[:-1024]
    assert run("tar", "-xSf", "-", "-C", tmp_path, data=archive).returncode == 0
    assert run("tar", "-xSf", "-", "-C", tmp_path, data=archive[:-1]).returncode == 2
    assert run("qb-tarextract", data=archive).returncode == 4
