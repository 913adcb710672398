"""qb-volwrite: a target is complete or missing, whatever happens during the write."""

from __future__ import annotations

import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from devices import file_system, loop, make_sparse, mounted, peak_memory, tmpfs, volume_stream
from support import BIN, bash, environment, run

MIB = 1 << 20
DATA = random.Random(2).randbytes(3 * MIB)
PIECES = (MIB, DATA[:4096]), (5 * MIB, DATA)
SIZE = 20 * MIB
STREAM = volume_stream(SIZE, *PIECES)
VOLUME = bytes(MIB) + DATA[:4096] + bytes(4 * MIB - 4096) + DATA + bytes(12 * MIB)


def failed(done: subprocess.CompletedProcess[bytes], status: int, *messages: str) -> None:
    """It ended with status and one line of error (and perhaps a hint)."""
    assert done.returncode == status, done.stderr
    assert done.stdout == b""
    lines = done.stderr.decode().splitlines()
    assert lines[0].startswith("qb-volwrite: error: ") and all(message in lines[0] for message in messages), lines
    assert len(lines) == 1 or (len(lines) == 2 and lines[1].startswith("hint: ")), lines


def allocated(path: Path) -> int:
    return path.stat().st_blocks * 512


# --- files ---


@pytest.mark.parametrize("options", [[], ["--verify"], ["--overwrite"], ["--overwrite", "--verify"]])
def test_a_volume_arrives(tmp_path: Path, options: list[str]) -> None:
    done = run("qb-volwrite", *options, tmp_path / "v", data=STREAM)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "v").read_bytes() == VOLUME
    assert os.listdir(tmp_path) == ["v"]
    assert allocated(tmp_path / "v") <= len(DATA) + 64 * 1024
    assert stat.S_IMODE((tmp_path / "v").stat().st_mode) == 0o600


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 4097, MIB, MIB + 1])
def test_sizes_there_and_back(tmp_path: Path, size: int) -> None:
    (tmp_path / "v").write_bytes(DATA[:size])
    done = bash(f"cd '{tmp_path}' && qb-volread v | qb-volwrite --verify w && cmp v w && qb-volwrite --raw x < v")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "w").read_bytes() == (tmp_path / "x").read_bytes() == DATA[:size]


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "tmpfs"])
def test_file_systems(tmp_path: Path, kind: str) -> None:
    place_of = tmpfs(tmp_path / kind, 64 * MIB) if kind == "tmpfs" else file_system(tmp_path, kind, 512 * MIB)
    with place_of as place:
        done = run("qb-volwrite", "--verify", place / "v", data=volume_stream(1 << 40, (1 << 39, DATA)))
        assert (done.returncode, done.stderr) == (0, b"")
        assert (place / "v").stat().st_size == 1 << 40
        assert allocated(place / "v") <= len(DATA) + MIB
        with (place / "v").open("rb") as file:
            file.seek(1 << 39)
            assert file.read(len(DATA)) == DATA
        assert "v" in os.listdir(place) and not any(name.startswith(".qb") for name in os.listdir(place))


def test_zeros_in_the_data_become_holes(tmp_path: Path) -> None:
    volume = DATA[:8192] + bytes(MIB) + DATA[:100] + bytes(2 * MIB) + DATA[:4096]
    for options, stream in ([], volume_stream(len(volume), (0, volume))), (["--raw"], volume):
        path = tmp_path / f"v{len(options)}"
        assert run("qb-volwrite", "--verify", *options, path, data=stream).returncode == 0
        assert path.read_bytes() == volume
        assert allocated(path) <= 8192 + 2 * 4096 + 3 * 4096


def test_raw_accepts_any_input(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(VOLUME)
    done = bash(f"cd '{tmp_path}' && qb-volwrite --raw a < in && cat in | qb-volwrite --raw b && qb-volwrite --raw c")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == VOLUME
    assert (tmp_path / "c").read_bytes() == b""


def test_overwriting(tmp_path: Path) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"old")
    path.chmod(0o644)
    failed(run("qb-volwrite", path, data=STREAM), 5, f"{path} already exists")
    assert path.read_bytes() == b"old"
    assert run("qb-volwrite", "--overwrite", path, data=STREAM).returncode == 0
    assert path.read_bytes() == VOLUME
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == ["v"]


