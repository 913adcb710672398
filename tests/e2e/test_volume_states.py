"""qb-volread of volumes that others write to: one point in time, or an error; never an inconsistent image."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from counters import advance, counter, counting
from devices import file_system, loop, make_sparse, mounted, volume_stream
from support import BIN, bash, environment, need, need_root, run

from qbtools.volumes import kernel
from qbtools.volumes.files import clone

MIB = 1 << 20
SIZE = 96 * MIB
FIRST, SECOND = 8, 30 * MIB
HINT = "hint: --state=current reads it anyway, but the copy may be inconsistent\n"


def failed(done: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    """It ended with status and a line of error, and nothing on stdout."""
    assert done.returncode == status, done.stderr
    assert done.stdout == b""
    assert message in done.stderr.decode().splitlines()[0], done.stderr


@contextmanager
def held(*words: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    """qb-volread in the middle of a volume: its pipe is full, and its reader has stopped."""
    with subprocess.Popen(
        ["qb-volread", *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as reading:
        assert reading.stdout is not None
        reading.began = os.read(reading.stdout.fileno(), 100)  # type: ignore[attr-defined]
        try:
            yield reading
        finally:
            reading.kill()


def rest(reading: subprocess.Popen[bytes]) -> tuple[int, bytes, str]:
    """The status, the complete stdout, and stderr."""
    stdout, stderr = reading.communicate(timeout=60)
    return reading.returncode, reading.began + stdout, stderr.decode()  # type: ignore[attr-defined]


def image(path: Path) -> Path:
    """A volume with data around both counters, and a hole behind them."""
    return make_sparse(path, SIZE, (0, b"x" * (32 * MIB)))


def counts(stream: bytes) -> tuple[int, int]:
    """The counters in a volume stream of such an image."""
    data = stream.partition(b"\n\n")[2]
    return tuple(int.from_bytes(data[at : at + 8], "big") for at in (FIRST, SECOND))  # type: ignore[return-value]


# --- one point in time ---


@pytest.fixture(params=["btrfs", "btrfs, file +C", "btrfs, directory +C", "btrfs, compressed", "xfs"])
def reflinking(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An image on a file system that can clone it, with each mixture of attributes that btrfs is picky about."""
    kind, _, how = request.param.partition(", ")
    with file_system(tmp_path, kind, 512 * MIB) as place:
        path = place / "v"
        if how.startswith("file"):
            path.touch()
            need("chattr")
            subprocess.run(["chattr", "+C", path], check=True)
        elif how == "compressed":
            path.touch()
            subprocess.run(["chattr", "+C", path], check=True)
            subprocess.run(["chattr", "+c", place], check=True)
        image(path)
        if how.startswith("directory"):
            subprocess.run(["chattr", "+C", place], check=True)
        yield path


def test_a_file_that_is_written_to_is_read_as_it_was_at_one_moment(reflinking: Path) -> None:
    before = os.listdir(reflinking.parent)
    with counting(FIRST, SECOND, reflinking):
        with held("-v", reflinking) as reading:
            advance(reflinking, SECOND)
            assert os.listdir(reflinking.parent) == before, "the snapshot has no name"
            status, stream, stderr = rest(reading)
    assert (status, stream.count(b"end 33554432\n")) == (0, 1)
    assert f"qb-volread: {reflinking}: reading a snapshot\n" in stderr
    first, second = counts(stream)
    assert second > 0 and first - second in (0, 1)
    assert stream.startswith(b"qb-volume 1\nsize %d\nextents 1\n0 33554432\n" % SIZE), "the hole is a hole"


def test_this_writer_does_tear_what_is_read_plainly(reflinking: Path) -> None:
    with counting(FIRST, SECOND, reflinking):
        with held("--state=current", reflinking) as reading:
            advance(reflinking, SECOND)
            status, stream, _ = rest(reading)
    first, second = counts(stream)
    assert status == 0 and second > first


def test_a_killed_reading_leaves_nothing(reflinking: Path) -> None:
    before = os.listdir(reflinking.parent)
    with held(reflinking) as reading:
        reading.kill()
        reading.wait()
        assert os.listdir(reflinking.parent) == before


def test_holes_survive_the_way_to_another_file_system(tmp_path: Path) -> None:
    with file_system(tmp_path, "btrfs", 512 * MIB) as place:
        image(place / "v")
        done = bash(f"qb-volread '{place}/v' | qb-volwrite --verify '{tmp_path}/w' && cmp '{place}/v' '{tmp_path}/w'")
        assert (done.returncode, done.stderr) == (0, b"")
        assert (tmp_path / "w").stat().st_blocks * 512 <= 33 * MIB


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 70000])
def test_small_files_have_snapshots_too(tmp_path: Path, size: int) -> None:
    for kind in "btrfs", "xfs":
        with file_system(tmp_path, kind, 512 * MIB) as place:
            (place / "v").write_bytes(b"x" * size)
            done = run("qb-volread", "--raw", "--state=snapshot", place / "v")
            assert (done.returncode, done.stdout, done.stderr) == (0, b"x" * size, b"")


