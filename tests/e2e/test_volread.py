"""qb-volread: real files and devices, and what happens if they fail while they are read."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from devices import file_system, loop, make_sparse, peak_memory, volume_stream
from support import BIN, bash, environment, need, run

MIB = 1 << 20
DATA = random.Random(1).randbytes(3 * MIB)


def start(*words: str | Path, program: str = "qb-volread") -> subprocess.Popen[bytes]:
    """Starts the program; nothing reads its stdout yet."""
    return subprocess.Popen(
        [program, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )


def failed(done: subprocess.CompletedProcess[bytes], status: int, message: str) -> None:
    """It ended with status, one line of error, and nothing on stdout."""
    assert done.returncode == status, done.stderr
    assert done.stdout == b""
    first = done.stderr.decode().splitlines()[0]
    assert message in first and first.startswith("qb-volread: error: "), done.stderr


# --- what comes out ---


def test_a_sparse_file(tmp_path: Path) -> None:
    pieces = (MIB, DATA[:4096]), (5 * MIB, DATA)
    path = make_sparse(tmp_path / "v", 20 * MIB, *pieces)
    done = run("qb-volread", path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == volume_stream(20 * MIB, *pieces)


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 65536, 3 * MIB])
def test_sizes(tmp_path: Path, size: int) -> None:
    (tmp_path / "v").write_bytes(DATA[:size])
    done = run("qb-volread", tmp_path / "v")
    assert done.returncode == 0
    assert done.stdout == volume_stream(size, *([(0, DATA[:size])] if size else []))
    assert run("qb-volread", "--raw", tmp_path / "v").stdout == DATA[:size]


def test_a_device_is_one_extent(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(DATA)
    with loop(tmp_path / "v") as device:
        done = run("qb-volread", device)
        assert (done.returncode, done.stdout) == (0, volume_stream(len(DATA), (0, DATA)))
        assert run("qb-volread", "--raw", device).stdout == DATA
        assert run("qb-volread", "--size", device).stdout == b"%d\t%d\n" % (len(DATA), len(DATA))


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_the_map_of_file_systems(tmp_path: Path, kind: str) -> None:
    pieces = (MIB, DATA[: 128 * 1024]), (5 * MIB, DATA)
    with file_system(tmp_path, kind, 512 * MIB) as place:
        path = make_sparse(place / "v", 1 << 40, *pieces)  # what is not on the disk yet must be in the map
        assert run("qb-volread", path).stdout == volume_stream(1 << 40, *pieces)


def test_a_tebibyte_of_holes(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "v", 1 << 40, (1 << 39, DATA), ((1 << 40) - 512, DATA[:512]))
    size, data = map(int, run("qb-volread", "--size", path).stdout.split())
    assert size == 1 << 40
    assert len(DATA) + 512 <= data <= len(DATA) + 2 * MIB
    assert len(run("qb-volread", path).stdout) < data + 200


def test_raw_holes_are_zeros(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "v", 9 * MIB + 7, (MIB, DATA))
    assert run("qb-volread", "--raw", path).stdout == bytes(MIB) + DATA + bytes(5 * MIB + 7)


@pytest.mark.parametrize("redirection", [">", ">>"])
@pytest.mark.parametrize("raw", ["", "--raw"])
def test_without_splice(tmp_path: Path, redirection: str, raw: str) -> None:
    make_sparse(tmp_path / "v", 20 * MIB, (MIB, DATA))
    expected = volume_stream(20 * MIB, (MIB, DATA)) if not raw else bytes(MIB) + DATA + bytes(16 * MIB)
    done = bash(f"cd '{tmp_path}' && qb-volread {raw} v {redirection} out")
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out").read_bytes() == expected


def test_a_symbolic_link_and_a_name_that_looks_like_stdin(tmp_path: Path) -> None:
    (tmp_path / "-").write_bytes(DATA)
    (tmp_path / "link").symlink_to(tmp_path / "-")
    assert run("qb-volread", "--raw", tmp_path / "link").stdout == DATA
    assert bash(f"cd '{tmp_path}' && qb-volread --raw ./-").stdout == DATA


def test_verbose_and_progress(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "v", 20 * MIB, (MIB, DATA))
    done = run("qb-volread", "-v", "--state=current", path)
    assert done.stderr.decode() == f"qb-volread: {path}: {20 * MIB} bytes, {len(DATA)} of them data in 1 extents\n"
    done = run("qb-volread", "--progress", path)
    assert done.stdout == volume_stream(20 * MIB, (MIB, DATA))
    assert b"100%" in done.stderr or b"3.0 MiB of 3.0 MiB" in done.stderr
    assert run("qb-volread", "-q", "--progress", path).stderr == b""


# --- not a volume ---


def test_what_is_no_volume(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    failed(run("qb-volread", tmp_path / "fifo"), 2, "is a pipe, not a file or a block device")
    failed(run("qb-volread", tmp_path), 2, "is a directory")
    failed(run("qb-volread", "/dev/null"), 2, "/dev/null is a character device")
    failed(run("qb-volread", "-"), 2, "not a stream")
    failed(run("qb-volread", ""), 2, "no name")
    failed(run("qb-volread", tmp_path / "gone"), 1, f"cannot open {tmp_path}/gone: No such file or directory")
    failed(run("qb-volread", "--raw", "--size", tmp_path / "gone"), 2, "does not go with the other arguments")


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(DATA)
    (tmp_path / "v").chmod(0)
    if os.access(tmp_path / "v", os.R_OK):
        need("setpriv")
        tmp_path.chmod(0o755)
        words = "setpriv --bounding-set -all --inh-caps -all --reuid 65534 --regid 65534 --clear-groups"
        done = run(*words.split(), sys.executable, BIN / "qb-volread", tmp_path / "v")
    else:
        done = run("qb-volread", tmp_path / "v")
    failed(done, 1, "Permission denied")


# --- what fails in the middle ---


@pytest.mark.parametrize("length", [0, 2 * MIB, 16 * MIB - 1])
@pytest.mark.parametrize("raw", [False, True])
def test_a_file_that_shrinks(tmp_path: Path, length: int, raw: bool) -> None:
    path = tmp_path / "v"
    path.write_bytes(b"x" * (16 * MIB))
    with start("--state=current", *["--raw"] * raw, path) as reading:
        assert reading.stdout is not None and reading.stderr is not None
        head = os.read(reading.stdout.fileno(), 100)
        os.truncate(path, length)
        rest = reading.stdout.read()
        message = reading.stderr.read().decode()
    assert reading.returncode == 1
    assert message == f"qb-volread: error: {path} became shorter while it was read\n"
    assert b"end" not in head + rest, "there is no end line"


def test_a_file_that_shrinks_by_a_hole(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "v", 32 * MIB, (0, b"x" * (4 * MIB)))
    with start("--state=current", path) as reading:
        assert reading.stdout is not None and reading.stderr is not None
        head = os.read(reading.stdout.fileno(), 100)
        os.truncate(path, 31 * MIB)
        rest = reading.stdout.read()
        message = reading.stderr.read().decode()
    assert reading.returncode == 1
    assert message == f"qb-volread: error: {path} shrank while it was read, from {32 * MIB} to {31 * MIB} bytes\n"
    assert b"end" not in head + rest


@pytest.mark.parametrize("raw", [[], ["--raw"]])
def test_a_read_error(tmp_path: Path, raw: list[str]) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * (4 * MIB))
    with loop(path) as device:
        os.truncate(path, MIB)  # the device keeps its size, and has nothing behind the first MiB
        done = run("qb-volread", *raw, device)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("qb-volread: error: cannot ")
    assert str(device) in done.stderr.decode() and b"Input/output error" in done.stderr
    assert b"end" not in done.stdout
    assert len(done.stdout) < 2 * MIB


def test_a_reader_that_leaves(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(bytes(8 * MIB))
    for raw in "", "--raw":
        done = bash(f"qb-volread {raw} '{tmp_path}/v' | head -c 10 >/dev/null; echo \"${{PIPESTATUS[@]}}\"")
        assert (done.stdout, done.stderr) == (b"141 0\n", b"")


def test_no_room_for_the_output(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(DATA)
    done = bash(f"qb-volread '{tmp_path}/v' > /dev/full")
    assert done.returncode == 1
    assert done.stderr == b"qb-volread: error: cannot write to standard output: No space left on device\n"


def test_a_signal_ends_it(tmp_path: Path) -> None:
    (tmp_path / "v").write_bytes(bytes(16 * MIB))
    with start(tmp_path / "v") as reading:
        assert reading.stdout is not None and reading.stderr is not None
        os.read(reading.stdout.fileno(), 100)
        reading.send_signal(signal.SIGUSR1)
        line = reading.stderr.readline()
        assert str(tmp_path / "v")[:20].encode() in line or b"16.0M" in line
        reading.send_signal(signal.SIGTERM)
        reading.stdout.read()
    assert reading.returncode == -signal.SIGTERM


# --- what it costs ---


def resident(path: Path) -> int:
    """Bytes of a file in the page cache."""
    done = subprocess.run(["fincore", "-b", "-n", "-o", "RES", path], capture_output=True, check=True)
    return int(done.stdout)


def test_what_was_read_does_not_stay_in_the_page_cache(tmp_path: Path) -> None:
    need("fincore")
    with file_system(tmp_path, "ext4", 192 * MIB) as place:
        path = place / "v"
        with path.open("wb") as file:
            for _ in range(64):
                file.write(os.urandom(MIB))
            file.flush()
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert resident(path) == 0
        most = 0
        with start(path) as reading:
            assert reading.stdout is not None
            left = len(volume_stream(64 * MIB)) + 64 * MIB - MIB // 2  # the rest stays in the pipe
            looks = list(range(0, left, 4 * MIB))
            while left > 0:
                left -= len(os.read(reading.stdout.fileno(), min(MIB, left)))
                if left < looks[-1]:
                    looks.pop()
                    most = max(most, resident(path))
            assert reading.wait() == 0
            after = resident(path)
        assert 4 * MIB < most < 32 * MIB, "it was dropped on the way"
        assert after == 0, "and the rest at the end, though part of it is still in the pipe"


def test_memory_with_the_largest_map(tmp_path: Path) -> None:
    path = make_sparse(tmp_path / "v", (1 << 20) * 131072)
    program = """
import sys
from qbtools.commands import cli
from qbtools.commands.pipe import qb_volread
from qbtools.volumes import kernel
# A file system that says: 4 KiB of data in each 128 KiB.
kernel.next_data = lambda fd, at, end: min(-(-at // 131072) * 131072, end)
kernel.next_hole = lambda fd, at, end: min(at + 4096, end)
cli.run("qb-volread", qb_volread.DOC, qb_volread.main, sys.argv[1:])
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdout=subprocess.PIPE, env=environment(PYTHONPATH=str(BIN.parent))
    ) as reading:
        assert reading.stdout is not None
        head = reading.stdout.read(64 * MIB)
        assert head.startswith(b"qb-volume 1\nsize 137438953472\nextents 1048576\n0 4096\n")
        assert peak_memory(reading.pid) < 60 * MIB
    assert reading.returncode == -signal.SIGPIPE
