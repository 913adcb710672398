"""qb-tarextract --volumes: all volumes of a directory that is one archive, or none of them."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest
from devices import loop, make_sparse, tmpfs
from running import Running, wait_until
from support import bash, environment, run
from vectors.tarbytes import END, GNU, head, old, regular
from version3 import Maker

DIRECTORY = "vm-templates/f23/."
ROOT = random.Random(3).randbytes(200_000) + bytes(800_000) + b"end"
PRIVATE = bytes(1 << 20) + b"p" * 4096 + bytes(1 << 20)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A template's directory: two volumes with holes, and other things."""
    place = tmp_path / "source"
    place.mkdir()
    make_sparse(place / "root.img", len(ROOT), (0, ROOT[:200_000]), (1_000_000, b"end"))
    make_sparse(place / "private.img", len(PRIVATE), (1 << 20, b"p" * 4096))
    (place / "volatile.img").write_bytes(b"v" * 5000)
    (place / "apps").mkdir()
    (place / "apps/x.desktop").write_text("x")
    return place


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> bytes:
    """An archive as Qubes OS 3 made it."""
    return Maker(tmp_path, compression=None).inner(source, DIRECTORY)


@pytest.fixture
def to(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to"


def extract(data: bytes, *words: str | Path, directory: str = DIRECTORY) -> subprocess.CompletedProcess[bytes]:
    options = [str(word) for word in words if str(word).startswith("-")]
    routes = [str(word) for word in words if not str(word).startswith("-")]
    return run("qb-tarextract", *options, "--volumes", directory, *routes, data=data)


def test_directories_above_the_targets(archive: bytes, to: Path, tmp_path: Path) -> None:
    """Only files have any; new directories are removed if the run fails."""
    done = extract(archive, "--create", "--parents", f"root={to}/a/b/r", f"private={to}/a/c/p")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert ((to / "a/b/r").read_bytes(), (to / "a/c/p").read_bytes()) == (ROOT, PRIVATE)
    make_sparse(tmp_path / "disk", len(PRIVATE))
    with loop(tmp_path / "disk") as device:
        refused(extract(archive, "--parents", f"root={to}/d/r", f"private={device}"), 5, f"{device} already exists")
        assert not (to / "d").exists()
        done = extract(archive, "--overwrite", "--parents", f"root={to}/d/r", f"private={device}")
        assert (done.returncode, done.stderr) == (0, b"")
        assert ((to / "d/r").read_bytes(), device.read_bytes()) == (ROOT, PRIVATE)


def refused(done: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    assert done.stderr.decode().splitlines()[0] == f"qb-tarextract: error: {message}"


def test_two_volumes_in_one_pass(archive: bytes, to: Path) -> None:
    done = extract(archive, "--print-size", f"root={to}/r", f"private=file:{to}/p")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == f"{len(ROOT)}\troot\n{len(PRIVATE)}\tprivate\n"
    assert (to / "r").read_bytes() == ROOT
    assert (to / "p").read_bytes() == PRIVATE
    assert (to / "p").stat().st_blocks * 512 < 1 << 18, "holes are holes"
    assert sorted(os.listdir(to)) == ["p", "r"]
    assert extract(archive, f"volatile={to}/v").returncode == 0
    assert (to / "v").read_bytes() == b"v" * 5000


def test_the_same_as_each_by_itself(archive: bytes, to: Path) -> None:
    assert extract(archive, f"root={to}/r", f"private={to}/p").returncode == 0
    for volume, name in (("root", "r"), ("private", "p")):
        done = bash(f"qb-tarextract {DIRECTORY}/{volume}.img | qb-volwrite {to}/one", data=archive)
        assert done.returncode == 0
        assert (to / "one").read_bytes() == (to / name).read_bytes()
        (to / "one").unlink()


def member(volume: str, data: bytes) -> bytes:
    return regular(data, f"d/{volume}.img".encode())


def old_sparse(volume: str) -> bytes:
    """More extents than fit in the header."""
    made = old(1 << 16, [(at << 13, 512) for at in range(6)] + [(1 << 16, 0)], b"S" * 3072)
    block = bytearray(f"d/{volume}.img".encode().ljust(100, b"\0") + made[100:512])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + made[512:]


def test_sparse_members_of_the_old_format(to: Path) -> None:
    done = extract(old_sparse("a") + member("b", b"plain") + END, f"a={to}/a", f"b={to}/b", directory="d")
    assert (done.returncode, done.stderr) == (0, b"")
    expected = bytearray(1 << 16)
    for at in range(6):
        expected[at << 13 : (at << 13) + 512] = b"S" * 512
    assert (to / "a").read_bytes() == expected
    assert (to / "b").read_bytes() == b"plain"


# Complete blocks: the padding of the last one would count as zeros at the end.
A, B = member("a", b"1" * 512), member("b", b"2" * 512)
EARLY = "standard input ends too early"
BAD = {
    "one is missing": (A + END, "the archive has no member d/b.img"),
    "one occurs twice": (A + B + A + END, "d/a.img occurs twice"),
    "one is a link": (A + head(b"d/b.img", kind=b"2") + END, "d/b.img is a symbolic link, not a regular file"),
    "one is a directory": (A + head(b"d/b.img/", kind=b"5", magic=GNU) + END, "the archive has no member d/b.img"),
    "something behind": (A + B + END + b"x", "something follows the end of the archive"),
    "no end": (A + B, EARLY),
    "half an end": (A + B + bytes(512), EARLY),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_archive_that_is_not_right(kind: str, to: Path) -> None:
    data, message = BAD[kind]
    (to / "b").write_bytes(b"old")
    refused(extract(data, "--overwrite", f"a={to}/a", f"b={to}/b", directory="d"), 4, message)
    assert os.listdir(to) == ["b"] and (to / "b").read_bytes() == b"old"


def test_cut_at_every_interesting_place(to: Path) -> None:
    data = old_sparse("a") + regular(b"x", b"d/x") + B + END
    edges = {at + off for at in range(0, len(data), 512) for off in (-1, 0, 1)} | {len(data) - 1}
    for size in sorted(edge for edge in edges if 0 <= edge < len(data)):
        done = extract(data[:size], f"a={to}/a", f"b={to}/b", directory="d")
        empty = "standard input is empty: did the program before fail?"
        refused(done, 4, EARLY if size else empty)
        assert os.listdir(to) == [], size


def test_a_writer_that_is_killed(archive: bytes, to: Path) -> None:
    pipe = f"(head -c 150000; kill -KILL $BASHPID) | qb-tarextract --volumes {DIRECTORY} root={to}/r private={to}/p"
    assert bash(pipe, data=archive).returncode == 4
    assert os.listdir(to) == []


def test_a_full_disk(to: Path) -> None:
    data = member("a", b"1") + member("b", b"2" * (2 << 20)) + END
    with tmpfs(to / "small", 1 << 20):
        for routes in ((f"a={to}/a", f"b={to}/small/b"), (f"a={to}/small/a", f"b={to}/small/b")):
            done = extract(data, *routes, directory="d")
            refused(done, 1, f"cannot write to {to}/small/b: No space left on device")
            assert os.listdir(to / "small") == [] and os.listdir(to) == ["small"]


# --- options and targets, as with qb-volwrite ---


def test_nothing_that_exists_is_touched(to: Path) -> None:
    data = member("a", b"1") + member("b", b"2") + END
    (to / "b").write_bytes(b"old")
    refused(extract(data, f"a={to}/a", f"b={to}/b", directory="d"), 5, f"{to}/b already exists")
    done = extract(data, "--overwrite", f"a={to}/a", f"b={to}/b", directory="d")
    refused(done, 5, f"{to}/b has 3 bytes, the volume only 1")
    assert os.listdir(to) == ["b"] and (to / "b").read_bytes() == b"old"
    done = extract(data, "--overwrite", "--shrink", "--create", f"a={to}/a", f"b={to}/b", directory="d")
    assert (done.returncode, (to / "a").read_bytes(), (to / "b").read_bytes()) == (0, b"1", b"2")


def test_targets_are_looked_at_before_the_first_byte(to: Path) -> None:
    (to / "b").touch()
    ours, theirs = os.pipe()
    done = subprocess.run(
        ["qb-tarextract", "--volumes", "d", f"a={to}/a", f"b={to}/b"],
        stdin=ours, capture_output=True, env=environment(), timeout=60, check=False,
    )  # fmt: skip
    os.close(ours)
    os.close(theirs)
    refused(done, 5, f"{to}/b already exists")


def test_two_files_that_exist_are_replaced(to: Path) -> None:
    """Each has its own guard: a program that opens any of them is noticed."""
    data = member("a", b"1111") + member("b", b"2222") + END
    for name in ("a", "b"):
        (to / name).write_bytes(b"old")
    done = extract(data, "--overwrite", f"a={to}/a", f"b={to}/b", directory="d")
    assert (done.returncode, (to / "a").read_bytes(), (to / "b").read_bytes()) == (0, b"1111", b"2222")


@pytest.mark.parametrize("opened", ["a", "b"])
def test_a_file_that_comes_into_use_meanwhile(opened: str, to: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(member("a", b"1111") + member("b", b"2" * 100_000) + END)
    for name in ("a", "b"):
        (to / name).write_bytes(b"old")
    with Running(tmp_path) as running:
        running.start(f"valve 50000 <{tmp_path}/data | qb-tarextract --overwrite --volumes d a={to}/a b={to}/b")
        running.hold()
        inodes = [f":{(to / name).stat().st_ino} " for name in ("a", "b")]
        wait_until(lambda: all(inode in Path("/proc/locks").read_text() for inode in inodes), "both guards")
        (to / opened).open("ab").close()
        running.release()
        status, errors = running.end()
    assert status == 5
    assert f"qb-tarextract: error: {to}/{opened} came into use meanwhile: it was opened for writing" in errors
    assert [(to / name).read_bytes() for name in ("a", "b")] == [b"old", b"old"]


def test_two_routes_to_one_target(to: Path) -> None:
    data = member("a", b"1") + member("b", b"2") + END
    (to / "way").symlink_to(".")
    refused(extract(data, f"a={to}/a", f"b={to}/way/a", directory="d"), 5, f"{to}/a and {to}/way/a are the same volume")
    assert os.listdir(to) == ["way"]


def test_devices(to: Path, tmp_path: Path) -> None:
    data = member("a", b"1" * 5000) + member("b", b"2" * 700) + END
    for name in ("x", "y"):
        (tmp_path / name).write_bytes(b"\xaa" * (1 << 20))
    with loop(tmp_path / "x") as one, loop(tmp_path / "y") as other:
        refused(extract(data, f"a={one}", f"b={to}/b", directory="d"), 5, f"{one} already exists")
        twice = extract(data, "--overwrite", f"a={one}", f"b=block:{one}", directory="d")
        assert twice.returncode == 5
        assert (tmp_path / "x").read_bytes() == b"\xaa" * (1 << 20)
        assert extract(data, "--overwrite", f"a={one}", f"b={other}", directory="d").returncode == 0
        os.sync()
        assert one.read_bytes() == (b"1" * 5000).ljust(1 << 20, b"\0")
        assert other.read_bytes() == (b"2" * 700).ljust(1 << 20, b"\0")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["d", "a"], "a is not VOLUME=TARGET"),
        (["d", "a="], "a= is not VOLUME=TARGET"),
        (["d", "=x"], "=x is not VOLUME=TARGET"),
        (["d", "../a=x"], "../a=x is not VOLUME=TARGET"),
        (["d", "a/b=x"], "a/b=x is not VOLUME=TARGET"),
        (["d", "a=x", "a=y"], "the volume a has two targets"),
        (["/d", "a=x"], "/d: not a relative path of letters, digits and _ . @ + -"),
        (["../d", "a=x"], "../d: not a relative path of letters, digits and _ . @ + -"),
        (["d"], "no route given"),
        (["--raw", "d", "a=x"], "--raw does not go with the other arguments"),
        (["--list", "d", "a=x"], "--list does not go with the other arguments"),
        (["--pool-reserve", "x", "d", "a=x"], "--pool-reserve: must be a percentage from 0 to 99.999"),
    ],
)
def test_wrong_usage(words: list[str], message: str, to: Path) -> None:
    done = bash(f"cd {to} && qb-tarextract --volumes {' '.join(words)} </dev/null")
    refused(done, 2, message)
    assert os.listdir(to) == []


def test_options_that_need_volumes() -> None:
    for option in ("--create", "--overwrite", "--shrink", "--print-size", "--pool-reserve=5"):
        assert run("qb-tarextract", option, "name").returncode == 2