@pytest.mark.parametrize("kind", ["btrfs", "xfs"])
def test_a_file_that_becomes_shorter_right_before_it_is_cloned(tmp_path: Path, kind: str) -> None:
    with file_system(tmp_path, kind, 512 * MIB) as place:
        path = image(place / "v")
        with path.open("r+b") as file:
            copy = clone.prepare(file.fileno(), str(path))
            try:
                file.truncate(100)
                kernel.clone(copy, file.fileno())
                assert os.fstat(copy).st_size == 100
            finally:
                os.close(copy)


# --- files that have no snapshots ---


def test_a_file_that_is_open_for_writing_is_refused(tmp_path: Path) -> None:
    path = image(tmp_path / "v")
    with path.open("r+b"):
        done = run("qb-volread", path)
        failed(done, 5, f"{path} is in use: process {os.getpid()} (")
        assert done.stderr.decode().endswith(f") has it open for writing\n{HINT}")
        assert run("qb-volread", "--size", path).stdout == b"%d\t33554432\n" % SIZE, "sizes are no secret"
        assert run("qb-volread", "--state=current", path).returncode == 0
    with path.open("rb"):
        assert run("qb-volread", path).returncode == 0
    with loop(path) as device:
        failed(run("qb-volread", path), 5, f"{path} is in use: {device.name} is built on it")


def test_a_file_that_is_opened_for_writing_meanwhile(tmp_path: Path) -> None:
    path = image(tmp_path / "v")
    for options in [], ["--raw"]:
        with held(*options, path) as reading:
            with path.open("r+b"):  # comes back, though the reader's pipe is full
                status, stream, stderr = rest(reading)
        assert (status, stderr) == (
            1,
            f"qb-volread: error: {path} changed while it was read: it was opened for writing\n",
        )
        assert b"end" not in stream


def test_other_readers_are_allowed(tmp_path: Path) -> None:
    path = image(tmp_path / "v")
    with held(path) as reading:
        assert run("qb-volread", path).returncode == 0
        assert rest(reading)[0] == 0


def stranger(*words: str | Path) -> list[str]:
    """The command line that runs one of our programs as a user who may only read."""
    need("setpriv")
    way = "setpriv --bounding-set -all --inh-caps -all --reuid 65534 --regid 65534 --clear-groups"
    return [*way.split(), sys.executable, *map(str, words)]


def test_without_a_lease_writers_are_searched_for_with_a_warning(tmp_path: Path) -> None:
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o055)  # more than before, never less: one of them is /tmp
    path = image(tmp_path / "v")
    path.chmod(0o644)
    need_root()
    done = run(*stranger(BIN / "qb-volread", path))
    assert done.returncode == 0 and done.stdout.endswith(b"end 33554432\n")
    assert done.stderr.decode() == (
        f"qb-volread: warning: {path} cannot be locked (Permission denied): "
        "a program that writes to it may not be detected\n"
    )
    with subprocess.Popen(
        stranger(BIN / "qb-volread", "-q", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    ) as reading:
        assert reading.stdout is not None
        reading.began = os.read(reading.stdout.fileno(), 100)  # type: ignore[attr-defined]
        with path.open("r+b") as file:
            file.write(b"y")
        status, stream, stderr = rest(reading)
    assert status == 1 and b"end" not in stream
    assert f"{path} changed while it was read: a program wrote to it" in stderr


def test_states_that_a_file_does_not_have(tmp_path: Path) -> None:
    path = image(tmp_path / "v")
    failed(run("qb-volread", "--state=before-start", path), 2, "it has no state from before the start of a machine")
    failed(run("qb-volread", "--state=snapshot", path), 5, "no snapshot can be taken here: Operation not supported")
    failed(run("qb-volread", "--state=yesterday", path), 2, "--state: must be one of snapshot, current, before-start")
    for room in "0%", "101%", "x", "10 %", "-1":
        failed(run("qb-volread", f"--cow={room}", path), 2, "--cow: ")


# --- devices ---


def test_a_device_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * (8 * MIB))
    with loop(tmp_path / "disk") as device:
        with device.open("r+b"):
            done = run("qb-volread", device)
            failed(done, 5, f"{device} is in use: process {os.getpid()} (")
            assert done.stderr.decode().endswith(f") has it open for writing\n{HINT}")
            assert run("qb-volread", "--size", device).returncode == 0
            assert run("qb-volread", "--state=current", device).returncode == 0
        with device.open("rb"):
            assert run("qb-volread", device).returncode == 0
        with loop(device) as upper:
            failed(run("qb-volread", device), 5, f"{device} is in use: {upper.name} is built on it")
        with loop(device, "--read-only"):
            assert run("qb-volread", device).returncode == 0