def test_a_file_made_sparse_in_place(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(VOLUME)
    done = bash(f"cd '{tmp_path}' && qb-volread v | qb-volwrite --overwrite v")
    assert (done.returncode, (tmp_path / "v").read_bytes()) == (0, VOLUME)
    assert allocated(tmp_path / "v") < 4 * MIB


def test_verbose_and_progress(tmp_path: Path) -> None:
    done = run("qb-volwrite", "-v", "--verify", tmp_path / "v", data=STREAM)
    path = tmp_path / "v"
    assert done.stderr.decode().splitlines() == [
        f"qb-volwrite: {path}: {SIZE} bytes, {len(DATA) + 4096} of them data; flushing",
        f"qb-volwrite: {path}: reading back",
    ]
    done = run("qb-volwrite", "--progress", tmp_path / "w", data=STREAM)
    assert done.returncode == 0
    assert b"100%" in done.stderr or b"3.0 MiB of 3.0 MiB" in done.stderr


# --- what can be no target ---


def test_impossible_targets(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    failed(run("qb-volwrite", "--overwrite", tmp_path / "fifo", data=STREAM), 2, "is a pipe")
    failed(run("qb-volwrite", "--overwrite", tmp_path, data=STREAM), 2, "is a directory")
    failed(run("qb-volwrite", f"{tmp_path}/new/", data=STREAM), 2, "is a directory")
    failed(run("qb-volwrite", "--overwrite", "/dev/null", data=STREAM), 2, "is a character device")
    failed(run("qb-volwrite", "-", data=STREAM), 2, "not a stream")
    failed(run("qb-volwrite", "", data=STREAM), 2, "no name")
    failed(run("qb-volwrite", tmp_path / "no" / "v", data=STREAM), 1, "cannot create", "No such file or directory")
    failed(run("qb-volwrite", tmp_path / ("n" * 300), data=STREAM), 1, "cannot create", "File name too long")
    failed(run("qb-volwrite", "--overwrite", "/proc/v", data=STREAM), 1, "cannot rename files beside /proc/v: ")
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_read_only_file_system(tmp_path: Path) -> None:
    with mounted(tmp_path / "ro", "none", "tmpfs", "-o", "ro") as place:
        failed(run("qb-volwrite", place / "v", data=STREAM), 1, "cannot create", "Read-only file system")


# --- an incomplete stream ---


@pytest.mark.parametrize(
    ("made", "message"),  # made when it is needed: what is collected stays in the memory of each worker
    [
        (lambda: b"", "standard input is empty"),
        (lambda: STREAM[: MIB // 2], "standard input ends too early"),
        (lambda: STREAM[:-12], "without its end line"),
        (lambda: STREAM[:-1], "without its end line"),
        (lambda: STREAM + b"\n", "bytes follow the end line"),
        (lambda: volume_stream(SIZE, *PIECES, end=1), "no end line where the data ends"),
        (lambda: VOLUME, "is not a volume stream"),
        (lambda: b"qb-volume 3\n" + STREAM[12:], "is not a volume stream"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--overwrite", "--verify"]])
def test_an_incomplete_stream(tmp_path: Path, made: Callable[[], bytes], message: str, options: list[str]) -> None:
    stream = made()
    failed(run("qb-volwrite", *options, tmp_path / "v", data=stream), 4, message)
    assert os.listdir(tmp_path) == []
    (tmp_path / "v").write_bytes(b"old")
    failed(run("qb-volwrite", "--overwrite", tmp_path / "v", data=stream), 4, message)
    assert (tmp_path / "v").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["v"]


def begin(*words: str | Path) -> subprocess.Popen[bytes]:
    """Starts the program; it has read a part of the stream and waits for more."""
    writing = subprocess.Popen(
        ["qb-volwrite", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(),
    )
    assert writing.stdin is not None
    view = memoryview(STREAM)[: len(STREAM) - 1000]  # longer than a pipe and one read hold
    while view:
        view = view[writing.stdin.write(view) :]
    return writing


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("old", [None, b"old"])
def test_killed_in_the_middle(tmp_path: Path, number: signal.Signals, old: bytes | None) -> None:
    path = tmp_path / "v"
    if old is not None:
        path.write_bytes(old)
    with begin("--overwrite", path) as writing:
        writing.send_signal(number)
        _out, message = writing.communicate()
    assert (writing.returncode, message) == (-number, b"")
    assert os.listdir(tmp_path) == ([] if old is None else ["v"])
    assert old is None or path.read_bytes() == old


def test_a_name_that_appears_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "v"
    with begin(path) as writing:
        assert os.listdir(tmp_path) == [], "nothing is to be seen of it"
        path.write_bytes(b"somebody else's")
        _out, message = writing.communicate(STREAM[-1000:])
    assert writing.returncode == 5
    assert message.decode().startswith(f"qb-volwrite: error: {path} was created meanwhile\n")
    assert path.read_bytes() == b"somebody else's"
    assert os.listdir(tmp_path) == ["v"]


def test_sigusr1_shows_how_far_it_is(tmp_path: Path) -> None:
    with begin(tmp_path / "v") as writing:
        assert writing.stderr is not None
        writing.send_signal(signal.SIGUSR1)
        assert b"\n" in writing.stderr.readline()
        writing.communicate(STREAM[-1000:])
    assert writing.returncode == 0
    assert (tmp_path / "v").read_bytes() == VOLUME


def test_the_program_before_it_dies(tmp_path: Path) -> None:
    done = bash(f"{{ head -c 2000000; kill -KILL $BASHPID; }} | qb-volwrite '{tmp_path}/v'", data=STREAM)
    assert done.returncode == 4
    assert os.listdir(tmp_path) == []


# --- no room ---


@pytest.mark.parametrize("old", [None, b"old"])
def test_a_full_file_system(tmp_path: Path, old: bytes | None) -> None:
    with tmpfs(tmp_path / "small", 2 * MIB) as place:
        if old is not None:
            (place / "v").write_bytes(old)
        done = run("qb-volwrite", "--overwrite", place / "v", data=STREAM)
        failed(done, 1, f"cannot write to {place}/v: No space left on device")
        assert os.listdir(place) == ([] if old is None else ["v"])
        assert old is None or (place / "v").read_bytes() == old


def test_a_size_that_the_file_system_cannot_hold(tmp_path: Path) -> None:
    done = run("qb-volwrite", tmp_path / "v", data=volume_stream((1 << 63) - 1))
    failed(done, 1, "cannot extend", "File too large")
    assert os.listdir(tmp_path) == []


def test_a_file_size_limit(tmp_path: Path) -> None:
    done = bash(f"ulimit -f 1024; qb-volwrite --raw '{tmp_path}/v'", data=VOLUME)
    failed(done, 1, "File too large")
    assert os.listdir(tmp_path) == []


# --- block devices ---


def test_a_device_contains_the_volume_and_zeros_after_any_old_content(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"\xaa" * (32 * MIB))
    with loop(disk) as device:
        done = run("qb-volwrite", "--overwrite", "--verify", device, data=STREAM)
        assert (done.returncode, done.stderr) == (0, b"")
        assert run("qb-volread", "--raw", device).stdout == VOLUME + bytes(12 * MIB)
        os.sync()
        assert allocated(disk) <= len(DATA) + 256 * 1024, "what is zero was punched"


@pytest.mark.parametrize("size", [0, 1, 513, 4097])
@pytest.mark.parametrize("sector", ["512", "4096"])
def test_small_volumes_on_a_device(tmp_path: Path, size: int, sector: str) -> None:
    (tmp_path / "disk").write_bytes(b"\xaa" * MIB)
    (tmp_path / "v").write_bytes(DATA[:size])
    with loop(tmp_path / "disk", "--sector-size", sector) as device:
        done = bash(f"qb-volread '{tmp_path}/v' | qb-volwrite --overwrite --verify {device}")
        assert (done.returncode, done.stderr) == (0, b"")
        assert run("qb-volread", "--raw", device).stdout == DATA[:size] + bytes(MIB - size)


def test_a_device_of_exactly_the_size_and_one_too_small(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"\xaa" * SIZE)
    with loop(tmp_path / "disk") as device:
        assert run("qb-volwrite", "--overwrite", device, data=STREAM).returncode == 0
        assert run("qb-volread", "--raw", device).stdout == VOLUME
        larger = volume_stream(SIZE + 512, (0, DATA))
        failed(run("qb-volwrite", "--overwrite", device, data=larger), 5, f"{device} is too small")
        (tmp_path / "larger").write_bytes(DATA * 7)
        done = bash(f"qb-volwrite --raw --overwrite {device} < '{tmp_path}/larger'")
        failed(done, 5, f"{device} is too small: it has {SIZE} bytes, the volume {len(DATA) * 7}")
        assert run("qb-volread", "--raw", device).stdout == VOLUME, "it was not touched"
        failed(run("qb-volwrite", "--raw", "--overwrite", device, data=DATA * 7), 5, "is too small")


def test_a_device_is_not_touched_without_overwrite_nor_in_use(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(b"\xaa" * SIZE)
    with loop(tmp_path / "disk") as device:
        failed(run("qb-volwrite", device, data=STREAM), 5, f"{device} already exists")
        with device.open("rb"):
            failed(run("qb-volwrite", "--overwrite", device, data=STREAM), 5, f"process {os.getpid()} ")
        done = bash(f"qb-volwrite --raw --overwrite {device} < {device}")
        failed(done, 5, "(qb-volwrite) has it open" if b"qb-volwrite)" in done.stderr else "has it open")
        with loop(device):
            failed(run("qb-volwrite", "--overwrite", device, data=STREAM), 5, "is built on it")
        assert run("qb-volread", "--raw", device).stdout == b"\xaa" * SIZE


def test_a_device_whose_backing_store_is_full(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "small", 2 * MIB) as place:
        with loop(make_sparse(place / "disk", 32 * MIB)) as device:
            failed(run("qb-volwrite", "--overwrite", device, data=STREAM), 1, f"cannot write to {device}: ")


def test_an_incomplete_stream_on_a_device(tmp_path: Path) -> None:
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with loop(tmp_path / "disk") as device:
        done = run("qb-volwrite", "--overwrite", device, data=STREAM[: 2 * MIB])
        failed(done, 4, "standard input ends too early")


# --- what was read back is not what was written ---


@pytest.mark.parametrize("where", ["file", "device"])
def test_a_disk_that_loses_written_data(tmp_path: Path, where: str) -> None:
    program = """
import os, sys
from qbtools.commands import cli
from qbtools.commands.pipe import qb_volwrite
real = os.pwrite
os.pwrite = lambda fd, data, at: real(fd, bytes(data[:-1]) + b"\\0" if at == 5 << 20 else data, at)
cli.run("qb-volwrite", qb_volwrite.DOC, qb_volwrite.main, sys.argv[1:])
"""
    python = [sys.executable, "-c", program, "--overwrite"]
    (tmp_path / "disk").write_bytes(bytes(SIZE))
    with loop(tmp_path / "disk") as device:
        target = device if where == "device" else tmp_path / "v"
        done = run(*python, "--verify", target, data=STREAM, PYTHONPATH=str(BIN.parent))
        failed(done, 1, f"{target} differs from the data that was written to it")
        assert os.listdir(tmp_path) == ["disk"]
        assert run(*python, target, data=STREAM, PYTHONPATH=str(BIN.parent)).returncode == 0, (
            "it is verify that sees it"
        )


# --- memory ---


def test_memory_with_the_largest_map(tmp_path: Path) -> None:
    head = f"qb-volume 1\nsize {1 << 40}\nextents {1 << 20}\n".encode()
    lines = b"".join(b"%d 512\n" % (number << 20) for number in range(1 << 20))
    with subprocess.Popen(
        ["qb-volwrite", "--verify", tmp_path / "v"],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env=environment(),
    ) as writing:
        assert writing.stdin is not None
        view = memoryview(head + lines + b"\n" + os.urandom(4 * MIB))
        while view:
            view = view[writing.stdin.write(view) :]
        assert peak_memory(writing.pid) < 60 * MIB
        _out, message = writing.communicate()
    assert (writing.returncode, b"ends too early" in message) == (4, True)
    assert os.listdir(tmp_path) == []
