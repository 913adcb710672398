"""qb-tarwrite and qb-tarextract as programs: plain input and output, faults before and after them, memory."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest
from devices import loop
from support import bash, environment, run
from vectors.tarbytes import END, head, number, old, pax, regular, sparse_head

from qbtools.formats.volumestream import MAX_EXTENTS

NAME = "vm1/private.img"
DATA = bytes(range(256)) * 40 + b"odd"
HOLES = b"qb-volume 1\nsize 200000\nextents 1\n65536 512\n\n" + b"A" * 512 + b"end 512\n"
PLAIN = bytes(65536) + b"A" * 512 + bytes(200000 - 66048)


def plain(archive: bytes) -> bytes:
    read = run("qb-tarextract", "--raw", data=archive)
    assert (read.returncode, read.stderr) == (0, b"")
    return read.stdout


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "not a relative path"),
        ("/etc/passwd", "not a relative path"),
        ("../x", "not a relative path"),
        ("vm1/./x", "not a relative path"),
        ("vm1//x", "not a relative path"),
        ("vm1/", "not a relative path"),
        ("vm 1/x", "not a relative path"),
        ("vm1/-x", "not a relative path"),
        ("vm1/\u00e9", "not a relative path"),
        ("d" * 139 + "/x", "longer than"),
        ("vm1/" + "b" * 89, "longer than"),
        ("qb-manifest", "a reserved name"),
    ],
)
def test_names_that_cannot_be_used(name: str, why: str) -> None:
    made = run("qb-tarwrite", name, data=HOLES)
    assert (made.returncode, made.stdout) == (2, b"")
    assert why in made.stderr.decode()


@pytest.mark.parametrize(
    "call",
    [
        "qb-tarwrite",
        "qb-tarwrite a b",
        "qb-tarwrite --size x a",
        "qb-tarwrite --raw a",
        "qb-tarwrite --raw --size 5x a",
        "qb-tarwrite --raw --size -1 a",
        "qb-tarwrite --raw --size 8388608T a",
        "qb-tarextract a b",
        "qb-tarextract --raw --size",
        "qb-tarextract --raw --list",
        "qb-tarextract --size --list",
    ],
)
def test_wrong_usage(call: str) -> None:
    ended = bash(f"printf x | {call}")
    assert (ended.returncode, ended.stdout) == (2, b"")
    assert b": error: " in ended.stderr


def test_plain_input_from_a_file_and_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "volume").write_bytes(DATA)
    whole = bash(f"qb-tarwrite --raw {NAME} < {tmp_path}/volume")
    assert (whole.returncode, whole.stderr) == (0, b"")
    assert plain(whole.stdout) == DATA
    assert run("qb-tarwrite", "--raw", "--size", str(len(DATA)), NAME, data=DATA).stdout == whole.stdout
    # A file is read from its current position.
    rest = bash(f"(read -r -N 100; qb-tarwrite --raw {NAME}) < {tmp_path}/volume", LC_ALL="C")
    assert rest.returncode == 0
    assert DATA.endswith(plain(rest.stdout))
    assert len(plain(rest.stdout)) < len(DATA)


def test_plain_input_of_nothing() -> None:
    made = run("qb-tarwrite", "--raw", "--size", "0", NAME, data=b"")
    assert made.returncode == 0
    assert plain(made.stdout) == b""
    assert bash(f"qb-tarwrite --raw {NAME} < /dev/null").returncode == 2


def test_plain_input_from_a_device(tmp_path: Path) -> None:
    (tmp_path / "volume").write_bytes(os.urandom(1 << 20))
    with loop(tmp_path / "volume") as device:
        made = bash(f"qb-tarwrite --raw {NAME} < {device}")
    assert (made.returncode, made.stderr) == (0, b"")
    assert plain(made.stdout) == (tmp_path / "volume").read_bytes()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (len(DATA) + 1, "standard input ends too early"),
        (1 << 62, "standard input ends too early"),
        (len(DATA) - 1, f"standard input has more than {len(DATA) - 1} bytes"),
        (0, "standard input has more than 0 bytes"),
    ],
)
def test_plain_input_of_another_size(size: int, message: str) -> None:
    made = run("qb-tarwrite", "--raw", "--size", str(size), NAME, data=DATA)
    assert (made.returncode, made.stderr.decode()) == (4, f"qb-tarwrite: error: {message}\n")
    assert run("qb-tarextract", "--list", data=made.stdout).returncode == 4


def test_a_stream_of_another_size_than_was_told() -> None:
    """For callers that have already written the size elsewhere: the output is not an archive."""
    size = len(PLAIN)
    assert (
        run("qb-tarwrite", "--size", str(size), NAME, data=HOLES).stdout == run("qb-tarwrite", NAME, data=HOLES).stdout
    )
    for told in (size - 1, size + 1, 0):
        made = run("qb-tarwrite", "--size", str(told), NAME, data=HOLES)
        assert (made.returncode, made.stdout) == (4, b"\n")
        assert made.stderr.decode() == f"qb-tarwrite: error: the volume has {size} bytes, not {told}\n"


@pytest.mark.parametrize(
    ("redirection", "before", "after", "sparse"),
    [
        (">", b"", PLAIN, True),
        (">>", b"before", b"before" + PLAIN, False),
        ("1<>", b"x" * 300000, PLAIN + b"x" * 100000, False),
        ("1<>", b"x" * 10000, PLAIN, True),
        ("> /dev/stdout | cat >", b"", PLAIN, False),
    ],
)
def test_plain_output(tmp_path: Path, redirection: str, before: bytes, after: bytes, sparse: bool) -> None:
    """With any old content of the target, holes read as zeros; if the target can have holes, they are holes."""
    target = tmp_path / "target"
    target.write_bytes(before)
    archive = run("qb-tarwrite", NAME, data=HOLES).stdout
    read = bash(f"qb-tarextract --raw {redirection} {target}", data=archive)
    assert (read.returncode, read.stderr) == (0, b"")
    assert target.read_bytes() == after
    assert (target.stat().st_blocks * 512 < 70000) == sparse


def test_plain_output_on_a_full_disk() -> None:
    archive = run("qb-tarwrite", NAME, data=HOLES).stdout
    for option in ("", "--raw"):
        read = bash(f"qb-tarextract {option} > /dev/full", data=archive)
        assert read.returncode == 1
        assert b"No space left on device" in read.stderr


def test_a_reader_that_leaves() -> None:
    made = bash(f"qb-tarwrite --raw --size 4G {NAME} < /dev/zero | head -c 1000 > /dev/null; echo ${{PIPESTATUS[0]}}")
    assert (made.stdout, made.stderr) == (b"141\n", b"")


def test_a_pipe_that_gives_little(tmp_path: Path) -> None:
    """The data arrives in small pieces, cut at every place."""
    archive = run("qb-tarwrite", NAME, data=HOLES).stdout
    drops = "import os, sys\nfor byte in sys.stdin.buffer.read():\n    os.write(1, bytes([byte]))\n"
    (tmp_path / "drops.py").write_text(drops)
    for program, data, expected in ((f"qb-tarwrite {NAME}", HOLES, archive), ("qb-tarextract", archive, HOLES)):
        done = bash(f"python3 {tmp_path}/drops.py | {program}", data=data)
        assert (done.returncode, done.stdout, done.stderr) == (0, expected, b"")


@pytest.mark.parametrize("program", [["qb-tarwrite", NAME], ["qb-tarextract"], ["qb-tarextract", "--raw"]])
@pytest.mark.parametrize("cut", [100, 1 << 20])
def test_a_writer_that_is_killed(program: list[str], cut: int) -> None:
    """A stage only sees EOF."""
    stream = b"qb-volume 1\nsize 4194304\nextents 1\n0 4194304\n\n" + b"A" * (4 << 20) + b"end 4194304\n"
    data = stream if program[0] == "qb-tarwrite" else run("qb-tarwrite", NAME, data=stream).stdout
    done = bash(f"(head -c {cut}; kill -KILL $BASHPID) | {' '.join(program)}", data=data)
    assert done.returncode == 4
    assert b"ends too early" in done.stderr
    assert not done.stdout.endswith(b"end 4194304\n")
    assert not done.stdout.endswith(END)


def test_same_input_same_output() -> None:
    first = run("qb-tarwrite", NAME, data=HOLES).stdout
    time.sleep(1.1)
    assert run("qb-tarwrite", NAME, data=HOLES, TZ="Asia/Tokyo").stdout == first


def test_progress_and_verbose_speak_on_stderr_only() -> None:
    silent = run("qb-tarwrite", NAME, data=HOLES)
    assert silent.stderr == b""
    told = run("qb-tarwrite", "--progress", "-v", NAME, data=HOLES)
    assert told.stdout == silent.stdout
    assert b"vm1/private.img: 200000 bytes, 512 of data in 1 extents" in told.stderr
    told = run("qb-tarextract", "--progress", "-v", data=silent.stdout)
    assert (told.stdout, told.returncode) == (HOLES, 0)
    assert b"\r" in told.stderr
    assert run("qb-tarextract", "--progress", "-q", data=silent.stdout).stderr == b""


def test_a_signal_asks_for_progress() -> None:
    with subprocess.Popen(
        ["qb-tarwrite", "--raw", "--size", "1M", NAME],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
    ) as process:  # fmt: skip
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(bytes(512 * 1024))
        process.stdin.flush()
        process.stdout.read(512 * 1024)
        process.send_signal(10)
        line = process.stderr.readline()
        assert b"vm1/private.img" in line
        process.stdin.write(bytes(512 * 1024))
        process.stdin.close()
        assert process.stdout.read()[-1024:] == END
    assert process.returncode == 0


def measured(place: Path, files: str, program: str) -> tuple[int, bytes, list[str], int]:
    """Status, output and messages of a program that is fed files, and the most memory that it took, in KiB.

    The program may leave early.
    """
    (place / "measure.py").write_text(MEASURE)
    ended = bash(f"cd {place} && {{ cat {files} || true; }} | python3 measure.py {program}")
    *lines, peak = ended.stderr.decode().splitlines()
    return ended.returncode, ended.stdout, lines, int(peak)


# What a process forks from counts for its peak too, so a small one does it.
MEASURE = """
import os, sys
pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(pid, 0)
sys.stderr.write(f"{usage.ru_maxrss}\\n")
sys.exit(os.waitstatus_to_exitcode(status))
"""


def test_a_list_that_is_too_long(tmp_path: Path) -> None:
    """35 MiB of names, each as long as a header may be."""
    member = pax(("path", "n" * 1_000_000)) + regular(b"")
    (tmp_path / "archive").write_bytes(member * 35 + END)
    status, output, lines, peak = measured(tmp_path, "archive", "qb-tarextract --list")
    assert (status, output) == (5, b"")
    assert lines == ["qb-tarextract: error: the list of the members has more than 33554432 bytes"]
    assert peak <= 60 * 1024


@pytest.fixture(scope="module")
def fragmented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume stream with as many extents as there can be."""
    path = tmp_path_factory.mktemp("inner") / "stream"
    with path.open("wb") as file:
        file.write(b"qb-volume 1\nsize %d\nextents %d\n" % (MAX_EXTENTS << 17, MAX_EXTENTS))
        file.write(b"".join(b"%d 512\n" % (at << 17) for at in range(MAX_EXTENTS)) + b"\n")
        file.truncate(file.tell() + MAX_EXTENTS * 512)
        file.seek(0, os.SEEK_END)
        file.write(b"end %d\n" % (MAX_EXTENTS * 512))
    return path


