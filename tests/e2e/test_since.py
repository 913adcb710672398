"""qb-volread --since: it gives the same increment as reading everything, whatever was written or moved on the disk."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from devices import file_system
from increments import digest
from support import bash, need, run

from qbtools.formats import manifest
from qbtools.formats.manifest import FileRecord

MIB = 1 << 20
NAME = "vm1/private.img"
SIZE = 12 * MIB + 1234


class Volume:
    """A file that changes, with a snapshot and an index of its last state."""

    def __init__(self, place: Path, name: str = "v.img") -> None:
        self.place = place
        self.path = place / name
        self.number = 0
        self.compressed = False
        self.maker = random.Random(place.name)
        self.path.touch()
        os.truncate(self.path, SIZE)
        for _ in range(12):
            self.write(self.maker.randrange(SIZE - MIB), self.data(self.maker.randrange(500_000)))
        self.kept = self.snapshot()
        self.index(run("qb-volread", self.kept).stdout, None)

    def data(self, size: int) -> bytes:
        """Bytes that can be compressed."""
        return (self.maker.randbytes(1000) * (size // 1000 + 1))[:size]

    def write(self, at: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

    def snapshot(self) -> str:
        done = run("qb-snapshot", "take", self.path)
        assert (done.returncode, done.stderr) == (0, b""), done
        return done.stdout.decode().strip()

    def index(self, stream: bytes, base: int | None) -> tuple[bytes, bytes]:
        """Gives a stream to qb-delta. Returns what it makes of that, and the new index."""
        number = self.number if base is None else base + 1
        index, words = self.place / f"{number}.index", f"--id id-{number} --name {NAME} --overwrite"
        given = "" if base is None else f"--base {base}.index"
        done = bash(f"cd {self.place} && qb-delta {given} --index {index} {words}", data=stream)
        assert (done.returncode, done.stderr) == (0, b""), done
        made = index.read_bytes()
        record = manifest.to_line(f"id-{number}", FileRecord(NAME, 1, 4000, digest(f"id-{number}")))
        (self.place / "records").write_text(record)
        assert run("qb-delta", "--confirm", index, self.place / "records").returncode == 0
        return done.stdout, made

    def since(self, spec: str, *words: str) -> tuple[bytes, str]:
        """What qb-volread writes of a snapshot, and its notes."""
        index = self.place / f"{self.number}.index"
        done = run("qb-volread", "-v", "--since", self.kept, "--base", index, *words, spec)
        assert done.returncode == 0, done
        return done.stdout, done.stderr.decode()

    def next(self) -> str:
        """Saves the next state both ways, and compares them. Returns the notes of qb-volread."""
        spec = self.snapshot()
        stream, notes = self.since(spec)
        whole = self.index(run("qb-volread", spec).stdout, self.number)
        assert self.index(stream, self.number) == whole
        assert run("qb-snapshot", "release", self.kept).returncode == 0
        self.kept = spec
        self.number += 1
        return notes


@pytest.fixture(params=["btrfs", "btrfs zstd", "xfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    kind, _, compression = request.param.partition(" ")
    with file_system(tmp_path, kind, 512 * MIB) as place:
        if compression:
            need("btrfs")
            subprocess.run(["btrfs", "property", "set", place, "compression", compression], check=True)
        volume = Volume(place)
        volume.compressed = bool(compression)
        yield volume


def change(volume: Volume) -> None:
    """One change of a random kind."""
    maker, size = volume.maker, volume.path.stat().st_size
    at, length = maker.randrange(size), maker.randrange(1, 300_000)
    how = maker.choice(["write", "write", "same", "punch", "zero", "allocate", "move", "clone", "grow"])
    if how == "write":
        volume.write(at, volume.data(length))
    elif how == "same":
        volume.write(at, volume.path.read_bytes()[at : at + length])
    elif how == "grow":
        os.truncate(volume.path, size + length)
    elif how in ("move", "clone"):
        start, to = (maker.randrange(size - MIB) // 4096 * 4096 for _ in range(2))
        words = ["conv=notrunc", "bs=4096", f"skip={start // 4096}", f"seek={to // 4096}", "count=20", "status=none"]
        if how == "move":
            subprocess.run(["dd", f"if={volume.path}", f"of={volume.path}", *words], check=True)
        else:  # within one file: a block is then at a place where another one was
            need("xfs_io")
            words = ["-c", f"reflink {volume.path} {start} {to} 4096"]
            subprocess.run(["xfs_io", *words, volume.path], check=True, capture_output=True)
    else:
        flags = {"punch": ["--punch-hole"], "zero": ["--zero-range"], "allocate": ["--keep-size"]}[how]
        subprocess.run(["fallocate", *flags, f"-o{at}", f"-l{length}", volume.path], check=True)


def test_random_changes(volume: Volume) -> None:
    for _ in range(4):
        for _ in range(volume.maker.randrange(9)):
            change(volume)
        assert "bytes may have changed since id-" in volume.next()


def test_only_what_changed_is_read(volume: Volume) -> None:
    """Data that is compressed is read: its place on the disk does not tell which part of it a file has."""
    volume.write(5 * MIB, volume.data(65536))
    spec = volume.snapshot()
    stream, notes = volume.since(spec)
    assert "65536 bytes may have changed since id-0, only these are read" in notes or volume.compressed
    assert len(stream) < 70_000 or volume.compressed
    assert stream.startswith(b"qb-volume 2\n")


@pytest.mark.parametrize("volume", ["btrfs"], indirect=True)
def test_a_shrunk_volume_is_read_whole(volume: Volume) -> None:
    os.truncate(volume.path, SIZE - 5000)
    assert "everything is read: it has shrunk\n" in volume.next()
    os.truncate(volume.path, SIZE)
    assert "bytes may have changed" in volume.next()


def test_what_balance_and_defragmentation_move(tmp_path: Path) -> None:
    need("btrfs")
    with file_system(tmp_path, "btrfs", 1024 * MIB) as place:
        volume = Volume(place)
        for words in (["balance", "start", "--full-balance", place], ["filesystem", "defragment", "-f", volume.path]):
            volume.write(9 * MIB, b"before")
            subprocess.run(["btrfs", *words], check=True, capture_output=True)
            volume.write(3 * MIB, b"after")
            assert "bytes may have changed" in volume.next()


def test_reading_while_data_moves(tmp_path: Path) -> None:
    """A balance that runs all the time: either way the bytes are the same."""
    need("btrfs")
    with file_system(tmp_path, "btrfs", 1024 * MIB) as place:
        volume = Volume(place)
        loop = f"while :; do btrfs balance start --full-balance {place} >/dev/null; done"
        with subprocess.Popen(["bash", "-c", loop], stderr=subprocess.DEVNULL) as balance:
            try:
                for number in range(4):
                    volume.write(number * MIB, b"day")
                    volume.next()
            finally:
                balance.kill()
                balance.wait()
                subprocess.run(["btrfs", "balance", "cancel", place], check=False, capture_output=True)


@pytest.mark.parametrize("volume", ["xfs"], indirect=True)
def test_a_snapshot_that_does_not_count(volume: Volume) -> None:
    """Everything is read then, and the reason is said with -v only."""
    path = Path(volume.kept.removeprefix("file:"))
    whole = run("qb-volread", volume.path).stdout

    def reason(since: str | Path = volume.kept, index: str = "0.index", *words: str) -> str:
        given = ["--since", str(since), "--base", str(volume.place / index), *words, volume.path]
        done = run("qb-volread", "-v", *given)
        assert (done.returncode, done.stdout) == (0, whole)
        assert run("qb-volread", *given).stderr == b""
        return next(line for line in done.stderr.decode().splitlines() if "everything is read" in line)

    assert reason(f"{volume.kept}1").endswith("has no mark of qbtools")
    assert reason(volume.path).endswith("has no mark of qbtools")
    assert reason(volume.kept.replace("a", "b").replace("0", "1")).endswith("No such file or directory")
    assert reason("lvm:vg/kept").endswith("lvm:vg/kept is a snapshot of another kind of volume")
    assert "0.index2: No such file or directory" in reason(volume.kept, "0.index2")
    assert reason(volume.kept, "v.img").endswith("v.img is not an index of blocks")
    path.chmod(0o640)
    assert reason().endswith("can be changed by others")
    path.chmod(0o600)
    os.link(path, volume.place / "other")
    assert reason().endswith("can be changed by others")
    os.unlink(volume.place / "other")
    os.truncate(path, SIZE - 1)
    assert reason().endswith(f"has {SIZE - 1} bytes, not {SIZE}")
    os.unlink(path)
    assert reason().endswith("No such file or directory")


@pytest.mark.parametrize("volume", ["btrfs"], indirect=True)
def test_another_file_system(tmp_path: Path, volume: Volume) -> None:
    (tmp_path / "second").mkdir()
    with file_system(tmp_path / "second", "xfs", 512 * MIB) as place:
        other = Volume(place)
        index = volume.place / "0.index"
        done = run("qb-volread", "-v", "--since", volume.kept, "--base", index, other.path)
        assert "everything is read: the snapshot is not on the same btrfs or xfs file system" in done.stderr.decode()
        assert done.stdout == run("qb-volread", other.path).stdout


def test_a_file_without_snapshot(tmp_path: Path) -> None:
    (tmp_path / "v.img").write_bytes(b"A" * 100_000)
    done = run("qb-volread", "-v", "--since", "file:kept", "--base", "index", tmp_path / "v.img")
    assert (done.returncode, done.stdout) == (0, run("qb-volread", tmp_path / "v.img").stdout)
    assert "everything is read: cannot read index" in done.stderr.decode()


@pytest.mark.parametrize("words", [["--since", "x"], ["--base", "x"], ["--since", "x", "--base", "x", "--raw"]])
def test_options_that_do_not_go_together(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "v.img").write_bytes(b"A")
    done = run("qb-volread", *words, tmp_path / "v.img")
    assert (done.returncode, done.stdout) == (2, b""), done