def test_a_mounted_device_is_refused_and_one_that_is_read_cannot_be_mounted(tmp_path: Path) -> None:
    need("mkfs.ext4", "mount")
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(32 * MIB)
    with loop(tmp_path / "disk") as device:
        subprocess.run(["mkfs.ext4", "-q", device], check=True)
        with mounted(tmp_path / "place", device, "ext4", "-o", "ro") as place:
            done = run("qb-volread", device)
            failed(done, 5, f"{device} is in use: it is mounted on {place}")
            assert done.stderr.decode().endswith(HINT)
            assert run("qb-volread", "--raw", "--state=current", device).stdout == device.read_bytes()
        with held(device) as reading:
            (tmp_path / "place").mkdir()
            mount = ["mount", "-t", "ext4", device, tmp_path / "place"]
            assert subprocess.run(mount, capture_output=True, check=False).returncode != 0
            assert rest(reading)[0] == 0


@pytest.mark.parametrize("still_open", [True, False])
def test_a_device_that_is_written_to_meanwhile(tmp_path: Path, still_open: bool) -> None:
    (tmp_path / "disk").write_bytes(b"x" * (32 * MIB))
    with loop(tmp_path / "disk") as device:
        with held(device) as reading:
            fd = os.open(device, os.O_RDWR)
            os.pwrite(fd, b"y", 20 * MIB)
            os.fsync(fd)
            if not still_open:
                os.close(fd)
            status, stream, stderr = rest(reading)
            if still_open:
                os.close(fd)
        assert status == 1 and b"end" not in stream
        why = f"process {os.getpid()} (" if still_open else "a program wrote to it\n"
        assert f"qb-volread: error: {device} changed while it was read: {why}" in stderr
        assert run("qb-volread", device).returncode == 0, "what was written before does not count"


def test_what_was_written_before_and_is_still_in_memory_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"x" * (8 * MIB))
    with loop(tmp_path / "disk") as device, device.open("rb"):  # so that closing it does not write it out
        with device.open("r+b", buffering=0) as file:
            file.write(b"y" * MIB)
        done = run("qb-volread", "--raw", device)
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout == b"y" * MIB + b"x" * (7 * MIB)


def test_states_that_a_device_does_not_have(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(MIB))
    with loop(tmp_path / "disk") as device:
        failed(
            run("qb-volread", "--state=before-start", device), 2, "it has no state from before the start of a machine"
        )
        failed(run("qb-volread", "--state=snapshot", device), 5, "no snapshot can be taken")


def test_sectors_of_4096_bytes(tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    pieces = (4096, data[:512]), (MIB, data), (7 * MIB, data[:513])
    make_sparse(tmp_path / "v", 8 * MIB - 512, *pieces)
    (tmp_path / "disk").write_bytes(b"old" * (3 * MIB))
    with loop(tmp_path / "disk", "--sector-size", "4096") as device:
        done = bash(f"qb-volread '{tmp_path}/v' | qb-volwrite --overwrite --verify '{device}'")
        assert (done.returncode, done.stderr) == (0, b"")
        wanted = bytearray(9 * MIB)
        for offset, piece in pieces:
            wanted[offset : offset + len(piece)] = piece
        assert run("qb-volread", "--raw", device).stdout == wanted
        assert run("qb-volread", device).stdout == volume_stream(9 * MIB, (0, bytes(wanted)))


# --- words ---


def test_words_with_a_scheme(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(b"x" * 4096)
    (tmp_path / "a:b").write_bytes(b"y" * 512)
    (tmp_path / "file:v").write_bytes(b"z" * 512)
    assert bash(f"cd '{tmp_path}' && qb-volread --raw file:v").stdout == b"x" * 4096
    assert bash(f"cd '{tmp_path}' && qb-volread --raw a:b").stdout == b"y" * 512
    assert bash(f"cd '{tmp_path}' && qb-volread --raw ./file:v").stdout == b"z" * 512
    failed(run("qb-volread", f"block:{tmp_path}/v"), 2, "is not a block device")
    failed(run("qb-volread", f"file:{tmp_path}"), 2, "is not a regular file")
    failed(run("qb-volread", f"file:{tmp_path}/gone"), 1, "No such file or directory")
    failed(run("qb-volread", "file:"), 2, "has no name of a volume")
    done = run("qb-volread", "zvol:tank/v")
    failed(done, 2, "zvol:tank/v: unknown kind of volume: zvol")
    assert b"hint: the kinds are block:, file:" in done.stderr
    failed(run("qb-volread", "no/volume"), 2, "no/volume is neither an existing path nor another volume")


def test_counters_count(tmp_path: Path) -> None:
    path = image(tmp_path / "v")
    with counting(FIRST, SECOND, path):
        advance(path, FIRST)
    assert counter(path, FIRST) - counter(path, SECOND) in (0, 1)