def test_memory_with_a_million_extents(tmp_path: Path, fragmented: Path) -> None:
    pipe = f"qb-tarwrite {NAME} | python3 measure.py qb-tarextract | cmp - {fragmented}"
    status, output, (other,), peak = measured(tmp_path, str(fragmented), pipe)
    assert (status, output) == (0, b"")
    assert max(int(other), peak) <= 60 * 1024


@pytest.mark.parametrize(("kind", "option"), [("old", ""), ("pax", "--list")])
def test_memory_with_a_map_that_is_too_long(tmp_path: Path, kind: str, option: str) -> None:
    path = tmp_path / "archive"
    with path.open("wb") as file:
        if kind == "old":
            file.write(old(1 << 62, [(at << 10, 512) for at in range(4)], b"", endless=True))
            for first in range(4, MAX_EXTENTS + 100, 21):
                entries = b"".join(number(at << 10) + number(512) for at in range(first, first + 21))
                file.write(entries + b"\1".ljust(8, b"\0"))
        else:
            file.write(sparse_head(1 << 32, 1 << 62) + b"%d\n" % (MAX_EXTENTS + 1))
            file.write(b"".join(b"%d\n512\n" % (at << 10) for at in range(MAX_EXTENTS + 1)))
    status, output, lines, peak = measured(tmp_path, str(path), f"qb-tarextract {option}")
    assert (status, output) == (5, b"")
    assert lines[-1] == f"qb-tarextract: error: the sparse map of {NAME} has more than 1048576 extents"
    assert peak <= 60 * 1024
    status, output, lines, peak = measured(tmp_path, str(path), "qb-tarextract --size")
    assert (status, output, lines) == (0, b"%d\n" % (1 << 62), [])
    assert peak <= 20 * 1024


def test_size_of_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    """Gigabytes of zeros behind a header: none of them is read."""
    (tmp_path / "head").write_bytes(sparse_head(1 << 32, (1 << 63) - 1))
    status, output, lines, peak = measured(tmp_path, "head /dev/zero", "qb-tarextract --size")
    assert (status, output, lines) == (0, b"%d\n" % ((1 << 63) - 1), [])
    assert peak <= 20 * 1024


def test_members_that_are_no_files_are_listed_with_their_kind() -> None:
    data = regular(b"x", b"a/f") + head(b"a/", kind=b"5") + head(b"a/l", kind=b"2") + head(b"a/p", kind=b"6") + END
    listed = run("qb-tarextract", "--list", data=data)
    assert (listed.returncode, listed.stderr) == (0, b"")
    assert listed.stdout == b"1\ta/f\n0\ta/\n0\ta/l\ta symbolic link\n0\ta/p\ta fifo\n"
